import type { Command } from "commander";
import { wireOf } from "../../../sdk/src/index.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { type FieldTemplate, formatOption } from "../field-template.ts";
import { printJson, printText } from "../output.ts";

/** `stacyvm inspect ID...`: a JSON array, one object per sandbox, with what it uses now. */
export function inspectCommand(): Command {
  return clientCommand("inspect", "everything that is known about sandboxes, as a JSON array")
    .argument("<id...>", "sandboxes")
    .addOption(formatOption("stats"))
    .action((ids: string[], options: ClientOptions & { format?: FieldTemplate }) =>
      withServer(options, async ({ client, signal }) => {
        const found = await Promise.all(
          ids.map(async (id) => {
            const sandbox = await findSandbox(client, id, signal);
            const stats = sandbox.state === "running" ? wireOf(await sandbox.stats({ signal })) : undefined;
            return { ...(wireOf(sandbox.info) as object), ...(stats === undefined ? {} : { stats }) };
          }),
        );
        if (options.format === undefined) return printJson(found);
        for (const each of found) printText(options.format(each));
      }),
    );
}
