/** Commands and code that are waited for. */
import { z } from "zod";
import type { CodeError, CodeResult } from "../../../sdk/src/index.ts";
import type { Session } from "./session.ts";
import { Shortened, sections, shortened } from "./shortened.ts";
import { type Content, sandboxArgument, type Tools } from "./tool.ts";

/** Below the 60 s after which clients give up that ask for no news. */
const DEFAULT_TIMEOUT_S = 50;
/** Of one piece of code, beside its last value: what a loop displays is as long as the loop. */
const MAX_RESULTS = 32;
/** What programs say when a name or a connection is refused. */
const NO_WAY_OUT =
  /could not resolve|name resolution|name or service not known|EAI_AGAIN|ENOTFOUND|network is unreachable|connection refused|bad address|proxy|\b403\b/i;

const timeout = z
  .number()
  .positive()
  .max(3_600)
  .default(DEFAULT_TIMEOUT_S)
  .describe("It is ended after so many seconds. For what takes longer than a minute: start_process");

export function addCommandTools(tools: Tools, session: Session): void {
  tools.add({
    name: "run_command",
    title: "Run a command",
    description:
      "Run a shell command in a sandbox and wait for its output and exit code. Files stay for the next call; the shell's own variables and directory do not. " +
      "Servers and long work: start_process.",
    kind: "runs",
    fields: {
      command: z.string().min(1).describe("For sh -c"),
      workdir: z.string().optional().describe("Default: the image's working directory"),
      stdin: z.string().optional().describe("What it reads; without it nothing"),
      timeout_seconds: timeout,
      sandbox: sandboxArgument,
    },
    work: ({ command, sandbox, stdin, workdir, timeout_seconds }, call) =>
      session.use(sandbox, call, async (machine) => {
        const output = { stdout: new Shortened(), stderr: new Shortened() };
        call.say(() => output.stderr.lastLine || output.stdout.lastLine);
        const options = { stdin, workdir, timeout: `${timeout_seconds}s`, signal: call.signal };
        let how = "";
        let failed = false;
        for await (const event of machine.stream(command, options)) {
          if (event.type !== "exit") output[event.type].add(event.text);
          else {
            failed = event.exitCode !== 0;
            how = ending(event, timeout_seconds);
          }
        }
        const hint = failed && NO_WAY_OUT.test(output.stderr.toString()) ? networkHint(session) : undefined;
        return sections(`${how} (sandbox ${machine.id})`, { ...output, hint });
      }),
  });
  tools.add({
    name: "run_code",
    title: "Run code that keeps its state",
    description:
      "Run code whose variables, imports and functions stay for the next call, as in a notebook. Gives its output, the value of the last expression, " +
      "figures as images, and of an error the traceback.",
    kind: "runs",
    fields: {
      code: z.string().min(1),
      language: z
        .enum(["python", "javascript", "typescript", "bash"])
        .default("python")
        .describe("Python; the others where the image has Node, or bash"),
      timeout_seconds: timeout,
      sandbox: sandboxArgument,
    },
    work: ({ code, language, sandbox, timeout_seconds }, call) =>
      session.use(sandbox, call, async (machine) => {
        const output = { stdout: new Shortened(), stderr: new Shortened() };
        call.say(() => output.stderr.lastLine || output.stdout.lastLine);
        const results: CodeResult[] = [];
        let error: CodeError | undefined;
        const options = { language, timeout: `${timeout_seconds}s`, signal: call.signal };
        for await (const event of machine.streamCode(code, options)) {
          if (event.type === "stdout" || event.type === "stderr") output[event.type].add(event.text);
          else if (event.type === "error") error = event;
          else if (event.type === "result" && (event.main || results.length < MAX_RESULTS)) results.push(event);
        }
        const how = error === undefined ? "done" : `failed: ${error.name}`;
        const refused = error !== undefined && NO_WAY_OUT.test(`${error.value} ${output.stderr}`);
        const text = sections(`${how} (sandbox ${machine.id})`, {
          ...output,
          ...values(results),
          error: error && shortened(error.traceback),
          hint: refused ? networkHint(session) : undefined,
        });
        return [{ type: "text", text }, ...results.flatMap(picture)];
      }),
  });
}

export function ending(
  { exitCode, reason }: { exitCode: number; reason: string },
  timeoutSeconds: number | undefined,
): string {
  if (reason === "timeout") {
    return `ended after ${timeoutSeconds} s, before it was done; give it a larger timeout_seconds, or use start_process`;
  }
  const memory = reason === "out-of-memory" ? "; the sandbox's memory ran out: use less of it at once" : "";
  return `exit code ${exitCode}${memory}`;
}

function networkHint({ options: { allow = [] } }: Session): string {
  const reach = allow.length === 0 ? "This sandbox has no network" : `This sandbox can reach only ${allow.join(", ")}`;
  return `${reach}. Only the user can change that (\`stacyvm mcp --allow HOST\`): tell them which host you need, or go on without it.`;
}

/** What was displayed, and the last value. */
function values(results: readonly CodeResult[]): Record<string, string> {
  const shown = (main: boolean): string =>
    results
      .filter((result) => result.main === main)
      .map(({ text, markdown, html }) => text ?? markdown ?? html ?? "")
      .filter((text) => text !== "")
      .join("\n");
  return { displayed: shortened(shown(false)), value: shortened(shown(true)) };
}

function picture({ png, jpeg }: CodeResult): Content[] {
  if (png !== undefined) return [{ type: "image", data: png, mimeType: "image/png" }];
  return jpeg === undefined ? [] : [{ type: "image", data: jpeg, mimeType: "image/jpeg" }];
}
