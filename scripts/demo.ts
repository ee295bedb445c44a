/**
 * `make run`: the main job, end to end and for real: build an image, boot it cold, take the golden snapshot, restore from it
 * 20 times in turn and 3 at once, run a Python program in a sandbox, and draw the two phase tables of this machine.
 */
import { phaseChart, summarize } from "../bench/harness.ts";
import { benchSpec, remove, sandboxId, spawnTimed, type Timed } from "../bench/spawning.ts";
import { createEngine } from "../src/cli/engine.ts";
import { exitCodeOf, printError } from "../src/cli/error-output.ts";
import { ProgressLine } from "../src/cli/progress-line.ts";
import { isAlive, type ProcessRecord } from "../src/host/process.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import type { Launched } from "../src/launcher/launcher.ts";

const IMAGE = "stacyvm/python";
const PROGRAM = `
import os, platform, socket
total = sum(1 for n in range(2, 2000) if all(n % d for d in range(2, int(n ** 0.5) + 1)))
print(f"Python {platform.python_version()} on Linux {platform.release()}, host {socket.gethostname()}, {os.cpu_count()} vCPU")
print(f"there are {total} primes below 2000")
`;
const RESTORES = 20;

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const ms = (value: number): string => `${value.toFixed(1)} ms`;

async function main(): Promise<void> {
  const engine = await createEngine();
  const { launcher, images, defaults } = engine;
  // Of the default size, so that `stacyvm run` and `spawn` start from the golden snapshot that this makes.
  const spec = benchSpec(IMAGE, { memoryMiB: defaults.memoryMiB, vcpus: defaults.vcpus, diskMiB: defaults.diskMiB });
  const running = new Set<Launched>();
  const started: ProcessRecord[] = [];
  const note = (launched: Launched): void => {
    running.add(launched);
    started.push(launched.machine.record);
  };
  const end = async (launched: Launched): Promise<void> => {
    await remove(launched);
    running.delete(launched);
  };
  try {
    const probe = await launcher.vmm.probe();
    if (probe.usable) {
      say(`machine monitor: ${launcher.vmm.name} ${probe.version}, ${probe.accelerator}`);
      for (const each of probe.notes) say(`  ${each}`);
    }

    {
      using line = new ProgressLine("image: ");
      const image = await images.resolve(IMAGE, { progress: line.show });
      line[Symbol.dispose]();
      say(
        `image:    ${image.reference}, ${(image.sizeBytes / 2 ** 20).toFixed(0)} MiB ${image.filesystem}, shared read-only by all sandboxes`,
      );
    }

    const cold = await spawnTimed(launcher, spec, "cold", ["echo", "hello"]);
    note(cold.launched);
    say(`cold:     ${ms(cold.total)} until the agent answered`);
    await end(cold.launched);

    const target = await launcher.targets.resolve(spec);
    const present = await launcher.store.get(target.key);
    const start = performance.now();
    const snapshot = await launcher.ensureGolden(target);
    const memory = await allocatedBytes(`${snapshot.dir}/memory.bin`);
    say(
      `golden:   ${present === undefined ? `built in ${ms(performance.now() - start)}` : "was there"}, ` +
        `${(memory / 2 ** 20).toFixed(0)} MiB on disk for ${target.config.memoryMiB} MiB of RAM`,
    );

    const restores: Timed[] = [];
    for (let i = 0; i < RESTORES; i++) {
      const timed = await spawnTimed(launcher, spec, undefined, ["echo", "hello"]);
      note(timed.launched);
      if (timed.launched.boot.path !== "restored")
        throw new Error(`restore ${i + 1} came ${timed.launched.boot.path}: ${timed.launched.boot.fallback}`);
      restores.push(timed);
      await end(timed.launched);
    }
    const totals = summarize(
      restores.map(({ total }) => total),
      "ms",
    );
    const first = summarize(
      restores.map(({ firstExec }) => firstExec ?? 0),
      "ms",
    );
    say(
      `restore:  ${RESTORES} in turn: median ${ms(totals.p50)}, fastest ${ms(totals.min)}, slowest ${ms(totals.max)}; to a first command's output: median ${ms(first.p50)}`,
    );

    const together = performance.now();
    const three = await Promise.all([1, 2, 3].map(() => launcher.launch(spec, { id: sandboxId() })));
    const wall = performance.now() - together;
    for (const launched of three) note(launched);
    say(`restore:  3 at once: ${ms(wall)} wall clock (${three.map(({ boot }) => ms(boot.totalMs)).join(", ")})`);

    say("\na Python program in one of them:");
    const [sandbox] = three;
    const result = await sandbox?.agent.exec({ argv: ["python3", "-c", PROGRAM] });
    for (const line of (result?.stdout.toString("utf8") ?? "").trimEnd().split("\n")) say(`  | ${line}`);
    if (result?.exitCode !== 0)
      throw new Error(`the program ended with ${result?.exitCode}: ${result?.stderr.toString("utf8")}`);
    await Promise.all(three.map(end));

    say("");
    for (const line of phaseChart(
      "BEFORE (cold boot on this machine)",
      chart(cold, ["resolve", "disk", "vmm", "start", "agent"]),
    ))
      say(line);
    for (const line of phaseChart(
      `AFTER (snapshot restore on this machine, medians of ${RESTORES})`,
      medians(restores, ["disk", "vmm", "load", "agent"]),
    )) {
      say(line);
    }
    say(`restoring is ${(cold.total / totals.p50).toFixed(0)} times faster than booting here.`);
  } finally {
    await Promise.all([...running].map(remove));
    await launcher.close();
  }
  for (const record of started) {
    if (await isAlive(record)) throw new Error(`the process ${record.pid} was left behind`);
  }
  say("nothing is left running.");
}

const LABELS: Record<string, string> = {
  resolve: "resolve image",
  disk: "copy disk",
  vmm: "start monitor",
  start: "start machine",
  load: "snapshot load",
  agent: "wait for agent",
};

function chart(timed: Timed, names: string[]): [string, number][] {
  return names.map((name) => [LABELS[name] ?? name, timed.launched.boot.phases[name] ?? 0]);
}

function medians(list: Timed[], names: string[]): [string, number][] {
  return names.map((name) => [
    LABELS[name] ?? name,
    summarize(
      list.map(({ launched }) => launched.boot.phases[name] ?? 0),
      "ms",
    ).p50,
  ]);
}

try {
  await main();
} catch (error) {
  printError(error, { verbose: true, json: false });
  process.exitCode = exitCodeOf(error);
}
