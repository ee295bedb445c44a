import { constants } from "node:os";
import { type Command, InvalidArgumentError } from "commander";
import { StacyError } from "../../host/error.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { printJson, printLine } from "../output.ts";

/** `TERM`, `SIGTERM` or `15`. */
function parseSignal(text: string): string {
  const name = /^\d+$/.test(text) ? text : `SIG${text.toUpperCase().replace(/^SIG/, "")}`;
  if (name in constants.signals || Object.values<number>(constants.signals).includes(Number(name))) return name;
  throw new InvalidArgumentError("write a signal as TERM, SIGTERM or 15.");
}

/** `stacyvm kill ID PROCESS...`: a signal to commands of a sandbox. */
export function killCommand(): Command {
  return clientCommand("kill", "send a signal to commands in a sandbox")
    .argument("<id>", "the sandbox")
    .argument("[process...]", "numbers as `stacyvm ps` lists them")
    .option("-s, --signal <signal>", "which one", parseSignal, "SIGTERM")
    .action((id: string, processes: string[], options: ClientOptions & { signal: string }) =>
      withServer(options, async ({ client, signal }) => {
        if (processes.length === 0) {
          // In the published StacyVM this destroys the sandbox. Here a number may just have been forgotten.
          throw new StacyError("invalid", "which command? `kill` sends a signal to commands in a sandbox", {
            remedy: `\`stacyvm ps ${id}\` lists them; \`stacyvm rm ${id}\` removes the whole sandbox`,
          });
        }
        const sandbox = await findSandbox(client, id, signal);
        for (const process of processes) {
          await sandbox.kill(process, options.signal as "SIGTERM", { signal });
          if (options.json !== true) printLine(process);
        }
        if (options.json === true) printJson(processes.map((process) => ({ id: process, signal: options.signal })));
      }),
    );
}
