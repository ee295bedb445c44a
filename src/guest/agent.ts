/**
 * The contract of the guest's agent as the host sees it. `connectAgent` (guest/client.ts) makes one from a VMM's byte
 * stream. Any number of calls may be under way at once; none waits for another.
 *
 * Every method rejects with a `StacyError`: `disconnected` at once when the channel breaks (commands go on in the guest and
 * can be attached to again), `not-found`, `permission`, `no-space`, `is-directory`, ... from the guest, `protocol` when the
 * guest sends nonsense. All paths are the guest's, absolute, or relative to the default working directory.
 */
import type { Duplex, Readable } from "node:stream";
import type { StacyError } from "../host/error.ts";
import type { CollectedOutput } from "./output-budget.ts";

/** What makes a clone an individual; applied by the agent before any user code runs. */
export interface Identity {
  sandboxId: string;
  hostname: string;
  /** 32 lower-case hex digits. */
  machineId: string;
  /** A UUID. */
  bootId: string;
  /** At least 32 fresh random bytes. */
  entropy: Uint8Array;
  /** Default environment, working directory and user of commands: the image's, with the caller's on top. */
  env: Record<string, string>;
  cwd?: string;
  user?: string;
  dns?: string[];
  /** Connections to any address, and questions for names, are taken for `intercept` and `datagrams`. Absent: both are refused. */
  network?: boolean;
  /** Thaw the processes that `freeze` stopped, once the identity is applied. */
  thaw?: boolean;
}

/** A connection that a program in the guest opened. */
export interface Intercepted {
  connection: Duplex;
  /** The address that it asked for, in its shortest form. */
  address: string;
  port: number;
}

export interface HelloInfo {
  protocol: number;
  /** Agent name and version. */
  agent: string;
  guest: "linux" | "bare";
  /** How many identities were applied since the guest booted: the golden machine's, and each handshake's since. */
  generation: number;
  /** The guest's monotonic clock, ns. */
  uptimeNs: bigint;
}

export interface ExecOptions {
  argv: string[];
  /** Added to the default environment. */
  env?: Record<string, string>;
  cwd?: string;
  user?: string;
  /** Enforced in the guest on the whole process group: `stopSignal`, then KILL after `graceMs`. */
  timeoutMs?: number;
  /** Number of the signal that asks it to end; default 15, TERM. */
  stopSignal?: number;
  graceMs?: number;
  /** `true`: `stdin` is a writable stream; bytes: sent and closed; absent: /dev/null. */
  stdin?: boolean | Uint8Array;
  /** Told once the guest has all bytes of `stdin`, or the command has ended without. */
  stdinTaken?: () => void;
  pty?: { rows: number; cols: number; term?: string };
  /** Recent output kept for `attach`, bytes. Default 1 MiB. */
  ringBytes?: number;
  /** It goes on without anybody who follows it; `processes` says so. */
  detached?: boolean;
  /** Kept beside it for whoever asks for `processes`, at most 4 KiB. */
  note?: string | undefined;
  /**
   * Its result waits until nobody holds its output open any more. Default: for what others that it has started (`exec > >(tee log)`) still
   * write, as long as they are not silent for 250 ms, and 2 s at most.
   */
  untilClosed?: boolean;
  /** Aborting cancels the command: `stopSignal`, then KILL after `graceMs`. */
  signal?: AbortSignal;
}

export interface ExitStatus {
  /** The command's own code, or 128 + n when signal n ended it. Always present. */
  exitCode: number;
  /** The number of the signal that ended it. */
  signal?: number;
  /** `out-of-memory`: it ended because the guest's memory had run out. */
  reason: "exited" | "timeout" | "cancelled" | "out-of-memory";
}

export type OutputEvent =
  /** `time`: ms since 1970 when it was written, where that was asked for; exact to 10 ms. */
  | { type: "stdout" | "stderr"; data: Buffer; time?: number }
  /** The ring had dropped this many bytes before an attach. */
  | { type: "lost"; bytes: number };

/** A command, running or ended. Reading `output` grants credit: a reader that stops holds the writing process back. */
export interface Command {
  /** The agent's own number of the command, for `attach` and `signal`; a decimal string. */
  readonly id: string;
  readonly pid: number;
  /** Bytes of output before it was attached to; absent: the agent is older and does not say. */
  readonly written?: number;
  /** Chunks in the order they were written, as they come. Ends when the result is known. Consume it once. */
  output(): AsyncGenerator<OutputEvent, void, void>;
  /** Settles when the command has ended, even if children of it still hold the output open. */
  readonly exited: Promise<ExitStatus>;
  /** @param options.withinMs when it takes nothing for so long the rest is given up: StacyError `timeout`. Absent: never */
  write(data: Uint8Array, options?: { withinMs?: number }): Promise<void>;
  /** Half-closes stdin. */
  closeStdin(): Promise<void>;
  /** Sends a signal by number to the process group. */
  kill(signal: number): Promise<void>;
  resize(rows: number, cols: number): Promise<void>;
  /** Stops following it; it goes on. */
  detach(): Promise<void>;
}

export interface ExecResult extends ExitStatus {
  stdout: Buffer;
  stderr: Buffer;
  /** True when output was dropped beyond the limit for collected output. */
  truncated: boolean;
}

export interface ProcessInfo {
  id: string;
  pid: number;
  command: string;
  /** ms since 1970 */
  startedAt: number;
  running: boolean;
  /** It was started to go on without anybody who follows it; absent: the agent is older and does not say. */
  detached?: boolean;
  /** What was left beside it. It comes from the guest: nothing to be trusted. */
  note?: string;
  exit?: ExitStatus;
}

export interface FileStat {
  path: string;
  kind: "file" | "directory" | "symlink" | "other";
  size: number;
  /** Permission bits, for example 0o644. */
  mode: number;
  uid: number;
  gid: number;
  /** ms since 1970 */
  mtimeMs: number;
  /** Of a symlink. */
  target?: string;
  /** Its extended attributes, by their whole names: those that were asked for. Absent: it has none of them, or the agent is older. */
  attributes?: Record<string, string>;
}

export interface WriteOptions {
  mode?: number;
  append?: boolean;
  /** Write beside and rename, so that a reader sees the old file or the whole new one. Default true (not for append). */
  atomic?: boolean;
  /** Byte position to write at in an existing file; implies not atomic. */
  offset?: number;
  exclusive?: boolean;
  /** A symlink at the path is written through (default); else it is replaced. */
  follow?: boolean;
  signal?: AbortSignal;
}

export interface ReadOptions {
  offset?: number;
  length?: number;
  /** Default true; else a symlink at the path is the error `invalid`. */
  follow?: boolean;
  /** For `readFile`: a larger answer is the error `limit`. Default 256 MiB; `readStream` has no limit. */
  limitBytes?: number;
  signal?: AbortSignal;
}

export type FileChange = "create" | "modify" | "delete" | "rename" | "overflow";

export interface GuestInfo {
  kernel: string;
  cpus: number;
  /** load average over 1 minute */
  load: number;
  memoryTotalBytes: number;
  memoryAvailableBytes: number;
  diskTotalBytes: number;
  diskFreeBytes: number;
  /** Busy time of all CPUs since boot, ns. */
  cpuNs: bigint;
  /** The guest's wall clock, ms since 1970. */
  nowMs: number;
  /** Minor faults of the agent itself so far. */
  minorFaults: number;
  /** Commands that run, and those that have ended and left something running. */
  commands: number;
}

export interface MountedVolume {
  name: string;
  /** From 0. */
  slot: number;
  /** Absolute. */
  path: string;
}

export interface MountOptions extends MountedVolume {
  /** Of the disk. */
  bytes: number;
  readOnly: boolean;
  /** Nobody has told the guest's kernel of the disk's size. */
  probe: boolean;
}

export interface Agent {
  readonly hello: HelloInfo;
  /** Settles with the reason when the channel is gone. Never rejects. */
  readonly closed: Promise<Error>;
  ping(): Promise<void>;
  /**
   * The handshake again, on an open connection (a warm machine at its claim). The clock is filled in at the last moment.
   * @param options.limitMs default 30 s
   */
  identify(identity: Identity, options?: { limitMs?: number }): Promise<HelloInfo>;

  start(options: ExecOptions): Promise<Command>;
  /** Runs to the end and collects. @param limitBytes for stdout and stderr together, default 64 MiB */
  exec(options: ExecOptions & { output?: CollectedOutput }): Promise<ExecResult>;
  /** @param options.times each piece of output comes with its time */
  attach(id: string, options?: { times?: boolean; signal?: AbortSignal }): Promise<Command>;
  processes(options?: { signal?: AbortSignal }): Promise<ProcessInfo[]>;
  signal(id: string, signal: number): Promise<void>;

  readFile(path: string, options?: ReadOptions): Promise<Buffer>;
  readStream(path: string, options?: ReadOptions): Promise<{ stat: FileStat; stream: Readable }>;
  writeFile(path: string, data: Uint8Array | AsyncIterable<Uint8Array>, options?: WriteOptions): Promise<void>;
  /**
   * Of what a symlink means, unless `follow` is false.
   * @param options.attributes extended attributes whose names begin so are told, too, 16 KiB at most; not those of what a symlink means
   */
  stat(path: string, options?: { follow?: boolean; attributes?: string; signal?: AbortSignal }): Promise<FileStat>;
  /** @param options.follow symlinks are listed as what they mean, and entered; default false. @param options.attributes as for `stat` */
  list(
    path: string,
    options?: { recursive?: boolean; depth?: number; follow?: boolean; attributes?: string; signal?: AbortSignal },
  ): Promise<FileStat[]>;
  /**
   * A file's extended attributes whose names begin with `prefix` are these from now on, and no others.
   * @throws StacyError `not-supported`: its filesystem keeps none, or the agent is older
   */
  mark(
    path: string,
    prefix: string,
    attributes: Readonly<Record<string, string>>,
    options?: { signal?: AbortSignal },
  ): Promise<void>;
  glob(pattern: string, cwd?: string, options?: { signal?: AbortSignal }): Promise<string[]>;
  move(from: string, to: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** @param options.follow what symlinks mean is copied in their place; default false */
  copy(
    from: string,
    to: string,
    options?: { recursive?: boolean; follow?: boolean; signal?: AbortSignal },
  ): Promise<void>;
  /** @param options.follow default true; else a symlink at the path is the error `invalid` (links have no mode) */
  chmod(
    path: string,
    mode: number,
    options?: { recursive?: boolean; follow?: boolean; signal?: AbortSignal },
  ): Promise<void>;
  /** Moves and removals are about names: they never follow a symlink at the path. */
  remove(path: string, options?: { recursive?: boolean; signal?: AbortSignal }): Promise<void>;
  mkdir(path: string, options?: { parents?: boolean; mode?: number; signal?: AbortSignal }): Promise<void>;
  /** The tree below `path` as a tar stream (PAX). @param options.follow as for `copy` */
  tarOut(path: string, options?: { follow?: boolean; signal?: AbortSignal }): Promise<Readable>;
  /**
   * Unpacks a tar stream below `path`. Entries cannot leave it.
   * @param options.layer it is a layer of an image: `.wh.` names delete, extended attributes are set
   * @param options.beneath where a file is mounted on a name (`/etc/hosts`), the one below it is written, and not the one that is seen; anything
   *   but a file is left out there
   */
  tarIn(
    path: string,
    tar: AsyncIterable<Uint8Array>,
    options?: { layer?: boolean; beneath?: boolean; signal?: AbortSignal },
  ): Promise<void>;
  /** What the guest's root differs from its base image in, as a layer of an image (tar with `.wh.` names). */
  changes(options?: { signal?: AbortSignal }): Promise<Readable>;
  /**
   * What `writeFile` writes beside and renames is one `create` or `modify` of the file.
   * @param options.ready called when the watch has begun, perhaps again: what changes from then on is told
   */
  watch(
    path: string,
    options?: { recursive?: boolean; signal?: AbortSignal; ready?: () => void },
  ): AsyncIterable<{ change: FileChange; path: string; to?: string }>;

  /** A TCP connection to a port inside the guest. */
  tunnel(port: number, options?: { host?: string; signal?: AbortSignal }): Promise<Duplex>;
  /**
   * The next connection that a program in the guest opens to 127.0.0.1:port. Waits as long as it takes, without keeping the
   * guest awake; abort the signal to stop waiting (a connection that is there is not touched by it). Calls are served in their
   * order; connections that nobody waits for yet are kept, up to 128. One port at a time: `conflict` while calls wait for
   * another one, and when a program of the guest listens on it.
   */
  accept(port: number, options?: { signal?: AbortSignal }): Promise<Duplex>;
  /**
   * The next connection that a program in the guest opens to any address, with where it wanted to go. Waits as `accept` does.
   * Only while the identity has `network`. @throws StacyError `not-supported` where the guest's kernel cannot take them
   */
  intercept(options?: { signal?: AbortSignal }): Promise<Intercepted>;
  /** What programs in the guest send without a connection, to any address, and the way for answers: datagrams as in protocol.ts. */
  datagrams(options?: { signal?: AbortSignal }): Promise<Duplex>;

  info(): Promise<GuestInfo>;
  /** The kernel's log, as the guest keeps it. */
  console(): Promise<Buffer>;
  /** Flushes the guest's filesystems. */
  sync(): Promise<void>;
  /** Stops every command (not the agent) until `thaw` or an identity with `thaw`. */
  freeze(options?: { limitMs?: number }): Promise<void>;
  thaw(options?: { limitMs?: number }): Promise<void>;
  /**
   * Mounts the volume in a spare slot, before any program of the user's runs; its journal is replayed first.
   * @throws StacyError that names the volume, of one that is damaged, or was not closed in order and is to be read only
   */
  mount(volume: MountOptions): Promise<void>;
  /**
   * What was written to it is on its disk when this resolves, and its place is empty.
   * @param options.force whatever holds it loses it: what is written there goes nowhere, and syncs are errors
   * @throws StacyError `conflict` while programs hold it
   */
  unmount(volume: MountedVolume, options?: { force?: boolean }): Promise<void>;
  /** Nothing can be written to it any more. @throws StacyError `conflict` while programs have files of it open to write */
  onlyRead(volume: MountedVolume): Promise<void>;
  /**
   * Mounts a directory of the host, with nobody behind it yet: what is asked of it waits, and is an error when nothing was
   * answered for `withinMs` (the agent's own limit is 30 s).
   * @returns whom files of the host's user belong to in the guest: the user of its commands
   * @throws StacyError `not-supported` where the guest's kernel has no FUSE
   */
  share(directory: { path: string; readOnly: boolean; withinMs?: number }): Promise<{ uid: number; gid: number }>;
  /** FUSE requests to such a directory, and the answers to them (directory/), in the place of whoever answered before. */
  serve(path: string, options?: { signal?: AbortSignal }): Promise<Duplex>;
  /** Unmounts all such directories but these. What programs have open of them are errors from then on. */
  unshare(keep: readonly string[]): Promise<void>;
  /** What was written to volumes is on their disks when this resolves, and what is written waits: until `thaw`, 60 s at most. */
  still(options?: { limitMs?: number }): Promise<void>;
  /** While its machine stands still a guest may be silent, however long that is. */
  standsStill(still: boolean): void;
  /** Runs the code paths of a first command once, so that a warm machine has them ready. */
  exercise(): Promise<void>;
  /** Orderly: TERM to all, sync, power off. The channel closes. */
  shutdown(): Promise<void>;
  /** Closes the channel; the guest goes on. @param why what calls under way, and later ones, fail with */
  close(why?: StacyError): Promise<void>;
}
