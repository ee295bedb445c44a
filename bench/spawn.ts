/**
 * Starting Linux sandboxes in process: cold boot against restore, in one run, variants interleaved. What it includes: from
 * the request to the answered handshake (`total`), and on to the first command's output (`first-exec`).
 */
import { appendFile, copyFile, mkdir, rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { createEngine, type Engine } from "../src/cli/engine.ts";
import { exists } from "../src/host/exists.ts";
import { processMemory } from "../src/host/process-memory.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import type { LaunchSpec } from "../src/launcher/target.ts";
import { SNAPSHOT_FILES } from "../src/vmm/vmm.ts";
import { type BenchContext, phaseChart, type Report, type Suite } from "./harness.ts";
import { peers } from "./peers.ts";
import { benchSpec, ECHO, record, remove, spawnTimed, storm } from "./spawning.ts";

const IMAGE = "stacyvm/python";
const COLD_RUNS = 5;

export const suite: Suite = {
  name: "spawn",
  about: "cold boot and restore of Linux sandboxes, one and many at once",
  async run(context) {
    const runs = Number(/--n=(\d+)/.exec(context.args.join(" "))?.[1] ?? 40);
    const engine = await createEngine();
    const { launcher } = engine;
    try {
      const probe = await launcher.vmm.probe();
      if (!probe.usable) throw new Error(probe.reason);
      context.guest = "linux";
      Object.assign(context.versions, { vmm: `${launcher.vmm.name} ${probe.version}`, accelerator: probe.accelerator });
      for (const note of probe.notes) context.note(note);
      await coldBoots(context, engine);
      await goldenBuild(context, engine);
      await restores(context, engine, runs);
      await peers(context, engine.paths);
      await variants(context, engine, Math.min(runs, 20));
    } finally {
      await launcher.close();
    }
  },
  render: (report) => [
    ...phaseChart("BEFORE (cold boot)", phases(report, "cold", ["resolve", "disk", "vmm", "start", "agent"])),
    ...phaseChart("AFTER (snapshot restore)", phases(report, "restore", ["disk", "vmm", "load", "agent"])),
  ],
};

function phases(report: Report, prefix: string, names: string[]): [string, number][] {
  return names.map((name) => [name, report.results[`${prefix}.${name}`]?.p50 ?? 0]);
}

async function coldBoots(context: BenchContext, { launcher }: Engine): Promise<void> {
  context.progress(`${COLD_RUNS} cold boots`);
  for (let i = 0; i < COLD_RUNS; i++) {
    try {
      const timed = await spawnTimed(launcher, benchSpec(IMAGE), "cold", ECHO);
      record(context, "cold", timed);
      await remove(timed.launched);
    } catch (error) {
      context.failure("cold boot", error);
    }
  }
}

async function goldenBuild(context: BenchContext, { launcher }: Engine): Promise<void> {
  const target = await launcher.targets.resolve(benchSpec(IMAGE));
  if ((await launcher.store.get(target.key)) !== undefined) await launcher.store.remove(target.key);
  context.progress("golden snapshot");
  const start = performance.now();
  launcher.events.once("snapshot.built", ({ touchedBytes }) => {
    if (touchedBytes !== undefined) context.sample("golden.touched-bytes", touchedBytes, "bytes");
  });
  await launcher.ensureGolden(target);
  context.sample("golden.total", performance.now() - start);
  const dir = launcher.store.path(target.key);
  context.sample("snapshot.ram-bytes", (await stat(join(dir, SNAPSHOT_FILES.memory))).size, "bytes");
  let onDisk = 0;
  for (const name of ["vmstate.bin", "memory.bin", "rootfs.ext4", "manifest.json"])
    onDisk += await allocatedBytes(join(dir, name));
  context.sample("snapshot.disk-bytes", onDisk, "bytes");
}

async function restores(context: BenchContext, { launcher }: Engine, runs: number): Promise<void> {
  const spec = benchSpec(IMAGE);
  context.progress(`${runs} restores in turn`);
  for (let i = 0; i < runs; i++) {
    try {
      const timed = await spawnTimed(launcher, spec, undefined, ECHO);
      if (timed.launched.boot.path !== "restored")
        context.failure("restore", new Error(`it came ${timed.launched.boot.path}`));
      record(context, "restore", timed);
      const { privateBytes, pssBytes } = await processMemory(timed.launched.machine.record.pid);
      context.sample("clone.private-bytes", privateBytes, "bytes");
      context.sample("clone.pss-bytes", pssBytes, "bytes");
      await remove(timed.launched);
    } catch (error) {
      context.failure("restore", error);
    }
  }
  for (const count of [3, 10]) {
    context.progress(`${count} at once, 5 times`);
    for (let i = 0; i < 5; i++) await storm(context, launcher, spec, "restore", count);
  }
}

/** The same restore with a larger base and with more RAM; every round runs each variant once. */
async function variants(context: BenchContext, engine: Engine, rounds: number): Promise<void> {
  const { launcher } = engine;
  const bases = await paddedBases(engine);
  const list: [string, LaunchSpec][] = [
    ["restore.total.base-64m", benchSpec(bases.small)],
    ["restore.total.base-1g", benchSpec(bases.large)],
    ["restore.total.ram-256m", benchSpec(IMAGE)],
    ["restore.total.ram-1g", benchSpec(IMAGE, { memoryMiB: 1024 })],
  ];
  context.progress(`variants: 64 MB and 1 GiB base, 256 MiB and 1 GiB RAM, ${rounds} rounds`);
  for (const [, spec] of list) await launcher.ensureGolden(await launcher.targets.resolve(spec));
  for (let i = 0; i < rounds; i++) {
    for (const [name, spec] of list) {
      try {
        const timed = await spawnTimed(launcher, spec, undefined);
        context.sample(name, timed.total);
        await remove(timed.launched);
      } catch (error) {
        context.failure(name, error);
      }
    }
  }
  context.note(
    "base-64m and base-1g are the same busybox filesystem, padded with random bytes to 64 MB and 1 GiB of real disk space",
  );
}

/** Two images of one filesystem and different sizes, as a directory of their own beside the real ones. */
async function paddedBases({ images, paths }: Engine): Promise<{ small: string; large: string }> {
  const origin = await images.resolve("stacyvm/busybox");
  const padded = async (name: string, bytes: number): Promise<string> => {
    const dir = join(paths.tmp, "bench-bases");
    await mkdir(dir, { recursive: true });
    const path = join(dir, `${name}.img`);
    const present = await exists(path);
    if (!present || (await stat(path)).size !== bytes) {
      await rm(path, { force: true });
      await copyFile(origin.base, path);
      const noise = crypto.getRandomValues(new Uint8Array(65_536));
      for (let at = (await stat(path)).size; at < bytes; at += noise.length) await appendFile(path, noise);
      await truncate(path, bytes);
    }
    registerPadded(images, `bench/${name}`, {
      ...origin,
      reference: `bench/${name}`,
      base: path,
      digest: `sha256:${name.padEnd(64, "0")}`,
      sizeBytes: bytes,
    });
    return `bench/${name}`;
  };
  return { small: await padded("ba5e64", 64_000_000), large: await padded("ba5e1024", 2 ** 30) };
}

/** Lets `resolve` know one image more, in this process only. */
function registerPadded(
  images: Engine["images"],
  reference: string,
  image: Awaited<ReturnType<Engine["images"]["resolve"]>>,
): void {
  const resolve = images.resolve.bind(images);
  images.resolve = (wanted, options) => (wanted === reference ? Promise.resolve(image) : resolve(wanted, options));
}

/** What a user would pick instead on this machine, where it is installed: a container of the same program. */
