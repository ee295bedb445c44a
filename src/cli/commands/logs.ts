import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import type { Sandbox } from "../../../sdk/src/index.ts";
import { parseCount } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { printJson, printJsonLine, printLine, writeTo } from "../output.ts";

interface LogsOptions extends ClientOptions {
  follow?: boolean;
  lines: number;
  process?: string;
}

const POLL_MS = 500;

/** `stacyvm logs ID`: its console, or the output of a command that was started with `exec -d`. */
export function logsCommand(): Command {
  return clientCommand("logs", "show the console of a sandbox, or the output of one of its commands")
    .argument("<id>", "the sandbox")
    .option("-f, --follow", "go on until Ctrl-C")
    .option("-n, --lines <n>", "how many lines of the console", parseCount, 100)
    .option("--process <number>", "of a command instead, as `stacyvm ps` lists it; until it has ended, or Ctrl-C")
    .action((id: string, options: LogsOptions) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        if (options.process !== undefined) return output(sandbox, options.process, options, signal);
        let shown = await sandbox.logs(options.lines, { signal });
        if (options.json === true && options.follow !== true) return printJson(shown);
        const show = options.json === true ? printJsonLine : printLine;
        for (const line of shown) show(line);
        while (options.follow === true) {
          await delay(POLL_MS, undefined, { signal });
          const now = await sandbox.logs(Math.max(options.lines, 1_000), { signal });
          for (const line of addedLines(shown, now)) show(line);
          shown = now;
        }
      }),
    );
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

async function output(sandbox: Sandbox, process: string, options: LogsOptions, signal: AbortSignal): Promise<void> {
  for await (const { stream, data } of await sandbox.attach(process, signal)) {
    if (options.json === true) printJsonLine({ stream, data: Buffer.from(data).toString("utf8") });
    else await writeTo(stream === "stderr" ? globalThis.process.stderr : globalThis.process.stdout, data);
  }
}
