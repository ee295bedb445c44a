/**
 * The contract between a sandbox's life (sandboxes/) and what runs it. The microVM provider is ours; another implementation
 * (a remote one, say) would stand behind the same lines. Semantics follow the published StacyVM interface: a spawn resolves
 * with a sandbox that *runs*, a non-zero exit is no error, writing a file creates its parents, and an operation on a sandbox
 * that is gone rejects with `not-found`.
 */
import { createHash } from "node:crypto";
import type { CopiedDirectories, HostDirectory } from "../directories/directory.ts";
import type { EgressStatus } from "../egress/network.ts";
import type { Agent } from "../guest/agent.ts";
import type { StacyError } from "../host/error.ts";
import type { ProcessRecord } from "../host/process.ts";
import type { ImageUse } from "../images/care.ts";
import type { WarmContext } from "../interpreter/contexts.ts";
import type { Elsewhere } from "../launcher/golden.ts";
import type { ExitReport, VolumeAccess } from "../vmm/vmm.ts";
import type { PackedMachine } from "./packed.ts";

/** The snapshot key under which a checkpoint's id is saved. */
export function checkpointKey(id: string): string {
  return createHash("sha256").update(`checkpoint:${id}`).digest("hex");
}

/** A shell command that stays, in an environment of its own. `ready` is asked until it succeeds. */
export interface StartCommand {
  command: string;
  ready?: string;
  env: Record<string, string>;
}

/** A volume that a machine is given, and mounts: at its start before anybody's program runs in it. */
export interface SpecVolume {
  /** Of the machine; the slot is there for this use of it. */
  slot: number;
  name: string;
  /** Absolute path on the host; on the filesystem of the data directory. */
  file: string;
  bytes: number;
  /** In the guest. */
  path: string;
  readOnly: boolean;
}

/** What a copy of a machine has in one of that one's slots. */
export interface CopiedSlot {
  slot: number;
  name: string;
  /** In the guest. */
  path: string;
  /** Absent: nothing. Its guest loses the volume, and what programs had open of it leads nowhere. */
  file?: string;
  /** It is mounted to read only from now on, in a slot that can be written to. */
  onlyRead?: boolean;
}

/** What becomes of a machine's volumes in its copies. */
export interface CopiedVolumes {
  /** While the machine stands still: what its memory knows of the disks is what is on them. */
  copy(): Promise<void>;
  /** For a copy, of the slots that have a volume; after `copy`, while the machine goes on. */
  slots(id: string): Promise<CopiedSlot[]>;
}

/** One spawn as the provider needs it; everything is resolved and validated above. */
export interface SandboxSpec {
  /** `sb-` and 8 hex digits; the directory's name. */
  id: string;
  image: string;
  /** Whose name of an image that is; absent: everybody's. */
  imageOwner?: string;
  /** Who asks, whose turn it is where owners take turns; no part of the key. */
  owner?: string;
  /** MiB */
  memoryMiB: number;
  vcpus: number;
  /** Size of the writable layer in MiB. */
  diskMiB: number;
  /** Added to the image's environment. */
  env: Record<string, string>;
  /** Shell commands that are run once in the golden machine before it is saved (templates' `setup`). Part of the key. */
  setup: string[];
  /** What runs in the golden machine when it is saved, and goes on in each that comes from it. Part of the key. */
  start?: StartCommand;
  /** Contexts of the code interpreter that the golden machine is saved with. Part of the key. */
  contexts?: WarmContext[];
  /** Hosts that it may connect to (egress/host-rules.ts), its set-up commands too. Absent or empty: none. */
  allowedHosts?: readonly string[];
  /** Hosts of its set-up commands, where those are others. */
  setupHosts?: readonly string[];
  /**
   * Placeholders of the secrets that its programs may use, by environment variable; the vault of the network has the rest
   * (egress/secrets/). Absent: it will never have any.
   */
  secrets?: Record<string, string>;
  /** Places for volumes, of which not all need to have one. Part of the key. Absent: none. */
  slots?: readonly VolumeAccess[];
  volumes?: readonly SpecVolume[];
  /** Directories of the host, beside one another. Absent: none. */
  directories?: readonly HostDirectory[];
  /** Start from this checkpoint instead of the image's golden snapshot. */
  checkpoint?: string;
  /** Keep track of dirty pages: a fork or checkpoint of it is then fast. */
  forkable?: boolean;
  /** For a call that ends it: the next daemon removes it, so nothing is written down for one that would take it over. */
  lent?: boolean;
  signal?: AbortSignal;
}

/** Which way a machine was started, and what each phase took. It is in the record, the log, the metrics and `Server-Timing`. */
export interface BootReport {
  path: "warm" | "restored" | "cold";
  /** `idle`: the VMM process was there already. Only with `restored`. */
  idle?: boolean;
  vmm: "firecracker" | "qemu";
  guest: "linux" | "bare";
  /** Snapshot key; absent for a cold boot without one. */
  key?: string;
  /** Why a better path was not taken, when it was tried and failed. */
  fallback?: string;
  /** ms by phase name: resolve, disk, vmm, load, configure, start, agent, claim, ... */
  phases: Record<string, number>;
  totalMs: number;
}

export type MachineState = "running" | "paused" | "suspended" | "exited";

/** A change that is given up by its signal leaves the machine as it was. */
export interface ChangeOptions {
  signal?: AbortSignal;
}

export interface SuspendOptions extends ChangeOptions {
  /** `machine`: all of it. `disk`: its files alone, so that `resume` starts its system anew, with none of its programs. */
  keeps?: "machine" | "disk";
}

export interface ResumeOptions extends ChangeOptions {
  /**
   * What was saved of its memory is left out: its system starts anew from its files, which are as after a power cut, with none of its
   * programs. One that runs goes on as it is.
   */
  anew?: boolean;
}

/**
 * A sandbox's machine, for as long as this daemon holds it. Its owner asks for one change at a time (`allow`, `pause`, `resume`,
 * `suspend`, `fork`, `checkpoint`, `restore`); another one meanwhile is the error `conflict`. Only the end comes at any moment: a
 * change that is under way then fails at once, and its leftovers go with the rest.
 */
export interface SandboxMachine {
  readonly id: string;
  readonly boot: BootReport;
  readonly state: MachineState;
  /** The agent; reconnects by itself. Rejects `conflict` when paused, `not-found` when gone. */
  readonly agent: Agent;
  /** Absent while suspended to disk. */
  readonly process: ProcessRecord | undefined;
  /** Settles once when the VMM is gone without `destroy`, `suspend` or `release`. Never rejects. */
  readonly exited: Promise<ExitReport>;
  /** Hosts that it may connect to, and how that went so far. */
  readonly network: NetworkStatus;
  /** Other hosts from now on, also for connections that are open. @throws StacyError `invalid`, `permission` */
  allow(hosts: readonly string[], options?: ChangeOptions): Promise<void>;
  /** Its secrets are others now. */
  secretsChanged(): void;
  pause(options?: ChangeOptions): Promise<void>;
  resume(options?: ResumeOptions): Promise<void>;
  /** To disk, for good: frees memory and process, keeps everything else. `resume` brings it back. @throws StacyError `conflict` for a paused one that is to keep its disk alone */
  suspend(options?: SuspendOptions): Promise<void>;
  /** Copies of this running machine, each with its own identity. */
  fork(
    ids: string[],
    options?: ChangeOptions & {
      env?: Record<string, string>;
      volumes?: CopiedVolumes;
      /** Of the host; absent: copies read them. */
      directories?: CopiedDirectories;
    },
  ): Promise<{ machines: SandboxMachine[]; stoppedMs: number }>;
  /** Saves it under a new checkpoint id, for good, with what is in its volumes; it goes on. */
  checkpoint(checkpointId: string, options?: ChangeOptions): Promise<{ bytes: number; stoppedMs: number }>;
  /** Goes back to a checkpoint in place: same sandbox, same names, running; what came after the checkpoint is gone. */
  restore(checkpointId: string, options?: ChangeOptions): Promise<void>;
  /** Mounts a volume in a free slot of this running machine. A failure may leave it there: `detach` takes it away, whatever was done of it. */
  attach(volume: SpecVolume, options?: ChangeOptions): Promise<void>;
  /**
   * The volume is closed, and its file is nobody's. `force`: programs that hold it lose it, and the slot is used up.
   * @throws StacyError `conflict` naming the programs that hold it
   */
  detach(
    volume: Pick<SpecVolume, "slot" | "name" | "path">,
    options?: ChangeOptions & { force?: boolean },
  ): Promise<{ reusable: boolean }>;
  /** The last lines of the guest's console. */
  console(lines: number): Promise<string[]>;
  stats(): Promise<MachineStats>;
  /**
   * Ends it and removes everything of it. Idempotent; after a failure it may be asked for again.
   * @param why what calls under way fail with
   * @param stopped told at most once, when its guest cannot run any more, if that is known before everything is removed
   */
  destroy(why?: StacyError, stopped?: () => void): Promise<void>;
  /** Lets go of it without ending it: the daemon stops, the sandbox goes on. */
  release(): Promise<void>;
}

/**
 * A machine of an earlier daemon that is there, or may be, and does not answer. It is kept, and asked again after growing pauses,
 * until it answers, is gone, or its sandbox ends.
 */
export interface UnreachableMachine {
  readonly id: string;
  /** Why it could not be taken over the last time. */
  readonly reason: string;
  /** Settles once: the machine, taken over, or why it is gone. Never after `destroy` or `release`. */
  readonly outcome: Promise<{ machine: SandboxMachine } | { gone: GoneMachine }>;
  console(lines: number): Promise<string[]>;
  /** Ends what is proven to be its own and removes everything of it. Idempotent. */
  destroy(): Promise<void>;
  release(): Promise<void>;
}

/** A wanted machine that was not there any more. */
export interface GoneMachine {
  id: string;
  reason: string;
  /** The last lines of the guest's console. */
  console: string[];
}

export interface Adoption {
  adopted: SandboxMachine[];
  unreachable: UnreachableMachine[];
  gone: GoneMachine[];
  /** Names of what nobody wanted. */
  removed: string[];
}

export interface NetworkStatus extends EgressStatus {
  allowedHosts: readonly string[];
}

export interface MachineStats {
  /** Of one core = 100; since the last call, or since start. */
  cpuPercent: number;
  /** What the VMM process alone has written to memory, bytes. */
  privateBytes: number;
  /** Proportional share including what clones have in common, bytes. */
  pssBytes: number;
  memoryLimitBytes: number;
  /** What the writable layer occupies, bytes. */
  diskBytes: number;
}

export interface SnapshotInfo {
  key: string;
  kind: "golden" | "checkpoint";
  image: string;
  imageDigest: string;
  vmm: "firecracker" | "qemu";
  vcpus: number;
  memoryMiB: number;
  diskMiB: number;
  /** ms since 1970 */
  createdAt: number;
  lastUsedAt: number;
  /** On disk, all files. */
  bytes: number;
  /** Live machines that map it, or warm ones. */
  inUse: number;
}

export interface ProviderHealth {
  healthy: boolean;
  /** Why not, or what is worth knowing. */
  detail: string;
  remedy?: string;
  version?: string;
  accelerator?: "kvm" | "kvm-interpreted" | "tcg";
  /** What its monitor, in the version that is there, can do with a running machine: stop it, and copy it. */
  canPause: boolean;
  canCopy: boolean;
}

export interface PoolStatus {
  key: string;
  image: string;
  vcpus: number;
  memoryMiB: number;
  warm: number;
  idle: number;
  target: number;
  filling: number;
}

export interface Provider {
  readonly name: "firecracker" | "qemu";
  health(): Promise<ProviderHealth>;
  spawn(spec: SandboxSpec): Promise<SandboxMachine>;
  /** Whether anything of a sandbox's machine is there, at least its directory. */
  holds(id: string): Promise<boolean>;
  /** Ids of the sandboxes of which there are machines in the data directory, running or suspended. */
  machines(): Promise<string[]>;
  /**
   * Looks after every machine of an earlier daemon (docs/crash-protocol.md). Of the wanted ones it takes over what answers, suspended
   * ones included, and keeps what does not; everything else that is proven to be ours it removes: processes, directories, sockets.
   * @param wanted ids that the database knows as alive
   * @param others the same of other providers, or of nobody knows which: these are left alone
   */
  adopt(wanted: ReadonlySet<string>, others?: ReadonlySet<string>): Promise<Adoption>;
  snapshots(): Promise<SnapshotInfo[]>;
  /** Keys of all that is saved, also of what cannot be read or is kept only for the machines that run from it. @throws when that cannot be seen */
  snapshotKeys(): Promise<string[]>;
  /** What is wrong with what is saved of a checkpoint, if anything is. @throws when that cannot be seen */
  checkpointDamage(checkpointId: string): Promise<string | undefined>;
  /** The file of what is saved of the volume in a slot of a checkpoint's machine. */
  savedVolume(checkpointId: string, slot: number): string;
  /** Builds the golden snapshot of a shape now, unless it is there. @param queued is told when its turn does not come at once */
  buildSnapshot(spec: Omit<SandboxSpec, "id" | "checkpoint">, queued?: () => void): Promise<SnapshotInfo>;
  /**
   * A checkpoint that machines came from is off the list at once, and its files go with the last of them.
   * @throws StacyError `conflict` for a golden one in use, `not-found`
   */
  removeSnapshot(key: string): Promise<void>;
  /** What images the machines and snapshots of this provider's data directory need; golden snapshots: this provider's own. */
  imageUse(): Promise<ImageUse>;
  /** How suspended machines come from and to other hosts; absent: they do not. */
  readonly travel?: Travel;
  pool(): PoolStatus[];
  /**
   * Keeps this many warm machines of a shape ready from now on (templates' `pool_size`).
   * @param owner who asks: another shape of the same owner takes the place of the one before
   */
  pin(owner: string, spec: Omit<SandboxSpec, "id" | "checkpoint">, count: number): Promise<void>;
  /** Stops background work and lets go of every machine. Warm and idle ones are ended. */
  close(): Promise<void>;
  /** What happened beside the calls: fall-backs, snapshot built, warm machine replaced, ... */
  onEvent(listener: (event: ProviderEvent) => void): () => void;
}

/** Another host's machine that is being put together here. */
export interface ArrivingMachine extends AsyncDisposable {
  /** A path of the file that is to be made, on the filesystem of the data directory. */
  path(name: string): string;
  /** All its files are there, and on disk. It gets its place and its name. */
  place(): Promise<SandboxMachine>;
}

export interface Travel {
  /** What is said of one before it is suspended: without its files. */
  outline(id: string): Promise<PackedMachine>;
  /** @throws StacyError `conflict` when it is not suspended */
  pack(id: string): Promise<PackedMachine>;
  /** A file of a suspended one. @throws StacyError `invalid` */
  file(id: string, name: string): string;
  /** Of another host's one: what is not so here, for people; nothing: it can wake here. */
  differences(packed: PackedMachine): Promise<string[]>;
  /** Files of this host that may have in part what that one's have, by name. */
  like(packed: PackedMachine, name: string): string[];
  /** Begins to put that one together. */
  unpack(packed: PackedMachine): Promise<ArrivingMachine>;
  /** Paths of the files of a golden snapshot, by name; `undefined`: there is none of that key. */
  golden(key: string): Promise<Record<string, string> | undefined>;
  /** Before one is built, others are asked for it from now on. */
  askForGoldens(elsewhere: Elsewhere): void;
}

export interface ProviderEvent {
  type:
    | "snapshot.built"
    | "snapshot.rejected"
    | "snapshot.removed"
    | "restore.failed"
    | "pool.filled"
    | "pool.replaced"
    | "network.refused"
    | "directory.failed"
    /** `slot`, `operation` and `reason` of a `VolumeFailure`. */
    | "volume.failed"
    | "reconcile.action";
  sandboxId?: string;
  data: Record<string, unknown>;
}
