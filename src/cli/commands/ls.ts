import type { Command } from "commander";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { printJson, printLine, sinceNow, untilThen } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm ls`: the sandboxes, newest first. */
export function lsCommand(): Command {
  return clientCommand("ls", "list sandboxes, newest first")
    .option("-q, --quiet", "only their ids")
    .action((options: ClientOptions & { quiet?: boolean }) =>
      withServer(options, async ({ client, signal }) => {
        const all = (await client.list({ signal })).map(({ info }) => info);
        if (options.json === true) return printJson(all);
        if (options.quiet === true) {
          for (const { id } of all) printLine(id);
          return;
        }
        printTable(
          ["ID", "NAME", "IMAGE", "STATE", "VCPUS", "MEMORY", "STARTED", "AGE", "ENDS IN"],
          all.map((info) => [
            info.id,
            info.name ?? "",
            info.image,
            info.state,
            String(info.vcpus),
            `${info.memoryMb} MiB`,
            info.boot === undefined ? "" : `${info.boot.path}, ${Math.round(info.boot.totalMs)} ms`,
            sinceNow(info.createdAt),
            untilThen(info.expiresAt),
          ]),
          { drop: ["STARTED", "VCPUS", "MEMORY", "AGE"], shorten: ["IMAGE", "NAME"] },
        );
      }),
    );
}
