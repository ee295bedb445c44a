/** Copies of a machine that goes on: F1 to F8 of docs/crash-protocol.md. A fork's start at once, a checkpoint's when they are asked for. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { bringIn } from "../../directories/bring-in.ts";
import { copied as copiedDirectories, type MountedDirectory } from "../../directories/directory.ts";
import { copyLayers } from "../../directories/layer.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { ownedName } from "../../host/owned-name.ts";
import { removeTree } from "../../host/remove-tree.ts";
import { discard } from "../../launcher/launch.ts";
import { SavedWork } from "../../launcher/saved.ts";
import type { PausedMachine, RunningMachine } from "../../vmm/vmm.ts";
import type { MachineLife } from "../machine-life.ts";
import type { CopiedSlot, SandboxMachine } from "../provider.ts";

const RESUME_ATTEMPTS = 4;

type ForkOptions = NonNullable<Parameters<SandboxMachine["fork"]>[1]>;

export async function fork(
  life: MachineLife,
  ids: readonly string[],
  signal: AbortSignal,
  { env: ownEnv = {}, volumes, directories: copied = "read_only" }: ForkOptions = {},
): Promise<{ machines: SandboxMachine[]; stoppedMs: number }> {
  const { launcher } = life.context;
  const key = forkKey();
  const directories = copiedDirectories(life.record.directories, copied, life.target.shape.diskMiB * 2 ** 20);
  const layered = directories?.filter(({ layer }) => layer !== undefined) ?? [];
  await using layers = layered.length > 0 ? await Layers.begin(life, layered) : undefined;
  const beside = async (): Promise<void> => {
    await volumes?.copy();
    await layers?.take();
  };
  const frozen = async (): Promise<void> => layers?.look();
  const { stoppedMs } = await saveRunning(life, "fork", key, signal, { beside, frozen });
  // Held until the children are there: the first of them that ends must not take it from the others.
  const release = launcher.store.use(key);
  try {
    const env = { ...life.record.identity.env, ...ownEnv };
    // What the parent's programs trust, its copies' do.
    const { allowedHosts = [], authority } = life.record;
    const network = allowedHosts.length > 0;
    const start = async (id: string): Promise<SandboxMachine> => {
      const slots = await volumes?.slots(id);
      const files: (string | undefined)[] = [];
      for (const { slot, file } of slots ?? []) files[slot] = file;
      const disks = slots === undefined ? {} : { volumes: files, still: true };
      const launched = await launcher.launchSaved(key, "fork", {
        id,
        env,
        network,
        trackDirty: true,
        signal,
        ...disks,
      });
      try {
        await layers?.give(launched.dir);
      } catch (error) {
        await discard(launched.dir, launched.machine);
        launched.releaseSnapshot();
        throw error;
      }
      const machine = await life.context.own(launched, { id, allowedHosts, authority, directories });
      // Before whatever could wait for the host: nobody answers in this copy.
      if (life.record.directories !== undefined && directories === undefined) await leaveDirectories(life, machine);
      if (slots !== undefined) await settleSlots(life, machine, slots);
      return machine;
    };
    const results = await Promise.allSettled(ids.map(start)); // F8
    const machines = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) {
      // All or none: a caller that asked for three must not have to find out which one is missing.
      await Promise.all(machines.map((machine) => life.context.discard(machine)));
      throw failed.reason;
    }
    return { machines, stoppedMs };
  } finally {
    release();
  }
}

/** Layers over directories of the host, as they were when the machine stood still. */
class Layers implements AsyncDisposable {
  readonly #life: MachineLife;
  readonly #dir: string;
  /** Those that the copies have. */
  readonly #directories: readonly MountedDirectory[];
  /** What is open to write where the machine itself has no layer. */
  readonly #open: { directory: MountedDirectory; paths: Buffer[] }[] = [];

  private constructor(life: MachineLife, dir: string, directories: readonly MountedDirectory[]) {
    this.#life = life;
    this.#dir = dir;
    this.#directories = directories;
  }

  static async begin(life: MachineLife, directories: readonly MountedDirectory[]): Promise<Layers> {
    const { tmp } = life.context.launcher.paths;
    const dir = join(tmp, await ownedName("layers"));
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return new Layers(life, dir, directories);
  }

  /** Its programs stand still, and its helpers are still there. */
  async look(): Promise<void> {
    const own = new Set(this.#life.record.directories?.filter(({ layer }) => layer).map(({ path }) => path));
    for (const directory of this.#directories) {
      if (own.has(directory.path)) continue;
      this.#open.push({ directory, paths: await this.#life.directories.openToWrite(directory.path) });
    }
  }

  /** What its helper is asked for meanwhile no guest was told of: each of the copies asks for it again. */
  async take(): Promise<void> {
    await copyLayers(this.#life.dir, this.#dir);
    const options = { ...this.#life.context.directories, machineDir: () => this.#dir };
    for (const { directory, paths } of this.#open) await bringIn(options, directory, paths);
  }

  give(machineDir: string): Promise<void> {
    return copyLayers(this.#dir, machineDir);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return removeTree(this.#dir);
  }
}

/** What its programs have open of them are errors from now on. */
async function leaveDirectories(life: MachineLife, machine: SandboxMachine): Promise<void> {
  try {
    await machine.agent.unshare([]);
  } catch (error) {
    await life.context.discard(machine);
    throw asStacyError(error).inPhase("directories");
  }
}

/** Before the copy's programs go on: what they find of its volumes is what it has. */
async function settleSlots(life: MachineLife, machine: SandboxMachine, slots: readonly CopiedSlot[]): Promise<void> {
  const { agent } = machine;
  try {
    // The bare guest has drives, and no filesystems.
    const mounted = life.target.guest === "linux" ? slots : [];
    // One may lie in another.
    for (const { slot, name, path, file, onlyRead } of mounted.toSorted((a, b) => (a.path < b.path ? 1 : -1))) {
      if (file === undefined) await agent.unmount({ slot, name, path }, { force: true });
      else if (onlyRead === true) await agent.onlyRead({ slot, name, path });
    }
    await agent.thaw({ limitMs: life.answerMs });
  } catch (error) {
    await life.context.discard(machine);
    throw asStacyError(error).inPhase("volumes");
  }
}

/**
 * Saves the running machine beside itself; its processes stand still in the copy until the next handshake.
 * @param also.beside what else it must stand still for
 * @param also.frozen what is to be asked once its programs stand still, and before the machine does
 */
export async function saveRunning(
  life: MachineLife,
  kind: "checkpoint" | "fork",
  key: string,
  signal: AbortSignal,
  also: { beside?: () => Promise<void>; frozen?: () => Promise<void> } = {},
): Promise<{ stoppedMs: number; bytes: number }> {
  const { launcher } = life.context;
  if (!launcher.vmm.abilities.saveClone) {
    throw new StacyError("not-supported", "this version of the machine monitor cannot save a running machine");
  }
  const before = life.alive();
  await using work = await SavedWork.begin(launcher.paths.tmp, kind, life.target); // F1
  const machine = before.state === "paused" ? await before.resume() : before;
  if (before.state === "paused") life.become({ state: "returning", from: "paused", machine });
  let stoppedMs: number;
  try {
    await machine.prepareSave();
    life.counts(signal);
    // From here on the user's processes stand still: in the guest first, then with it.
    const stopped = performance.now();
    const saving = standingStill(life, machine, also.frozen, async (paused) => {
      await work.save(paused);
      await also.beside?.();
    });
    await saving.catch(() => {});
    const thawed = await life.freeze.thaw().catch(asStacyError); // F6
    if (thawed === undefined) life.startTraffic();
    await saving; // its error says more than one of the thaw
    if (thawed !== undefined) throw thawed;
    stoppedMs = performance.now() - stopped;
  } finally {
    // It was paused before, and is again.
    const { now } = life;
    if (now.state === "returning") life.become({ state: "paused", machine: await now.machine.pause() });
  }
  life.counts(signal);
  const bytes = await work.publish(launcher.store, { key, kind, origin: life.id }); // F7
  return { stoppedMs, bytes };
}

/** Freezes the guest, stops it, does the work, and lets it go on, whatever becomes of the work. */
async function standingStill(
  life: MachineLife,
  machine: RunningMachine,
  frozen: (() => Promise<void>) | undefined,
  work: (paused: PausedMachine) => Promise<void>,
): Promise<void> {
  await life.freeze.freeze(); // F2
  await frozen?.();
  if (!life.context.launcher.vmm.abilities.saveKeepsChannel) {
    life.stopTraffic();
    await life.agent.disconnect();
  }
  const before = life.now;
  const paused = await machine.pause({ toSave: true }); // F3
  life.become({ state: "paused", machine: paused });
  const working = work(paused); // F4
  await working.catch(() => {});
  const going = await resumeAgain(life, paused); // F5
  life.become(
    before.state === "returning"
      ? { state: "returning", from: before.from, machine: going }
      : { state: "running", machine: going },
  );
  await working;
}

/** One monitor that does not answer once must not make the machine stand still for good. */
async function resumeAgain(life: MachineLife, paused: PausedMachine): Promise<RunningMachine> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await paused.resume();
    } catch (error) {
      if (attempt === RESUME_ATTEMPTS || life.over) throw error;
      await delay(100 * attempt);
    }
  }
}

function forkKey(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
}
