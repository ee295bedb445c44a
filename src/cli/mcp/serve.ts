/** `stacyvm mcp`: what a model's program connects to, over standard input and output. */
import { McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import type { Client } from "../../../sdk/src/index.ts";
import { note } from "../output.ts";
import { version } from "../version.ts";
import { addCommandTools } from "./command-tools.ts";
import { addFileResources, addFileTools } from "./file-tools.ts";
import { addProcessTools } from "./process-tools.ts";
import { addSandboxTools } from "./sandbox-tools.ts";
import { type ModelOptions, Session } from "./session.ts";
import { Tools } from "./tool.ts";

/** Serves until standard input ends or `signal` is aborted. What it is and has is told before `connect` has found a server. */
export async function serveModel(
  connect: (signal: AbortSignal) => Promise<Client>,
  options: ModelOptions,
  signal: AbortSignal,
): Promise<void> {
  const session = new Session(connect, options);
  const handle = serveStdio(() => serverOf(session), { onerror: (error) => note(error.message) });
  const ended = Promise.withResolvers<void>();
  process.stdin.once("end", ended.resolve);
  process.stdin.once("close", ended.resolve);
  signal.addEventListener("abort", () => ended.resolve(), { once: true });
  if (signal.aborted) ended.resolve();
  try {
    await ended.promise;
  } finally {
    await handle.close();
    await session.end();
  }
}

export function serverOf(session: Session): McpServer {
  const server = new McpServer(
    { name: "stacyvm", title: "StacyVM sandboxes", version },
    { instructions: instructions(session.options) },
  );
  const tools = new Tools(server, (session.options.allow ?? []).length > 0);
  addCommandTools(tools, session);
  addFileTools(tools, session);
  addProcessTools(tools, session);
  addSandboxTools(tools, session);
  addFileResources(server, session);
  server.server.oninitialized = () => session.begin();
  return server;
}

/** What a model would otherwise find out by trying. */
const CONTENTS: Record<string, string> = {
  "stacyvm/code":
    "Debian with Python (pip, numpy, pandas, matplotlib, requests, pytest), Node with npm, git, curl, gcc and make, jq, ripgrep, sqlite3",
  "stacyvm/python": "Debian with Python's standard library, and nothing else: no pip, Node, git, curl or compiler",
  "stacyvm/busybox": "busybox alone: sh and small tools, no Python, no Node",
};

export function instructions({ image, allow = [], keep }: ModelOptions): string {
  const contents = CONTENTS[image];
  const network =
    allow.length === 0
      ? "The sandboxes have no network: pip, npm, apt and git cannot reach anything. Use what the image has"
      : `The sandboxes can reach these hosts and no others: ${allow.join(", ")}`;
  return [
    "Runs commands and code in isolated Linux machines (sandboxes), as root. The user's own files are not in them.",
    "One sandbox is made at the first use and stays for the whole conversation: files, installed packages and the variables of run_code are there for the next call. Leave the argument `sandbox` out to mean it.",
    `Its image is ${image}${contents === undefined ? "" : `: ${contents}`}.`,
    `${network}. Only the user can change that, by starting \`stacyvm mcp\` with --allow HOST.`,
    "A call is answered within a minute. Use start_process for servers and long work, and open_port to show the user a web page.",
    "Use checkpoint_sandbox before something risky, and fork_sandbox to try several ways from one state.",
    keep === true
      ? "Sandboxes stay when the session ends."
      : "Everything is removed when the session ends: give the user what they need before.",
  ].join("\n");
}
