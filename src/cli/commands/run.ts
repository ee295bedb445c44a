/** `stacyvm run IMAGE -- COMMAND`: spawn, run, remove. */
import { type Command, Option } from "commander";
import type { Client, Sandbox } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { dataPaths } from "../../host/paths.ts";
import type { BootReport } from "../../launcher/launcher.ts";
import { parseDuration as durationMs } from "../../sandboxes/duration.ts";
import { allowOption, commandWords, parseDuration, parseVariable, secretOption } from "../arguments.ts";
import { bootNote } from "../boot-note.ts";
import { type ClientOptions, clientCommand } from "../client-command.ts";
import { type Connection, connectServer, localClient, namedServer, serves } from "../connection.ts";
import { noteEmulation, noteEmulationOf } from "../emulation.ts";
import { envFileOption, variables } from "../env-file.ts";
import { asOwnFailure, asStartFailure } from "../error-output.ts";
import { imageCommand } from "../image-command.ts";
import { type Interrupts, interruptible } from "../interrupt.ts";
import { findLocal } from "../local-socket.ts";
import { networkHabit } from "../network-habit.ts";
import { note } from "../output.ts";
import { notePorts, portsOption } from "../ports-option.ts";
import { conversationOf } from "../process-conversation.ts";
import { ProgressLine } from "../progress-line.ts";
import { pullFirst } from "../pull-first.ts";
import { diskOption, memoryOption, vcpusOption } from "../size-options.ts";
import { type Conversation, collectJson, converse, terminalSize } from "../terminal.ts";
import { type Mounts, volumeOption } from "../volume-option.ts";

interface RunOptions extends ClientOptions {
  memory?: number;
  vcpus?: number;
  disk?: number;
  env?: Record<string, string>;
  envFile?: Record<string, string>;
  port?: number[];
  entrypoint?: string;
  workdir?: string;
  user?: string;
  allow?: string[];
  secret?: string[];
  volume?: Mounts;
  timeout?: string;
  interactive?: boolean;
  tty?: boolean;
  provider?: string;
  cold?: boolean;
  report?: boolean;
}

export function runCommand(): Command {
  return clientCommand("run", "run one command in a fresh sandbox and remove it")
    .argument("<image>", "for example stacyvm/python")
    .argument("[command...]", "the command; default: what the image says")
    .option("-i, --interactive", "pass standard input on")
    .option("-t, --tty", "give the command a terminal")
    .addOption(memoryOption())
    .addOption(vcpusOption())
    .addOption(diskOption())
    .option("-e, --env <K=V>", "environment, or K alone for its value here; may be repeated", parseVariable)
    .addOption(envFileOption())
    .option("--entrypoint <program>", "run this program with the words as its arguments")
    .addOption(portsOption())
    .option("-w, --workdir <path>", "working directory")
    .option("-u, --user <user>", "name, uid or uid:gid")
    .addOption(allowOption())
    .addOption(secretOption())
    .addOption(volumeOption())
    .option("--timeout <time>", "end the command after this time, for example 30s (exit code 124)", parseDuration)
    .option("--provider <name>", "firecracker, qemu or auto")
    .option("--cold", "boot without snapshots (only without a server)")
    .option("--report", "say on stderr which way it started and how long each phase took")
    .addOption(networkHabit())
    .addOption(new Option("--rm", "it always is").hideHelp())
    .passThroughOptions()
    .action((image: string, words: string[], _options: RunOptions, command: Command) => {
      const given = commandWords(words, command);
      const options = command.opts<RunOptions>();
      // As in Docker, an empty one is none.
      const argv = options.entrypoint ? [options.entrypoint, ...given] : given;
      const env = variables(options);
      if (env !== undefined) options.env = env;
      return interruptible(async (signal, interrupts) => {
        try {
          process.exitCode = await run(image, argv, options, interrupts);
        } catch (error) {
          throw signal.aborted ? error : asOwnFailure(error);
        }
      });
    });
}

async function run(image: string, argv: string[], options: RunOptions, interrupts: Interrupts): Promise<number> {
  const work = (client: Client, kind: Connection["kind"]): Promise<number> =>
    runOn({ client, kind }, image, argv, options, interrupts);
  if (options.cold === true) return runHere(image, argv, options, interrupts);
  if (needsServer(options)) {
    // Which only a server has.
    const connection = await connectServer({ ...options, boots: true, stays: "background" }, interrupts.signal);
    try {
      return await work(connection.client, connection.kind);
    } finally {
      await connection.close(interrupts);
    }
  }
  const named = await namedServer(options);
  if (named !== undefined) return work(named, "named");
  using local = await findLocal(dataPaths().root);
  // One with other settings is left alone: this command needs none.
  if (local !== undefined && (await serves(local))) return await work(await localClient(local, options), "found");
  return await runHere(image, argv, options, interrupts);
}

function needsServer({ secret, port, volume }: RunOptions): boolean {
  return secret !== undefined || port !== undefined || volume !== undefined;
}

async function runHere(image: string, argv: string[], options: RunOptions, interrupts: Interrupts): Promise<number> {
  if (needsServer(options)) {
    const { secret, volume } = options;
    const what = secret !== undefined ? "secrets" : volume !== undefined ? "volumes and directories" : "URLs for ports";
    throw new StacyError("invalid", `only a server has ${what}, and --cold starts without one`, {
      remedy: "leave out --cold",
    });
  }
  const { runOneShot } = await import("../one-shot.ts");
  const { tty = false, interactive = false, env = {}, workdir, user, allow, timeout, provider } = options;
  const shot = {
    ...{ image, argv, env, workdir, user, allow, provider, vcpus: options.vcpus },
    memoryMiB: options.memory,
    diskMiB: options.disk,
    stdin: interactive,
    cold: options.cold === true,
    timeoutMs: timeout === undefined ? undefined : durationMs(timeout),
    pty: tty ? terminalSize() : undefined,
  };
  using line = new ProgressLine();
  const observer = {
    signal: interrupts.signal,
    progress: line.show,
    started(
      boot: BootReport,
      { memoryMiB: memoryMb, vcpus }: { memoryMiB: number; vcpus: number },
      accelerator?: string,
    ) {
      line[Symbol.dispose]();
      if (!shot.cold) noteBoot({ image, memoryMb, vcpus, boot });
      noteEmulation(boot.path, accelerator);
      report(boot, options);
    },
    saving: () => line.show({ step: "saving the golden snapshot, so that the next run starts from it (Ctrl-C skips)" }),
  };
  return runOneShot(shot, observer, (command) => finish(command, options, interrupts));
}

/** On a server the sandbox is one of many; it goes when the command has ended, whatever became of that. */
async function runOn(
  { client, kind }: Pick<Connection, "client" | "kind">,
  image: string,
  argv: string[],
  options: RunOptions,
  interrupts: Interrupts,
): Promise<number> {
  const { signal } = interrupts;
  const { tty = false, interactive = false, env, workdir, user, allow, timeout, provider } = options;
  const pty = tty ? terminalSize() : false;
  const known = await pullFirst(client, image, signal);
  const command = imageCommand(image, argv, known?.config);
  const sandbox: Sandbox = await client.create({
    ...{ image, provider, env, vcpus: options.vcpus, memoryMb: options.memory, diskMb: options.disk, signal },
    allowedHosts: allow,
    secrets: options.secret,
    ...options.volume,
    forkable: false,
  });
  try {
    report(sandbox.info.boot, options);
    notePorts(sandbox, options.port, kind);
    noteBoot(sandbox.info);
    await noteEmulationOf(client, sandbox.info, signal);
    const running = await sandbox
      .spawn(command.argv, {
        stopSignal: command.stopSignal,
        workdir: workdir ?? command.cwd,
        user,
        timeout,
        pty,
        stdin: interactive || tty,
        signal,
      })
      .catch((error: unknown) => {
        throw asStartFailure(error);
      });
    return await finish(conversationOf(running), options, interrupts);
  } finally {
    await sandbox.destroy();
  }
}

function finish(command: Conversation, options: RunOptions, interrupts: Interrupts): Promise<number> {
  const { tty = false, interactive = false } = options;
  const how = { tty, stdin: interactive || tty, interrupts };
  return options.json === true ? collectJson(command, how) : converse(command, how);
}

/** A restore is not waited for, and needs no words. */
function noteBoot(started: Parameters<typeof bootNote>[0]): void {
  if (started.boot?.path === "cold" && process.stderr.isTTY) note(bootNote(started) ?? "");
}

function report(boot: unknown, options: RunOptions): void {
  if (options.report === true) note(JSON.stringify(boot));
}
