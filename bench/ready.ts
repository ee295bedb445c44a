/**
 * Ready before you ask: what a caller waits for at each tier (warm, idle VMM, restore on demand, cold boot), on both monitors, in
 * process; many at once, a storm, arrivals that the adaptive pool follows, fork, pause and suspend, what waiting costs.
 *
 *     --n=N            samples of each tier (default 100; a tenth of it for cold boots); 0: only the idle minutes
 *     --idle=1,10,30   also claim after so many idle minutes (for as long as the longest)
 *     --out=DIR        write the report there as Markdown, JSON and SVG
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import { dataPaths } from "../src/host/paths.ts";
import { processMemory } from "../src/host/process-memory.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { Launcher } from "../src/launcher/launcher.ts";
import type { Pool } from "../src/launcher/pool.ts";
import type { LaunchSpec, Target } from "../src/launcher/target.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { Vmm } from "../src/vmm/vmm.ts";
import { type BenchContext, barChart, optionOf, type Report, type Suite } from "./harness.ts";
import { idling } from "./idling.ts";
import { overHttp } from "./over-http.ts";
import { peers } from "./peers.ts";
import { writeReport } from "./report.ts";
import { benchSpec, ECHO, idleVmm, record, remove, sandboxId, spawnTimed, storm, type Timed } from "./spawning.ts";

const POOL = 10;
/** Warm machines whose CPU and memory is measured. */
const WAITING = 50;
const TIERS = ["warm", "idle", "restore", "cold"] as const;

interface Side {
  /** Prefix of the results: `qemu.` or `firecracker.` */
  prefix: string;
  vmm: Vmm;
  spec: LaunchSpec;
}

export const suite: Suite = {
  name: "ready",
  about: "warm machines, idle VMMs, restores and cold boots on both monitors; fork, pause, suspend; what waiting costs",
  async run(context) {
    const option = (name: string): string | undefined => optionOf(context.args, name);
    const n = Number(option("n") ?? 100);
    const minutes = (option("idle") ?? "")
      .split(",")
      .filter(Boolean)
      .map(Number)
      .sort((a, b) => a - b);
    context.guest = "linux";
    const found = await sides(context);
    for (const side of n === 0 ? [] : found) {
      context.signal.throwIfAborted();
      context.progress(`${side.prefix.slice(0, -1)}: tiers, n = ${n}`);
      await withLauncher(side, { adaptive: false }, async (launcher, target, pool) => {
        await tiers(context, side, launcher, target, pool, n);
        await crowds(context, side, launcher, target, pool);
        await waiting(context, side, pool, target);
      });
      await withLauncher(side, { adaptive: true }, (launcher, _target, pool) =>
        arrivals(context, side, launcher, pool),
      );
      await lives(context, side);
      const { prefix, vmm, spec } = side;
      await overHttp(context, { prefix, provider: vmm.name, image: spec.image, memoryMiB: spec.memoryMiB }, n);
    }
    if (n > 0) await peers(context, dataPaths());
    if (minutes.length > 0) await Promise.all(found.map((side) => afterIdling(context, side, minutes)));
  },
  render: (report) => ["qemu", "firecracker"].flatMap((side) => tierChart(report, side)),
  async finish(report, args) {
    const out = /--out=(\S+)/.exec(args.join(" "))?.[1];
    if (out !== undefined) await writeReport(report, out, TIERS);
  },
};

function tierChart(report: Report, side: string): string[] {
  const rows = TIERS.flatMap((tier) =>
    (["total", "total.first-exec"] as const).map((what): [string, number] => [
      `${tier}${what === "total" ? ", handshake" : ", first output"}`,
      report.results[`${side}.${tier}.${what}`]?.p50 ?? 0,
    ]),
  );
  return barChart(`${side}: from the request to ..., p50`, rows);
}

async function sides(context: BenchContext): Promise<Side[]> {
  const found: Side[] = [];
  const { assets } = dataPaths();
  const candidates: Side[] = [
    { prefix: "qemu.", vmm: createQemu(), spec: benchSpec("stacyvm/busybox") },
    { prefix: "firecracker.", vmm: createFirecracker({ assets }), spec: benchSpec("stacyvm/bare") },
  ];
  for (const side of candidates) {
    const probe = await side.vmm.probe();
    if (!probe.usable) {
      context.note(`${side.prefix.slice(0, -1)} is left out: ${probe.reason}`);
      continue;
    }
    context.versions[side.vmm.name] = `${probe.version}, ${probe.accelerator}`;
    for (const note of probe.notes) context.note(`${side.vmm.name}: ${note}`);
    if (side.vmm.name === "firecracker") await buildBareGuest(assets);
    found.push(side);
  }
  return found;
}

/** The sandboxes of the benchmark have a directory of their own; images and kernel are the host's. */
async function withLauncher(
  side: Side,
  pool: { adaptive: boolean },
  work: (launcher: Launcher, target: Target, pool: Pool) => Promise<void>,
): Promise<void> {
  const engine = await createEngine();
  const { images, paths } = engine;
  await engine.launcher.close();
  const limits = { ...pool, maxWarm: POOL, maxIdle: 0, parallel: 2, memoryBudget: 8 * 2 ** 30, maxAgeMs: 7_200_000 };
  const launcher = new Launcher({ vmm: side.vmm, images, paths, pool: limits });
  try {
    const target = await launcher.targets.resolve(side.spec);
    await launcher.ensureGolden(target);
    await work(launcher, target, launcher.pool as Pool);
  } finally {
    await launcher.close();
  }
}

async function tiers(
  context: BenchContext,
  side: Side,
  launcher: Launcher,
  target: Target,
  pool: Pool,
  n: number,
): Promise<void> {
  const { prefix, spec } = side;
  const attempt = async (name: string, start: () => Promise<Timed>, path: string): Promise<void> => {
    try {
      const timed = await start();
      if (timed.launched.boot.path !== path) context.failure(name, new Error(`it came ${timed.launched.boot.path}`));
      record(context, `${prefix}${name}`, timed);
      await remove(timed.launched);
    } catch (error) {
      context.failure(`${prefix}${name}`, error);
    }
  };
  for (let i = 0; i < n; i++) {
    context.signal.throwIfAborted();
    if (i % 10 === 0) await attempt("cold", () => spawnTimed(launcher, spec, "cold", ECHO), "cold");
    await attempt("restore", () => spawnTimed(launcher, spec, undefined, ECHO), "restored");
    await idle(context, side, launcher).catch((error) => context.failure(`${prefix}idle`, error));
    pool.pin(target.key, target, 1);
    await pool.settled();
    // Its own refill would run beside the first command: it waits until both are measured.
    const measured = pool.arrive(target);
    await attempt("warm", () => spawnTimed(launcher, spec, undefined, ECHO), "warm");
    pool.pin(target.key, target, 0);
    measured();
  }
}

/** A VMM that waits in its directory: load, handshake, first command. */
async function idle(context: BenchContext, { prefix, spec }: Side, launcher: Launcher): Promise<void> {
  const { claim, remove: removeIdle } = await idleVmm(launcher, spec);
  try {
    const { total, firstExec } = await claim(ECHO);
    context.sample(`${prefix}idle.total`, total);
    context.sample(`${prefix}idle.total.first-exec`, firstExec);
  } finally {
    await removeIdle();
  }
}

/** So many at once, from a full pool; the rest is restored. */
async function crowds(
  context: BenchContext,
  { prefix, spec }: Side,
  launcher: Launcher,
  target: Target,
  pool: Pool,
): Promise<void> {
  for (const count of [1, 3, 10, 30, 100]) {
    context.progress(`${prefix.slice(0, -1)}: ${count} at once, ${POOL} of them warm`);
    for (let round = 0; round < (count >= 30 ? 1 : 5); round++) {
      pool.pin(target.key, target, POOL);
      await pool.settled();
      await storm(context, launcher, spec, `${prefix}pool`, count);
    }
  }
  pool.pin(target.key, target, 0);
}

/** Memory and CPU of machines that wait. */
async function waiting(context: BenchContext, { prefix }: Side, pool: Pool, target: Target): Promise<void> {
  pool.pin(target.key, target, WAITING);
  await pool.settled();
  const pids = pool.waitingPids(target.key);
  const before = await cpuTicks(pids);
  const start = performance.now();
  await new Promise((wake) => setTimeout(wake, 10_000));
  const seconds = (performance.now() - start) / 1000;
  // A tick is 10 ms, so ticks per second are percent of a core.
  context.sample(`${prefix}warm.cpu-of-${pids.length}`, ((await cpuTicks(pids)) - before) / seconds, "%");
  for (const pid of pids)
    context.sample(`${prefix}warm.private-bytes`, (await processMemory(pid)).privateBytes, "bytes");
  pool.pin(target.key, target, 0);
}

/** User and system time, in ticks of 10 ms. */
async function cpuTicks(pids: number[]): Promise<number> {
  let sum = 0;
  for (const pid of pids) {
    const stat = await readFile(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    sum += Number(fields[11]) + Number(fields[12]);
  }
  return sum;
}

/** Both monitors wait at the same time. */
function afterIdling(context: BenchContext, { prefix, vmm, spec }: Side, minutes: number[]): Promise<void> {
  const side = { prefix, vmm, spec };
  return withLauncher(side, { adaptive: false }, (launcher, target, pool) =>
    withLauncher(side, { adaptive: false }, (other, sameTarget, otherPool) =>
      idling(
        context,
        prefix,
        spec,
        { launcher, target, pool },
        { launcher: other, target: sameTarget, pool: otherPool },
        minutes,
      ),
    ),
  );
}

/** Poisson arrivals, one a second on average; the pool starts empty and follows. */
async function arrivals(context: BenchContext, { prefix, spec }: Side, launcher: Launcher, pool: Pool): Promise<void> {
  const count = 60;
  context.progress(`${prefix.slice(0, -1)}: ${count} arrivals, one a second on average`);
  const spawns: Promise<void>[] = [];
  for (let i = 0; i < count; i++) {
    await new Promise((wake) => setTimeout(wake, -Math.log(1 - Math.random()) * 1_000));
    spawns.push(
      (async () => {
        try {
          const timed = await spawnTimed(launcher, spec, undefined, ECHO);
          context.sample(`${prefix}poisson.first-exec`, timed.firstExec ?? 0);
          context.sample(`${prefix}poisson.warm-share`, timed.launched.boot.path === "warm" ? 100 : 0, "%");
          await remove(timed.launched);
        } catch (error) {
          context.failure(`${prefix}poisson`, error);
        }
      })(),
    );
  }
  await Promise.all(spawns);
  await pool.settled();
}

/** Pause, resume, suspend, fork: through the provider, on a machine with 16 MiB dirtied. */
async function lives(context: BenchContext, side: Side): Promise<void> {
  const { prefix, vmm, spec } = side;
  const engine = await createEngine();
  await engine.launcher.close();
  const scratch = join(engine.paths.tmp, `bench-${process.pid}`);
  const own = dataPaths(scratch);
  const paths = { ...own, images: engine.paths.images, assets: engine.paths.assets };
  const provider = createMicrovmProvider({ vmm, images: engine.images, paths });
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    context.sample(`${prefix}${name}`, performance.now() - start);
    return result;
  };
  context.progress(`${prefix.slice(0, -1)}: pause, suspend, fork`);
  try {
    // The goal names a machine of 512 MiB.
    const request = { ...spec, memoryMiB: 512, env: {}, setup: [] };
    await provider.buildSnapshot(request);
    const rounds = side.vmm.name === "qemu" ? 5 : 20;
    for (let i = 0; i < rounds; i++) {
      const machine = await provider.spawn({ ...request, id: sandboxId() });
      const dirty =
        machine.boot.guest === "bare"
          ? ["dirty", "16"]
          : ["sh", "-c", "head -c 16777216 /dev/urandom >/dev/shm/x || head -c 16777216 /dev/urandom >/tmp/x"];
      await machine.agent.exec({ argv: dirty });
      await timed("pause", () => machine.pause());
      await timed("resume", () => machine.resume());
      const { machines, stoppedMs } = await timed("fork", () => machine.fork([sandboxId()]));
      context.sample(`${prefix}fork.source-stopped`, stoppedMs);
      await Promise.all(machines.map((each) => each.destroy()));
      await timed("suspend", () => machine.suspend());
      await timed("wake", () => machine.resume());
      await machine.destroy();
    }
  } catch (error) {
    context.failure(`${prefix}lives`, error);
  } finally {
    await provider.close();
    await rm(scratch, { recursive: true, force: true });
  }
}
