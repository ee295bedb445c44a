import type { Command } from "commander";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { note, printJson } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm pool`: machines that wait. */
export function poolCommand(): Command {
  return clientCommand("pool", "machines that are kept ready").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const status = await client.pool({ signal });
      if (options.json === true) return printJson(status);
      if (!status.enabled) {
        return note("there is no pool: a server that stays (`stacyvm serve`) fills one, for what is asked for often");
      }
      printTable(
        ["IMAGE", "VCPUS", "MEMORY", "WARM", "IDLE", "TARGET", "FILLING", "KEY"],
        (status.pools ?? []).map((pool) => [
          String(pool.image),
          String(pool.vcpus),
          `${pool.memory_mb} MiB`,
          ...[pool.warm, pool.idle, pool.target, pool.filling].map(String),
          String(pool.key).slice(0, 12),
        ]),
        { drop: ["KEY", "FILLING", "VCPUS", "MEMORY"], shorten: ["IMAGE"] },
      );
    }),
  );
}
