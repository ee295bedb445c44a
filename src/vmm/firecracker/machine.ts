/** A Firecracker machine's states, as types: each transition hands over the next one. */
import { chmod, chown, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { asStacyError, StacyError } from "../../host/error.ts";
import type { Phases } from "../../host/phases.ts";
import type { ProcessRecord } from "../../host/process.ts";
import { allocatedBytes } from "../../host/sparse.ts";
import { takeBack } from "../take-back.ts";
import {
  type AgentStream,
  type BlankVmm,
  type BootableVmm,
  type ConnectOptions,
  type ExitReport,
  FILES,
  type LoadableVmm,
  type MachineConfig,
  type PausedMachine,
  type RunningMachine,
  type SavedState,
  SNAPSHOT_FILES,
  type SnapshotSource,
  type VmmProcess,
  volumeFile,
} from "../vmm.ts";
import { guestAtRest } from "./at-rest.ts";
import { identityOf } from "./cell-jail.ts";
import { mustNotCall, NO_HYPERCALLS } from "./hypercalls.ts";
import { bring, bringAnother } from "./jail.ts";
import { copyGround, digHoles, GROUND, keepGround, loseGround } from "./memory-file.ts";
import { type FirecrackerProcess, VSOCK_SOCKET } from "./process.ts";
import { Sentinel } from "./sentinel.ts";
import type { VersionTraits } from "./versions.ts";

const QUICK_MS = 5_000;
/** Longer than what it undoes: its connection must be open still when Firecracker gets to it. */
const UNDO_LIMIT_MS = 30_000;
const LOAD_LIMIT_MS = 30_000;
/** For a guest that has been loaded to have nothing to do. */
const REST_LIMIT_MS = 150;
const SAVE_LIMIT_MS = 300_000;
/** For a guest that goes on after a save to get to the reset of its connections. */
const RESET_LIMIT_MS = 1_000;
/** Host-wide vsock addresses are not involved, so all machines share one guest CID. */
const GUEST_CID = 3;
const DIFF_SOUND_BELOW_MIB = 3 * 1024;
/** Names in a jail. */
export const BOOT_FILES = { kernel: "kernel", initramfs: "initramfs" } as const;
/** Answers to a save that Firecracker refuses before it does anything. */
const NOT_BEGUN: ReadonlySet<string> = new Set(["conflict", "not-supported", "protocol"]);
/** What a request fails with that may have been carried out, or still be. */
const UNANSWERED: ReadonlySet<string> = new Set(["timeout", "machine-exited"]);
const SAVING = { state: "saving-vmstate.bin", memory: "saving-memory.bin" } as const;

/** What the states share besides the process; follows the machine through its states. */
export interface Life {
  traits: VersionTraits;
  config: MachineConfig;
  /** Firecracker notes which pages are written. */
  tracking: boolean;
  /**
   * What a difference written now would have to be laid over: `nothing` for a machine that booted, the machine's own link to
   * what it was loaded from or saved as last, or `unknown`.
   */
  ground: "nothing" | "own" | "unknown";
  /** What `prepareSave` made ready for the next save. */
  prepared?: "Diff" | "Full" | undefined;
  /** Open through a save, and for a while after it. */
  sentinel?: Sentinel | undefined;
  /** Its snapshot is what machines of its shape are loaded from from now on. */
  golden?: boolean;
  /** KVM interprets the guest's kernel. */
  interpreted: boolean;
  /** Its guest has been loaded, and nobody has asked for its agent since. */
  fresh?: boolean;
}

abstract class Behind implements VmmProcess {
  protected readonly process: FirecrackerProcess;

  constructor(process: FirecrackerProcess) {
    this.process = process;
  }

  get record(): ProcessRecord {
    return this.process.record;
  }
  get dir(): string {
    return this.process.dir;
  }
  get exited(): Promise<ExitReport> {
    return this.process.exited;
  }
  relocate(dir: string): void {
    this.process.relocate(dir);
  }
  kill(stopped?: () => void): Promise<ExitReport> {
    return this.process.kill(stopped);
  }
  release(): Promise<void> {
    return this.process.release();
  }
}

/** Nothing in it is of any machine: Firecracker learns all of it by the load. */
export class BlankFirecracker extends Behind implements BlankVmm {
  readonly #life: Omit<Life, "config">;
  readonly #current: () => Promise<boolean>;

  /** @param current whether the program that was started is still the one that is installed */
  constructor(process: FirecrackerProcess, life: Omit<Life, "config">, current: () => Promise<boolean>) {
    super(process);
    this.#life = life;
    this.#current = current;
  }

  async become(config: MachineConfig): Promise<LoadableVmm> {
    if (!(await this.#current())) {
      throw new StacyError("conflict", "Firecracker was replaced after this process had been started", {
        phase: "vmm",
      });
    }
    return new LoadableFirecracker(this.process, { ...this.#life, config });
  }
}

abstract class State extends Behind {
  protected readonly life: Life;

  constructor(process: FirecrackerProcess, life: Life) {
    super(process);
    this.life = life;
  }

  override kill(stopped?: () => void): Promise<ExitReport> {
    this.life.sentinel?.close();
    return super.kill(stopped);
  }
  override release(): Promise<void> {
    this.life.sentinel?.close();
    return super.release();
  }
}

export class BootableFirecracker extends State implements BootableVmm {
  async boot(phases?: Phases): Promise<RunningMachine> {
    const inPhase = <T>(name: string, work: () => Promise<T>): Promise<T> =>
      phases === undefined ? work() : phases.phase(name, work);
    await inPhase("configure", async () => {
      await this.#configure();
      await this.process.limitFiles(this.life.config);
    });
    await inPhase("start", () =>
      this.process.api.put("/actions", { action_type: "InstanceStart" }, { phase: "start", timeoutMs: LOAD_LIMIT_MS }),
    );
    this.process.confine(this.life.config);
    return new RunningFirecracker(this.process, this.life);
  }

  async #configure(): Promise<void> {
    const { process, life } = this;
    const { config, traits } = life;
    const put = (path: string, body: object): Promise<void> =>
      process.api.put(path, body, { phase: "configure", timeoutMs: QUICK_MS });
    const linux = config.initramfs !== undefined;
    let kernel = config.kernel;
    let initramfs = config.initramfs;
    if (process.jail !== undefined) {
      await bringDisks(process, config);
      await bring(process.jail, this.dir, kernel, BOOT_FILES.kernel, false);
      kernel = BOOT_FILES.kernel;
      if (initramfs !== undefined) {
        await bring(process.jail, this.dir, initramfs, BOOT_FILES.initramfs, false);
        initramfs = BOOT_FILES.initramfs;
      }
    }
    await put("/machine-config", {
      vcpu_count: config.vcpus,
      mem_size_mib: config.memoryMiB,
      track_dirty_pages: life.tracking,
    });
    if (mustNotCall(config, life.interpreted)) await put("/cpu-config", NO_HYPERCALLS);
    await put("/boot-source", {
      kernel_image_path: kernel,
      boot_args: kernelCommandLine(config),
      ...(initramfs === undefined ? {} : { initrd_path: initramfs }),
    });
    await put("/drives/rootfs", drive("rootfs", FILES.rootfs, false));
    await put("/drives/base", drive("base", FILES.base, true));
    for (const [slot, access] of (config.volumes ?? []).entries()) {
      const volume = drive(volumeId(slot), volumeFile(slot), access === "read");
      // What a guest's program has synced must be on the host's disk.
      await put(`/drives/${volumeId(slot)}`, { ...volume, cache_type: "Writeback" });
    }
    await put("/vsock", { guest_cid: GUEST_CID, uds_path: VSOCK_SOCKET });
    // The bare guest has no use for random numbers, and a device less to restore.
    if (linux && traits.entropy) await put("/entropy", {});
  }
}

function drive(id: string, path: string, readOnly: boolean): object {
  // The initramfs mounts the root itself, so neither is the kernel's root device. `Sync`: the other engine slows restores.
  return { drive_id: id, path_on_host: path, is_root_device: false, is_read_only: readOnly };
}

/** Letters, digits and underscores only. */
function volumeId(slot: number): string {
  return `volume_${slot}`;
}

const LINUX_COMMAND_LINE =
  "console=ttyS0 quiet reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=on";

/** What every guest of its kind is told. The bare guest reads only the devices that Firecracker appends. */
export function baseCommandLine(config: MachineConfig): string {
  return config.initramfs === undefined ? "bare" : LINUX_COMMAND_LINE;
}

function kernelCommandLine(config: MachineConfig): string {
  return `${baseCommandLine(config)} ${config.cmdline ?? ""}`.trim();
}

/** Hard-links the machine's disks into its jail; the writable one becomes the machine's. */
async function bringDisks({ jail, dir }: FirecrackerProcess, { volumes = [] }: MachineConfig): Promise<void> {
  if (jail === undefined) return;
  await Promise.all([
    bring(jail, dir, join(dir, FILES.rootfs), FILES.rootfs, true),
    bring(jail, dir, join(dir, FILES.base), FILES.base, false),
    ...volumes.map((access, slot) =>
      bring(jail, dir, join(dir, volumeFile(slot)), volumeFile(slot), access === "write"),
    ),
  ]).catch((cause) => {
    throw asStacyError(cause, "not-found", {
      remedy: "put rootfs.ext4 and base.img into the machine's directory first",
    });
  });
}

export class LoadableFirecracker extends State implements LoadableVmm {
  async load(snapshot: SnapshotSource, phases?: Phases): Promise<RunningMachine> {
    const load = (): Promise<Life["ground"]> => this.#load(snapshot);
    const ground = await (phases === undefined ? load() : phases.phase("load", load));
    this.process.confine(this.life.config);
    const tracking = snapshot.trackDirty === true;
    return new RunningFirecracker(this.process, { ...this.life, tracking, ground, fresh: true });
  }

  async #load(snapshot: SnapshotSource): Promise<Life["ground"]> {
    const { process, life } = this;
    const ground = snapshot.trackDirty === true ? await takeGround(process, snapshot) : "unknown";
    let state = join(snapshot.dir, SNAPSHOT_FILES.state);
    // Loaded from the link, so that both are the same file whatever becomes of the snapshot's directory meanwhile.
    let memory = ground === "own" ? join(process.dir, GROUND) : join(snapshot.dir, SNAPSHOT_FILES.memory);
    if (process.jail !== undefined) {
      const { jail, dir } = process;
      await Promise.all([
        bringDisks(process, life.config),
        bring(jail, dir, state, SNAPSHOT_FILES.state, false),
        bring(jail, dir, memory, SNAPSHOT_FILES.memory, false),
      ]).catch((cause) => {
        throw asStacyError(cause, "corrupt", { phase: "load" });
      });
      state = SNAPSHOT_FILES.state;
      memory = SNAPSHOT_FILES.memory;
    }
    const body = {
      snapshot_path: state,
      mem_backend: { backend_type: "File", backend_path: memory },
      resume_vm: snapshot.paused !== true,
      ...(snapshot.trackDirty === true ? { [life.traits.trackField]: true } : {}),
    };
    try {
      await Promise.all([
        process.api.put("/snapshot/load", body, { phase: "load", timeoutMs: LOAD_LIMIT_MS }),
        process.limitFiles(life.config),
      ]);
      // It has opened what is there; that is said again so that the guest is told its size.
      for (const slot of (life.config.volumes ?? []).keys()) await openAgain(process, slot, "load");
    } catch (error) {
      // A failed load ends the process by itself; the answer came first. The kill only makes sure and waits.
      await process.kill();
      throw error;
    }
    return ground;
  }
}

/** What the slot's name is now, whose size the guest is told. */
function openAgain({ api }: FirecrackerProcess, slot: number, phase: string): Promise<void> {
  const volume = { drive_id: volumeId(slot), path_on_host: volumeFile(slot) };
  return api.patch(`/drives/${volumeId(slot)}`, volume, { phase, timeoutMs: QUICK_MS });
}

/**
 * Gives the machine its own link to the memory that it is loaded from. The snapshot may be set aside and another one get its
 * name while the machine runs; a difference over that would be of no machine.
 */
async function takeGround(process: FirecrackerProcess, snapshot: SnapshotSource): Promise<"own" | "unknown"> {
  const ground = join(process.dir, GROUND);
  try {
    await keepGround(join(snapshot.dir, SNAPSHOT_FILES.memory), ground);
    const { memory } = process.jail ?? {};
    if (memory !== undefined && memory !== (await identityOf(ground))) throw new Error("another one has its name");
    return "own";
  } catch {
    // On another filesystem, or linked too often: its first save is a full one. What is missing, the load says.
    await loseGround(ground).catch(() => {});
    return "unknown";
  }
}

export class RunningFirecracker extends State implements RunningMachine {
  readonly state = "running" as const;

  /** One that another daemon left: it may have been saved a moment ago, and that daemon's sentinel is gone with it. */
  static async adopted(process: FirecrackerProcess, life: Life): Promise<RunningFirecracker> {
    await awaitReset(process, life);
    return new RunningFirecracker(process, life);
  }

  async connectAgent(options?: ConnectOptions): Promise<AgentStream> {
    const { life } = this;
    const fresh = life.fresh === true && life.config.initramfs !== undefined;
    life.fresh = false;
    // A connection that is made now would be lost, and what is said on it only keeps this guest from getting to it.
    if (fresh && life.interpreted && !life.traits.holdsBack) await guestAtRest(this.record.pid, REST_LIMIT_MS);
    return this.process.connectAgent(options);
  }

  async takeVolume(slot: number): Promise<void> {
    const { process, life } = this;
    const { jail, dir } = process;
    const file = join(dir, volumeFile(slot));
    const write = life.config.volumes?.[slot] === "write";
    if (write) await process.allowFile(file);
    if (jail !== undefined) await bringAnother(jail, dir, file, volumeFile(slot), write);
    await openAgain(process, slot, "volumes");
  }

  async prepareSave(): Promise<void> {
    await this.process.undoing.settled();
    this.life.prepared = await prepareGround(this.process, this.life);
  }

  async pause(options: { toSave?: boolean } = {}): Promise<PausedMachine> {
    await this.process.undoing.settled();
    const ready = options.toSave === true && (await openSentinel(this.process, this.life));
    const paused = new PausedFirecracker(this.process, this.life, { ready, reset: "none" });
    await pauseVm(this.process).catch((error: unknown) => {
      if (UNANSWERED.has(asStacyError(error).code)) this.process.undoing.begin(() => undo(this.process, paused));
      throw error;
    });
    return paused;
  }
}

/** Lets a guest go on that may have been stopped. Firecracker comes to this after the pause, unless it never read that. */
async function undo(process: FirecrackerProcess, paused: PausedFirecracker): Promise<void> {
  const { state } = await process.api.get<{ state: string }>("/", { phase: "pause", timeoutMs: UNDO_LIMIT_MS });
  if (state !== "Running") await paused.resume(UNDO_LIMIT_MS);
}

function pauseVm(process: FirecrackerProcess): Promise<void> {
  return process.api.patch("/vm", { state: "Paused" }, { phase: "pause", timeoutMs: QUICK_MS });
}

function resumeVm(process: FirecrackerProcess, timeoutMs = QUICK_MS): Promise<void> {
  return process.api.patch("/vm", { state: "Resumed" }, { phase: "resume", timeoutMs });
}

/**
 * A new one for each pause: what is left of an earlier save's may be gone from the guest. That save's reset is waited for, or it would
 * take the new one instead.
 * @returns false: the guest did not take it. The bare guest needs none: it has one connection, and no driver that could be late.
 */
async function openSentinel(process: FirecrackerProcess, life: Life): Promise<boolean> {
  if (life.config.initramfs === undefined) return true;
  await life.sentinel?.outlived(RESET_LIMIT_MS);
  life.sentinel = await Sentinel.open(process);
  return life.sentinel !== undefined;
}

/**
 * For a guest that goes on, may have a reset to come, and was saved without a sentinel or left by another daemon: the agent reads nothing
 * from a new connection until the reset has come, or ought to have.
 */
async function awaitReset(process: FirecrackerProcess, life: Life): Promise<void> {
  if (life.config.initramfs === undefined || life.traits.holdsBack) return;
  // As after a load.
  if (life.interpreted) await guestAtRest(process.record.pid, REST_LIMIT_MS);
  life.sentinel?.close();
  life.sentinel = await Sentinel.open(process, { limitMs: 2 * RESET_LIMIT_MS, byteMs: RESET_LIMIT_MS });
  life.sentinel?.linger(RESET_LIMIT_MS);
}

/** The kind of save that is possible now, with the copy that a difference is written over in place. */
async function prepareGround(process: FirecrackerProcess, life: Life): Promise<"Diff" | "Full"> {
  const inside = join(process.workDir, SAVING.memory);
  await rm(inside, { force: true });
  if (!canDiff(life)) return "Full";
  if (life.ground === "own") {
    // Made beside the jail: in it, the machine could put something else under its name before it is given to it.
    const copy = join(process.dir, SAVING.memory);
    await rm(copy, { force: true });
    try {
      await copyGround(join(process.dir, GROUND), copy);
      // The copy keeps the source's mode where it is a reflink, and belongs to us; in a jail another user writes it.
      await chmod(copy, 0o600);
      if (process.jail !== undefined) await chown(copy, process.jail.uid, process.jail.gid);
      if (copy !== inside) await rename(copy, inside);
    } catch (error) {
      // Of a full disk, most likely: as much as had room.
      await rm(copy, { force: true });
      throw error;
    }
  }
  return "Diff";
}

/** What Firecracker wrote, and what it believes to have saved, is unknown now: what was made ready for a difference is of no use either. */
async function forgetGround(process: FirecrackerProcess, life: Life): Promise<void> {
  life.ground = "unknown";
  life.prepared = undefined;
  await loseGround(join(process.dir, GROUND)).catch(() => {});
}

function canDiff({ traits, tracking, config, ground }: Life): boolean {
  if (ground === "unknown") return false;
  if (!traits.diffAbove3GiB && config.memoryMiB > DIFF_SOUND_BELOW_MIB) return false;
  return tracking || (traits.diffWithoutTracking && ground === "nothing");
}

function notTaken(): StacyError {
  return new StacyError("timeout", "the guest's agent did not take the connection that is open through a save", {
    remedy: "it is tried again with the next build; see the console's last lines, and how busy the host is",
  });
}

/** What a machine's guest gets with its next step: Firecracker sends the reset of all connections before it writes anything of a save. */
type Reset = "none" | "sent" | "unknown";

export class PausedFirecracker extends State implements PausedMachine {
  readonly state = "paused" as const;
  #reset: Reset;
  /** The guest has the sentinel of this pause, or needs none. */
  #ready: boolean;

  /** @param pause.reset `unknown` for one that another daemon left: it may have been saving */
  constructor(process: FirecrackerProcess, life: Life, pause: { ready: boolean; reset: Reset }) {
    super(process, life);
    this.#ready = pause.ready || life.config.initramfs === undefined;
    this.#reset = pause.reset;
  }

  async resume(timeoutMs = QUICK_MS): Promise<RunningMachine> {
    const { process, life } = this;
    // A snapshot sends the reset that the guest's driver must acknowledge; 1.16.x waits for it after every resume.
    if (!life.traits.pauseResume && this.#reset !== "sent") await this.#throwAwaySave();
    await resumeVm(process, timeoutMs);
    // Without a reset a new connection must not wait for one.
    if (this.#reset === "none") life.sentinel?.notNeeded();
    else if (life.sentinel !== undefined) life.sentinel.linger();
    else await awaitReset(process, life);
    return new RunningFirecracker(process, life);
  }

  async save(dir: string): Promise<SavedState> {
    const { process, life } = this;
    const inside = join(process.workDir, SAVING.memory);
    try {
      if (!this.#ready && life.traits.pauseResume) await this.#goOnForSentinel();
      // All that are loaded from it would be without; one that is built anew has it.
      if (!this.#ready && life.golden === true && !life.traits.holdsBack) throw notTaken();
      const kind = life.prepared ?? (await prepareGround(process, life));
      life.prepared = undefined;
      await this.#create(kind);
      const state = join(dir, SNAPSHOT_FILES.state);
      const memory = join(dir, SNAPSHOT_FILES.memory);
      await takeBack(join(process.workDir, SAVING.state), state, 0o444);
      await takeBack(inside, memory, 0o600);
      // Only who may write it can give its zeros back.
      if (kind === "Full") await digHoles(memory);
      await chmod(memory, 0o444);
      if (life.tracking) {
        // Tracking starts anew with each save, so the next difference stands on this file.
        await keepGround(memory, join(process.dir, GROUND));
        life.ground = "own";
      }
      const stateBytes = (await stat(state)).size;
      return { stateBytes, memoryBytes: await allocatedBytes(memory), resumable: true, finish: async () => {} };
    } catch (error) {
      await forgetGround(process, life);
      throw asStacyError(error).inPhase("save");
    } finally {
      await Promise.all(Object.values(SAVING).map((name) => rm(join(process.workDir, name), { force: true })));
    }
  }

  /** It was paused for another reason: the guest runs for a moment. */
  async #goOnForSentinel(): Promise<void> {
    const { process, life } = this;
    await resumeVm(process);
    this.#ready = await openSentinel(process, life);
    await pauseVm(process);
  }

  async #create(kind: "Full" | "Diff"): Promise<void> {
    const body = { snapshot_type: kind, snapshot_path: SAVING.state, mem_file_path: SAVING.memory };
    const before = this.#reset;
    this.#reset = "sent";
    try {
      await this.process.api.put("/snapshot/create", body, { phase: "save", timeoutMs: SAVE_LIMIT_MS });
    } catch (error) {
      // One that failed later, or was not answered, has sent it.
      if (NOT_BEGUN.has(asStacyError(error).code)) this.#reset = before;
      throw error;
    }
  }

  /** For its reset alone: what is written is of no use, so as little as this release can write, and it need not succeed. */
  async #throwAwaySave(): Promise<void> {
    const { process, life } = this;
    const removeWritten = async (): Promise<void> => {
      await Promise.all(Object.values(SAVING).map((name) => rm(join(process.workDir, name), { force: true })));
    };
    life.prepared = undefined;
    await removeWritten();
    try {
      await this.#create(life.tracking || life.traits.diffWithoutTracking ? "Diff" : "Full");
    } catch (cause) {
      if (this.#reset !== "sent") {
        const why = "this Firecracker cannot resume a machine that was not saved";
        throw new StacyError("not-supported", why, { cause });
      }
    } finally {
      if (life.tracking) await forgetGround(process, life);
      await removeWritten();
    }
  }
}
