/**
 * The tools that a language model gets. One sandbox is made at the first use and stays for what follows, so files and
 * installed packages are there for the next call; others are made when it asks. What it may reach of the network was decided
 * by who started this (`--allow`), not by the model.
 */
import { McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";
import type { Client, CodeError, CodeResult, Sandbox } from "../../sdk/src/index.ts";
import { note } from "./output.ts";
import { version } from "./version.ts";

/** A model pays for each character that it reads: of a longer text it gets the beginning and the end. */
const SHOWN_CHARACTERS = 20_000;
const DEFAULT_TIMEOUT_S = 120;
const MAX_FORKS = 8;
/** Of one piece of code, beside its last value: what a loop displays is as long as the loop. */
const MAX_RESULTS = 32;

/** What the sandboxes are that a model gets. */
export interface ModelOptions {
  image: string;
  /** MiB */
  memory: number;
  vcpus: number;
  ttl: string;
  allow?: string[];
  keep?: boolean;
}

type Content = { type: "text"; text: string } | { type: "image"; data: string; mimeType: string };

interface Answer {
  [key: string]: unknown;
  content: Content[];
  isError?: boolean;
}

const sandboxArgument = z
  .string()
  .optional()
  .describe("The sandbox's id. Default: the session's first sandbox, which is made when it is needed.");

/** Serves until standard input ends or `signal` is aborted. */
export async function serveModel(client: Client, options: ModelOptions, signal: AbortSignal): Promise<void> {
  const session = new Session(client, options);
  const handle = serveStdio(() => toolsOf(session), { onerror: (error) => note(error.message) });
  const ended = Promise.withResolvers<void>();
  process.stdin.once("end", ended.resolve);
  process.stdin.once("close", ended.resolve);
  signal.addEventListener("abort", () => ended.resolve(), { once: true });
  try {
    await ended.promise;
  } finally {
    await handle.close();
    await session.end();
  }
}

class Session {
  readonly #client: Client;
  readonly #options: ModelOptions;
  readonly #all = new Map<string, Sandbox>();
  #first: Promise<Sandbox> | undefined;

  constructor(client: Client, options: ModelOptions) {
    this.#client = client;
    this.#options = options;
  }

  get sandboxes(): Sandbox[] {
    return [...this.#all.values()];
  }

  async create(image = this.#options.image): Promise<Sandbox> {
    const { memory, vcpus, ttl, allow } = this.#options;
    const sandbox = await this.#client.create({
      ...{ image, vcpus, ttl, memoryMb: memory, metadata: { purpose: "mcp" } },
      ...(allow === undefined ? {} : { allowedHosts: allow }),
    });
    return this.add(sandbox);
  }

  add(sandbox: Sandbox): Sandbox {
    this.#all.set(sandbox.id, sandbox);
    return sandbox;
  }

  /** One of this session's; a model cannot reach others. @throws Error that says which there are */
  async find(id: string | undefined): Promise<Sandbox> {
    if (id !== undefined) {
      const found = this.#all.get(id);
      if (found !== undefined) return found;
      const known = [...this.#all.keys()].join(", ");
      throw new Error(`this session has no sandbox ${id}; it has ${known === "" ? "none" : known}`);
    }
    this.#first ??= this.create();
    const first = await this.#first.catch((error: unknown) => {
      this.#first = undefined;
      throw error;
    });
    if (this.#all.has(first.id)) return first;
    this.#first = undefined;
    return this.find(undefined);
  }

  async destroy(id: string): Promise<void> {
    await (await this.find(id)).destroy();
    this.#all.delete(id);
  }

  async end(): Promise<void> {
    if (this.#options.keep === true) return;
    const results = await Promise.allSettled(this.sandboxes.map((sandbox) => sandbox.destroy()));
    for (const result of results) if (result.status === "rejected") note(String(result.reason));
  }
}

function toolsOf(session: Session): McpServer {
  const server = new McpServer(
    { name: "stacyvm", version },
    {
      instructions:
        "Runs commands and code in isolated Linux machines (microVMs). State in a sandbox stays from one call to the next. " +
        "Fork a sandbox to try several ways from the same state. Everything is removed when the session ends.",
    },
  );
  const tool = <Input>(
    name: string,
    description: string,
    inputSchema: z.ZodType<Input>,
    work: (input: Input) => Promise<string | Content[]>,
  ): void => {
    server.registerTool(name, { description, inputSchema }, async (input): Promise<Answer> => {
      try {
        const said = await work(input);
        return { content: typeof said === "string" ? [{ type: "text", text: said }] : said };
      } catch (error) {
        // For the model, which may do better the next time.
        const { message, hint } = error as { message: string; hint?: string };
        const text = hint === undefined ? message : `${message}\nhint: ${hint}`;
        return { content: [{ type: "text", text }], isError: true };
      }
    });
  };

  tool(
    "run_command",
    "Run a shell command in a sandbox and get its output and exit code. For a Python program: write it to a file first, or use a here-document.",
    z.object({
      command: z.string().min(1).describe("For sh -c"),
      sandbox: sandboxArgument,
      stdin: z.string().optional(),
      workdir: z.string().optional().describe("Default: the image's, or /workspace"),
      timeout_seconds: z.number().positive().max(3_600).default(DEFAULT_TIMEOUT_S),
    }),
    async ({ command, sandbox, stdin, workdir, timeout_seconds }) => {
      const machine = await session.find(sandbox);
      const output = { stdout: new Shortened(), stderr: new Shortened() };
      let how = "";
      for await (const event of machine.stream(command, { stdin, workdir, timeout: `${timeout_seconds}s` })) {
        if (event.type !== "exit") output[event.type].add(event.text);
        else if (event.reason === "timeout") how = `ended after ${timeout_seconds} s`;
        else how = `exit code ${event.exitCode}`;
      }
      const parts = [`${how} (sandbox ${machine.id})`];
      for (const [name, text] of Object.entries(output)) if (!text.empty) parts.push(`${name}:\n${text}`);
      return parts.join("\n\n");
    },
  );
  tool(
    "run_code",
    "Run code whose variables stay for the next call (Python; JavaScript and bash where the image has them), and get its output, its last value, and its figures as images.",
    z.object({
      code: z.string().min(1),
      language: z.enum(["python", "javascript", "typescript", "bash"]).default("python"),
      sandbox: sandboxArgument,
      timeout_seconds: z.number().positive().max(3_600).default(DEFAULT_TIMEOUT_S),
    }),
    async ({ code, language, sandbox, timeout_seconds }) => {
      const machine = await session.find(sandbox);
      const output = { stdout: new Shortened(), stderr: new Shortened() };
      const results: CodeResult[] = [];
      let error: CodeError | undefined;
      for await (const event of machine.streamCode(code, { language, timeout: `${timeout_seconds}s` })) {
        if (event.type === "stdout" || event.type === "stderr") output[event.type].add(event.text);
        else if (event.type === "error") error = event;
        else if (event.type === "result" && (event.main || results.length < MAX_RESULTS)) results.push(event);
      }
      return shownCode(machine.id, output, results, error);
    },
  );
  tool(
    "write_file",
    "Write a text file in a sandbox. Directories on the way are made.",
    z.object({ path: z.string().min(1), content: z.string(), sandbox: sandboxArgument }),
    async ({ path, content, sandbox }) => {
      const machine = await session.find(sandbox);
      await machine.files.write(path, content);
      return `wrote ${content.length} characters to ${path} in ${machine.id}`;
    },
  );
  tool(
    "read_file",
    "Read a text file from a sandbox.",
    z.object({ path: z.string().min(1), sandbox: sandboxArgument }),
    async ({ path, sandbox }) => shortened(await (await session.find(sandbox)).files.read(path)),
  );
  tool(
    "list_files",
    "List a directory of a sandbox.",
    z.object({ path: z.string().min(1).default("."), sandbox: sandboxArgument }),
    async ({ path, sandbox }) => {
      const entries = await (await session.find(sandbox)).files.list(path);
      const lines = entries.map(({ name, isDir, size }) => (isDir ? `${name}/` : `${name}  ${size} bytes`));
      return lines.length === 0 ? "empty" : shortened(lines.join("\n"));
    },
  );
  tool(
    "create_sandbox",
    "Make a further sandbox, apart from the first one. Needed only for another image or for work that must not meet the first one's.",
    z.object({ image: z.string().optional().describe("For example python:3.12-slim. Default: the session's image.") }),
    async ({ image }) => {
      const { id, info } = await session.create(image);
      return `${id}: ${info.image}, ${info.vcpus} CPU, ${info.memoryMb} MiB`;
    },
  );
  tool(
    "fork_sandbox",
    "Copy a running sandbox with its files, memory and running programs; each copy goes its own way.",
    z.object({ sandbox: sandboxArgument, count: z.int().min(1).max(MAX_FORKS).default(1) }),
    async ({ sandbox, count }) => {
      const source = await session.find(sandbox);
      const copies = await source.fork({ count });
      for (const copy of copies) session.add(copy);
      return `copies of ${source.id}: ${copies.map(({ id }) => id).join(", ")}`;
    },
  );
  tool("list_sandboxes", "The sandboxes of this session.", z.object({}), async () => {
    const lines = await Promise.all(
      session.sandboxes.map(async (sandbox) => {
        const { id, state, image, allowedHosts } = await sandbox.refresh();
        return `${id}  ${state}  ${image}  network: ${allowedHosts?.join(", ") ?? "none"}`;
      }),
    );
    return lines.length === 0 ? "none yet" : lines.join("\n");
  });
  tool(
    "destroy_sandbox",
    "End a sandbox and remove everything of it.",
    z.object({ sandbox: z.string() }),
    async ({ sandbox }) => {
      await session.destroy(sandbox);
      return `${sandbox} is gone`;
    },
  );
  return server;
}

function shownCode(
  id: string,
  output: Record<string, Shortened>,
  results: readonly CodeResult[],
  error: CodeError | undefined,
): Content[] {
  const parts = [`${error === undefined ? "done" : `failed: ${error.name}`} (sandbox ${id})`];
  const add = (name: string, text: string | undefined): void => {
    if (text) parts.push(`${name}:\n${shortened(text)}`);
  };
  for (const [name, text] of Object.entries(output)) add(name, text.toString());
  for (const { text, markdown, main } of results) add(main ? "value" : "displayed", text ?? markdown);
  add("error", error?.traceback);
  const images = results.flatMap(({ png, jpeg }): Content[] =>
    png !== undefined
      ? [{ type: "image", data: png, mimeType: "image/png" }]
      : jpeg !== undefined
        ? [{ type: "image", data: jpeg, mimeType: "image/jpeg" }]
        : [],
  );
  return [{ type: "text", text: parts.join("\n\n") }, ...images];
}

/** The beginning and the end of a text that comes in pieces, in constant memory. */
class Shortened {
  #head = "";
  #tail = "";
  #left = 0;

  get empty(): boolean {
    return this.#head === "";
  }

  add(text: string): void {
    const half = SHOWN_CHARACTERS / 2;
    const room = half - this.#head.length;
    this.#head += text.slice(0, room);
    const rest = this.#tail + text.slice(room);
    this.#left += Math.max(0, rest.length - half);
    this.#tail = rest.slice(-half);
  }

  toString(): string {
    const gap = this.#left === 0 ? "" : `\n[... ${this.#left} characters left out ...]\n`;
    return `${this.#head}${gap}${this.#tail}`;
  }
}

function shortened(text: string): string {
  const short = new Shortened();
  short.add(text);
  return short.toString();
}
