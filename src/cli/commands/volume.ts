import { open } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import type { Volume } from "../../../sdk/src/index.ts";
import { parseSizeMiB, sizeText } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { bytes, note, printJson, sinceNow } from "../output.ts";
import { checkSaveTarget, saveFile } from "../save-file.ts";
import { printTable } from "../table.ts";
import { parsePlace } from "../volume-option.ts";

const DEFAULT_SIZE_MIB = 1_024;

/** `stacyvm volume ...`: disks that stay when sandboxes go. */
export function volumeCommand(): Command {
  const command = new Command("volume").description("disks that stay when sandboxes go");
  for (const part of [
    create(),
    list(),
    usage(),
    inspect(),
    resize(),
    clone(),
    snapshot(),
    attach(),
    detach(),
    exporting(),
    importing(),
    remove(),
  ])
    command.addCommand(part);
  return command;
}

function create(): Command {
  return clientCommand("create", "make an empty volume")
    .argument("<name>", "what to call it, for example data")
    .option("--size <size>", `its size, for example 10g (default: ${sizeText(DEFAULT_SIZE_MIB)})`, parseSizeMiB)
    .addHelpText(
      "after",
      wrappedNote("It occupies what is written to it. `stacyvm spawn -v data:/data IMAGE` starts a sandbox with it."),
    )
    .action((name: string, options: ClientOptions & { size?: number }) =>
      withServer(options, async ({ client, signal }) => {
        const made = await client.volumes.create({ name, sizeMb: options.size ?? DEFAULT_SIZE_MIB }, { signal });
        if (options.json === true) return printJson(made);
        note(`${made.name} is there, ${sizeText(made.sizeMb)}`);
      }),
    );
}

function list(): Command {
  return clientCommand("ls", "list volumes, with the sandboxes that have them").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.volumes.list({ signal });
      if (options.json === true) return printJson(all);
      printTable(
        ["NAME", "SIZE", "USED", "WITH", "KIND", "CREATED"],
        all.map((volume) => [
          volume.name,
          sizeText(volume.sizeMb),
          volume.usedBytes === undefined ? "missing" : bytes(volume.usedBytes),
          volume.sandboxes.map(withWhom).join(",") || "-",
          kindOf(volume),
          sinceNow(volume.createdAt),
        ]),
        { drop: ["CREATED", "KIND"], shorten: ["WITH", "NAME"] },
      );
    }),
  );
}

function usage(): Command {
  return clientCommand("usage", "what an owner's volumes take, and may take").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.volumes.usage({ signal });
      if (options.json === true) return printJson(all);
      printTable(
        ["OWNER", "VOLUMES", "SIZE", "USED"],
        all.map(({ owner, volumes, sizeMb, usedBytes, maxVolumes, maxSizeMb }) => [
          owner,
          maxVolumes === 0 ? String(volumes) : `${volumes} of ${maxVolumes}`,
          maxSizeMb === 0 ? sizeText(sizeMb) : `${sizeText(sizeMb)} of ${sizeText(maxSizeMb)}`,
          bytes(usedBytes),
        ]),
        { drop: ["USED"], shorten: ["OWNER"] },
      );
    }),
  );
}

function withWhom({ id, readOnly }: Volume["sandboxes"][number]): string {
  return readOnly ? `${id} (reads)` : id;
}

function kindOf({ readOnly, copiedFrom }: Volume): string {
  const kind = readOnly ? "snapshot" : "volume";
  return copiedFrom === undefined ? kind : `${kind} of ${copiedFrom}`;
}

function inspect(): Command {
  return clientCommand("inspect", "all that is known of a volume, as JSON")
    .argument("<name>")
    .action((name: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => printJson(await client.volumes.get(name, { signal }))),
    );
}

function resize(): Command {
  return clientCommand("resize", "make a volume larger")
    .argument("<name>")
    .argument("<size>", "its new size, for example 20g", parseSizeMiB)
    .action((name: string, sizeMb: number, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const grown = await client.volumes.resize(name, sizeMb, { signal });
        if (options.json === true) return printJson(grown);
        note(
          `${grown.name} has ${sizeText(grown.sizeMb)}; its filesystem grows with the next sandbox that may write to it`,
        );
      }),
    );
}

function clone(): Command {
  return clientCommand("clone", "copy a volume")
    .argument("<name>")
    .argument("<new>", "what to call the copy")
    .action((name: string, to: string, options: ClientOptions) => copy(name, { name: to }, options));
}

function snapshot(): Command {
  return clientCommand("snapshot", "save what a volume holds now: a copy that never changes")
    .argument("<name>")
    .argument("<new>", "what to call the snapshot")
    .action((name: string, to: string, options: ClientOptions) => copy(name, { name: to, readOnly: true }, options));
}

function copy(name: string, to: { name: string; readOnly?: boolean }, options: ClientOptions): Promise<void> {
  return withServer(options, async ({ client, signal }) => {
    const made = await client.volumes.clone(name, to, { signal });
    if (options.json === true) return printJson(made);
    note(`${made.name} holds what ${name} holds`);
  });
}

function attach(): Command {
  return clientCommand("attach", "give a volume to a sandbox that runs")
    .argument("<name>")
    .argument("<place>", "SANDBOX:/PATH, such as web-1:/data, or web-1:/data:ro to read only", parsePlace)
    .addHelpText("after", wrappedNote("The sandbox needs a free place: `stacyvm spawn --volume-slots 1 IMAGE`."))
    .action((name: string, { sandbox: id, path, readOnly }: ReturnType<typeof parsePlace>, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const info = await sandbox.attachVolume(name, path, { readOnly, signal });
        if (options.json === true) return printJson(info);
        note(`${sandbox.id} has ${name} at ${path}`);
      }),
    );
}

function detach(): Command {
  return clientCommand("detach", "take a volume from a sandbox that runs on")
    .argument("<name>")
    .argument("<sandbox>")
    .option(
      "--force",
      "also from programs that have files of it open: they lose it, and its place cannot be used again",
    )
    .action((name: string, id: string, options: ClientOptions & { force?: boolean }) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const info = await sandbox.detachVolume(name, { force: options.force, signal });
        if (options.json === true) return printJson(info);
        note(`${sandbox.id} has ${name} no more`);
      }),
    );
}

function exporting(): Command {
  return clientCommand("export", "save a volume into a file of this host")
    .argument("<name>")
    .argument("<file>", "such as data.ext4.gz, or - for standard output; gzip unpacks it to the disk itself")
    .action((name: string, file: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        if (file !== "-") await checkSaveTarget(file, `${name}.ext4.gz`);
        const content = await client.volumes.readContent(name, { signal });
        if (file === "-") await pipeline(content, process.stdout, { end: false });
        else await saveFile(file, content, 0o600);
      }),
    );
}

function importing(): Command {
  return clientCommand("import", "make a volume of an export")
    .argument("<file>", "what `volume export` has made, or - for standard input")
    .argument("<name>", "what to call the volume")
    .action((file: string, name: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        await using handle = file === "-" ? undefined : await open(file, "r");
        const source = handle?.createReadStream() ?? process.stdin;
        const content = Readable.toWeb(source) as unknown as ReadableStream<Uint8Array>;
        const made = await client.volumes.writeContent(name, content, { signal });
        if (options.json === true) return printJson(made);
        note(`${made.name} is there, ${sizeText(made.sizeMb)}`);
      }),
    );
}

function remove(): Command {
  return clientCommand("rm", "remove volumes, with all that is in them")
    .argument("<name...>")
    .action((names: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        for (const name of names) await client.volumes.remove(name, { signal });
      }),
    );
}
