import { Command } from "commander";
import { allowOption, collect, parseCount, parseDuration, parseVariable, secretOption } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { note, printJson, printLine } from "../output.ts";
import { memoryOption, vcpusOption } from "../size-options.ts";
import { printTable } from "../table.ts";
import { type Mounts, templateVolumeOption, type VolumeSlotOptions, volumeSlotOptions } from "../volume-option.ts";

/** `stacyvm template ...`: named sets of what a sandbox is started with. */
export function templateCommand(): Command {
  const command = new Command("template").description("named sets of what sandboxes are started with");
  for (const part of [list(), inspect(), create(), spawn(), remove()]) command.addCommand(part);
  return command;
}

function list(): Command {
  return clientCommand("ls", "list templates").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.templates.list({ signal });
      if (options.json === true) return printJson(all);
      printTable(
        ["NAME", "VERSION", "IMAGE", "VCPUS", "MEMORY", "TTL", "READY", "DESCRIPTION"],
        all.map((template) => [
          template.name,
          String(template.version),
          template.image,
          String(template.vcpus),
          `${template.memoryMb} MiB`,
          template.ttl,
          String(template.poolSize),
          template.description,
        ]),
        { drop: ["VERSION", "READY", "VCPUS", "TTL", "DESCRIPTION"], shorten: ["DESCRIPTION", "IMAGE", "NAME"] },
      );
    }),
  );
}

function inspect(): Command {
  return clientCommand("inspect", "everything about templates, as a JSON array")
    .argument("<name...>")
    .action((names: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        printJson(await Promise.all(names.map((name) => client.templates.get(name, { signal }))));
      }),
    );
}

interface CreateOptions extends ClientOptions, VolumeSlotOptions {
  memory?: number;
  vcpus?: number;
  env?: Record<string, string>;
  ttl?: string;
  setup?: string[];
  allow?: string[];
  secret?: string[];
  pool?: number;
  volume?: Mounts;
  description?: string;
  provider?: string;
  replace?: boolean;
}

function create(): Command {
  return clientCommand("create", "save a template")
    .argument("<name>")
    .argument("<image>")
    .addOption(memoryOption())
    .addOption(vcpusOption())
    .option("-e, --env <K=V>", "environment, or K alone for its value here; may be repeated", parseVariable)
    .option("--ttl <time>", "how long its sandboxes live", parseDuration)
    .addOption(allowOption("its sandboxes"))
    .addOption(secretOption("they"))
    .addOption(templateVolumeOption())
    .addOption(volumeSlotOptions()[0])
    .addOption(volumeSlotOptions()[1])
    .option("--setup <command>", "run once, before the golden snapshot is saved; may be repeated", collect)
    .option("--pool <n>", "machines that `stacyvm serve` keeps ready", parseCount)
    .option("--description <text>", "what it is for, in words")
    .option("--provider <name>", "firecracker, qemu or auto")
    .option("--replace", "take the place of one with this name")
    .action((name: string, image: string, options: CreateOptions) =>
      withServer(options, async ({ client, signal }) => {
        const { vcpus, env, ttl, setup, description, provider } = options;
        const body = {
          ...{ name, image, vcpus, env, ttl, setup, description, provider },
          memoryMb: options.memory,
          poolSize: options.pool,
          volumes: options.volume?.volumes,
          volumeSlots: options.volumeSlots,
          volumeSlotsReadOnly: options.volumeSlotsRo,
          allowedHosts: options.allow,
          secrets: options.secret?.map((name) => ({ name })),
        };
        const saved =
          options.replace === true
            ? await client.templates.replace(name, body, { signal })
            : await client.templates.create(body, { signal });
        if (options.json === true) printJson(saved);
        else note(`saved ${saved.name}, version ${saved.version}`);
      }),
    );
}

function spawn(): Command {
  return clientCommand("spawn", "start a sandbox from a template; `spawn --template NAME` is the same")
    .argument("<name>")
    .option("--ttl <time>", "how long it lives", parseDuration)
    .option("--provider <name>", "firecracker, qemu or auto")
    .action((name: string, options: ClientOptions & { ttl?: string; provider?: string }) =>
      withServer({ ...options, boots: true }, async ({ client, signal }) => {
        const { ttl, provider } = options;
        const sandbox = await client.templates.spawn(name, { ttl, provider }, { signal });
        if (options.json === true) printJson(sandbox.info);
        else printLine(sandbox.id);
      }),
    );
}

function remove(): Command {
  return clientCommand("rm", "remove templates")
    .argument("<name...>")
    .action((names: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        for (const name of names) await client.templates.remove(name, { signal });
        if (options.json === true) printJson(names.map((name) => ({ name, status: "deleted" })));
        else for (const name of names) printLine(name);
      }),
    );
}
