import { type Command, Option } from "commander";
import type { Image } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { allowOption, collect, parseDuration, parsePair, parseVariable, secretOption } from "../arguments.ts";
import { bootNote } from "../boot-note.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { noteEmulationOf } from "../emulation.ts";
import { envFileOption, variables } from "../env-file.ts";
import { asStartFailure } from "../error-output.ts";
import { findCheckpoint } from "../find-checkpoint.ts";
import { type ImageCommand, imageCommand } from "../image-command.ts";
import { networkHabit } from "../network-habit.ts";
import { note, printJson, printLine } from "../output.ts";
import { notePorts, portsOption } from "../ports-option.ts";
import { ProgressLine } from "../progress-line.ts";
import { noteForm } from "../published-options.ts";
import { pullFirst } from "../pull-first.ts";
import { diskOption, memoryOption, vcpusOption } from "../size-options.ts";
import { type Mounts, type VolumeSlotOptions, volumeOption, volumeSlotOptions } from "../volume-option.ts";

interface SpawnOptions extends ClientOptions, VolumeSlotOptions {
  /** As the published StacyVM takes it. */
  image?: string;
  name?: string;
  port?: number[];
  envFile?: Record<string, string>;
  memory?: number;
  vcpus?: number;
  disk?: number;
  env?: Record<string, string>;
  label?: Record<string, string>;
  ttl?: string;
  idleTimeout?: string;
  idleAction?: "destroy" | "pause" | "suspend";
  idleCounts?: "processes" | "calls";
  template?: string;
  checkpoint?: string;
  setup?: string[];
  init?: boolean;
  start?: boolean;
  allow?: string[];
  secret?: string[];
  volume?: Mounts;
  provider?: string;
  owner?: string;
}

/** `stacyvm spawn`: a sandbox that stays until its time is over or it is removed. */
export function spawnCommand(): Command {
  return clientCommand("spawn", "start a sandbox and print its id")
    .argument("[image]", "for example stacyvm/python (default: the server's)")
    .option("--name <name>", "call it so: the name stands wherever its id may, for example web-1")
    .addOption(memoryOption())
    .addOption(vcpusOption())
    .addOption(diskOption())
    .option(
      "-e, --env <K=V>",
      "environment of its commands, or K alone for its value here; may be repeated",
      parseVariable,
    )
    .addOption(envFileOption())
    .addOption(portsOption())
    .option("-l, --label <K=V>", "a label to find it by; may be repeated", parsePair)
    .option("--ttl <time>", "how long it lives, for example 30m", parseDuration)
    .option("--idle-timeout <time>", "idle time until --idle-action, for example 10m", parseDuration)
    .option("--idle-action <what>", "what to do with an idle sandbox: destroy, pause or suspend")
    .option("--idle-counts <what>", "what counts as use: processes (also what runs in it; default) or calls")
    .addOption(allowOption())
    .addOption(secretOption())
    .addOption(volumeOption())
    .addOption(volumeSlotOptions()[0])
    .addOption(volumeSlotOptions()[1])
    .option("--start", "start the image's own command; `stacyvm logs` shows what it writes")
    .option("--init", "start the image's own init (systemd) and its services")
    .option("--setup <command>", "run before it is saved as golden snapshot; may be repeated", collect)
    .option("--template <name>", "start from a template")
    .option("--checkpoint <id>", "start from a checkpoint, by id or name")
    .option("--owner <id>", "user whom quotas count it for")
    .option("--provider <name>", "firecracker, qemu or auto")
    .addOption(new Option("--image <image>", "the image").hideHelp())
    .addOption(networkHabit())
    .action((named: string | undefined, options: SpawnOptions) => {
      if (options.image !== undefined) noteForm("spawn --image IMAGE", "spawn IMAGE");
      const image = named ?? options.image;
      return withServer({ ...options, boots: true, stays: "background" }, async ({ client, kind, signal }) => {
        const known =
          image !== undefined && options.checkpoint === undefined ? await pullFirst(client, image, signal) : undefined;
        const own = options.start === true ? ownCommand(image, known) : undefined;
        const checkpoint =
          options.checkpoint === undefined ? undefined : (await findCheckpoint(client, options.checkpoint, signal)).id;
        const { template, provider, setup, init, idleTimeout, idleAction, idleCounts, ttl, vcpus } = options;
        const env = variables(options);
        using line = new ProgressLine();
        line.showAfter(500, { step: "starting; the first of a kind boots, which takes some seconds" });
        const sandbox = await client.create({
          ...{
            name: options.name,
            image,
            template,
            checkpoint,
            provider,
            setup,
            init,
            idleTimeout,
            idleAction,
            idleCounts,
            ttl,
            env,
            vcpus,
            signal,
          },
          memoryMb: options.memory,
          diskMb: options.disk,
          metadata: options.label,
          allowedHosts: options.allow,
          secrets: options.secret,
          ...options.volume,
          volumeSlots: options.volumeSlots,
          volumeSlotsReadOnly: options.volumeSlotsRo,
          ownerId: options.owner,
        });
        if (own !== undefined) {
          await sandbox
            .start(own.argv, { stopSignal: own.stopSignal, workdir: own.cwd, signal })
            .catch(async (error: unknown) => {
              await sandbox.destroy();
              throw asStartFailure(error);
            });
        }
        line[Symbol.dispose]();
        if (options.json === true) return printJson(sandbox.info);
        printLine(sandbox.id);
        notePorts(sandbox, options.port, kind);
        if (sandbox.info.boot === undefined || !process.stderr.isTTY) return;
        note(bootNote(sandbox.info) ?? "");
        await noteEmulationOf(client, sandbox.info, signal);
      });
    });
}

/** @throws StacyError `invalid` */
function ownCommand(image: string | undefined, known: Image | undefined): ImageCommand {
  if (image !== undefined && known !== undefined) return imageCommand(image, [], known.config);
  throw new StacyError("invalid", "--start needs an image whose command is known here", {
    remedy: "name the image, or start a program with `stacyvm exec -d`",
  });
}
