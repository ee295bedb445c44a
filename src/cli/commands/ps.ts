import type { Command } from "commander";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { printJson, sinceNow } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm ps ID`: the commands of a sandbox, running and ended. */
export function psCommand(): Command {
  return clientCommand("ps", "list the commands of a sandbox")
    .argument("<id>", "the sandbox")
    .option("-a, --all", "ended ones too")
    .action((id: string, options: ClientOptions & { all?: boolean }) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const all = await sandbox.processes({ signal });
        const shown = options.all === true ? all : all.filter(({ running }) => running);
        if (options.json === true) return printJson(shown);
        printTable(
          ["PROCESS", "PID", "STATE", "AGE", "COMMAND"],
          shown.map((process) => [
            process.id,
            String(process.pid),
            process.running ? "running" : `ended ${process.exitCode ?? "?"}`,
            sinceNow(process.startedAt),
            process.command,
          ]),
          { drop: ["PID", "AGE"], shorten: ["COMMAND"] },
        );
      }),
    );
}
