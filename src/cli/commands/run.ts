import { randomBytes } from "node:crypto";
import { Command } from "commander";
import { StacyError } from "../../host/error.ts";
import type { Launched, Launcher } from "../../launcher/launcher.ts";
import { removeMachineDir } from "../../launcher/machine-dir.ts";
import { parseSizeMiB } from "../arguments.ts";
import { createEngine } from "../engine.ts";
import { interruptible } from "../interrupt.ts";
import { ProgressLine } from "../progress-line.ts";

interface RunOptions {
  memory: number;
  vcpus: number;
  disk: number;
  env: string[];
  workdir?: string;
  timeout?: string;
  provider?: string;
  cold?: boolean;
  report?: boolean;
}

/** `stacyvm run IMAGE -- CMD`: a fresh machine, one command with live output, its exit code, and nothing left. */
export function runCommand(): Command {
  return new Command("run")
    .description("run one command in a fresh sandbox and remove it")
    .argument("<image>", "for example stacyvm/python")
    .argument("[command...]", "the command; default: what the image says")
    .option("-m, --memory <size>", "memory, for example 512m or 1g", parseSizeMiB, 256)
    .option("-c, --vcpus <n>", "virtual CPUs", Number, 1)
    .option("--disk <size>", "writable space", parseSizeMiB, 1024)
    .option("-e, --env <K=V...>", "environment", [])
    .option("-w, --workdir <path>", "working directory")
    .option("--provider <name>", "firecracker, qemu or auto")
    .option("--cold", "boot without snapshots")
    .option("--report", "say on stderr which way it started and how long each phase took")
    .passThroughOptions()
    .action(async (image: string, command: string[], options: RunOptions) => {
      // The parser hands the separator on with what follows it, since it passes options through.
      process.exitCode = await runOnce(image, command[0] === "--" ? command.slice(1) : command, options);
    });
}

async function runOnce(image: string, command: string[], options: RunOptions): Promise<number> {
  const engine = await createEngine(options.provider === undefined ? {} : { provider: options.provider });
  return interruptible((signal) => runIn(engine.launcher, image, command, options, signal));
}

async function runIn(
  launcher: Launcher,
  image: string,
  command: string[],
  options: RunOptions,
  signal: AbortSignal,
): Promise<number> {
  let launched: Launched | undefined;
  try {
    {
      using line = new ProgressLine();
      launched = await launcher.launch(
        { image, vcpus: options.vcpus, memoryMiB: options.memory, diskMiB: options.disk, setup: [], setupEnv: {} },
        {
          id: `sb-${randomBytes(4).toString("hex")}`,
          env: parseEnv(options.env),
          signal,
          resolve: { progress: line.show, signal },
          ...(options.cold === true ? { mode: "cold" as const } : {}),
        },
      );
    }
    if (options.report === true) process.stderr.write(`${JSON.stringify(launched.boot)}\n`);
    const { config } = launched.target.image;
    const argv = command.length > 0 ? command : [...config.entrypoint, ...config.cmd];
    if (argv.length === 0)
      throw new StacyError("invalid", `${image} names no command`, { remedy: "give one after --" });
    const running = await launched.agent.start({
      argv,
      ...(options.workdir === undefined ? {} : { cwd: options.workdir }),
      signal,
    });
    for await (const event of running.output()) {
      if (event.type === "lost") continue;
      const out = event.type === "stdout" ? process.stdout : process.stderr;
      if (!out.write(event.data)) await new Promise((drained) => out.once("drain", drained));
    }
    return (await running.exited).exitCode;
  } finally {
    if (launched !== undefined) {
      await launched.agent.close();
      await launched.machine.kill();
      launched.releaseSnapshot();
      await removeMachineDir(launched.dir);
    }
    if (signal.aborted) await launcher.close();
    else if (launcher.golden.building.size > 0) {
      using line = new ProgressLine();
      line.show({ step: "saving the golden snapshot, so that the next run starts from it (Ctrl-C skips)" });
      signal.addEventListener("abort", () => void launcher.close());
      await launcher.settle();
    }
  }
}

function parseEnv(entries: string[]): Record<string, string> {
  const env: Record<string, string> = {};
  for (const entry of entries) {
    const at = entry.indexOf("=");
    if (at <= 0) throw new StacyError("invalid", `"${entry}" is not K=V`, { remedy: "write -e NAME=value" });
    env[entry.slice(0, at)] = entry.slice(at + 1);
  }
  return env;
}
