import { Command } from "commander";
import { StacyError } from "../../host/error.ts";
import { dataPaths } from "../../host/paths.ts";
import { SnapshotStore } from "../../launcher/snapshot-store.ts";
import { printTable } from "../table.ts";

/** `stacyvm snapshot ls|rm`: saved machines on this host. */
export function snapshotCommand(): Command {
  const command = new Command("snapshot").description("list and remove saved machines");
  command
    .command("ls")
    .description("golden snapshots and checkpoints")
    .option("--json", "for programs")
    .action(async (options: { json?: boolean }) => {
      const list = await new SnapshotStore(dataPaths().snapshots).list();
      if (options.json === true) {
        process.stdout.write(
          `${JSON.stringify(
            list.map(({ manifest, ...rest }) => ({ ...manifest, ...rest })),
            null,
            2,
          )}\n`,
        );
        return;
      }
      printTable(
        ["KEY", "IMAGE", "KIND", "VMM", "VCPUS", "MEMORY", "ON DISK", "CREATED"],
        list.map(({ manifest: m, bytes }) => [
          m.key.slice(0, 12),
          m.image,
          m.kind,
          `${m.shape.vmm} ${m.shape.vmmIdentity.version ?? ""} ${m.shape.vmmIdentity.accelerator ?? ""}`.trim(),
          String(m.shape.vcpus),
          `${m.shape.memoryMiB} MiB`,
          `${(bytes / 2 ** 20).toFixed(1)} MiB`,
          new Date(m.createdAt).toISOString(),
        ]),
      );
    });
  command
    .command("rm")
    .description("remove snapshots by key, or by the beginning of one")
    .argument("<key...>")
    .action(async (keys: string[]) => {
      const store = new SnapshotStore(dataPaths().snapshots);
      const all = (await store.list()).map(({ manifest }) => manifest.key);
      for (const key of keys) {
        const found = all.filter((candidate) => candidate.startsWith(key));
        if (found.length !== 1 || found[0] === undefined) {
          throw new StacyError(
            found.length === 0 ? "not-found" : "invalid",
            `${found.length} snapshots begin with ${key}`,
            {
              remedy: "see `stacyvm snapshot ls`",
            },
          );
        }
        await store.remove(found[0]);
        process.stderr.write(`removed ${found[0].slice(0, 12)}\n`);
      }
    });
  return command;
}
