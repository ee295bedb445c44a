/** One sandbox from nothing to its second command, measured and removed: what the suites about starting machines share. */
import { randomBytes } from "node:crypto";
import { Phases } from "../src/host/phases.ts";
import { makeIdentity } from "../src/launcher/identity.ts";
import { loadInto, machineDir, prepareIdle } from "../src/launcher/launch.ts";
import type { Launched, Launcher, LaunchOptions } from "../src/launcher/launcher.ts";
import { removeMachineDir } from "../src/launcher/machine-dir.ts";
import type { LaunchSpec } from "../src/launcher/target.ts";
import type { BenchContext } from "./harness.ts";

export interface Timed {
  launched: Launched;
  /** Request to answered handshake, ms. */
  total: number;
  /** Request to the end of the first command, ms; absent without a command. */
  firstExec?: number;
  /** The second command alone, ms. */
  secondExec?: number;
}

/** The first command of a machine. */
export const ECHO = ["echo", "hello"];

export function benchSpec(image: string, over: Partial<LaunchSpec> = {}): LaunchSpec {
  return { image, vcpus: 1, memoryMiB: 256, diskMiB: 1024, setup: [], setupEnv: {}, ...over };
}

export function sandboxId(): string {
  return `sb-${randomBytes(4).toString("hex")}`;
}

/** Starts one and, with `argv`, runs it twice. The caller removes it (`remove`). */
export async function spawnTimed(
  launcher: Launcher,
  spec: LaunchSpec,
  mode: LaunchOptions["mode"],
  argv?: string[],
): Promise<Timed> {
  const start = performance.now();
  const launched = await launcher.launch(spec, { id: sandboxId(), ...(mode === undefined ? {} : { mode }) });
  const total = performance.now() - start;
  if (argv === undefined) return { launched, total };
  try {
    await run(launched, argv);
    const firstExec = performance.now() - start;
    const before = performance.now();
    await run(launched, argv);
    return { launched, total, firstExec, secondExec: performance.now() - before };
  } catch (error) {
    await remove(launched);
    throw error;
  }
}

/** A VMM that waits in its directory with its disk in place: a claim is load and handshake, and the first command if asked for. */
export async function idleVmm(launcher: Launcher, spec: LaunchSpec) {
  const target = await launcher.targets.resolve(spec);
  const snapshot = await launcher.store.get(target.key);
  if (snapshot === undefined) throw new Error("there is no golden snapshot");
  const id = sandboxId();
  const dir = machineDir(launcher.paths.sandboxes, id);
  const vmm = await prepareIdle(launcher.vmm, target, snapshot, { dir }, new Phases());
  return {
    async claim(argv?: string[]): Promise<{ total: number; firstExec: number; phases: Phases }> {
      const phases = new Phases();
      const start = performance.now();
      const { agent } = await loadInto(launcher.vmm, vmm, snapshot, makeIdentity(id, target.image, {}), phases);
      const total = performance.now() - start;
      if (argv !== undefined) await agent.exec({ argv });
      const firstExec = performance.now() - start;
      await agent.close();
      return { total, firstExec, phases };
    },
    async remove(): Promise<void> {
      await vmm.kill();
      await removeMachineDir(dir);
    },
  };
}

async function run(launched: Launched, argv: string[]): Promise<void> {
  const result = await launched.agent.exec({ argv });
  if (result.exitCode !== 0) throw new Error(`${argv.join(" ")} ended with ${result.exitCode}: ${result.stderr}`);
}

export async function remove(launched: Launched): Promise<void> {
  await launched.agent.close();
  await launched.machine.kill();
  launched.releaseSnapshot();
  await removeMachineDir(launched.dir);
}

/** Samples of one spawn under `prefix`: its total, its phases, its commands. */
export function record(context: BenchContext, prefix: string, timed: Timed): void {
  context.sample(`${prefix}.total`, timed.total);
  for (const [name, ms] of Object.entries(timed.launched.boot.phases)) context.sample(`${prefix}.${name}`, ms);
  if (timed.firstExec !== undefined) context.sample(`${prefix}.total.first-exec`, timed.firstExec);
  if (timed.secondExec !== undefined) context.sample(`${prefix}.second-exec`, timed.secondExec);
}

/** `count` at once: the wall clock of all, and each one's own time from the common start. */
export async function storm(
  context: BenchContext,
  launcher: Launcher,
  spec: LaunchSpec,
  prefix: string,
  count: number,
): Promise<void> {
  const start = performance.now();
  const results = await Promise.allSettled(
    Array.from({ length: count }, async () => {
      const launched = await launcher.launch(spec, { id: sandboxId() });
      return { launched, ms: performance.now() - start };
    }),
  );
  const wall = performance.now() - start;
  let failed = false;
  for (const result of results) {
    if (result.status === "rejected") {
      context.failure(`${prefix}.x${count}`, result.reason);
      failed = true;
    } else {
      context.sample(`${prefix}.x${count}.each`, result.value.ms);
      if (result.value.launched.boot.path === "cold") context.failure(`${prefix}.x${count}`, new Error("booted cold"));
    }
  }
  if (!failed) context.sample(`${prefix}.x${count}`, wall);
  await Promise.all(
    results.map((result) => (result.status === "fulfilled" ? remove(result.value.launched) : undefined)),
  );
}
