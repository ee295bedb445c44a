/**
 * The contract between the launcher and a virtual machine monitor (VMM): Firecracker or QEMU.
 *
 * A machine's state is in its type, so an illegal call does not compile: only a `BootableVmm` boots, only a
 * `LoadableVmm` loads, only a `PausedMachine` can be saved. Each transition hands over a new object and the old one must
 * no longer be used. Everything that is special to one VMM stays in its folder; what differs in what it *can do* is
 * said by `abilities`.
 *
 * One directory per machine is the VMM's working directory, and all paths inside are relative, because a snapshot stores
 * them (the relative path trick, design.md "On disk"):
 *
 *     rootfs.ext4   the machine's private writable layer; present before boot or load
 *     base.img      link to the shared read-only base; present before boot or load
 *     agent socket  made by the VMM (`agent.sock` or `v.sock`)
 *     console.log   the guest's serial console
 *     vmm.log       the VMM's own output
 */
import type { AgentStream } from "../host/agent-stream.ts";
import type { KernelChoice } from "../images/guest-kernel.ts";

export type { AgentStream };

import type { StacyError } from "../host/error.ts";
import type { Phases } from "../host/phases.ts";
import type { ProcessRecord } from "../host/process.ts";

export type VmmName = "firecracker" | "qemu";

/** Names inside a machine's directory. */
export const FILES = {
  rootfs: "rootfs.ext4",
  base: "base.img",
  console: "console.log",
  log: "vmm.log",
} as const;

/** Names of all slots of a machine. */
export function volumesOf({ volumes = [] }: Pick<MachineConfig, "volumes">): string[] {
  return [...volumes.keys()].map(volumeFile);
}

/** How a machine uses the volume in a slot. */
export type VolumeAccess = "write" | "read";

/** What is in a slot's place, inside a machine's directory: the volume, or of a machine that is to be saved an empty disk. */
export function volumeFile(slot: number): string {
  return `volume-${slot}.ext4`;
}

export function isVolumeFile(name: string): boolean {
  return /^volume-\d+\.ext4$/.test(name);
}

/** Of a slot in a machine that is to be saved: whoever is loaded from it has another disk there. */
export const EMPTY_VOLUME_BYTES = 1 << 20;

/** What a volume may have, bytes: no file that is written becomes larger, where it is not known yet which volume that will be. */
export const MOST_VOLUME_BYTES = 2 ** 43;

/** Names inside a snapshot's directory that the VMM writes and reads. */
export const SNAPSHOT_FILES = { state: "vmstate.bin", memory: "memory.bin" } as const;

/** What the VMM could tell about this host. `usable: false` always says why and what to do. */
export type VmmProbe =
  | {
      usable: true;
      version: string;
      path: string;
      accelerator: Accelerator;
      guests: GuestKind[];
      /** What would make it run Linux guests, where it does not. */
      linuxRemedy?: string;
      notes: string[];
    }
  | { usable: false; version?: string; path?: string; reason: string; remedy: string };

/** `kvm-interpreted`: a KVM that interprets the guest's kernel (host/kvm.ts). */
export type Accelerator = "kvm" | "kvm-interpreted" | "tcg";

/** `bare`: the freestanding test guest, for hosts whose KVM cannot run Linux (see guests/bare). */
export type GuestKind = "linux" | "bare";

/** What this VMM, in this version, does safely. A method that is not able throws `not-supported` naming what is. */
export interface VmmAbilities {
  /** The disks must be in place before `prepareLoad`; otherwise only before `load`, so that copying runs beside the start. */
  diskBeforeStart: boolean;
  /** Pause and resume without a snapshot in between. */
  pauseResume: boolean;
  /** Save the state of a machine that was itself loaded from a snapshot (fork, suspend, checkpoint). */
  saveClone: boolean;
  /** A connection to the agent that is open while the machine is saved goes on afterwards. */
  saveKeepsChannel: boolean;
  /** Run under the jailer. */
  jail: boolean;
  /** A process can be started before it is known what it will load: `prepareBlank`. */
  blank: boolean;
  /** After a load it tells the guest's kernel how large the volumes are that it was given. */
  tellsVolumeSizes: boolean;
}

/**
 * What a machine is made of. It is the VMM's part of the shape: two machines with equal configurations (and VMM version)
 * can be restored from the same snapshot.
 */
export interface MachineConfig {
  /** 1..32 */
  vcpus: number;
  /** Guest RAM in MiB. */
  memoryMiB: number;
  /** Absolute path of the kernel image (`vmlinuz` for QEMU, ELF `vmlinux` for Firecracker). Used by a boot only. */
  kernel: string;
  /** Absolute path of the initramfs; absent for the bare guest. Used by a boot only. */
  initramfs?: string;
  /** Extra kernel command line; the VMM adds what it needs itself. */
  cmdline?: string;
  /** Slots for volumes, in their order; absent: none. */
  volumes?: VolumeAccess[];
}

/** Jail settings; only with `abilities.jail`. */
export interface JailConfig {
  uid: number;
  gid: number;
  /** No file that it writes becomes larger. */
  fileMaxBytes?: number;
  /** Path of a network namespace. Default: an empty one (empty-network.ts). */
  netns?: string;
}

export interface StartOptions {
  /** Absolute path of the machine's own directory. It exists; `rootfs.ext4` and `base.img` may still be on their way. */
  dir: string;
  config: MachineConfig;
  /**
   * `private`: RAM changes stay in the process. `shared`: RAM is a file `memory.bin` in `dir` (where the VMM works that
   * way), so that saving it costs nothing. A golden boot asks for `shared`, and so does a machine meant to be forked.
   */
  memory: "private" | "shared";
  jail?: JailConfig;
  signal?: AbortSignal;
}

/** Why a VMM process ended. Exactly one of `exitCode` and `signal` is set when it is known. */
export interface ExitReport {
  exitCode?: number;
  signal?: NodeJS.Signals;
  /** `requested`: we killed it. `guest`: the guest powered off, rebooted or panicked. `crash`: anything else. */
  reason: "requested" | "guest" | "crash" | "unknown";
  /** The last lines of `vmm.log` and of `console.log`, at most 20 each. */
  vmmLog: string[];
  console: string[];
}

/** The VMM process behind every state. */
export interface VolumeFailure {
  slot: number;
  operation: "read" | "write";
  /** The host's words. */
  reason: string;
}

export interface VmmProcess {
  readonly record: ProcessRecord;
  /**
   * Tells of each volume whose file the host could not read or write, whose guest has an error instead: once until there is another one in
   * the slot. Absent where only the guest is told.
   */
  onVolumeFailure?(listener: (failure: VolumeFailure) => void): void;
  readonly dir: string;
  /** Says that the directory was renamed: a claim gives a machine that waited its sandbox's name. */
  relocate(dir: string): void;
  /** Settles once, when the process is gone, however that happened, also for adopted processes. Never rejects. */
  readonly exited: Promise<ExitReport>;
  /**
   * SIGKILL, wait until it is gone, release sockets and cgroups (not the directory). Idempotent. Calls under way fail at once.
   * @param stopped told at most once, when its guest cannot run any more, if that is known before all of this is done
   */
  kill(stopped?: () => void): Promise<ExitReport>;
  /** Drops our connections to it without ending it: the daemon stops, the machine goes on. */
  release(): Promise<void>;
}

/** Started for a boot: nothing runs in it yet. */
export interface BootableVmm extends VmmProcess {
  /** Configures and starts the machine. Phases: `configure`, `start`. */
  boot(phases?: Phases): Promise<RunningMachine>;
}

/** Started for a restore and waiting: an idle VMM. It can wait for hours at no CPU cost. */
export interface LoadableVmm extends VmmProcess {
  /**
   * Loads the snapshot and resumes the machine. The writable layer must be in place. Phase: `load`.
   * @throws StacyError `corrupt` when the files do not fit or are damaged; the process is gone then.
   */
  load(snapshot: SnapshotSource, phases?: Phases): Promise<RunningMachine>;
}

/** Started, and told nothing yet: it fits whatever is asked for. */
export interface BlankVmm extends VmmProcess {
  /** Says whose machine it will load. It must no longer be used afterwards. */
  become(config: MachineConfig): Promise<LoadableVmm>;
}

export interface SnapshotSource {
  /** Absolute directory with `vmstate.bin` and `memory.bin`. */
  dir: string;
  /**
   * Keep track of the pages written from now on, so that `save` writes the difference only. Costs a little; ask
   * for it where a fork or a checkpoint is likely.
   */
  trackDirty?: boolean;
  /** Leave the machine paused after the load (a resumed `suspend` that must wait for its handshake). Default: resume. */
  paused?: boolean;
}

export interface RunningMachine extends VmmProcess {
  readonly state: "running";
  /**
   * Settles with `no-space` once the host's disk has no room for what the guest writes: it stands still until there is. Never rejects;
   * absent where the guest is told of it instead.
   */
  readonly starved?: Promise<StacyError>;
  /** A new byte stream to the agent (guest port 1024). It may be called again at any time; a newer stream wins. */
  connectAgent(options?: ConnectOptions): Promise<AgentStream>;
  /**
   * The file in the slot's place is another one now: the guest's disk is that from here on. The guest must have closed the one before.
   * @throws StacyError `conflict` for one that is larger than the files that this process may write
   */
  takeVolume(slot: number): Promise<void>;
  /** Does what the coming `save` does not need the guest to stand still for. */
  prepareSave(): Promise<void>;
  /** @param options.toSave it is about to be saved, which the guest may have to be told before it stands still */
  pause(options?: { toSave?: boolean }): Promise<PausedMachine>;
}

export interface PausedMachine extends VmmProcess {
  readonly state: "paused";
  /** The guest's connections go on where `abilities.pauseResume` is; elsewhere it costs a save, which resets them. */
  resume(): Promise<RunningMachine>;
  /**
   * Writes `vmstate.bin` and `memory.bin` (sparse: it occupies what the guest touched) into `dir`, which is on the same
   * filesystem as the machine. The caller copies the disk, which belongs to this state, before the machine goes on.
   * `memory.bin` gets the mode that it keeps: read-only, unless this VMM needs more to map it privately.
   */
  save(dir: string): Promise<SavedState>;
}

export interface SavedState {
  stateBytes: number;
  /** Bytes that `memory.bin` occupies on disk. */
  memoryBytes: number;
  /** False where saving used the memory up (QEMU's golden: its file *is* the snapshot), so the machine must be killed. */
  resumable: boolean;
  /** Work that the machine need not wait for. The snapshot may be used, and `dir` renamed, only after it. */
  finish(): Promise<void>;
}

export interface ConnectOptions {
  /** The whole budget, in ms. Default 10,000. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /**
   * First bytes for the agent. Sent together with the request for the connection where the way in can carry them, which saves a turn
   * (`AgentStream.greeted` says so); elsewhere they are the caller's to send. Made when they are sent, since they tell the time.
   */
  greeting?: () => Uint8Array;
}

/** How long a guest may take until its agent answers; exact once `probe` has answered. */
export interface AnswerLimits {
  /** ms after a boot, for each attempt: a machine that is silent until then is ended, and the next one booted. */
  booted: readonly [number, ...number[]];
  /** ms after a load; it takes milliseconds, and this is for a host that is very busy. */
  restored: number;
}

export interface Vmm {
  readonly name: VmmName;
  readonly abilities: VmmAbilities;
  readonly answerMs: AnswerLimits;
  /** Looks at the host; what it found is kept as long as it can be used and is still what is installed. Never throws. */
  probe(): Promise<VmmProbe>;
  /** What belongs to the shape besides `MachineConfig`: version, accelerator, machine type, CPU model, device list. */
  identity(config: MachineConfig): Promise<Record<string, string>>;
  /**
   * Whether what was saved under such an identity can be loaded now. Absent: by the load itself.
   * @throws StacyError `not-supported` that says by what it was saved, and what can load it
   */
  checkLoadable?(identity: Record<string, string>): Promise<void>;
  /** Which kernel its Linux guests boot: the user's own, or the one that fits this host. */
  guestKernel(): Promise<KernelChoice>;
  /** Starts a process that will boot. Phase: `vmm`. */
  prepareBoot(options: StartOptions): Promise<BootableVmm>;
  /** Starts a process that will load a snapshot made with an equal `config`. Phase: `vmm`. */
  prepareLoad(options: StartOptions & { snapshot: SnapshotSource }): Promise<LoadableVmm>;
  /** Starts a process in `dir`, which is empty, for a load of anything; only with `abilities.blank`. */
  prepareBlank(options: Pick<StartOptions, "dir" | "signal">): Promise<BlankVmm>;
  /**
   * Finds a machine of an earlier daemon again. `undefined` when the process is gone or is not the recorded one. Nothing is ever
   * killed, and no connection is left when it fails: it may be tried again.
   * @throws StacyError `timeout` and others when the process is there and does not answer
   */
  adopt(
    dir: string,
    record: ProcessRecord,
    config: MachineConfig,
    options?: ConnectOptions,
  ): Promise<RunningMachine | PausedMachine | undefined>;
  /** Ends a machine of an earlier daemon without asking it anything, and frees what it held outside its directory. */
  end(dir: string, record: ProcessRecord): Promise<void>;
}
