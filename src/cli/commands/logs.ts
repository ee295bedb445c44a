import { setTimeout as delay } from "node:timers/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type LogPiece, NotFoundError, type Sandbox } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { printJson, printJsonLine, printLine, writeTo } from "../output.ts";
import { TimedLines } from "../timed-lines.ts";

interface LogsOptions extends ClientOptions {
  follow?: boolean;
  tail?: number | undefined;
  /** What `--tail` was called. */
  lines?: number;
  timestamps?: boolean;
  console?: boolean;
  process?: string;
}

const POLL_MS = 500;
const CONSOLE_LINES = 100;
const MOST_LINES = 10_000;

/** `stacyvm logs ID`: what its program has written, or with `--console` what its kernel says. */
export function logsCommand(): Command {
  return clientCommand("logs", "show what a sandbox's program has written")
    .argument("<id>", "the sandbox")
    .argument("[process]", "its number, as `exec -d` and `ps` print it (default: the program started last)")
    .option("-f, --follow", "go on until it has ended, or Ctrl-C")
    .option("-n, --tail <n>", "so many lines from the end, or all (default: all that is kept, about 1 MiB)", parseTail)
    .option("-t, --timestamps", "say before each line when it was written")
    .option("--console", "the guest kernel's console instead")
    .addOption(new Option("--lines <n>", "as --tail").argParser(parseTail).hideHelp())
    .addOption(new Option("--process <number>", "as the second argument").hideHelp())
    .action((id: string, process: string | undefined, given: LogsOptions) => {
      const options = { ...given, tail: given.tail ?? given.lines };
      return withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        if (options.console === true) return kernel(sandbox, options, signal);
        await output(sandbox, process ?? options.process, options, signal);
      });
    });
}

function parseTail(text: string): number | undefined {
  if (text === "all") return undefined;
  const count = Number(text);
  if (!/^\d+$/.test(text) || count > 1_000_000) throw new InvalidArgumentError("write a number of lines, or all.");
  return count;
}

async function output(
  sandbox: Sandbox,
  process: string | undefined,
  options: LogsOptions,
  signal: AbortSignal,
): Promise<void> {
  const { follow = false, tail, timestamps = false, json = false } = options;
  const streams = { stdout: globalThis.process.stdout, stderr: globalThis.process.stderr };
  const write = (stream: LogPiece["stream"], text: string): Promise<void> => writeTo(streams[stream], text);
  const lines = new TimedLines(write);
  try {
    for await (const piece of sandbox.output({ process, follow, tail, timestamps, signal })) {
      if (json) printJsonLine(piece);
      else if (timestamps) await lines.add(piece);
      else await write(piece.stream, piece.text);
    }
  } catch (error) {
    if (!(error instanceof NotFoundError) || process === undefined) throw error;
    throw new StacyError("not-found", error.message, { cause: error, remedy: `see \`stacyvm ps -a ${sandbox.id}\`` });
  }
  await lines.end();
}

async function kernel(sandbox: Sandbox, options: LogsOptions, signal: AbortSignal): Promise<void> {
  const asked = Math.min(options.tail ?? CONSOLE_LINES, MOST_LINES);
  let shown = asked === 0 ? [] : await sandbox.logs(asked, { signal });
  if (options.json === true && options.follow !== true) return printJson(shown);
  const show = options.json === true ? printJsonLine : printLine;
  for (const line of shown) show(line);
  while (options.follow === true) {
    await delay(POLL_MS, undefined, { signal });
    const now = await sandbox.logs(Math.max(asked, 1_000), { signal });
    for (const line of addedLines(shown, now)) show(line);
    shown = now;
  }
}

/** What a longer or later window onto the same log has at its end that the earlier one did not. */
export function addedLines(before: readonly string[], now: readonly string[]): readonly string[] {
  const last = before.at(-1);
  if (last === undefined) return now;
  for (let end = now.length; end > 0; end--) {
    if (now[end - 1] !== last) continue;
    const common = Math.min(end, before.length);
    const earlier = before.slice(before.length - common);
    if (now.slice(end - common, end).every((line, i) => line === earlier[i])) return now.slice(end);
  }
  return now;
}
