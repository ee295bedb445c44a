/**
 * The golden snapshot of a target: boot once, warm the agent's paths, run the set-up commands, pause, save, publish. It is
 * built beside the callers, once per key, however many ask, in this process or in others. Few are built at a time, owners in turn: who asks for
 * many shapes has no more machines by it than its limits say, and some.
 */
import { mkdir, readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Network } from "../egress/network.ts";
import { sha256 } from "../host/digest.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { FairQueue, type Resting } from "../host/fair-queue.ts";
import { type Lock, lock } from "../host/lock.ts";
import { ownedName, ownerIn } from "../host/owned-name.ts";
import type { DataPaths } from "../host/paths.ts";
import { Phases } from "../host/phases.ts";
import { isAlive } from "../host/process.ts";
import { mappedBytes } from "../host/process-memory.ts";
import { SharedWork } from "../host/shared-work.ts";
import { copySparse } from "../host/sparse.ts";
import { endedAfter } from "../host/time-limit.ts";
import { exitReport } from "../vmm/exit.ts";
import { FILES, SNAPSHOT_FILES, type Vmm } from "../vmm/vmm.ts";
import { makeIdentity } from "./identity.ts";
import { bootCold, endedBy } from "./launch.ts";
import { makeMachineDir, removeWithProcesses } from "./machine-dir.ts";
import { runSetup } from "./setup.ts";
import type { SnapshotStore } from "./snapshot-store.ts";
import type { Target } from "./target.ts";
import { prepareTrust } from "./trust.ts";
import { exercise } from "./warm.ts";
import type { WritableTemplates } from "./writable-templates.ts";

export interface GoldenReport {
  key: string;
  /** ms by phase: disk, vmm, start, agent, setup, save, publish; or, of one that another host had: transfer, publish */
  phases: Record<string, number>;
  totalMs: number;
  /** Memory that the guest had touched when it was paused, as the host's kernel counts it; absent where it cannot be told. */
  touchedBytes?: number;
}

/**
 * Brings the files of a snapshot from another host that has it, on disk for good. Between hosts of one key it is the same machine.
 * @param path where a file is to be made, by its name
 * @returns false: nobody has it
 */
export type Elsewhere = (key: string, path: (name: string) => string, signal: AbortSignal) => Promise<boolean>;

/**
 * Of all owners at a time. Their machines are in nobody's quota, and set-up commands may take long. Beside them, as many of each owner
 * at most may wait for a start command to become ready.
 */
const AT_A_TIME = Math.max(2, Math.floor(availableParallelism() / 2));

/** One that hangs must not keep its place for ever; each set-up command has a shorter limit of its own (setup.ts). */
const MOST_MS = 3_600_000;

export class GoldenBuilder {
  readonly #vmm: Vmm;
  readonly #paths: DataPaths;
  readonly #store: SnapshotStore;
  readonly #disks: WritableTemplates;
  readonly #network: Network;
  /** Absent: there are no other hosts. */
  elsewhere: Elsewhere | undefined;
  readonly #building = new SharedWork<GoldenReport | undefined>();
  readonly #queue = new FairQueue(AT_A_TIME);

  constructor(vmm: Vmm, paths: DataPaths, store: SnapshotStore, disks: WritableTemplates, network: Network) {
    this.#vmm = vmm;
    this.#paths = paths;
    this.#store = store;
    this.#disks = disks;
    this.#network = network;
  }

  /** Keys whose snapshots are being built. */
  get building(): ReadonlySet<string> {
    return this.#building.keys;
  }

  /**
   * Builds unless it is there or under way.
   * @param queued is told when its turn does not come at once
   * @returns `undefined` when another process had built it
   */
  ensure(target: Target, signal?: AbortSignal, queued?: () => void): Promise<GoldenReport | undefined> {
    return this.#building.join(target.key, signal, async (shared) => {
      // What is there waits behind nothing.
      if ((await this.#present(target)) !== undefined) return undefined;
      const turn = this.#queue.run(partyOf(target), shared, (resting) =>
        endedAtLimit(target, shared, (signal) => this.#locked(target, signal, resting)),
      );
      // Those of one owner have their turns in order, and this is the last of them.
      if (this.waiting(target) > 0) queued?.();
      return await turn;
    });
  }

  /** Builds that wait behind those of the same owner. */
  waiting(target: Target): number {
    return this.#queue.waiting(partyOf(target));
  }

  async #locked(target: Target, signal: AbortSignal, resting: Resting): Promise<GoldenReport | undefined> {
    await using _held: Lock = await lock(this.#paths.snapshots, `golden ${target.key}`, signal);
    if ((await this.#present(target)) !== undefined) return undefined;
    return (await this.#bring(target, signal)) ?? (await this.#build(target, signal, resting));
  }

  /** What cannot be had is built. One that was set aside here is not brought again. */
  async #bring(target: Target, signal: AbortSignal): Promise<GoldenReport | undefined> {
    const { elsewhere } = this;
    if (elsewhere === undefined || (await this.#store.wasSetAside(target.key))) return undefined;
    const phases = new Phases();
    const out = join(this.#paths.tmp, `${await ownedName("golden", target.key.slice(0, 12))}.out`);
    try {
      await mkdir(this.#paths.tmp, { recursive: true });
      await removeWithProcesses(out);
      await makeMachineDir(out, target.image.base);
      const found = await phases.phase("transfer", () => elsewhere(target.key, (name) => join(out, name), signal));
      if (!found) return undefined;
      await phases.phase("publish", () => this.#publish(out, target));
      return { key: target.key, phases: phases.ms, totalMs: phases.total };
    } catch {
      signal.throwIfAborted();
      return undefined;
    } finally {
      await removeWithProcesses(out).catch(() => {}); // the next start removes it
    }
  }

  #publish(dir: string, { key, image, shape }: Target): Promise<void> {
    return this.#store.publish(dir, { key, kind: "golden", image: image.reference, shape });
  }

  #present(target: Target): ReturnType<SnapshotStore["get"]> {
    return this.#store.get(target.key).catch(() => undefined);
  }

  async #build(target: Target, signal: AbortSignal, resting: Resting): Promise<GoldenReport> {
    await assertSameKernel(target);
    const phases = new Phases();
    const name = await ownedName("golden", target.key.slice(0, 12));
    const dir = join(this.#paths.tmp, name);
    const out = join(this.#paths.tmp, `${name}.out`);
    await mkdir(this.#paths.tmp, { recursive: true });
    await Promise.all([dir, out].map(removeWithProcesses));
    const disk = await this.#disks.get(target.spec.diskMiB);
    const place = { dir, signal };
    try {
      // Also without setup commands: a seeded generator and files that exist make each clone's own handshake shorter.
      const identity = makeIdentity("golden", target.image, target.spec.setupEnv, {
        network: (target.spec.setupHosts?.length ?? 0) > 0,
      });
      const { machine, agent } = await bootCold(this.#vmm, target, disk, place, identity, phases, true);
      // Whatever the guest does, or does not.
      using _watch = endedBy(signal, machine);
      let touchedBytes = 0;
      try {
        await phases.phase("setup", async () => {
          await runSetup(agent, target.spec, this.#network, signal, resting);
          if (target.guest === "linux") await prepareTrust(agent);
          await exercise(agent);
          await agent.sync();
          // The saved machine must have no connection and nothing half-sent in its channel.
          await agent.close();
        });
        await makeMachineDir(out, target.image.base);
        await phases.phase("save", async () => {
          const paused = await machine.pause({ toSave: true });
          touchedBytes = await mappedBytes(machine.record.pid, SNAPSHOT_FILES.memory);
          const saved = await paused.save(out);
          // The disk as it is at the pause belongs to this memory (firecracker.md 2.2).
          await copySparse(join(dir, FILES.rootfs), join(out, FILES.rootfs));
          await saved.finish();
        });
      } finally {
        await machine.kill();
      }
      await phases.phase("publish", () => this.#publish(out, target));
      const touched = touchedBytes > 0 ? { touchedBytes } : {};
      return { key: target.key, phases: phases.ms, totalMs: phases.total, ...touched };
    } catch (error) {
      throw spaceOrOther(asStacyError(error), this.#paths.root).inPhase("golden");
    } finally {
      // One that resists the next start removes, with its process: it must not hide what has come of the build.
      await Promise.allSettled([dir, out].map(removeWithProcesses));
    }
  }
}

function partyOf({ spec }: Target): string {
  return spec.owner ?? "";
}

/** @throws StacyError `timeout` */
function endedAtLimit<T>(
  { image }: Target,
  shared: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = (cause: unknown): StacyError =>
    new StacyError("timeout", `the golden snapshot of ${image.reference} was not built within an hour`, {
      cause,
      phase: "golden",
      remedy: "shorten its set-up commands, or build an image in which they have run already",
    });
  return endedAfter(MOST_MS, shared, work, late);
}

/** A machine whose memory is a file is ended by SIGBUS when the disk has no room for a page of it. */
function spaceOrOther(error: StacyError, dataDir: string): StacyError {
  if (exitReport(error)?.signal !== "SIGBUS") return error;
  return new StacyError("no-space", `the disk of ${dataDir} is full: the machine's memory could not be written to it`, {
    cause: error,
    remedy: "free some space: `stacyvm snapshot gc`, `stacyvm image gc`; a snapshot takes what its guest touched",
  });
}

/** Removes what dead processes left half-made: their machines first, then the directories. @returns names removed */
export async function sweepTemporary(paths: DataPaths): Promise<string[]> {
  const removed: string[] = [];
  const names = await readdir(paths.tmp).catch(() => []);
  for (const name of names) {
    const dir = join(paths.tmp, name);
    try {
      const owner = await ownerIn(name);
      if (owner === undefined || (await isAlive(owner))) continue;
      await removeWithProcesses(dir);
      removed.push(name);
    } catch {} // the next start tries again: one that resists is no reason not to serve the others
  }
  return removed;
}

/** The key is of the kernel that was there when the snapshot was asked for; its turn may come much later. */
async function assertSameKernel({ config: { kernel }, shape }: Target): Promise<void> {
  if (sha256(await readFile(kernel)) === shape.kernel) return;
  throw new StacyError("unavailable", `${kernel} was replaced before it was booted`, { remedy: "try again" });
}
