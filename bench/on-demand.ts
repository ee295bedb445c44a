/**
 * What the idle Firecrackers of no shape are worth: a restore on demand of the bare guest with them and without them, in turns, in process
 * and over HTTP. `--n=N` samples of each (default 40), `--guest=linux` a Linux guest.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import { dataPaths } from "../src/host/paths.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { Launcher } from "../src/launcher/launcher.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { borrow } from "./borrow.ts";
import { type BenchDaemon, startDaemon } from "./daemon.ts";
import type { BenchContext, Report, Suite } from "./harness.ts";
import { benchSpec, record, remove, spawnTimed } from "./spawning.ts";

const MEMORY_MIB = 256;
const DISK_MIB = 256;
/** Each spawn finds its Firecracker, as in a server that is not busy. */
const REST_MS = 150;
/** What the two variants are called in the results. */
const VARIANTS = [
  ["with", 4],
  ["without", 0],
] as const;

export const suite: Suite = {
  name: "on-demand",
  about: "a restore on demand with and without idle Firecrackers of no shape, in turns, in process and over HTTP",
  async run(context) {
    const args = context.args.join(" ");
    const n = Number(/--n[= ](\d+)/.exec(args)?.[1] ?? 40);
    context.guest = /--guest[= ]linux/.test(args) ? "linux" : "bare";
    const image = context.guest === "linux" ? "stacyvm/busybox" : "stacyvm/bare";
    await buildBareGuest(dataPaths().assets);
    await inProcess(context, image, n);
    await overHttp(context, image, n);
  },
  render: (report) => ["", "http."].flatMap((way) => verdict(report, way)),
};

function verdict({ results }: Report, way: string): string[] {
  const [a, b] = VARIANTS.map(([name]) => results[`${way}${name}.total`]?.p50);
  if (a === undefined || b === undefined) return [];
  return [`${way === "" ? "in process" : "over HTTP"}: ${a} ms with, ${b} ms without: ${(a / b).toFixed(2)} x`];
}

async function inProcess(context: BenchContext, image: string, n: number): Promise<void> {
  const engine = await createEngine();
  await engine.launcher.close();
  const { images, paths } = engine;
  const spec = benchSpec(image, { memoryMiB: MEMORY_MIB, diskMiB: DISK_MIB });
  const launchers = VARIANTS.map(([name, maxBlank]) => {
    const vmm = createFirecracker({ assets: paths.assets });
    return { name, launcher: new Launcher({ vmm, images, paths, pool: { adaptive: false, maxBlank } }) };
  });
  try {
    for (const { launcher } of launchers) {
      const probe = await launcher.vmm.probe();
      if (!probe.usable) throw new Error(probe.reason);
      context.versions.firecracker = probe.version;
      await launcher.ensureGolden(await launcher.targets.resolve(spec));
      // The first spawn is what begins to keep them.
      await remove((await spawnTimed(launcher, spec, undefined)).launched);
    }
    context.progress(`in process, n = ${n}`);
    for (let i = 0; i < n; i++) {
      for (const { name, launcher } of inTurns(launchers, i)) {
        context.signal.throwIfAborted();
        await launcher.pool?.settled();
        await rest();
        try {
          const timed = await spawnTimed(launcher, spec, undefined);
          if (timed.launched.boot.path === "cold") context.failure(name, new Error("it booted cold"));
          record(context, name, timed);
          await remove(timed.launched);
        } catch (error) {
          context.failure(name, error);
        }
      }
    }
  } finally {
    await Promise.all(launchers.map(({ launcher }) => launcher.close()));
  }
}

async function overHttp(context: BenchContext, image: string, n: number): Promise<void> {
  const root = join(dataPaths().tmp, `bench-on-demand-${process.pid}`);
  const spawn = { image, memory_mb: MEMORY_MIB, disk_mb: DISK_MIB };
  await using daemons = new AsyncDisposableStack();
  daemons.defer(() => rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  const sides: { name: string; daemon: BenchDaemon }[] = [];
  for (const [name, idle] of VARIANTS) {
    const dir = join(root, name);
    await borrow(dir);
    const daemon = await startDaemon(dir, 2, {
      STACYVM_PROVIDER: "firecracker",
      STACYVM_WARM_ADAPTIVE: "false",
      STACYVM_WARM_IDLE_MONITORS: String(idle),
    });
    daemons.use(daemon);
    await daemon.ok("POST", "/snapshots", spawn);
    sides.push({ name: `http.${name}`, daemon });
  }
  context.progress(`over HTTP, n = ${n}`);
  // One spawn before the first sample: what a server does once is not what is compared.
  for (let i = -1; i < n; i++) {
    for (const { name, daemon } of inTurns(sides, i + 1)) {
      context.signal.throwIfAborted();
      await rest();
      try {
        const begun = performance.now();
        const { id, boot } = JSON.parse(await daemon.ok("POST", "/sandboxes", spawn));
        const ms = performance.now() - begun;
        if (i >= 0) {
          context.sample(`${name}.total`, ms);
          for (const [phase, took] of Object.entries(boot.phases)) context.sample(`${name}.${phase}`, Number(took));
          context.sample(`${name}.service`, ms - boot.total_ms);
        }
        if (boot.path === "cold") context.failure(name, new Error("it booted cold"));
        await daemon.ok("DELETE", `/sandboxes/${id}`);
      } catch (error) {
        context.failure(name, error);
      }
    }
  }
}

function inTurns<T>(both: T[], turn: number): T[] {
  return turn % 2 === 0 ? both : both.toReversed();
}

function rest(): Promise<void> {
  return new Promise((wake) => setTimeout(wake, REST_MS));
}
