/** `stacyvm snapshot ...`: the saved machines that sandboxes start from. */
import { Command } from "commander";
import type { Client, Snapshot } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { collect, parseSizeMiB } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { bytes, note, printJson, printLine, sinceNow } from "../output.ts";
import { ProgressLine } from "../progress-line.ts";
import { pullFirst } from "../pull-first.ts";
import { diskOption, memoryOption, vcpusOption } from "../size-options.ts";
import { printTable } from "../table.ts";

export function snapshotCommand(): Command {
  const command = new Command("snapshot").description("saved machines: list, build, remove");
  for (const part of [list(), inspect(), build(), remove(), gc()]) command.addCommand(part);
  return command;
}

function list(): Command {
  return clientCommand("ls", "golden snapshots and checkpoints, newest first").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.snapshots.list({ signal });
      if (options.json === true) return printJson(all);
      printTable(
        ["KEY", "IMAGE", "KIND", "PROVIDER", "VCPUS", "MEMORY", "ON DISK", "IN USE", "LAST USED"],
        all.map((snapshot) => [
          snapshot.key.slice(0, 12),
          snapshot.image,
          snapshot.kind,
          snapshot.provider,
          String(snapshot.vcpus),
          `${snapshot.memoryMb} MiB`,
          bytes(snapshot.bytes),
          String(snapshot.inUse),
          `${sinceNow(snapshot.lastUsedAt)} ago`,
        ]),
        { drop: ["PROVIDER", "VCPUS", "IN USE", "KIND", "LAST USED"], shorten: ["IMAGE"] },
      );
    }),
  );
}

function inspect(): Command {
  return clientCommand("inspect", "everything about snapshots, as a JSON array")
    .argument("<key...>", "keys, or the beginning of one")
    .action((keys: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const all = await client.snapshots.list({ signal });
        printJson(keys.map((key) => pick(all, key)));
      }),
    );
}

interface BuildOptions extends ClientOptions {
  memory?: number;
  vcpus?: number;
  disk?: number;
  setup?: string[];
  provider?: string;
}

function build(): Command {
  return clientCommand("build", "build the golden snapshot of an image now, so that the first spawn restores")
    .argument("<image>")
    .addOption(memoryOption())
    .addOption(vcpusOption())
    .addOption(diskOption())
    .option("--setup <command>", "run before it is saved; may be repeated", collect)
    .option("--provider <name>", "firecracker, qemu or auto")
    .action((image: string, options: BuildOptions) =>
      withServer({ ...options, boots: true }, async ({ client, signal }) => {
        await pullFirst(client, image, signal);
        const { vcpus, setup, provider, memory, disk } = options;
        const request = { image, vcpus, setup, provider, memoryMb: memory, diskMb: disk };
        const snapshot = await building(client, request, signal);
        if (options.json === true) printJson(snapshot);
        else printLine(snapshot.key);
      }),
    );
}

async function building(
  client: Client,
  request: Parameters<Client["snapshots"]["build"]>[0],
  signal: AbortSignal,
): Promise<Snapshot> {
  using line = new ProgressLine();
  line.show({ step: "booting once and saving the machine" });
  return await client.snapshots.build(request, { signal });
}

function remove(): Command {
  return clientCommand("rm", "remove snapshots that no machine uses")
    .argument("<key...>", "keys, or the beginning of one")
    .action((keys: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const all = await client.snapshots.list({ signal });
        const found = keys.map((key) => pick(all, key).key);
        for (const key of found) {
          await client.snapshots.remove(key, { signal });
          if (options.json !== true) printLine(key);
        }
        if (options.json === true) printJson(found.map((key) => ({ key, status: "deleted" })));
      }),
    );
}

interface GcOptions extends ClientOptions {
  max?: number;
  unused?: string;
  checkpoints?: boolean;
  dryRun?: boolean;
}

function gc(): Command {
  return clientCommand("gc", "remove snapshots that were used longest ago, until the rest fits")
    .option("--max <size>", "what may stay, for example 20g (default: nothing that is unused)", parseSizeMiB)
    .option("--unused <duration>", "only what was not used for so long, for example 168h")
    .option("--checkpoints", "checkpoints may go too")
    .option("-n, --dry-run", "only say what would go, what would stay, and why")
    .action((options: GcOptions) =>
      withServer(options, async ({ client, signal }) => {
        const dryRun = options.dryRun === true;
        const maxBytes = options.max === undefined ? undefined : options.max * 2 ** 20;
        const { unused: maxUnused, checkpoints } = options;
        const done = await client.snapshots.gc({ dryRun, maxBytes, maxUnused, checkpoints }, { signal });
        if (options.json === true) return printJson(done);
        if (dryRun) {
          const row = (verdict: string, one: (typeof done.removed)[number]): string[] => [
            one.key.slice(0, 12),
            one.image,
            bytes(one.bytes),
            verdict,
            one.reason,
          ];
          printTable(
            ["KEY", "IMAGE", "ON DISK", "WOULD", "WHY"],
            [...done.removed.map((one) => row("go", one)), ...done.kept.map((one) => row("stay", one))],
            { drop: ["ON DISK"], shorten: ["IMAGE", "WHY"] },
          );
        } else for (const { key } of done.removed) printLine(key);
        note(`${dryRun ? "would free" : "freed"} ${bytes(done.bytes)}`);
      }),
    );
}

function pick(all: Snapshot[], key: string): Snapshot {
  const found = all.filter((snapshot) => snapshot.key.startsWith(key));
  const [snapshot] = found;
  if (snapshot !== undefined && found.length === 1) return snapshot;
  throw new StacyError(
    snapshot === undefined ? "not-found" : "invalid",
    `${found.length} snapshots begin with ${JSON.stringify(key)}`,
    { remedy: "see `stacyvm snapshot ls`" },
  );
}
