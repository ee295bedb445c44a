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
import { localClient, namedServer } from "../connection.ts";
import { noteEmulation } from "../emulation.ts";
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
  const client = options.cold === true ? undefined : await namedServer(options);
  if (client !== undefined) return runOn(client, image, argv, options, interrupts);
  using local = options.cold === true ? undefined : await findLocal(dataPaths().root);
  if (local !== undefined) {
    return runOn(localClient(local), image, argv, options, interrupts);
  }
  return runHere(image, argv, options, interrupts);
}

async function runHere(image: string, argv: string[], options: RunOptions, interrupts: Interrupts): Promise<number> {
  if (options.secret !== undefined) {
    throw new StacyError("unavailable", "only a server has secrets", { remedy: "start one: stacyvm serve" });
  }
  if (options.port !== undefined) {
    throw new StacyError("unavailable", "only a server has URLs for ports", { remedy: "start one: stacyvm serve" });
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
  client: Client,
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
    forkable: false,
  });
  try {
    report(sandbox.info.boot, options);
    notePorts(sandbox, options.port, "found");
    noteBoot(sandbox.info);
    const running = await sandbox
      .spawn(command.argv, {
        stopSignal: command.stopSignal,
        workdir,
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
