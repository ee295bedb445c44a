/**
 * `bench -- firecracker --guest=linux`: a Linux guest under the real Firecracker, from its cold boot to its fork. Where KVM interprets the
 * guest's kernel, nearly all of each time but load and disk is that interpretation; the notes say how much. `--goal` for the restore beside the
 * cold boot alone, in three minutes.
 */
import { join } from "node:path";
import type { Engine } from "../src/cli/engine.ts";
import { processMemory } from "../src/host/process-memory.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import type { Launcher } from "../src/launcher/launcher.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import { FILES, SNAPSHOT_FILES } from "../src/vmm/vmm.ts";
import type { BenchContext } from "./harness.ts";
import { benchSpec, ECHO, record, remove, sandboxId, spawnTimed, storm } from "./spawning.ts";

const IMAGE = "stacyvm/busybox";
const COLD_BOOTS = 2;
const STORMS = 4;
const LIVES = 5;

export async function linuxGuest(
  context: BenchContext,
  launcher: Launcher,
  engine: Engine,
  runs: number,
): Promise<void> {
  const { images, paths } = engine;
  const probe = await launcher.vmm.probe();
  if (!probe.usable || !probe.guests.includes("linux")) throw new Error("Firecracker runs no Linux guests here");
  const spec = benchSpec(IMAGE, { diskMiB: 256 });
  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    context.signal.throwIfAborted();
    await work().catch((error) => context.failure(what, error));
  };
  const goal = context.args.includes("--goal");
  const coldBoots = goal ? 1 : COLD_BOOTS;
  context.progress(`golden snapshot and ${coldBoots} cold boots`);
  const target = await launcher.targets.resolve(spec);
  // An interpreted kernel counts up the seconds since it was saved, each of them: an old snapshot is restored more slowly.
  await launcher.store.remove(target.key).catch(() => {});
  await launcher.ensureGolden(target);
  for (let i = 0; i < coldBoots; i++) {
    await attempt("cold", async () => {
      const timed = await spawnTimed(launcher, spec, "cold", goal ? undefined : ECHO);
      record(context, "cold", timed);
      await remove(timed.launched);
    });
  }
  const dir = launcher.store.path(target.key);
  let bytes = 0;
  for (const name of [...Object.values(SNAPSHOT_FILES), FILES.rootfs]) bytes += await allocatedBytes(join(dir, name));
  context.sample("snapshot.bytes", bytes, "bytes");
  context.progress(`${runs} restores`);
  for (let i = 0; i < runs; i++) {
    await attempt("restore", async () => {
      const timed = await spawnTimed(launcher, spec, undefined, goal ? undefined : ECHO);
      if (timed.launched.boot.path !== "restored") context.failure("restore", new Error("it booted cold"));
      record(context, "restore", timed);
      const { privateBytes } = await processMemory(timed.launched.machine.record.pid);
      context.sample("clone.private-bytes", privateBytes, "bytes");
      await remove(timed.launched);
    });
  }
  if (goal) return;
  for (const count of [3, 10]) {
    context.progress(`${count} at once`);
    for (let i = 0; i < STORMS; i++) await storm(context, launcher, spec, "restore", count);
  }
  const provider = createMicrovmProvider({ vmm: launcher.vmm, images, paths });
  try {
    context.progress("fork, suspend, wake");
    for (let i = 0; i < LIVES; i++) await attempt("life", () => life(context, provider));
  } finally {
    await provider.close();
  }
  if (probe.accelerator === "kvm-interpreted") {
    context.note(
      "the guest's kernel is interpreted: `load` and `disk` are Firecracker's and the host's, all else is that kernel",
    );
  }
}

async function life(context: BenchContext, provider: ReturnType<typeof createMicrovmProvider>): Promise<void> {
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    context.sample(name, performance.now() - start);
    return result;
  };
  const machine = await provider.spawn({
    ...{ id: sandboxId(), image: IMAGE, memoryMiB: 256, vcpus: 1, diskMiB: 256, env: {}, setup: [] },
  });
  try {
    const { machines, stoppedMs } = await timed("fork", () => machine.fork([sandboxId()]));
    context.sample("fork.source-stopped", stoppedMs);
    await Promise.all(machines.map((fork) => fork.destroy()));
    await timed("suspend", () => machine.suspend());
    await timed("wake", () => machine.resume());
    await timed("wake.first-exec", () => machine.agent.exec({ argv: ECHO }));
  } finally {
    await machine.destroy();
  }
}
