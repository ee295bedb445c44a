/**
 * Firecracker through the launcher with the bare guest: cold boot, restore on demand, idle VMM, jailed, many at once, sizes,
 * memory per clone; `--density=N` instead keeps N machines of one snapshot alive at once, `--guest=linux` takes a Linux guest, and `--jail`
 * restores in turns with and without `firecracker.jail`: as root by the jailer, else in a cell.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import { processMemory } from "../src/host/process-memory.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import type { ImageLibrary } from "../src/images/image.ts";
import { type Launched, Launcher } from "../src/launcher/launcher.ts";
import type { LaunchSpec } from "../src/launcher/target.ts";
import { emptyNetwork } from "../src/vmm/empty-network.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { SNAPSHOT_FILES } from "../src/vmm/vmm.ts";
import { linuxGuest } from "./firecracker-linux.ts";
import { type BenchContext, phaseChart, type Report, type Suite } from "./harness.ts";
import { benchSpec, ECHO, idleVmm, record, remove, sandboxId, spawnTimed, storm } from "./spawning.ts";

const IMAGE = "stacyvm/bare";
const JAIL_UID = 20_000;
/** The original's published figures: ms, in the seed's own phases (its "copy rootfs" is `disk`, "start firecracker" is `vmm`). Its guest was Linux, ours is the bare one. */
const SEED: Record<string, Record<string, number>> = {
  cold: { resolve: 0.1, disk: 10, vmm: 6, configure: 1, start: 8, agent: 1140 },
  restore: { disk: 7, vmm: 5, load: 4, agent: 12 },
};

export const suite: Suite = {
  name: "firecracker",
  about: "Firecracker with the bare guest: every way to start a machine, alone and many at once",
  async run(context) {
    const option = (name: string): number | undefined => {
      const value = new RegExp(`--${name}[= ](\\d+)`).exec(context.args.join(" "))?.[1];
      return value === undefined ? undefined : Number(value);
    };
    const engine = await createEngine();
    const { images, paths } = engine;
    await engine.launcher.close();
    await buildBareGuest(paths.assets);
    const launcher = new Launcher({ vmm: createFirecracker({ assets: paths.assets }), images, paths });
    try {
      const probe = await launcher.vmm.probe();
      if (!probe.usable) throw new Error(probe.reason);
      const linux = /--guest[= ]linux/.test(context.args.join(" "));
      context.guest = linux ? "linux" : "bare";
      context.versions.firecracker = probe.version;
      for (const note of probe.notes) context.note(note);
      if (linux) return await linuxGuest(context, launcher, engine, option("n") ?? 30);
      if (context.args.includes("--jail")) return await besideJail(context, launcher, images, option("n") ?? 50);
      const density = option("density");
      if (density === undefined) await everyWay(context, launcher, option("n") ?? 50);
      else await hold(context, launcher, density, "density");
    } finally {
      await launcher.close();
    }
  },
  render: (report) => {
    if (report.results["cold.total"] === undefined) return [];
    return charts(report);
  },
};

function charts(report: Report): string[] {
  return [
    ...phaseChart(
      "BEFORE (cold boot)",
      rows(report, "cold", ["resolve", "disk", "vmm", "configure", "start", "agent"]),
    ),
    ...phaseChart("AFTER (snapshot restore)", rows(report, "restore", ["disk", "vmm", "load", "agent"])),
    "disk and vmm of a restore run at the same time, so the phases add up to more than the total; the seed's guest was Linux",
  ];
}

function rows(report: Report, prefix: string, names: string[]): [string, number, number | undefined][] {
  return names.map((name) => [name, report.results[`${prefix}.${name}`]?.p50 ?? 0, SEED[prefix]?.[name]]);
}

async function everyWay(context: BenchContext, launcher: Launcher, runs: number): Promise<void> {
  const spec = benchSpec(IMAGE);
  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    context.signal.throwIfAborted();
    await work().catch((error) => context.failure(what, error));
  };
  const variants: [string, LaunchSpec][] = [
    ["restore.total.ram-128m", benchSpec(IMAGE, { memoryMiB: 128 })],
    ["restore.total.ram-1g", benchSpec(IMAGE, { memoryMiB: 1024 })],
    ["restore.total.base-64m", benchSpec(`${IMAGE}:64m`)],
    ["restore.total.base-1g", benchSpec(`${IMAGE}:1g`)],
  ];
  for (const [, each] of [["", spec] as const, ...variants]) {
    await launcher.golden.ensure(await launcher.targets.resolve(each));
  }
  const target = await launcher.targets.resolve(spec);
  const dir = launcher.store.path(target.key);
  context.sample("snapshot.bytes", (await stat(join(dir, SNAPSHOT_FILES.memory))).size, "bytes");
  context.sample("snapshot.disk-bytes", await allocatedBytes(join(dir, SNAPSHOT_FILES.memory)), "bytes");
  const jailed = process.getuid?.() === 0 && launcher.vmm.abilities.jail;
  if (!jailed) context.note("jailed restores are left out: the jailer needs root");
  context.progress(`${runs} rounds of every way, interleaved`);
  for (let i = 0; i < runs; i++) {
    await attempt("cold", async () => {
      const timed = await spawnTimed(launcher, spec, "cold", ECHO);
      record(context, "cold", timed);
      await remove(timed.launched);
    });
    await attempt("restore", async () => {
      const timed = await spawnTimed(launcher, spec, undefined, ECHO);
      if (timed.launched.boot.path !== "restored") context.failure("restore", new Error("it booted cold"));
      record(context, "restore", timed);
      await remove(timed.launched);
    });
    await attempt("idle", () => idle(context, launcher, spec));
    if (jailed) {
      await attempt("jailed", async () => {
        const start = performance.now();
        const uid = JAIL_UID + i;
        const launched = await launcher.launch(spec, { id: sandboxId(), jail: { uid, gid: uid } });
        context.sample("jailed.total", performance.now() - start);
        if (launched.boot.path !== "restored") context.failure("jailed", new Error("it booted cold"));
        await remove(launched);
      });
    }
    for (const [name, each] of variants) {
      await attempt(name, async () => {
        const timed = await spawnTimed(launcher, each, undefined);
        context.sample(name, timed.total);
        await remove(timed.launched);
      });
    }
  }
  for (const count of [3, 10, 32]) {
    context.progress(`${count} at once`);
    for (let i = 0; i < Math.ceil(runs / count) + 4; i++) {
      await storm(context, launcher, spec, "restore", count);
      await attempt(`idle.x${count}`, () => idleStorm(context, launcher, spec, count));
    }
  }
  await hold(context, launcher, 32, "held");
}

/** What the jail adds to a restore, of this user: each pair is a moment apart, now the one first and now the other. */
async function besideJail(context: BenchContext, free: Launcher, images: ImageLibrary, runs: number): Promise<void> {
  const { paths } = free;
  const vmm = createFirecracker({ assets: paths.assets, jail: { uidBase: JAIL_UID } });
  const jailed = new Launcher({ vmm, images, paths });
  try {
    const probe = await vmm.probe();
    if (!probe.usable) throw new Error(probe.reason);
    const spec = benchSpec(IMAGE);
    await free.golden.ensure(await free.targets.resolve(spec));
    await emptyNetwork(); // as a server does
    const restore = async (launcher: Launcher): Promise<number> => {
      const { launched, total } = await spawnTimed(launcher, spec, undefined);
      await remove(launched);
      if (launched.boot.path !== "restored") throw new Error("it booted cold");
      return total;
    };
    for (const launcher of [free, jailed]) await restore(launcher);
    for (let i = 0; i < runs; i++) {
      context.signal.throwIfAborted();
      const first = i % 2 === 0 ? await restore(free) : undefined;
      const inJail = await restore(jailed);
      const plain = first ?? (await restore(free));
      context.sample("plain.total", plain);
      context.sample("jailed.total", inJail);
      context.sample("jailed.added", inJail - plain);
    }
  } finally {
    await jailed.close();
  }
}

/** A Firecracker that waits with its disk in place: the claim is load and handshake. */
async function idle(context: BenchContext, launcher: Launcher, spec: LaunchSpec): Promise<void> {
  const { claim, remove: removeIdle } = await idleVmm(launcher, spec);
  try {
    const { total, phases } = await claim();
    context.sample("idle.total", total);
    context.sample("idle.load", phases.ms.load ?? 0);
    context.sample("idle.agent", phases.ms.agent ?? 0);
  } finally {
    await removeIdle();
  }
}

/** So many of them claimed at once: the wall clock of all. */
async function idleStorm(context: BenchContext, launcher: Launcher, spec: LaunchSpec, count: number): Promise<void> {
  const all = await Promise.all(Array.from({ length: count }, () => idleVmm(launcher, spec)));
  try {
    const start = performance.now();
    await Promise.all(all.map(({ claim }) => claim()));
    context.sample(`idle.x${count}`, performance.now() - start);
  } finally {
    await Promise.all(all.map(({ remove: removeIdle }) => removeIdle()));
  }
}

/** Keeps `count` machines alive, asks each one, measures their memory, and removes them. */
async function hold(context: BenchContext, launcher: Launcher, count: number, prefix: string): Promise<void> {
  const spec = benchSpec(IMAGE, { memoryMiB: 128 });
  await launcher.golden.ensure(await launcher.targets.resolve(spec));
  const live: Launched[] = [];
  const start = performance.now();
  try {
    while (live.length < count && !context.signal.aborted) {
      const batch = Math.min(8, count - live.length);
      const results = await Promise.allSettled(
        Array.from({ length: batch }, () => launcher.launch(spec, { id: sandboxId() })),
      );
      for (const result of results) {
        if (result.status === "fulfilled") live.push(result.value);
        else context.failure(prefix, result.reason);
      }
      if (results.every(({ status }) => status === "rejected")) break;
    }
    context.sample(`${prefix}.live`, live.length, "machines");
    context.sample(`${prefix}.rate`, (live.length * 1000) / (performance.now() - start), "per s");
    for (const { agent, machine } of live) {
      await agent.ping().catch((error) => context.failure(`${prefix}: a machine does not answer`, error));
      const { privateBytes, pssBytes } = await processMemory(machine.record.pid);
      context.sample("clone.private-bytes", privateBytes, "bytes");
      context.sample("clone.pss-bytes", pssBytes, "bytes");
    }
  } finally {
    await Promise.all(live.map((launched) => remove(launched)));
  }
}
