// Made by scripts/generate-sdk.ts from the server's schemas; not edited by hand.
import type { Shape } from "./shape.ts";

/** Milliseconds, or text such as `90s` or `1h30m`. The server always answers with text. */
export type Duration = string | number;

export interface Sandbox {
  /** Its id, `sb-` and eight characters. It stays the same over pauses, suspensions and restarts of the server. */
  id: string;
  /** Its name, for people and in paths. */
  name?: string | undefined;
  /** What it is doing now. */
  state: "creating" | "running" | "paused" | "suspended" | "error" | "expired" | "destroyed";
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider: string;
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image: string;
  /** Memory of the machine, MiB. */
  memoryMb: number;
  /** Virtual CPUs of the machine. */
  vcpus: number;
  /** Size of the writable layer above the image, MiB. */
  diskMb: number;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** The user that the client named, for quotas */
  ownerId?: string | undefined;
  /** The owner as a tenant; absent: the default one */
  tenantId?: string | undefined;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it ends by itself (RFC 3339). */
  expiresAt: string;
  /** Labels of yours: names and values, to find it by. */
  metadata: Record<string, string>;
  /** Its ports are at `http://{port}-{id}.` and this domain. */
  previewDomain: string;
  /** `local`: the machine that answers */
  workerId: string;
  /** The template that it is made from. */
  template?: string | undefined;
  /** The checkpoint that it began from. */
  checkpoint?: string | undefined;
  /** The sandbox that it is a copy of. */
  forkedFrom?: string | undefined;
  /** After how long without use `idle_action` is done (a Go duration). */
  idleTimeout?: string | undefined;
  /** It was paused or suspended by itself, and its next use brings it back. Absent: only `resume` does, or it runs. */
  resumeOnUse?: boolean | undefined;
  /** Hosts that it may connect to. Empty: none. */
  allowedHosts?: string[] | undefined;
  /** Names of those that its programs may use */
  secrets?: string[] | undefined;
  /** Volumes that it has */
  volumes?: VolumeMount[] | undefined;
  /** Directories of the host that it has */
  mounts?: Directory[] | undefined;
  freeVolumeSlots?: FreeVolumeSlots | undefined;
  boot?: Boot | undefined;
  /** What went wrong, if something did. */
  error?:
    | {
        /** A word for programs, which does not change. */
        code: string;
        /** What happened, in words. */
        message: string;
        /** In which part of the work it happened. */
        phase?: string | undefined;
        /** When it was (RFC 3339). */
        at: string;
        /** The last lines of the guest's console before it failed. */
        console: string[];
      }
    | undefined;
  /** Why its machine cannot be asked now, if so. */
  unreachable?:
    | {
        /** From when on (RFC 3339). */
        since: string;
        /** Why, in one word. */
        reason: string;
      }
    | undefined;
}

export interface VolumeMount {
  /** Its name, for people and in paths. */
  name: string;
  /** The path in the sandbox; a relative one begins in the working directory. */
  path: string;
  /** Whether it can only be read. */
  readOnly: boolean;
}

export interface Directory {
  /** Where its value comes from. */
  source: string;
  /** Where a symbolic link leads. */
  target: string;
  /** Whether it can only be read. */
  readOnly: boolean;
  /** What the sandbox writes stays in it */
  copyOnWrite?: true | undefined;
}

export interface FreeVolumeSlots {
  /** For volumes that are written */
  volumeSlots: number;
  /** For volumes that are only read */
  volumeSlotsReadOnly: number;
}

export interface Boot {
  /** Which way: `warm` (it waited ready), `restored` (from a snapshot) or `cold` (booted). */
  path: "warm" | "restored" | "cold";
  /** Whether the monitor's process was there already. */
  idle?: boolean | undefined;
  /** The machine monitor. */
  vmm: string;
  /** `linux`, or `bare` for the test guest without an operating system. */
  guest: string;
  /** The snapshot's key: the same for all sandboxes of one kind. */
  key?: string | undefined;
  /** Why a better way was tried and failed, if one was. */
  fallback?: string | undefined;
  /** How long each part of the start took, ms. */
  phases: Record<string, number>;
  /** From the request to the agent's first answer, ms. */
  totalMs: number;
}

export interface Problem {
  /** A word for programs, which does not change. */
  code: string;
  /** What happened, in words. */
  message: string;
  /** In which part of the work it happened. */
  phase?: string | undefined;
  /** What to do about it. */
  remedy?: string | undefined;
  /** Names the call in the server's log. */
  requestId?: string | undefined;
}

export interface SpawnRequest {
  /** What it is called; stands wherever its id may, and no two of an owner have the same */
  name?: string | undefined;
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image?: string | undefined;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider?: string | undefined;
  /** MiB */
  memoryMb?: number | undefined;
  /** Virtual CPUs of the machine. */
  vcpus?: number | undefined;
  /** Size of the writable layer, MiB */
  diskMb?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl?: Duration | undefined;
  /** The template that it is made from. */
  template?: string | undefined;
  /** The checkpoint to begin from, by id. */
  checkpoint?: string | undefined;
  /** The user within the owner whom quotas count it for. */
  ownerId?: string | undefined;
  /** Labels of yours: names and values, to find it by. */
  metadata?: Record<string, string> | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** Commands that run once before the machine is saved; every sandbox of this kind has their result. */
  setup?: string[] | undefined;
  /** Start the image's /sbin/init (systemd), with its services, before the golden snapshot is saved */
  init?: boolean | undefined;
  /** Contexts of the code interpreter that are saved with the machine, warm. */
  contexts?:
    | {
        /** `python`, `javascript`, `typescript` or `bash`, where the image has it. */
        language: "python" | "javascript" | "typescript" | "bash";
        /** Code that is run in it before it is saved. */
        code?: string | undefined;
      }[]
    | undefined;
  /** `example.com` (ports 80 and 443), `*.example.com`, `example.com:8080`, `example.com:8000-8999`, `example.com:*`, `example.com:123/udp` (datagrams; no other rule permits any), an address, a range such as `10.1.0.0/16:5432`, a group such as `@pypi`, or `*`; with `!` in front: not that, whatever else permits it. */
  allowedHosts?: string[] | undefined;
  /** The owner's by name, or with a value for this sandbox alone; their hosts are allowed, too */
  secrets?: (string | OwnSecret)[] | undefined;
  /** The owner's, by name: disks that stay when the sandbox goes */
  volumes?: VolumeMountRequest[] | undefined;
  /** Directories of the server's host; for administrators, and where `mounts.allow` permits */
  mounts?: DirectoryRequest[] | undefined;
  /** Free places for volumes that are attached while it runs, to be written; with its volumes at most four */
  volumeSlots?: number | undefined;
  /** Free places for volumes that are attached while it runs, to be only read; with its volumes at most four */
  volumeSlotsReadOnly?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. After how long without use `idle_action` is done. */
  idleTimeout?: Duration | undefined;
  /** What is done with it when it has been idle for `idle_timeout`. */
  idleAction?: "destroy" | "pause" | "suspend" | undefined;
  /** What counts as use: also what runs in it (default), or calls alone */
  idleCounts?: "processes" | "calls" | undefined;
  /** Under QEMU: memory is kept in a file from the start, so that the first fork is fast. */
  forkable?: boolean | undefined;
}

export interface OwnSecret {
  /** Its name, for people and in paths. */
  name: string;
  /** The value goes to these alone, over TLS; `http://` in front: without. */
  hosts?: string[] | undefined;
  placement?: SecretPlacementRequest | undefined;
  /** What programs see in its place */
  placeholder?: string | undefined;
  /** The value itself; no answer ever has it. */
  value?: string | undefined;
}

export interface SecretPlacementRequest {
  /** `bearer`: `Authorization: Bearer VALUE`; `header`: the header `name`, whose text is `template` with the value for `{}`; `basic`: the password beside `username`; `query`: the parameter `name` of the URL */
  kind: "bearer" | "header" | "basic" | "query";
  /** Of the header or the query parameter. */
  name?: string | undefined;
  /** How the value is written there; `{value}` stands for it. */
  template?: string | undefined;
  /** The user's name that goes with it. */
  username?: string | undefined;
}

export interface VolumeMountRequest {
  /** The volume's name */
  name: string;
  /** Where it is; made where it is not there */
  path: string;
  /** Others may read it at the same time */
  readOnly?: boolean | undefined;
}

export interface DirectoryRequest {
  /** Absolute, on the server's host */
  source: string;
  /** Where it is; made where it is not there */
  target: string;
  /** The sandbox cannot change it */
  readOnly?: boolean | undefined;
}

export interface Admission {
  /** Whether a spawn would be let in now. */
  allowed: boolean;
  /** Whether it would wait for its turn instead of being refused. */
  queueable: boolean;
  /** Why, in one word. */
  reason?: "max_ttl" | "max_sandboxes" | "max_sandboxes_per_owner" | undefined;
  /** Sandboxes that are alive now. */
  activeSandboxes: number;
  /** The most at once; 0: no limit. */
  maxSandboxes: number;
  /** Of them, those of this user. */
  activeOwnerSandboxes?: number | undefined;
  /** The most at once of this user; 0: no limit. */
  maxOwnerSandboxes?: number | undefined;
  /** The longest life that a sandbox may have (a Go duration). */
  maxTtl?: string | undefined;
}

export interface SandboxStats {
  /** Whether this can be measured now. */
  supported: boolean;
  /** Of one core */
  cpuPct?: number | undefined;
  /** What it alone has written to memory; page cache that the host can take back is not counted */
  memBytes?: number | undefined;
  /** The same, with its share of what it has in common with others */
  memPssBytes?: number | undefined;
  /** What its machine has, bytes. */
  memLimitBytes?: number | undefined;
  /** What its files occupy on the host's disk, bytes. */
  diskBytes?: number | undefined;
}

export interface Status {
  /** What became of it. */
  status: string;
}

export interface ExtendRequest {
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl: Duration;
}

export interface SandboxNetwork {
  /** Hosts that it may connect to. Empty: none. */
  allowedHosts: string[];
  /** Connections that are open now. */
  open: number;
  /** Connections that were made so far. */
  connected: number;
  /** Attempts to reach hosts that are not allowed. */
  refused: number;
  /** Attempts to reach allowed hosts that did not answer. */
  failed: number;
  /** Bytes to hosts */
  sent: number;
  /** Bytes from hosts */
  received: number;
  /** Why its network does not work, if it does not. */
  problem?: string | undefined;
}

export interface NetworkRequest {
  /** `example.com` (ports 80 and 443), `*.example.com`, `example.com:8080`, `example.com:8000-8999`, `example.com:*`, `example.com:123/udp` (datagrams; no other rule permits any), an address, a range such as `10.1.0.0/16:5432`, a group such as `@pypi`, or `*`; with `!` in front: not that, whatever else permits it. */
  allowedHosts: string[];
}

export interface Fork {
  /** The copies. */
  sandboxes: Sandbox[];
  /** How long the source stood still for it, ms. */
  stoppedMs: number;
}

export interface ForkRequest {
  /** How many copies. */
  count?: number | undefined;
  /** Of a single copy */
  name?: string | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl?: Duration | undefined;
  /** Labels of yours: names and values, to find it by. */
  metadata?: Record<string, string> | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** What a copy gets of volumes that the sandbox writes to: a `clone` of each, which stays when the copy goes (default); the same, mounted `read_only`; or `none` */
  volumes?: "clone" | "read_only" | "none" | undefined;
  /** What a copy gets of directories of the host: it reads them (`read_only`, default); `copy_on_write`: what it writes stays in the copy; or `none` */
  mounts?: "read_only" | "copy_on_write" | "none" | undefined;
}

export interface Checkpoint {
  /** Its id, which the server gave it. */
  id: string;
  /** The sandbox that it is about. */
  sandboxId: string;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider: string;
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image: string;
  /** Memory of the machine, MiB. */
  memoryMb: number;
  /** Virtual CPUs of the machine. */
  vcpus: number;
  /** Size of the writable layer above the image, MiB. */
  diskMb: number;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** The user within the owner whom quotas count it for. */
  ownerId?: string | undefined;
  /** Its name, for people and in paths. */
  name?: string | undefined;
  /** What it takes on disk, bytes. */
  bytes: number;
  /** What is wrong with its files: nothing starts from it until they are put back */
  damaged?: string | undefined;
  /** Volumes that are saved with it */
  volumes?: VolumeMount[] | undefined;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** How long the source stood still for it, ms. */
  stoppedMs?: number | undefined;
}

export interface CheckpointRequest {
  /** Its name, for people and in paths. */
  name?: string | undefined;
  /** Of a sandbox that has volumes: a `snapshot` of each is saved with it (default), or it is `refuse`d */
  volumes?: "snapshot" | "refuse" | undefined;
}

export interface RestoreRequest {
  /** The checkpoint to begin from, by id. */
  checkpoint: string;
}

export interface ExecResult {
  /** Its exit code; 128 + n when signal n ended it. */
  exitCode: number;
  /** What it wrote to standard output. */
  stdout: string;
  /** What it wrote to standard error. */
  stderr: string;
  /** How long it took (a Go duration). */
  duration: string;
  /** The number of the signal that ended it. */
  signal?: number | undefined;
  /** `out-of-memory`: it ended because the sandbox's memory had run out. */
  reason?: string | undefined;
  /** Whether more was written than is kept; `stream` has no such limit. */
  truncated?: boolean | undefined;
  /** `utf8` or `base64`: how bytes are written in the text. */
  encoding?: string | undefined;
}

export interface ExecRequest {
  /** The command: text for the shell, or a program when `mode` is `argv`. */
  command?: string | undefined;
  /** Arguments of the program, when `mode` is `argv`. */
  args?: string[] | undefined;
  /** `argv`: command and args are executed as they are. Else the shell gets the command. */
  mode?: string | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** Directory in which it begins. Default: the image's. */
  workdir?: string | undefined;
  /** The same as `workdir`, as older clients call it. */
  workDir?: string | undefined;
  /** As whom it runs: a name, an id, or `user:group`. Default: the image's user. */
  user?: string | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. The command is ended after this time. */
  timeout?: Duration | undefined;
  /** Default: TERM. */
  stopSignal?: string | undefined;
  /** Answer with NDJSON, line by line as it happens. */
  stream?: boolean | undefined;
  /** What the command reads from standard input; without it nothing. */
  stdin?: string | undefined;
  /** Of stdin and of the output. base64 carries any bytes. */
  encoding?: "utf8" | "base64" | undefined;
}

export interface ExecRecord {
  /** The command, as it was given. */
  command: string;
  /** When it began (RFC 3339). */
  startedAt: string;
  /** How long it took (a Go duration). */
  duration: string;
  /** Its exit code; 128 + n when signal n ended it. */
  exitCode?: number | undefined;
  /** How it ended: `completed`, `timeout`, `cancelled`, ... */
  outcome: string;
}

export interface ProcessStarted {
  /** Its number in this sandbox, for the routes below `/processes`. */
  id: string;
  /** Its process id in the guest. */
  pid: number;
}

export interface ProcessRequest {
  /** The command: text for the shell, or a program when `mode` is `argv`. */
  command?: string | undefined;
  /** Arguments of the program, when `mode` is `argv`. */
  args?: string[] | undefined;
  /** `argv`: command and args are executed as they are. Else the shell gets the command. */
  mode?: string | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** Directory in which it begins. Default: the image's. */
  workdir?: string | undefined;
  /** As whom it runs: a name, an id, or `user:group`. Default: the image's user. */
  user?: string | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. The command is ended after this time. */
  timeout?: Duration | undefined;
  /** Default: TERM. */
  stopSignal?: string | undefined;
  /** Whether standard input stays open for `/processes/{process}/stdin`. */
  stdin?: boolean | undefined;
  /** A terminal of this size for it. */
  pty?:
    | {
        /** Lines of the terminal. */
        rows: number;
        /** Columns of the terminal. */
        cols: number;
      }
    | undefined;
}

export interface Process {
  /** Its number in this sandbox, for the routes below `/processes`. */
  id: string;
  /** Its process id in the guest. */
  pid: number;
  /** The command, as it was given. */
  command: string;
  /** When it began (RFC 3339). */
  startedAt: string;
  /** Whether it runs now. */
  running: boolean;
  /** Started to go on by itself */
  detached?: boolean | undefined;
  /** Its exit code; 128 + n when signal n ended it. */
  exitCode?: number | undefined;
  /** The number of the signal that ended it. */
  signal?: number | undefined;
  /** Why it ended: `exited`, `signaled`, `timeout`, `cancelled`, `out-of-memory`. */
  reason?: string | undefined;
}

export interface SignalRequest {
  /** The signal, by number or name. */
  signal: string;
}

export interface CodeExecution {
  /** What was displayed, and the value of the last expression. */
  results: CodeResult[];
  /** What it wrote to standard output. */
  stdout: string;
  /** What it wrote to standard error. */
  stderr: string;
  error?: CodeError | undefined;
  /** How many pieces of code its context has run. */
  executionCount: number;
}

export interface CodeResult {
  /** The value of the last expression; else it was displayed. */
  main: boolean;
  /** As text. */
  text?: string | undefined;
  /** As HTML. */
  html?: string | undefined;
  /** As Markdown. */
  markdown?: string | undefined;
  /** As an SVG picture. */
  svg?: string | undefined;
  /** base64 */
  png?: string | undefined;
  /** base64 */
  jpeg?: string | undefined;
  /** base64 */
  pdf?: string | undefined;
  /** As LaTeX. */
  latex?: string | undefined;
  /** As JavaScript. */
  javascript?: string | undefined;
  /** As JSON. */
  json?: unknown | undefined;
  /** A table's columns. */
  data?: unknown | undefined;
  /** What a figure shows, as data. */
  chart?: unknown | undefined;
  /** In further forms, by MIME type. */
  other?: Record<string, unknown> | undefined;
}

export interface CodeError {
  /** The kind of error, for example `ZeroDivisionError`. */
  name: string;
  /** What the error says. */
  value: string;
  /** Where in the code it happened. */
  traceback: string;
}

export interface CodeRequest {
  /** The code to run. */
  code: string;
  /** python, javascript, typescript, bash. Default: python. */
  language?: string | undefined;
  /** A context's id. Default: the one of the language, which is started when it is needed. */
  context?: string | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. The code is interrupted after this time; its context stays. */
  timeout?: Duration | undefined;
  /** Answer with NDJSON, line by line as it happens. */
  stream?: boolean | undefined;
}

export interface CodeContext {
  /** Its id, which the server gave it. */
  id: string;
  /** `python`, `javascript`, `typescript` or `bash`, where the image has it. */
  language: string;
  /** Directory in which it begins. Default: the image's. */
  workdir?: string | undefined;
}

export interface ContextRequest {
  /** python, javascript, typescript, bash. Default: python. */
  language?: string | undefined;
  /** Directory in which it begins. Default: the image's. */
  workdir?: string | undefined;
  /** As whom it runs: a name, an id, or `user:group`. Default: the image's user. */
  user?: string | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
}

export interface RunResult {
  /** Its exit code; 128 + n when signal n ended it. */
  exitCode: number;
  /** What it wrote to standard output. */
  stdout: string;
  /** What it wrote to standard error. */
  stderr: string;
  /** How long it took (a Go duration). */
  duration: string;
  /** The number of the signal that ended it. */
  signal?: number | undefined;
  /** `out-of-memory`: it ended because the sandbox's memory had run out. */
  reason?: string | undefined;
  /** Whether more was written than is kept; `stream` has no such limit. */
  truncated?: boolean | undefined;
  /** `utf8` or `base64`: how bytes are written in the text. */
  encoding?: string | undefined;
  /** Of the sandbox, which is gone */
  sandboxId: string;
  /** How its machine was started. */
  boot?:
    | {
        /** Which way: `warm` (it waited ready), `restored` (from a snapshot) or `cold` (booted). */
        path: "warm" | "restored" | "cold";
        /** From the request to the agent's first answer, ms. */
        totalMs: number;
      }
    | undefined;
  /** What `collect` names, by path, in base64 */
  files: Record<string, string>;
  /** What `collect` names and the sandbox has not */
  missing: string[];
}

export interface RunRequest {
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image?: string | undefined;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider?: string | undefined;
  /** MiB */
  memoryMb?: number | undefined;
  /** Virtual CPUs of the machine. */
  vcpus?: number | undefined;
  /** Size of the writable layer, MiB */
  diskMb?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl?: Duration | undefined;
  /** The template that it is made from. */
  template?: string | undefined;
  /** The checkpoint to begin from, by id. */
  checkpoint?: string | undefined;
  /** The user within the owner whom quotas count it for. */
  ownerId?: string | undefined;
  /** Labels of yours: names and values, to find it by. */
  metadata?: Record<string, string> | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** Commands that run once before the machine is saved; every sandbox of this kind has their result. */
  setup?: string[] | undefined;
  /** Start the image's /sbin/init (systemd), with its services, before the golden snapshot is saved */
  init?: boolean | undefined;
  /** Contexts of the code interpreter that are saved with the machine, warm. */
  contexts?:
    | {
        /** `python`, `javascript`, `typescript` or `bash`, where the image has it. */
        language: "python" | "javascript" | "typescript" | "bash";
        /** Code that is run in it before it is saved. */
        code?: string | undefined;
      }[]
    | undefined;
  /** `example.com` (ports 80 and 443), `*.example.com`, `example.com:8080`, `example.com:8000-8999`, `example.com:*`, `example.com:123/udp` (datagrams; no other rule permits any), an address, a range such as `10.1.0.0/16:5432`, a group such as `@pypi`, or `*`; with `!` in front: not that, whatever else permits it. */
  allowedHosts?: string[] | undefined;
  /** The owner's by name, or with a value for this sandbox alone; their hosts are allowed, too */
  secrets?: (string | OwnSecret)[] | undefined;
  /** The owner's, by name: disks that stay when the sandbox goes */
  volumes?: VolumeMountRequest[] | undefined;
  /** Directories of the server's host; for administrators, and where `mounts.allow` permits */
  mounts?: DirectoryRequest[] | undefined;
  /** Free places for volumes that are attached while it runs, to be written; with its volumes at most four */
  volumeSlots?: number | undefined;
  /** Free places for volumes that are attached while it runs, to be only read; with its volumes at most four */
  volumeSlotsReadOnly?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. After how long without use `idle_action` is done. */
  idleTimeout?: Duration | undefined;
  /** What is done with it when it has been idle for `idle_timeout`. */
  idleAction?: "destroy" | "pause" | "suspend" | undefined;
  /** What counts as use: also what runs in it (default), or calls alone */
  idleCounts?: "processes" | "calls" | undefined;
  /** Under QEMU: memory is kept in a file from the start, so that the first fork is fast. */
  forkable?: boolean | undefined;
  /** The command: text for the shell, or a program when `mode` is `argv`. */
  command?: string | undefined;
  /** Arguments of the program, when `mode` is `argv`. */
  args?: string[] | undefined;
  /** `argv`: command and args are executed as they are. Else the shell gets the command. */
  mode?: string | undefined;
  /** Directory in which it begins. Default: the image's. */
  workdir?: string | undefined;
  /** The same as `workdir`, as older clients call it. */
  workDir?: string | undefined;
  /** As whom it runs: a name, an id, or `user:group`. Default: the image's user. */
  user?: string | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. The command is ended after this time. */
  timeout?: Duration | undefined;
  /** Default: TERM. */
  stopSignal?: string | undefined;
  /** Answer with NDJSON, line by line as it happens. */
  stream?: boolean | undefined;
  /** What the command reads from standard input; without it nothing. */
  stdin?: string | undefined;
  /** Of stdin and of the output. base64 carries any bytes. */
  encoding?: "utf8" | "base64" | undefined;
  /** Written before the command starts; missing directories are made */
  files?:
    | {
        /** The path in the sandbox; a relative one begins in the working directory. */
        path: string;
        /** What is in the file, in its `encoding`. */
        content: string;
        /** `utf8` or `base64`: how bytes are written in the text. */
        encoding?: "utf8" | "base64" | undefined;
        /** Default: 0644 (420) */
        mode?: number | undefined;
      }[]
    | undefined;
  /** Files to give back when the command has ended, 16 MiB together */
  collect?: string[] | undefined;
}

export interface WriteFileRequest {
  /** The path in the sandbox; a relative one begins in the working directory. */
  path: string;
  /** What is in the file, in its `encoding`. */
  content?: string | undefined;
  /** Permission bits in octal, for example `0644`. */
  mode?: string | undefined;
  /** `utf8` or `base64`: how bytes are written in the text. */
  encoding?: "utf8" | "base64" | undefined;
  /** Add to what is there, instead of replacing it. */
  append?: boolean | undefined;
}

export interface FileInfo {
  /** The path in the sandbox; a relative one begins in the working directory. */
  path: string;
  /** The last part of its path. */
  name: string;
  /** Bytes of its content. */
  size: number;
  /** Permission bits in octal */
  mode: string;
  /** Whether it is a directory. */
  isDir: boolean;
  /** When its content last changed (RFC 3339). */
  modTime: string;
  /** The same to the microsecond, since 1970. */
  modTimeUs: number;
  /** What kind it is: one of the words in its type. */
  kind: "file" | "directory" | "symlink" | "other";
  /** Number of its user. */
  uid: number;
  /** Number of its group. */
  gid: number;
  /** Where a symbolic link leads. */
  target?: string | undefined;
}

export interface MoveRequest {
  /** Where it is. */
  oldPath: string;
  /** Where it goes. */
  newPath: string;
}

export interface CopyRequest {
  /** Where it is. */
  oldPath: string;
  /** Where it goes. */
  newPath: string;
  /** With everything below it. */
  recursive?: boolean | undefined;
}

export interface ChmodRequest {
  /** The path in the sandbox; a relative one begins in the working directory. */
  path: string;
  /** Permission bits in octal, for example `0644`. */
  mode: string;
  /** With everything below it. */
  recursive?: boolean | undefined;
}

export interface MkdirRequest {
  /** The path in the sandbox; a relative one begins in the working directory. */
  path: string;
  /** Permission bits in octal, for example `0644`. */
  mode?: string | undefined;
}

export interface Template {
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** Whether it is everybody's, not the owner's alone. */
  shared: boolean;
  /** Counts the changes of the template, from 1. */
  version: number;
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image: string;
  /** What it is for, in people's words. */
  description: string;
  /** Commands that run once before the machine is saved; every sandbox of this kind has their result. */
  setup: string[];
  /** A program that is started before the machine is saved, and goes on in each sandbox. */
  startCommand?: string | undefined;
  /** It succeeds when the started program is ready to be saved. */
  readyCommand?: string | undefined;
  /** Contexts of the code interpreter that are saved with the machine, warm. */
  contexts?:
    | {
        /** `python`, `javascript`, `typescript` or `bash`, where the image has it. */
        language: string;
        /** Code that is run in it before it is saved. */
        code: string;
      }[]
    | undefined;
  /** Hosts that it may connect to. Empty: none. */
  allowedHosts: string[];
  /** Memory of the machine, MiB. */
  memoryMb: number;
  /** Virtual CPUs of the machine, as older clients call them. */
  cpuCores: number;
  /** Virtual CPUs of the machine. */
  vcpus: number;
  /** How long its sandboxes live, seconds. */
  ttlSeconds: number;
  /** How long it lives from now on (a Go duration). */
  ttl: string;
  /** Environment variables: names and values. */
  env: Record<string, string>;
  /** Secrets that it may use; their values stay on the server. */
  secrets: {
    /** Its name, for people and in paths. */
    name: string;
    /** Where the secret goes. */
    injectAt: string;
  }[];
  /** Volumes that its sandboxes get */
  volumes?: VolumeMount[] | undefined;
  /** Free places for volumes to be written */
  volumeSlots?: number | undefined;
  /** The same, to be only read */
  volumeSlotsReadOnly?: number | undefined;
  /** How many machines of it are kept ready. */
  poolSize: number;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider: string;
  /** Labels of yours: names and values, to find it by. */
  metadata: Record<string, string>;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface TemplateCreateRequest {
  /** Its name, for people and in paths. */
  name: string;
  /** Its version. */
  version?: number | undefined;
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image: string;
  /** What it is for, in people's words. */
  description?: string | undefined;
  /** Commands that run once before the machine is saved; every sandbox of this kind has their result. */
  setup?: string[] | undefined;
  /** Runs when the machine is saved, and goes on in each sandbox */
  startCommand?: string | undefined;
  /** Is asked until it succeeds; then the machine is saved */
  readyCommand?: string | undefined;
  /** Contexts of the code interpreter that are saved with the machine, warm. */
  contexts?:
    | {
        /** `python`, `javascript`, `typescript` or `bash`, where the image has it. */
        language: "python" | "javascript" | "typescript" | "bash";
        /** Code that is run in it before it is saved. */
        code?: string | undefined;
      }[]
    | undefined;
  /** `example.com` (ports 80 and 443), `*.example.com`, `example.com:8080`, `example.com:8000-8999`, `example.com:*`, `example.com:123/udp` (datagrams; no other rule permits any), an address, a range such as `10.1.0.0/16:5432`, a group such as `@pypi`, or `*`; with `!` in front: not that, whatever else permits it. */
  allowedHosts?: string[] | undefined;
  /** Memory of the machine, MiB. */
  memoryMb?: number | undefined;
  /** Virtual CPUs of the machine, as older clients call them. */
  cpuCores?: number | undefined;
  /** Virtual CPUs of the machine. */
  vcpus?: number | undefined;
  /** How long its sandboxes live, seconds. */
  ttlSeconds?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl?: Duration | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** Secrets that it may use; their values stay on the server. */
  secrets?:
    | {
        /** Its name, for people and in paths. */
        name: string;
        /** Where the secret goes. */
        injectAt?: string | undefined;
      }[]
    | undefined;
  /** Volumes of whoever spawns from it, by name; a spawn's own take the place of those with the same name or path */
  volumes?: unknown[] | undefined;
  /** Free places for volumes that are attached while it runs, to be written; with its volumes at most four */
  volumeSlots?: number | undefined;
  /** Free places for volumes that are attached while it runs, to be only read; with its volumes at most four */
  volumeSlotsReadOnly?: number | undefined;
  /** How many machines of it are kept ready. */
  poolSize?: number | undefined;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider?: string | undefined;
  /** Labels of yours: names and values, to find it by. */
  metadata?: Record<string, string> | undefined;
  /** Every owner finds it; for administrators */
  shared?: boolean | undefined;
}

export interface TemplateRequest {
  /** Its name, for people and in paths. */
  name?: string | undefined;
  /** Its version. */
  version?: number | undefined;
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image: string;
  /** What it is for, in people's words. */
  description?: string | undefined;
  /** Commands that run once before the machine is saved; every sandbox of this kind has their result. */
  setup?: string[] | undefined;
  /** Runs when the machine is saved, and goes on in each sandbox */
  startCommand?: string | undefined;
  /** Is asked until it succeeds; then the machine is saved */
  readyCommand?: string | undefined;
  /** Contexts of the code interpreter that are saved with the machine, warm. */
  contexts?:
    | {
        /** `python`, `javascript`, `typescript` or `bash`, where the image has it. */
        language: "python" | "javascript" | "typescript" | "bash";
        /** Code that is run in it before it is saved. */
        code?: string | undefined;
      }[]
    | undefined;
  /** `example.com` (ports 80 and 443), `*.example.com`, `example.com:8080`, `example.com:8000-8999`, `example.com:*`, `example.com:123/udp` (datagrams; no other rule permits any), an address, a range such as `10.1.0.0/16:5432`, a group such as `@pypi`, or `*`; with `!` in front: not that, whatever else permits it. */
  allowedHosts?: string[] | undefined;
  /** Memory of the machine, MiB. */
  memoryMb?: number | undefined;
  /** Virtual CPUs of the machine, as older clients call them. */
  cpuCores?: number | undefined;
  /** Virtual CPUs of the machine. */
  vcpus?: number | undefined;
  /** How long its sandboxes live, seconds. */
  ttlSeconds?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl?: Duration | undefined;
  /** Environment variables: names and values. */
  env?: Record<string, string> | undefined;
  /** Secrets that it may use; their values stay on the server. */
  secrets?:
    | {
        /** Its name, for people and in paths. */
        name: string;
        /** Where the secret goes. */
        injectAt?: string | undefined;
      }[]
    | undefined;
  /** Volumes of whoever spawns from it, by name; a spawn's own take the place of those with the same name or path */
  volumes?: unknown[] | undefined;
  /** Free places for volumes that are attached while it runs, to be written; with its volumes at most four */
  volumeSlots?: number | undefined;
  /** Free places for volumes that are attached while it runs, to be only read; with its volumes at most four */
  volumeSlotsReadOnly?: number | undefined;
  /** How many machines of it are kept ready. */
  poolSize?: number | undefined;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider?: string | undefined;
  /** Labels of yours: names and values, to find it by. */
  metadata?: Record<string, string> | undefined;
  /** Every owner finds it; for administrators */
  shared?: boolean | undefined;
}

export interface TemplateSpawnRequest {
  /** Its name, for people and in paths. */
  name?: string | undefined;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider?: string | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long it lives from now on. */
  ttl?: Duration | undefined;
}

export interface OwnerQuota {
  /** The user within the owner whom quotas count it for. */
  ownerId: string;
  /** The most at once; 0: no limit. */
  maxSandboxes: number;
  /** The longest life that a sandbox may have (a Go duration). */
  maxTtl: string;
  /** The longest time that a command may have (a Go duration); what names none has this where its result is waited for. */
  maxExecTimeout: string;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface QuotaSummary {
  /** How many quotas there are. */
  total: number;
  /** How many of them limit sandboxes. */
  withMaxSandboxes: number;
  /** How many of them limit the life of sandboxes. */
  withMaxTtl: number;
  /** How many of them limit the time of commands. */
  withMaxExecTimeout: number;
}

export interface QuotaRequest {
  /** The most at once; 0: no limit. */
  maxSandboxes?: number | undefined;
  /** The longest life that a sandbox may have (a Go duration). */
  maxTtl?: string | undefined;
  /** The longest time that a command may have (a Go duration); what names none has this where its result is waited for. */
  maxExecTimeout?: string | undefined;
}

export interface QuotaUsage {
  /** The user within the owner whom quotas count it for. */
  ownerId: string;
  /** Sandboxes that are alive now. */
  activeSandboxes: number;
  /** The most at once; 0: no limit. */
  maxSandboxes: number;
  /** The longest life that a sandbox may have (a Go duration). */
  maxTtl: string;
  /** The longest time that a command may have (a Go duration); what names none has this where its result is waited for. */
  maxExecTimeout: string;
  /** Whether this user has limits of their own. */
  quotaConfigured: boolean;
}

export interface Secret {
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** Hosts that the value may be sent to. */
  hosts: string[];
  placement: SecretPlacement;
  /** What programs in the sandbox see instead of the value. */
  placeholder: string;
  /** Where its value comes from. */
  source: "value" | "file" | "environment";
  /** Whether every sandbox of the owner has it. */
  everywhere: boolean;
  /** The value is there */
  available: boolean;
  /** It is there after the server's next start, too */
  kept: boolean;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface SecretPlacement {
  /** What kind it is: one of the words in its type. */
  kind: "bearer" | "header" | "basic" | "query";
  /** Of the header or the query parameter. */
  name?: string | undefined;
  /** How the value is written there; `{value}` stands for it. */
  template?: string | undefined;
  /** The user's name that goes with it. */
  username?: string | undefined;
}

export interface SecretRequest {
  /** The value goes to these alone, over TLS; `http://` in front: without. */
  hosts?: string[] | undefined;
  placement?: SecretPlacementRequest | undefined;
  /** What programs see in its place */
  placeholder?: string | undefined;
  /** The value itself; no answer ever has it. */
  value?: string | undefined;
  /** A file of the server that has the value, read for each request; for administrators */
  file?: string | undefined;
  /** A variable of the server's environment that has the value; for administrators */
  variable?: string | undefined;
  /** Each new sandbox of the owner gets it */
  everywhere?: boolean | undefined;
}

export interface Volume {
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** Size of its disk, MiB */
  sizeMb: number;
  /** What it occupies on the host, bytes; absent: its file is not there */
  usedBytes?: number | undefined;
  /** It is a snapshot, and never changes */
  readOnly: boolean;
  /** Name of the volume that it was copied from */
  copiedFrom?: string | undefined;
  /** Sandboxes that have it: one that writes, or any number that read */
  sandboxes: VolumeUse[];
  /** When it was made (RFC 3339). */
  createdAt: string;
}

export interface VolumeUse {
  /** Its id, which the server gave it. */
  id: string;
  /** The path in the sandbox; a relative one begins in the working directory. */
  path: string;
  /** Whether it can only be read. */
  readOnly: boolean;
}

export interface VolumeUsage {
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** How many there are */
  volumes: number;
  /** Sizes of their disks together, MiB */
  sizeMb: number;
  /** What they occupy on the host; what clones share counts with each */
  usedBytes: number;
  /** How many there may be; 0: no limit */
  maxVolumes: number;
  /** What their sizes may be together, MiB; 0: no limit */
  maxSizeMb: number;
}

export interface VolumeRequest {
  /** Its name, for people and in paths. */
  name: string;
  /** Size of its disk, MiB */
  sizeMb: number;
}

export interface VolumeResize {
  /** Size of its disk, MiB */
  sizeMb: number;
}

export interface VolumeClone {
  /** Of the copy */
  name: string;
  /** A snapshot: the copy never changes, and is there to be read and cloned */
  readOnly?: boolean | undefined;
}

export interface Provider {
  /** Its name, for people and in paths. */
  name: string;
  /** Whether it works. */
  healthy: boolean;
  /** Whether it is used when none is named. */
  default: boolean;
  /** How long it took to answer, ms. */
  latencyMs: number;
  /** When that was last looked at (RFC 3339). */
  lastChecked: string;
  /** What went wrong, if something did. */
  error?: string | undefined;
  /** More about it, in words. */
  detail?: string | undefined;
  /** What to do about it. */
  remedy?: string | undefined;
  /** Its version. */
  version?: string | undefined;
  /** `kvm`, or `tcg` for software emulation. */
  accelerator?: string | undefined;
  /** What it can do. */
  capabilities: string[];
  /** How many machines it has. */
  runtimeCount?: number | undefined;
}

export interface ProviderDetail {
  /** Its name, for people and in paths. */
  name: string;
  /** Whether it works. */
  healthy: boolean;
  /** Whether it is used when none is named. */
  default: boolean;
  /** How many sandboxes it has. */
  sandboxCount: number;
  health: Provider;
  /** How it is set up; secrets are left out. */
  config: Record<string, string>;
}

export interface PoolStatus {
  /** Whether there is one. */
  enabled: boolean;
  /** Machines that wait. */
  vms?: number | undefined;
  /** How many shall wait. */
  maxVms?: number | undefined;
  /** Users of shared machines; always 0, since no machine is shared. */
  totalUsers?: number | undefined;
  /** Users of one machine; always 1. */
  maxUsersPerVm?: number | undefined;
  /** One for each kind of machine. */
  pools?: Record<string, unknown>[] | undefined;
}

export interface Snapshot {
  /** Which snapshot, by its key. */
  key: string;
  /** What kind it is: one of the words in its type. */
  kind: "golden" | "checkpoint";
  /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
  image: string;
  /** The digest of its image. */
  imageDigest: string;
  /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
  provider: string;
  /** Virtual CPUs of the machine. */
  vcpus: number;
  /** Memory of the machine, MiB. */
  memoryMb: number;
  /** Size of the writable layer above the image, MiB. */
  diskMb: number;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last used (RFC 3339). */
  lastUsedAt: string;
  /** What it takes on disk, bytes. */
  bytes: number;
  /** How many machines and waiting monitors use it now. */
  inUse: number;
}

export interface SnapshotGc {
  /** What went, or would go, and why. */
  removed: {
    /** Which snapshot, by its key. */
    key: string;
    /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
    image: string;
    /** What it takes on disk, bytes. */
    bytes: number;
    /** Why, in one word. */
    reason: string;
  }[];
  /** What stays, and why. */
  kept: {
    /** Which snapshot, by its key. */
    key: string;
    /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
    image: string;
    /** What it takes on disk, bytes. */
    bytes: number;
    /** Why, in one word. */
    reason: string;
  }[];
  /** What it takes on disk, bytes. */
  bytes: number;
  /** Say what would go, and remove nothing. */
  dryRun: boolean;
}

export interface SnapshotGcRequest {
  /** Say what would go, and remove nothing. */
  dryRun?: boolean | undefined;
  /** What may stay, bytes. */
  maxBytes?: number | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. What was not used for so long may go. */
  maxUnused?: Duration | undefined;
  /** Whether checkpoints may go, too. */
  checkpoints?: boolean | undefined;
}

export interface Image {
  /** The image's name. */
  reference: string;
  /** The digest of its content, `sha256:...`. */
  digest: string;
  /** Of the read-only disk made from it. */
  filesystem: string;
  /** What it takes on disk, bytes. */
  bytes: number;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** Whose name it is; absent: everybody's */
  owner?: string | undefined;
  config: ImageConfig;
}

export interface ImageConfig {
  /** Environment variables: names and values. */
  env: string[];
  /** Directory in which it begins. Default: the image's. */
  workdir?: string | undefined;
  /** As whom it runs: a name, an id, or `user:group`. Default: the image's user. */
  user?: string | undefined;
  /** The program that the image starts, before `cmd`. */
  entrypoint: string[];
  /** The image's own command, or its arguments. */
  cmd: string[];
  /** Labels of the image. */
  labels: Record<string, string>;
  /** What asks it to end, before it is killed. */
  stopSignal?: string | undefined;
  /** Ports that the image says it listens on. */
  exposedPorts: string[];
  /** Directories that the image wants for data. */
  volumes?: string[] | undefined;
}

export interface ImageDetails {
  /** The image's name. */
  reference: string;
  /** The digest of its content, `sha256:...`. */
  digest: string;
  /** Of the read-only disk made from it. */
  filesystem: string;
  /** What it takes on disk, bytes. */
  bytes: number;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** Whose name it is; absent: everybody's */
  owner?: string | undefined;
  config: ImageConfig;
  /** All its names. */
  references: string[];
  /** When it was last used (RFC 3339). */
  lastUsedAt: string;
  /** Layers, by digest. */
  blobs: string[];
}

export interface PullRequest {
  /** The image's name. */
  reference: string;
  /** When to ask the registry: `missing` (default), `always`, `never`. */
  pull?: "missing" | "always" | "never" | undefined;
  /** Answer with NDJSON, line by line as it happens. */
  stream?: boolean | undefined;
}

export interface ImportRequest {
  /** A file or directory on the server's host. */
  source: string;
  /** The image's name. */
  reference: string;
  /** The name that it gets. */
  tag?: string | undefined;
  /** `rootfs`: take a tar for a tree of files, whatever it looks like. */
  as?: "rootfs" | undefined;
  /** Every owner finds it under the name. */
  shared?: boolean | undefined;
  /** Answer with NDJSON, line by line as it happens. */
  stream?: boolean | undefined;
}

export interface TagRequest {
  /** The image's name. */
  reference: string;
  /** Its name, for people and in paths. */
  name: string;
  /** Every owner finds it under the name. */
  shared?: boolean | undefined;
}

export interface ImageGc {
  /** Images that went, or would go. */
  images: string[];
  /** Layers, by digest. */
  blobs: string[];
  /** Kept steps of builds that went, or would go. */
  builds: string[];
  /** Golden snapshots that went, or would go. */
  snapshots: string[];
  /** What became free, bytes. */
  freedBytes: number;
  /** What stays, bytes. */
  keptBytes: number;
  /** Say what would go, and remove nothing. */
  dryRun: boolean;
}

export interface ImageGcRequest {
  /** Say what would go, and remove nothing. */
  dryRun?: boolean | undefined;
  /** What may stay, bytes. */
  maxBytes?: number | undefined;
}

export interface ImageBuild {
  /** The image's name. */
  reference: string;
  /** The digest of its content, `sha256:...`. */
  digest: string;
  /** Of the read-only disk made from it. */
  filesystem: string;
  /** What it takes on disk, bytes. */
  bytes: number;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** Whose name it is; absent: everybody's */
  owner?: string | undefined;
  config: ImageConfig;
  /** How many steps there are. */
  steps: number;
  /** How many of them came from the cache. */
  cachedSteps: number;
}

export interface Health {
  /** `healthy` while the server answers. */
  status: string;
  /** Its version. */
  version: string;
  /** For how long the server has run (a Go duration). */
  uptime: string;
}

export interface Ready {
  /** `healthy` while the server answers. */
  status: string;
  /** Its version. */
  version: string;
  /** For how long the server has run (a Go duration). */
  uptime: string;
  /** Machine monitors, by name. */
  providers: Provider[];
  /** How many of them can start machines. */
  readyProviders: number;
  /** How many are set up. */
  totalProviders: number;
}

export interface ConfigUpdated {
  /** What became of it. */
  status: string;
  /** What happened, in words. */
  message: string;
}

export type ConfigPatch = Record<string, unknown>;

export interface SystemStats {
  /** Processors of the host in use, percent. */
  cpuPct: number;
  /** Memory of the host in use, percent. */
  memPct: number;
  /** The data directory's disk in use, percent. */
  diskPct: number;
  /** The host receives, bytes a second. */
  netRxBps: number;
  /** The host sends, bytes a second. */
  netTxBps: number;
  /** Load of the host over one minute. */
  load1: number;
}

export interface SystemSample {
  /** Processors of the host in use, percent. */
  cpuPct: number;
  /** Memory of the host in use, percent. */
  memPct: number;
  /** The data directory's disk in use, percent. */
  diskPct: number;
  /** The host receives, bytes a second. */
  netRxBps: number;
  /** The host sends, bytes a second. */
  netTxBps: number;
  /** Load of the host over one minute. */
  load1: number;
  /** When it was (RFC 3339). */
  at: string;
}

export interface Doctor {
  /** Whether it can be used now. */
  ready: boolean;
  /** What was found, one by one. */
  findings: Finding[];
}

export interface Finding {
  /** What was looked at. */
  name: string;
  /** Whether that is as it should be. */
  state: "ok" | "note" | "missing";
  /** More about it, in words. */
  detail: string;
  /** What that means for you. */
  meaning: string;
  /** What to do about it. */
  remedy?: string | undefined;
}

export interface EventHistory {
  /** The events, newest first. */
  events: Event[];
  /** What the next page begins before; absent at the end. */
  next?: string | undefined;
}

export interface Event {
  /** `evt-` and a number that grows; `last_event_id` continues after it. */
  id: string;
  /** What kind it is, for example `sandbox.running`. */
  type: string;
  /** The sandbox that it is about. */
  sandboxId?: string | undefined;
  /** Whose it is. `default` where no owners are set up. */
  owner?: string | undefined;
  /** When it happened (RFC 3339). */
  timestamp: string;
  /** By type, for example the reason */
  data?: Record<string, unknown> | undefined;
}

export interface Worker {
  /** Its id, which the server gave it. */
  id: string;
  /** The host that it runs on. */
  hostname: string;
  /** What became of it. */
  status: string;
  /** Machine monitors, by name. */
  providers: string[];
  /** What it can do. */
  capabilities: string[];
  /** How much it can take. */
  capacity: Record<string, unknown>;
  /** When it last reported (RFC 3339). */
  lastHeartbeat: string;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
  /** Whether it has not reported for too long. */
  stale: boolean;
}

export interface Environment {
  /** Its id, which the server gave it. */
  id: string;
  /** The user within the owner whom quotas count it for. */
  ownerId: string;
  /** Its name, for people and in paths. */
  name: string;
  /** The image that it begins with. */
  baseImage: string;
  /** What pip installs, as it is written for pip. */
  pythonPackages: string[];
  /** What apt installs. */
  aptPackages: string[];
  /** Which Python its base image shall have. */
  pythonVersion?: string | undefined;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface EnvironmentRequest {
  /** The user within the owner whom quotas count it for. */
  ownerId: string;
  /** Its name, for people and in paths. */
  name: string;
  /** The image that it begins with. */
  baseImage: string;
  /** What pip installs, as it is written for pip. */
  pythonPackages?: string[] | undefined;
  /** What apt installs. */
  aptPackages?: string[] | undefined;
  /** Which Python its base image shall have. */
  pythonVersion?: string | undefined;
}

export interface EnvironmentBuild {
  /** Its id, which the server gave it. */
  id: string;
  /** The environment that it builds. */
  specId: string;
  /** What became of it. */
  status: "queued" | "building" | "ready" | "failed" | "canceled";
  /** The step that it is at. */
  currentStep: string;
  /** What the build has said so far. */
  log: string;
  /** Size of the image that was made, bytes. */
  imageSizeBytes: number;
  /** Digest of the image that was made. */
  digestLocal?: string | undefined;
  /** What went wrong, if something did. */
  error?: string | undefined;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it ended (RFC 3339). */
  finishedAt?: string | undefined;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
  /** What was made, one for each target. */
  artifacts: EnvironmentArtifact[];
}

export interface EnvironmentArtifact {
  /** What it was made for. */
  target: string;
  /** The image's name. */
  imageRef: string;
  /** The digest of its content, `sha256:...`. */
  digest?: string | undefined;
  /** What became of it. */
  status: string;
  /** What went wrong, if something did. */
  error?: string | undefined;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface EnvironmentBuildRequest {
  /** The environment that it builds. */
  specId: string;
  /** What it shall be made for; here `local` alone. */
  targets?: string[] | undefined;
}

export interface Identity {
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** What it may do: `read`, `use`, `admin`. */
  scopes: ("read" | "use" | "admin")[];
}

export interface MadeKey {
  /** Its id, which the server gave it. */
  id: string;
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** What it may do: `read`, `use`, `admin`. */
  scopes: ("read" | "use" | "admin")[];
  /** Whether it works: `active`, `expired` or `revoked`. */
  state: "active" | "expired" | "revoked";
  /** Hosts that it may connect to. Empty: none. */
  allowedHosts?: string[] | undefined;
  /** The first characters of the secret */
  hint: string;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** Which key made it. */
  createdBy: string;
  /** When it ends by itself (RFC 3339). */
  expiresAt?: string | undefined;
  /** When it was revoked (RFC 3339). */
  revokedAt?: string | undefined;
  /** When it was last used (RFC 3339). */
  lastUsedAt?: string | undefined;
  /** The secret: shown once, and never again */
  key: string;
}

export interface Key {
  /** Its id, which the server gave it. */
  id: string;
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** What it may do: `read`, `use`, `admin`. */
  scopes: ("read" | "use" | "admin")[];
  /** Whether it works: `active`, `expired` or `revoked`. */
  state: "active" | "expired" | "revoked";
  /** Hosts that it may connect to. Empty: none. */
  allowedHosts?: string[] | undefined;
  /** The first characters of the secret */
  hint: string;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** Which key made it. */
  createdBy: string;
  /** When it ends by itself (RFC 3339). */
  expiresAt?: string | undefined;
  /** When it was revoked (RFC 3339). */
  revokedAt?: string | undefined;
  /** When it was last used (RFC 3339). */
  lastUsedAt?: string | undefined;
}

export interface KeyRequest {
  /** Its name, for people and in paths. */
  name: string;
  /** Whose it is. `default` where no owners are set up. */
  owner?: string | undefined;
  /** What it may do: `read`, `use`, `admin`. */
  scopes?: ("read" | "use" | "admin")[] | undefined;
  /** A Go duration: 300ms, 90s, 1h30m. How long the key works. Without it: until it is revoked. */
  expiresIn?: Duration | undefined;
  /** What the sandboxes that it makes or sets may connect to at most (default: no limit of its own) */
  allowedHosts?: string[] | undefined;
}

export interface KeyRotateRequest {
  /** A Go duration: 300ms, 90s, 1h30m. How long the secret before works on. */
  grace?: Duration | undefined;
}

export interface AuditEntry {
  /** Its id, which the server gave it. */
  id: number;
  /** When it was (RFC 3339). */
  at: string;
  /** Who called: the key's name. */
  actor: string;
  /** The key that called. */
  keyId?: string | undefined;
  /** Whose it is. `default` where no owners are set up. */
  owner: string;
  /** Other owners whose things were used */
  about?: string[] | undefined;
  /** The HTTP method. */
  method: string;
  /** The route that was called, without ids. */
  route: string;
  /** The path that was called. */
  path: string;
  /** What became of it. */
  status: number;
  /** Names the call in the server's log. */
  requestId: string;
  /** Where the call came from. */
  address?: string | undefined;
  /** What the client calls itself. */
  userAgent?: string | undefined;
  /** How long it took, ms. */
  durationMs?: number | undefined;
}

export interface AdminAuditEntry {
  /** Its id, which the server gave it. */
  id: number;
  /** Who called: the key's name. */
  actor: string;
  /** The HTTP method. */
  method: string;
  /** The path that was called. */
  path: string;
  /** What became of it. */
  status: number;
  /** How long it took, ms. */
  durationMs: number;
  /** Names the call in the server's log. */
  requestId: string;
  /** Where the call came from. */
  remoteAddr: string;
  /** What the client calls itself. */
  userAgent: string;
  /** The tenant that it belongs to. */
  tenantId: string;
  /** When it was made (RFC 3339). */
  createdAt: string;
}

export interface FleetNode {
  /** Its id, which the server gave it. */
  id: string;
  /** Its name, for people and in paths. */
  name: string;
  /** How the others reach it */
  url: string;
  /** `node`, or `entrance` for one that takes calls and has no machines. */
  role: string;
  /** `silent`: it missed three heartbeats; `lost`: it was silent for `fleet.lost_after` */
  state: "up" | "silent" | "lost";
  /** It takes no new sandboxes */
  draining: boolean;
  /** It is the one that answers */
  self: boolean;
  /** Its version. */
  version: string;
  /** Labels of the node, from its configuration. */
  labels: Record<string, string>;
  /** Of its processors, as Node.js names it: `x64`. */
  architecture: string;
  /** Saved machines wake on nodes where this is the same */
  hostIdentity: string;
  /** Machine monitors that it has; the first is its default. */
  providers: string[];
  /** When it last said that it is there, by the clock of the fleet's database (RFC 3339). */
  seenAt: string;
  /** What it has to do and what it has left, as of its last heartbeat. */
  load: {
    /** The copies. */
    sandboxes: number;
    /** 0: no limit */
    maxSandboxes: number;
    /** Sandboxes that wait for a place there. */
    queued: number;
    /** Virtual CPUs of the machine. */
    vcpus: number;
    /** Memory of the machine, MiB. */
    memoryMb: number;
    /** Memory that it has left, MiB. */
    freeMemoryMb: number;
    /** Of the last minute, as its kernel counts it: processes that run or would. */
    loadAverage: number;
    /** So much its clock is ahead of the fleet's database's; to a tenth of a second */
    clockOffsetMs?: number | undefined;
  };
}

export interface DrainRequest {
  /** It gives away what it has, too, beside this */
  move?: boolean | undefined;
}

export interface NodeDrain {
  /** It takes no new sandboxes */
  draining: boolean;
  /** It is giving away what it has */
  moving: boolean;
  /** Sandboxes, since it began */
  moved: number;
  /** What it has, with why */
  left: {
    /** Its id, which the server gave it. */
    id: string;
    /** Why, in one word. */
    reason: string;
  }[];
}

export interface RemovedNode {
  /** Ids of the sandboxes that it had */
  forgotten: string[];
}

export interface MovedSandbox {
  /** Its id, which the server gave it. */
  id: string;
  /** Name of the node that has it */
  node: string;
  /** Name of the node that had it */
  formerNode: string;
  /** What it is doing now. */
  state: string;
  /** So long its programs stood still; 0: it was there already */
  stoppedMs: number;
  /** From the request to the agent's first answer, ms. */
  totalMs: number;
  /** Sent over the network */
  bytes: number;
  /** That the other node had already */
  knownBytes: number;
}

export interface SandboxMoveRequest {
  /** Name or id of the node; default: where it fits best */
  to?: string | undefined;
}

export interface Tenant {
  /** Its id, which the server gave it. */
  id: string;
  /** Its name, for people and in paths. */
  name: string;
  /** The user within the owner whom quotas count it for. */
  ownerId: string;
  /** Settings of the tenant. */
  settings: string;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface TenantRequest {
  /** Its id, which the server gave it. */
  id?: "" | string | undefined;
  /** Its name, for people and in paths. */
  name: string;
  /** The user within the owner whom quotas count it for. */
  ownerId?: string | undefined;
  /** Settings of the tenant. */
  settings?: unknown | undefined;
}

export interface TenantChange {
  /** Its name, for people and in paths. */
  name?: string | undefined;
  /** The user within the owner whom quotas count it for. */
  ownerId?: string | undefined;
  /** Settings of the tenant. */
  settings?: unknown | undefined;
}

export interface TenantMember {
  /** The tenant that it belongs to. */
  tenantId: string;
  /** The key's name */
  userId: string;
  /** What the member may do: `viewer` reads, `operator` uses, `admin` administers. */
  role: "viewer" | "operator" | "admin";
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface TenantMemberRequest {
  /** What the member may do: `viewer` reads, `operator` uses, `admin` administers. */
  role: "viewer" | "operator" | "admin";
  /** As it comes back: the member that the address names */
  userId?: string | undefined;
}

export interface TenantPolicy {
  /** Its id, which the server gave it. */
  id: string;
  /** The tenant that it belongs to. */
  tenantId: string;
  /** What it rules on: `image` or `provider`. */
  resourceType: string;
  /** `allow` or `deny`. */
  effect: "allow" | "deny";
  /** What it is about, by name; `*` stands for any part. */
  pattern: string;
  /** The lowest one that matches decides; default 10. */
  priority: number;
  /** When it was made (RFC 3339). */
  createdAt: string;
  /** When it was last changed (RFC 3339). */
  updatedAt: string;
}

export interface TenantPolicyRequest {
  /** What it rules on: `image` or `provider`. */
  resourceType: "image" | "provider" | "network";
  /** `allow` or `deny`. */
  effect: "allow" | "deny";
  /** What it is about, by name; `*` stands for any part. */
  pattern: string;
  /** The lowest one that matches decides; default 10. */
  priority?: number | undefined;
}

/** Every operation of the server: the body it takes and the reply it gives. */
export interface Operations {
  /** Spawn a sandbox */
  "POST /sandboxes": { body: SpawnRequest; reply: Sandbox };
  /** List sandboxes, newest first */
  "GET /sandboxes": { body: undefined; reply: Sandbox[] };
  /** Destroy what has expired */
  "DELETE /sandboxes": {
    body: undefined;
    reply: {
      /** How many were destroyed. */
      pruned: number;
    };
  };
  /** What a spawn would meet now */
  "POST /sandboxes/admission": { body: SpawnRequest; reply: Admission };
  /** What each of them uses */
  "GET /sandboxes/stats": { body: undefined; reply: Record<string, SandboxStats> };
  /** One sandbox */
  "GET /sandboxes/{id}": { body: undefined; reply: Sandbox };
  /** Destroy a sandbox */
  "DELETE /sandboxes/{id}": { body: undefined; reply: Status };
  /** New expiry: now and the given ttl */
  "POST /sandboxes/{id}/extend": { body: ExtendRequest; reply: Sandbox };
  /** Hosts that it may connect to, and how that went so far */
  "GET /sandboxes/{id}/network": { body: undefined; reply: SandboxNetwork };
  /** Set the hosts that it may connect to */
  "PUT /sandboxes/{id}/network": { body: NetworkRequest; reply: Sandbox };
  /** Attach a volume to it while it runs */
  "POST /sandboxes/{id}/volumes": { body: VolumeMountRequest; reply: Sandbox };
  /** Detach a volume from it while it runs */
  "DELETE /sandboxes/{id}/volumes/{name}": { body: undefined; reply: Sandbox };
  /** Stop its processors; memory stays */
  "POST /sandboxes/{id}/pause": { body: undefined; reply: Sandbox };
  /** Let it run again, from a pause or from disk */
  "POST /sandboxes/{id}/resume": { body: undefined; reply: Sandbox };
  /** Save it to disk and free its memory */
  "POST /sandboxes/{id}/suspend": { body: undefined; reply: Sandbox };
  /** Copies of the running sandbox */
  "POST /sandboxes/{id}/fork": { body: ForkRequest; reply: Fork };
  /** Save the sandbox as it is; it goes on */
  "POST /sandboxes/{id}/checkpoints": { body: CheckpointRequest; reply: Checkpoint };
  /** Checkpoints of a sandbox, also of one that is gone */
  "GET /sandboxes/{id}/checkpoints": { body: undefined; reply: Checkpoint[] };
  /** Go back to a checkpoint of this sandbox, in place */
  "POST /sandboxes/{id}/restore": { body: RestoreRequest; reply: Sandbox };
  /** All checkpoints */
  "GET /checkpoints": { body: undefined; reply: Checkpoint[] };
  /** One checkpoint */
  "GET /checkpoints/{id}": { body: undefined; reply: Checkpoint };
  /** Delete a checkpoint */
  "DELETE /checkpoints/{id}": { body: undefined; reply: Status };
  /** The last lines of its console */
  "GET /sandboxes/{id}/logs": { body: undefined; reply: string[] };
  /** What it uses */
  "GET /sandboxes/{id}/stats": { body: undefined; reply: SandboxStats };
  /** Run a command */
  "POST /sandboxes/{id}/exec": { body: ExecRequest; reply: ExecResult };
  /** Commands that ran, newest first */
  "GET /sandboxes/{id}/history": { body: undefined; reply: ExecRecord[] };
  /** Start a command and leave it running */
  "POST /sandboxes/{id}/processes": { body: ProcessRequest; reply: ProcessStarted };
  /** Commands that the agent knows */
  "GET /sandboxes/{id}/processes": { body: undefined; reply: Process[] };
  /** One command */
  "GET /sandboxes/{id}/processes/{process}": { body: undefined; reply: Process };
  /** Attach: its recent output, then what comes, as NDJSON */
  "GET /sandboxes/{id}/processes/{process}/output": { body: undefined; reply: undefined };
  /** Send a signal to its process group */
  "POST /sandboxes/{id}/processes/{process}/signal": { body: SignalRequest; reply: Status };
  /** Write to its standard input */
  "POST /sandboxes/{id}/processes/{process}/stdin": { body: undefined; reply: Status };
  /** Run code with state between calls */
  "POST /sandboxes/{id}/code": { body: CodeRequest; reply: CodeExecution };
  /** Contexts that code runs in */
  "GET /sandboxes/{id}/contexts": { body: undefined; reply: CodeContext[] };
  /** Make a context, apart from the others */
  "POST /sandboxes/{id}/contexts": { body: ContextRequest; reply: CodeContext };
  /** Begin a context anew */
  "POST /sandboxes/{id}/contexts/{context}/restart": { body: undefined; reply: CodeContext };
  /** Remove a context with its process */
  "DELETE /sandboxes/{id}/contexts/{context}": { body: undefined; reply: Status };
  /** Run a command in a sandbox of its own, which is gone afterwards */
  "POST /run": { body: RunRequest; reply: RunResult };
  /** Run a command over a WebSocket */
  "GET /sandboxes/{id}/exec/ws": { body: undefined; reply: undefined };
  /** A terminal, or any command with stdin, signals and size, over a WebSocket */
  "GET /sandboxes/{id}/terminal": { body: undefined; reply: undefined };
  /** A TCP connection to a port in the guest, as binary WebSocket frames */
  "GET /sandboxes/{id}/tunnel/{port}": { body: undefined; reply: undefined };
  /** Write a file */
  "POST /sandboxes/{id}/files": { body: WriteFileRequest; reply: Status };
  /** Upload a file: the body is its content */
  "PUT /sandboxes/{id}/files": { body: undefined; reply: Status };
  /** Download a file, or a range of it */
  "GET /sandboxes/{id}/files": { body: undefined; reply: undefined };
  /** Delete a file or directory */
  "DELETE /sandboxes/{id}/files": { body: undefined; reply: Status };
  /** Upload a file: the body is its content */
  "PUT /sandboxes/{id}/files/raw": { body: undefined; reply: Status };
  /** Download a file, or a range of it */
  "GET /sandboxes/{id}/files/raw": { body: undefined; reply: undefined };
  /** Entries of a directory */
  "GET /sandboxes/{id}/files/list": { body: undefined; reply: FileInfo[] };
  /** Facts about one file */
  "GET /sandboxes/{id}/files/stat": { body: undefined; reply: FileInfo };
  /** Paths that match a pattern */
  "GET /sandboxes/{id}/files/glob": { body: undefined; reply: string[] };
  /** Move or rename */
  "POST /sandboxes/{id}/files/move": { body: MoveRequest; reply: Status };
  /** Copy */
  "POST /sandboxes/{id}/files/copy": { body: CopyRequest; reply: Status };
  /** Change permission bits */
  "POST /sandboxes/{id}/files/chmod": { body: ChmodRequest; reply: Status };
  /** Make a directory, with its parents */
  "POST /sandboxes/{id}/files/mkdir": { body: MkdirRequest; reply: Status };
  /** A directory as a tar stream */
  "GET /sandboxes/{id}/files/archive": { body: undefined; reply: undefined };
  /** Unpack a tar stream below a directory */
  "PUT /sandboxes/{id}/files/archive": { body: undefined; reply: Status };
  /** Changes below a path, as server-sent events */
  "GET /sandboxes/{id}/files/watch": { body: undefined; reply: undefined };
  /** Create a template */
  "POST /templates": { body: TemplateCreateRequest; reply: Template };
  /** All templates */
  "GET /templates": { body: undefined; reply: Template[] };
  /** One template */
  "GET /templates/{name}": { body: undefined; reply: Template };
  /** Replace a template */
  "PUT /templates/{name}": { body: TemplateRequest; reply: Template };
  /** Delete a template */
  "DELETE /templates/{name}": { body: undefined; reply: Status };
  /** Spawn from a template */
  "POST /templates/{name}/spawn": { body: TemplateSpawnRequest; reply: Sandbox };
  /** All quotas */
  "GET /admin/quotas": { body: undefined; reply: OwnerQuota[] };
  /** All quotas */
  "GET /quotas": { body: undefined; reply: OwnerQuota[] };
  /** How many quotas set which limit */
  "GET /admin/quotas/summary": { body: undefined; reply: QuotaSummary };
  /** How many quotas set which limit */
  "GET /quotas/summary": { body: undefined; reply: QuotaSummary };
  /** An owner's quota */
  "GET /admin/quotas/{owner}": { body: undefined; reply: OwnerQuota };
  /** Set an owner's quota */
  "PUT /admin/quotas/{owner}": { body: QuotaRequest; reply: OwnerQuota };
  /** Delete an owner's quota */
  "DELETE /admin/quotas/{owner}": { body: undefined; reply: Status };
  /** An owner's quota */
  "GET /quotas/{owner}": { body: undefined; reply: OwnerQuota };
  /** Set an owner's quota */
  "PUT /quotas/{owner}": { body: QuotaRequest; reply: OwnerQuota };
  /** Delete an owner's quota */
  "DELETE /quotas/{owner}": { body: undefined; reply: Status };
  /** What an owner uses and may use */
  "GET /admin/quotas/{owner}/usage": { body: undefined; reply: QuotaUsage };
  /** What an owner uses and may use */
  "GET /quotas/{owner}/usage": { body: undefined; reply: QuotaUsage };
  /** All secrets, without their values */
  "GET /secrets": { body: undefined; reply: Secret[] };
  /** One secret, without its value */
  "GET /secrets/{name}": { body: undefined; reply: Secret };
  /** Make a secret, or change what is given of it */
  "PUT /secrets/{name}": { body: SecretRequest; reply: Secret };
  /** Delete a secret */
  "DELETE /secrets/{name}": { body: undefined; reply: Status };
  /** All volumes, with who has them */
  "GET /volumes": { body: undefined; reply: Volume[] };
  /** Make a volume */
  "POST /volumes": { body: VolumeRequest; reply: Volume };
  /** What an owner's volumes take, and may take */
  "GET /usage/volumes": { body: undefined; reply: VolumeUsage[] };
  /** One volume */
  "GET /volumes/{name}": { body: undefined; reply: Volume };
  /** Make a volume larger */
  "PATCH /volumes/{name}": { body: VolumeResize; reply: Volume };
  /** Remove a volume, with all that is in it */
  "DELETE /volumes/{name}": { body: undefined; reply: Status };
  /** Copy a volume, or save a snapshot of it */
  "POST /volumes/{name}/clone": { body: VolumeClone; reply: Volume };
  /** Export a volume */
  "GET /volumes/{name}/content": { body: undefined; reply: undefined };
  /** Make a volume of an export */
  "PUT /volumes/{name}/content": { body: undefined; reply: Volume };
  /** Providers and their health */
  "GET /admin/providers": { body: undefined; reply: Provider[] };
  /** Providers and their health */
  "GET /providers": { body: undefined; reply: Provider[] };
  /** One provider */
  "GET /admin/providers/{name}": { body: undefined; reply: ProviderDetail };
  /** One provider */
  "GET /providers/{name}": { body: undefined; reply: ProviderDetail };
  /** Check every provider now */
  "POST /admin/providers/test": { body: undefined; reply: Record<string, boolean> };
  /** Check every provider now */
  "POST /providers/test": { body: undefined; reply: Record<string, boolean> };
  /** Machines kept ready */
  "GET /pool/status": { body: undefined; reply: PoolStatus };
  /** Saved machines */
  "GET /snapshots": { body: undefined; reply: Snapshot[] };
  /** Build the golden snapshot of a shape now */
  "POST /snapshots": { body: SpawnRequest; reply: Snapshot };
  /** One snapshot */
  "GET /snapshots/{key}": { body: undefined; reply: Snapshot };
  /** Delete a snapshot that no machine uses */
  "DELETE /snapshots/{key}": { body: undefined; reply: Status };
  /** Delete what was used longest ago, until the rest fits */
  "POST /snapshots/gc": { body: SnapshotGcRequest; reply: SnapshotGc };
  /** Images on this host */
  "GET /images": { body: undefined; reply: Image[] };
  /** Remove an image that no sandbox uses, with its golden snapshots */
  "DELETE /images": { body: undefined; reply: Status };
  /** One image with its configuration, its other names and its layers */
  "GET /images/inspect": { body: undefined; reply: ImageDetails };
  /** Pull or build an image */
  "POST /images/pull": { body: PullRequest; reply: Image };
  /** Take an image from a file or directory of the server's host */
  "POST /images/import": { body: ImportRequest; reply: Image };
  /** Another name for an image that is here */
  "POST /images/tag": { body: TagRequest; reply: Image };
  /** Remove what nobody needs, then what was used longest ago, until the rest fits */
  "POST /images/gc": { body: ImageGcRequest; reply: ImageGc };
  /** Build an image in a sandbox from a file of steps */
  "POST /images/build": { body: undefined; reply: ImageBuild };
  /** The server answers */
  "GET /health": { body: undefined; reply: Health };
  /** The server answers */
  "GET /live": { body: undefined; reply: Health };
  /** It can spawn */
  "GET /ready": { body: undefined; reply: Ready };
  /** The configuration, without keys */
  "GET /config": { body: undefined; reply: Record<string, unknown> };
  /** Change the configuration file; needs a restart */
  "PATCH /config": { body: ConfigPatch; reply: ConfigUpdated };
  /** Load of the host */
  "GET /system/stats": { body: undefined; reply: SystemStats };
  /** Load of the host over the last hour, or since the server started */
  "GET /system/history": { body: undefined; reply: SystemSample[] };
  /** What this host has and lacks, as `stacyvm doctor` says it */
  "GET /doctor": { body: undefined; reply: Doctor };
  /** What happens, as server-sent events */
  "GET /events": { body: undefined; reply: undefined };
  /** What happened, newest first */
  "GET /events/history": { body: undefined; reply: EventHistory };
  /** Numbers as JSON */
  "GET /admin/metrics": { body: undefined; reply: Record<string, unknown> };
  /** Numbers as JSON */
  "GET /metrics": { body: undefined; reply: Record<string, unknown> };
  /** Numbers for Prometheus */
  "GET /admin/metrics/prometheus": { body: undefined; reply: undefined };
  /** Numbers for Prometheus */
  "GET /metrics/prometheus": { body: undefined; reply: undefined };
  /** What helps to find a fault, without secrets */
  "GET /admin/diagnostics": { body: undefined; reply: Record<string, unknown> };
  /** What helps to find a fault, without secrets */
  "GET /diagnostics": { body: undefined; reply: Record<string, unknown> };
  /** Workers: this machine */
  "GET /admin/workers": { body: undefined; reply: Worker[] };
  /** Workers: this machine */
  "GET /workers": { body: undefined; reply: Worker[] };
  /** One worker */
  "GET /admin/workers/{id}": { body: undefined; reply: Worker };
  /** Forget a worker */
  "DELETE /admin/workers/{id}": { body: undefined; reply: undefined };
  /** One worker */
  "GET /workers/{id}": { body: undefined; reply: Worker };
  /** Forget a worker */
  "DELETE /workers/{id}": { body: undefined; reply: undefined };
  /** For workers that join */
  "POST /worker/{id}/heartbeat": { body: undefined; reply: undefined };
  /** For workers that join */
  "POST /worker/{id}/leases/{resource}/renew": { body: undefined; reply: undefined };
  /** For workers that join */
  "POST /workers/{id}/heartbeat": { body: undefined; reply: undefined };
  /** For workers that join */
  "POST /admin/workers/{id}/heartbeat": { body: undefined; reply: undefined };
  /** For workers that join */
  "POST /admin/workers/{id}/leases/{resource}/renew": { body: undefined; reply: undefined };
  /** For workers that join */
  "POST /admin/worker-tokens": { body: undefined; reply: undefined };
  /** Name packages for a base image */
  "POST /environments/specs": { body: EnvironmentRequest; reply: Environment };
  /** A user's environments */
  "GET /environments/specs": { body: undefined; reply: Environment[] };
  /** One environment */
  "GET /environments/specs/{id}": { body: undefined; reply: Environment };
  /** Forget an environment and its builds */
  "DELETE /environments/specs/{id}": { body: undefined; reply: Status };
  /** Packages that others often add */
  "GET /environments/specs/{id}/suggestions": {
    body: undefined;
    reply: {
      /** The environment that it builds. */
      specId: string;
      /** Python packages that are often wanted with it. */
      suggestions: string[];
    };
  };
  /** Build an environment, in a sandbox */
  "POST /environments/builds": { body: EnvironmentBuildRequest; reply: EnvironmentBuild };
  /** A user's builds */
  "GET /environments/builds": {
    body: undefined;
    reply: {
      build: EnvironmentBuild;
      spec: Environment;
    }[];
  };
  /** One build */
  "GET /environments/builds/{id}": { body: undefined; reply: EnvironmentBuild };
  /** End a build */
  "POST /environments/builds/{id}/cancel": { body: undefined; reply: EnvironmentBuild };
  /** What to spawn when a build is ready */
  "GET /environments/builds/{id}/spawn-config": {
    body: undefined;
    reply: {
      /** The build. */
      buildId: string;
      /** How far the build is. */
      buildStatus: string;
      /** Whether it can be used now. */
      ready: boolean;
      /** Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here. */
      provider: string;
      /** The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest. */
      image: string;
      /** Where a symbolic link leads. */
      target: string;
      /** The digest of its content, `sha256:...`. */
      digest: string;
      /** What to know before it is used. */
      note: string;
    };
  };
  /** Registries to push to: none */
  "GET /environments/registry-connections": { body: undefined; reply: Record<string, unknown>[] };
  /** Nothing is pushed from here */
  "POST /environments/registry-connections": { body: undefined; reply: undefined };
  /** Of a registry to push to: there is none */
  "DELETE /environments/registry-connections/{id}": { body: undefined; reply: undefined };
  /** Who the caller is to this server */
  "GET /identity": { body: undefined; reply: Identity };
  /** Make a key */
  "POST /keys": { body: KeyRequest; reply: MadeKey };
  /** Keys that were made here, without their secrets */
  "GET /keys": { body: undefined; reply: Key[] };
  /** A new secret for a key */
  "POST /keys/{key}/rotate": { body: KeyRotateRequest; reply: MadeKey };
  /** Revoke a key, at once and for good */
  "DELETE /keys/{key}": { body: undefined; reply: Key };
  /** What administrators did: to the server, and with other owners' things */
  "GET /audit": { body: undefined; reply: AuditEntry[] };
  /** The same in the published server's form */
  "GET /admin/audit": { body: undefined; reply: AdminAuditEntry[] };
  /** Servers of the fleet */
  "GET /nodes": { body: undefined; reply: FleetNode[] };
  /** One server of the fleet, by id or name */
  "GET /nodes/{node}": { body: undefined; reply: FleetNode };
  /** Take a node out of the fleet: its rights end */
  "DELETE /nodes/{node}": { body: undefined; reply: RemovedNode };
  /** Give a node no new sandboxes; those that it has go on, there or (`move`) elsewhere */
  "POST /nodes/{node}/drain": { body: DrainRequest; reply: FleetNode };
  /** How far a node is that is being drained */
  "GET /nodes/{node}/drain": { body: undefined; reply: NodeDrain };
  /** Give a node new sandboxes again */
  "POST /nodes/{node}/undrain": { body: undefined; reply: FleetNode };
  /** Have a sandbox go on at another node of the fleet */
  "POST /sandboxes/{id}/move": { body: SandboxMoveRequest; reply: MovedSandbox };
  /** Owners, in the published server's form */
  "GET /admin/tenants": {
    body: undefined;
    reply: {
      /** All tenants. */
      tenants: Tenant[];
    };
  };
  /** Make an owner */
  "POST /admin/tenants": {
    body: TenantRequest;
    reply: {
      tenant: Tenant;
    };
  };
  /** One owner */
  "GET /admin/tenants/{id}": {
    body: undefined;
    reply: {
      tenant: Tenant;
    };
  };
  /** Change what is said of an owner */
  "PUT /admin/tenants/{id}": {
    body: TenantChange;
    reply: {
      tenant: Tenant;
    };
  };
  /** Revoke an owner's keys and forget it */
  "DELETE /admin/tenants/{id}": { body: undefined; reply: undefined };
  /** An owner's keys */
  "GET /admin/tenants/{id}/members": {
    body: undefined;
    reply: {
      /** The tenant's members, which are its keys. */
      members: TenantMember[];
    };
  };
  /** Make a key of an owner, or change what it may do */
  "PUT /admin/tenants/{id}/members/{member}": {
    body: TenantMemberRequest;
    reply: {
      member: TenantMember;
      /** Which snapshot, by its key. */
      key?: string | undefined;
    };
  };
  /** Revoke a member's keys */
  "DELETE /admin/tenants/{id}/members/{member}": { body: undefined; reply: undefined };
  /** What an owner's sandboxes may be made of */
  "GET /admin/tenants/{id}/policies": {
    body: undefined;
    reply: {
      /** The tenant's policies, in the order in which they are asked. */
      policies: TenantPolicy[];
    };
  };
  /** Allow or deny an owner images or providers */
  "POST /admin/tenants/{id}/policies": {
    body: TenantPolicyRequest;
    reply: {
      policy: TenantPolicy;
    };
  };
  /** Remove a policy */
  "DELETE /admin/tenants/{id}/policies/{policy}": { body: undefined; reply: undefined };
  /** What administrators did with an owner's things */
  "GET /admin/tenants/{id}/audit": {
    body: undefined;
    reply: {
      /** The tenant that it belongs to. */
      tenantId: string;
      /** Calls of administrators about the tenant. */
      adminAudit: AdminAuditEntry[];
      /** Calls of the tenant's own keys. */
      opAudit: Record<string, unknown>[];
      /** When this was written (RFC 3339). */
      exportedAt: string;
    };
  };
  /** HTTP to a port in the guest: any method, any path below, WebSockets too */
  "GET /sandboxes/{id}/ports/{port}/{path}": { body: undefined; reply: undefined };
}

export const shapes: Record<string, Shape> = {
  Sandbox: {
    object: {
      id: "string",
      "name?": "string",
      state: { enum: ["creating", "running", "paused", "suspended", "error", "expired", "destroyed"] },
      provider: "string",
      image: "string",
      memory_mb: "integer",
      vcpus: "integer",
      disk_mb: "integer",
      owner: "string",
      "owner_id?": "string",
      "tenant_id?": "string",
      created_at: "string",
      expires_at: "string",
      metadata: { record: "string" },
      preview_domain: "string",
      worker_id: "string",
      "template?": "string",
      "checkpoint?": "string",
      "forked_from?": "string",
      "idle_timeout?": "string",
      "resume_on_use?": "boolean",
      "allowed_hosts?": { array: "string" },
      "secrets?": { array: "string" },
      "volumes?": { array: { ref: "VolumeMount" } },
      "mounts?": { array: { ref: "Directory" } },
      "free_volume_slots?": { ref: "FreeVolumeSlots" },
      "boot?": { ref: "Boot" },
      "error?": {
        object: { code: "string", message: "string", "phase?": "string", at: "string", console: { array: "string" } },
      },
      "unreachable?": { object: { since: "string", reason: "string" } },
    },
  },
  VolumeMount: { object: { name: "string", path: "string", read_only: "boolean" } },
  Directory: {
    object: { source: "string", target: "string", read_only: "boolean", "copy_on_write?": { enum: [true] } },
  },
  FreeVolumeSlots: { object: { volume_slots: "integer", volume_slots_read_only: "integer" } },
  Boot: {
    object: {
      path: { enum: ["warm", "restored", "cold"] },
      "idle?": "boolean",
      vmm: "string",
      guest: "string",
      "key?": "string",
      "fallback?": "string",
      phases: { record: "number" },
      total_ms: "number",
    },
  },
  Problem: {
    object: { code: "string", message: "string", "phase?": "string", "remedy?": "string", "request_id?": "string" },
  },
  SpawnRequest: {
    object: {
      "name?": "string",
      "image?": "string",
      "provider?": "string",
      "memory_mb?": "integer",
      "vcpus?": "integer",
      "disk_mb?": "integer",
      "ttl?": "duration",
      "template?": "string",
      "checkpoint?": "string",
      "owner_id?": "string",
      "metadata?": { record: "string" },
      "env?": { record: "string" },
      "setup?": { array: "string" },
      "init?": "boolean",
      "contexts?": {
        array: { object: { language: { enum: ["python", "javascript", "typescript", "bash"] }, "code?": "string" } },
      },
      "allowed_hosts?": { array: "string" },
      "secrets?": { array: "any" },
      "volumes?": { array: { ref: "VolumeMountRequest" } },
      "mounts?": { array: { ref: "DirectoryRequest" } },
      "volume_slots?": "integer",
      "volume_slots_read_only?": "integer",
      "idle_timeout?": "duration",
      "idle_action?": { enum: ["destroy", "pause", "suspend"] },
      "idle_counts?": { enum: ["processes", "calls"] },
      "forkable?": "boolean",
    },
  },
  OwnSecret: {
    object: {
      name: "string",
      "hosts?": { array: "string" },
      "placement?": { ref: "SecretPlacementRequest" },
      "placeholder?": "string",
      "value?": "string",
    },
  },
  SecretPlacementRequest: {
    object: {
      kind: { enum: ["bearer", "header", "basic", "query"] },
      "name?": "string",
      "template?": "string",
      "username?": "string",
    },
  },
  VolumeMountRequest: { object: { name: "string", path: "string", "read_only?": "boolean" } },
  DirectoryRequest: { object: { source: "string", target: "string", "read_only?": "boolean" } },
  Admission: {
    object: {
      allowed: "boolean",
      queueable: "boolean",
      "reason?": { enum: ["max_ttl", "max_sandboxes", "max_sandboxes_per_owner"] },
      active_sandboxes: "integer",
      max_sandboxes: "integer",
      "active_owner_sandboxes?": "integer",
      "max_owner_sandboxes?": "integer",
      "max_ttl?": "string",
    },
  },
  SandboxStats: {
    object: {
      supported: "boolean",
      "cpu_pct?": "number",
      "mem_bytes?": "integer",
      "mem_pss_bytes?": "integer",
      "mem_limit_bytes?": "integer",
      "disk_bytes?": "integer",
    },
  },
  Status: { object: { status: "string" } },
  ExtendRequest: { object: { ttl: "duration" } },
  SandboxNetwork: {
    object: {
      allowed_hosts: { array: "string" },
      open: "integer",
      connected: "integer",
      refused: "integer",
      failed: "integer",
      sent: "integer",
      received: "integer",
      "problem?": "string",
    },
  },
  NetworkRequest: { object: { allowed_hosts: { array: "string" } } },
  Fork: { object: { sandboxes: { array: { ref: "Sandbox" } }, stopped_ms: "number" } },
  ForkRequest: {
    object: {
      "count?": "integer",
      "name?": "string",
      "ttl?": "duration",
      "metadata?": { record: "string" },
      "env?": { record: "string" },
      "volumes?": { enum: ["clone", "read_only", "none"] },
      "mounts?": { enum: ["read_only", "copy_on_write", "none"] },
    },
  },
  Checkpoint: {
    object: {
      id: "string",
      sandbox_id: "string",
      provider: "string",
      image: "string",
      memory_mb: "integer",
      vcpus: "integer",
      disk_mb: "integer",
      owner: "string",
      "owner_id?": "string",
      "name?": "string",
      bytes: "integer",
      "damaged?": "string",
      "volumes?": { array: { ref: "VolumeMount" } },
      created_at: "string",
      "stopped_ms?": "number",
    },
  },
  CheckpointRequest: { object: { "name?": "string", "volumes?": { enum: ["snapshot", "refuse"] } } },
  RestoreRequest: { object: { checkpoint: "string" } },
  ExecResult: {
    object: {
      exit_code: "integer",
      stdout: "string",
      stderr: "string",
      duration: "string",
      "signal?": "integer",
      "reason?": "string",
      "truncated?": "boolean",
      "encoding?": "string",
    },
  },
  ExecRequest: {
    object: {
      "command?": "string",
      "args?": { array: "string" },
      "mode?": "string",
      "env?": { record: "string" },
      "workdir?": "string",
      "work_dir?": "string",
      "user?": "string",
      "timeout?": "duration",
      "stop_signal?": "string",
      "stream?": "boolean",
      "stdin?": "string",
      "encoding?": { enum: ["utf8", "base64"] },
    },
  },
  ExecRecord: {
    object: { command: "string", started_at: "string", duration: "string", "exit_code?": "integer", outcome: "string" },
  },
  ProcessStarted: { object: { id: "string", pid: "integer" } },
  ProcessRequest: {
    object: {
      "command?": "string",
      "args?": { array: "string" },
      "mode?": "string",
      "env?": { record: "string" },
      "workdir?": "string",
      "user?": "string",
      "timeout?": "duration",
      "stop_signal?": "string",
      "stdin?": "boolean",
      "pty?": { object: { rows: "integer", cols: "integer" } },
    },
  },
  Process: {
    object: {
      id: "string",
      pid: "integer",
      command: "string",
      started_at: "string",
      running: "boolean",
      "detached?": "boolean",
      "exit_code?": "integer",
      "signal?": "integer",
      "reason?": "string",
    },
  },
  SignalRequest: { object: { signal: "string" } },
  CodeExecution: {
    object: {
      results: { array: { ref: "CodeResult" } },
      stdout: "string",
      stderr: "string",
      "error?": { ref: "CodeError" },
      execution_count: "integer",
    },
  },
  CodeResult: {
    object: {
      main: "boolean",
      "text?": "string",
      "html?": "string",
      "markdown?": "string",
      "svg?": "string",
      "png?": "string",
      "jpeg?": "string",
      "pdf?": "string",
      "latex?": "string",
      "javascript?": "string",
      "json?": "any",
      "data?": "any",
      "chart?": "any",
      "other?": { record: "any" },
    },
  },
  CodeError: { object: { name: "string", value: "string", traceback: "string" } },
  CodeRequest: {
    object: {
      code: "string",
      "language?": "string",
      "context?": "string",
      "env?": { record: "string" },
      "timeout?": "duration",
      "stream?": "boolean",
    },
  },
  CodeContext: { object: { id: "string", language: "string", "workdir?": "string" } },
  ContextRequest: {
    object: { "language?": "string", "workdir?": "string", "user?": "string", "env?": { record: "string" } },
  },
  RunResult: {
    object: {
      exit_code: "integer",
      stdout: "string",
      stderr: "string",
      duration: "string",
      "signal?": "integer",
      "reason?": "string",
      "truncated?": "boolean",
      "encoding?": "string",
      sandbox_id: "string",
      "boot?": { object: { path: { enum: ["warm", "restored", "cold"] }, total_ms: "number" } },
      files: { record: "string" },
      missing: { array: "string" },
    },
  },
  RunRequest: {
    object: {
      "image?": "string",
      "provider?": "string",
      "memory_mb?": "integer",
      "vcpus?": "integer",
      "disk_mb?": "integer",
      "ttl?": "duration",
      "template?": "string",
      "checkpoint?": "string",
      "owner_id?": "string",
      "metadata?": { record: "string" },
      "env?": { record: "string" },
      "setup?": { array: "string" },
      "init?": "boolean",
      "contexts?": {
        array: { object: { language: { enum: ["python", "javascript", "typescript", "bash"] }, "code?": "string" } },
      },
      "allowed_hosts?": { array: "string" },
      "secrets?": { array: "any" },
      "volumes?": { array: { ref: "VolumeMountRequest" } },
      "mounts?": { array: { ref: "DirectoryRequest" } },
      "volume_slots?": "integer",
      "volume_slots_read_only?": "integer",
      "idle_timeout?": "duration",
      "idle_action?": { enum: ["destroy", "pause", "suspend"] },
      "idle_counts?": { enum: ["processes", "calls"] },
      "forkable?": "boolean",
      "command?": "string",
      "args?": { array: "string" },
      "mode?": "string",
      "workdir?": "string",
      "work_dir?": "string",
      "user?": "string",
      "timeout?": "duration",
      "stop_signal?": "string",
      "stream?": "boolean",
      "stdin?": "string",
      "encoding?": { enum: ["utf8", "base64"] },
      "files?": {
        array: {
          object: { path: "string", content: "string", "encoding?": { enum: ["utf8", "base64"] }, "mode?": "integer" },
        },
      },
      "collect?": { array: "string" },
    },
  },
  WriteFileRequest: {
    object: {
      path: "string",
      "content?": "string",
      "mode?": "string",
      "encoding?": { enum: ["utf8", "base64"] },
      "append?": "boolean",
    },
  },
  FileInfo: {
    object: {
      path: "string",
      name: "string",
      size: "integer",
      mode: "string",
      is_dir: "boolean",
      mod_time: "string",
      mod_time_us: "integer",
      kind: { enum: ["file", "directory", "symlink", "other"] },
      uid: "integer",
      gid: "integer",
      "target?": "string",
    },
  },
  MoveRequest: { object: { old_path: "string", new_path: "string" } },
  CopyRequest: { object: { old_path: "string", new_path: "string", "recursive?": "boolean" } },
  ChmodRequest: { object: { path: "string", mode: "string", "recursive?": "boolean" } },
  MkdirRequest: { object: { path: "string", "mode?": "string" } },
  Template: {
    object: {
      name: "string",
      owner: "string",
      shared: "boolean",
      version: "integer",
      image: "string",
      description: "string",
      setup: { array: "string" },
      "start_command?": "string",
      "ready_command?": "string",
      "contexts?": { array: { object: { language: "string", code: "string" } } },
      allowed_hosts: { array: "string" },
      memory_mb: "integer",
      cpu_cores: "integer",
      vcpus: "integer",
      ttl_seconds: "number",
      ttl: "string",
      env: { record: "string" },
      secrets: { array: { object: { name: "string", inject_at: "string" } } },
      "volumes?": { array: { ref: "VolumeMount" } },
      "volume_slots?": "integer",
      "volume_slots_read_only?": "integer",
      pool_size: "integer",
      provider: "string",
      metadata: { record: "string" },
      created_at: "string",
      updated_at: "string",
    },
  },
  TemplateCreateRequest: {
    object: {
      name: "string",
      "version?": "integer",
      image: "string",
      "description?": "string",
      "setup?": { array: "string" },
      "start_command?": "string",
      "ready_command?": "string",
      "contexts?": {
        array: { object: { language: { enum: ["python", "javascript", "typescript", "bash"] }, "code?": "string" } },
      },
      "allowed_hosts?": { array: "string" },
      "memory_mb?": "integer",
      "cpu_cores?": "integer",
      "vcpus?": "integer",
      "ttl_seconds?": "number",
      "ttl?": "duration",
      "env?": { record: "string" },
      "secrets?": { array: { object: { name: "string", "inject_at?": "string" } } },
      "volumes?": { array: "any" },
      "volume_slots?": "integer",
      "volume_slots_read_only?": "integer",
      "pool_size?": "integer",
      "provider?": "string",
      "metadata?": { record: "string" },
      "shared?": "boolean",
    },
  },
  TemplateRequest: {
    object: {
      "name?": "string",
      "version?": "integer",
      image: "string",
      "description?": "string",
      "setup?": { array: "string" },
      "start_command?": "string",
      "ready_command?": "string",
      "contexts?": {
        array: { object: { language: { enum: ["python", "javascript", "typescript", "bash"] }, "code?": "string" } },
      },
      "allowed_hosts?": { array: "string" },
      "memory_mb?": "integer",
      "cpu_cores?": "integer",
      "vcpus?": "integer",
      "ttl_seconds?": "number",
      "ttl?": "duration",
      "env?": { record: "string" },
      "secrets?": { array: { object: { name: "string", "inject_at?": "string" } } },
      "volumes?": { array: "any" },
      "volume_slots?": "integer",
      "volume_slots_read_only?": "integer",
      "pool_size?": "integer",
      "provider?": "string",
      "metadata?": { record: "string" },
      "shared?": "boolean",
    },
  },
  TemplateSpawnRequest: { object: { "name?": "string", "provider?": "string", "ttl?": "duration" } },
  OwnerQuota: {
    object: {
      owner_id: "string",
      max_sandboxes: "integer",
      max_ttl: "string",
      max_exec_timeout: "string",
      created_at: "string",
      updated_at: "string",
    },
  },
  QuotaSummary: {
    object: {
      total: "integer",
      with_max_sandboxes: "integer",
      with_max_ttl: "integer",
      with_max_exec_timeout: "integer",
    },
  },
  QuotaRequest: { object: { "max_sandboxes?": "integer", "max_ttl?": "string", "max_exec_timeout?": "string" } },
  QuotaUsage: {
    object: {
      owner_id: "string",
      active_sandboxes: "integer",
      max_sandboxes: "integer",
      max_ttl: "string",
      max_exec_timeout: "string",
      quota_configured: "boolean",
    },
  },
  Secret: {
    object: {
      name: "string",
      owner: "string",
      hosts: { array: "string" },
      placement: { ref: "SecretPlacement" },
      placeholder: "string",
      source: { enum: ["value", "file", "environment"] },
      everywhere: "boolean",
      available: "boolean",
      kept: "boolean",
      created_at: "string",
      updated_at: "string",
    },
  },
  SecretPlacement: {
    object: {
      kind: { enum: ["bearer", "header", "basic", "query"] },
      "name?": "string",
      "template?": "string",
      "username?": "string",
    },
  },
  SecretRequest: {
    object: {
      "hosts?": { array: "string" },
      "placement?": { ref: "SecretPlacementRequest" },
      "placeholder?": "string",
      "value?": "string",
      "file?": "string",
      "variable?": "string",
      "everywhere?": "boolean",
    },
  },
  Volume: {
    object: {
      name: "string",
      owner: "string",
      size_mb: "integer",
      "used_bytes?": "integer",
      read_only: "boolean",
      "copied_from?": "string",
      sandboxes: { array: { ref: "VolumeUse" } },
      created_at: "string",
    },
  },
  VolumeUse: { object: { id: "string", path: "string", read_only: "boolean" } },
  VolumeUsage: {
    object: {
      owner: "string",
      volumes: "integer",
      size_mb: "integer",
      used_bytes: "integer",
      max_volumes: "integer",
      max_size_mb: "integer",
    },
  },
  VolumeRequest: { object: { name: "string", size_mb: "integer" } },
  VolumeResize: { object: { size_mb: "integer" } },
  VolumeClone: { object: { name: "string", "read_only?": "boolean" } },
  Provider: {
    object: {
      name: "string",
      healthy: "boolean",
      default: "boolean",
      latency_ms: "integer",
      last_checked: "string",
      "error?": "string",
      "detail?": "string",
      "remedy?": "string",
      "version?": "string",
      "accelerator?": "string",
      capabilities: { array: "string" },
      "runtime_count?": "integer",
    },
  },
  ProviderDetail: {
    object: {
      name: "string",
      healthy: "boolean",
      default: "boolean",
      sandbox_count: "integer",
      health: { ref: "Provider" },
      config: { record: "string" },
    },
  },
  PoolStatus: {
    object: {
      enabled: "boolean",
      "vms?": "integer",
      "max_vms?": "integer",
      "total_users?": "integer",
      "max_users_per_vm?": "integer",
      "pools?": { array: { record: "any" } },
    },
  },
  Snapshot: {
    object: {
      key: "string",
      kind: { enum: ["golden", "checkpoint"] },
      image: "string",
      image_digest: "string",
      provider: "string",
      vcpus: "integer",
      memory_mb: "integer",
      disk_mb: "integer",
      created_at: "string",
      last_used_at: "string",
      bytes: "integer",
      in_use: "integer",
    },
  },
  SnapshotGc: {
    object: {
      removed: { array: { object: { key: "string", image: "string", bytes: "integer", reason: "string" } } },
      kept: { array: { object: { key: "string", image: "string", bytes: "integer", reason: "string" } } },
      bytes: "integer",
      dry_run: "boolean",
    },
  },
  SnapshotGcRequest: {
    object: { "dry_run?": "boolean", "max_bytes?": "integer", "max_unused?": "duration", "checkpoints?": "boolean" },
  },
  Image: {
    object: {
      reference: "string",
      digest: "string",
      filesystem: "string",
      bytes: "integer",
      created_at: "string",
      "owner?": "string",
      config: { ref: "ImageConfig" },
    },
  },
  ImageConfig: {
    object: {
      env: { array: "string" },
      "workdir?": "string",
      "user?": "string",
      entrypoint: { array: "string" },
      cmd: { array: "string" },
      labels: { record: "string" },
      "stop_signal?": "string",
      exposed_ports: { array: "string" },
      "volumes?": { array: "string" },
    },
  },
  ImageDetails: {
    object: {
      reference: "string",
      digest: "string",
      filesystem: "string",
      bytes: "integer",
      created_at: "string",
      "owner?": "string",
      config: { ref: "ImageConfig" },
      references: { array: "string" },
      last_used_at: "string",
      blobs: { array: "string" },
    },
  },
  PullRequest: {
    object: { reference: "string", "pull?": { enum: ["missing", "always", "never"] }, "stream?": "boolean" },
  },
  ImportRequest: {
    object: {
      source: "string",
      reference: "string",
      "tag?": "string",
      "as?": { enum: ["rootfs"] },
      "shared?": "boolean",
      "stream?": "boolean",
    },
  },
  TagRequest: { object: { reference: "string", name: "string", "shared?": "boolean" } },
  ImageGc: {
    object: {
      images: { array: "string" },
      blobs: { array: "string" },
      builds: { array: "string" },
      snapshots: { array: "string" },
      freed_bytes: "integer",
      kept_bytes: "integer",
      dry_run: "boolean",
    },
  },
  ImageGcRequest: { object: { "dry_run?": "boolean", "max_bytes?": "integer" } },
  ImageBuild: {
    object: {
      reference: "string",
      digest: "string",
      filesystem: "string",
      bytes: "integer",
      created_at: "string",
      "owner?": "string",
      config: { ref: "ImageConfig" },
      steps: "integer",
      cached_steps: "integer",
    },
  },
  Health: { object: { status: "string", version: "string", uptime: "string" } },
  Ready: {
    object: {
      status: "string",
      version: "string",
      uptime: "string",
      providers: { array: { ref: "Provider" } },
      ready_providers: "integer",
      total_providers: "integer",
    },
  },
  ConfigUpdated: { object: { status: "string", message: "string" } },
  ConfigPatch: { record: "any" },
  SystemStats: {
    object: {
      cpu_pct: "number",
      mem_pct: "number",
      disk_pct: "number",
      net_rx_bps: "number",
      net_tx_bps: "number",
      load1: "number",
    },
  },
  SystemSample: {
    object: {
      cpu_pct: "number",
      mem_pct: "number",
      disk_pct: "number",
      net_rx_bps: "number",
      net_tx_bps: "number",
      load1: "number",
      at: "string",
    },
  },
  Doctor: { object: { ready: "boolean", findings: { array: { ref: "Finding" } } } },
  Finding: {
    object: {
      name: "string",
      state: { enum: ["ok", "note", "missing"] },
      detail: "string",
      meaning: "string",
      "remedy?": "string",
    },
  },
  EventHistory: { object: { events: { array: { ref: "Event" } }, "next?": "string" } },
  Event: {
    object: {
      id: "string",
      type: "string",
      "sandbox_id?": "string",
      "owner?": "string",
      timestamp: "string",
      "data?": { record: "any" },
    },
  },
  Worker: {
    object: {
      id: "string",
      hostname: "string",
      status: "string",
      providers: { array: "string" },
      capabilities: { array: "string" },
      capacity: { record: "any" },
      last_heartbeat: "string",
      created_at: "string",
      updated_at: "string",
      stale: "boolean",
    },
  },
  Environment: {
    object: {
      id: "string",
      owner_id: "string",
      name: "string",
      base_image: "string",
      python_packages: { array: "string" },
      apt_packages: { array: "string" },
      "python_version?": "string",
      created_at: "string",
      updated_at: "string",
    },
  },
  EnvironmentRequest: {
    object: {
      owner_id: "string",
      name: "string",
      base_image: "string",
      "python_packages?": { array: "string" },
      "apt_packages?": { array: "string" },
      "python_version?": "string",
    },
  },
  EnvironmentBuild: {
    object: {
      id: "string",
      spec_id: "string",
      status: { enum: ["queued", "building", "ready", "failed", "canceled"] },
      current_step: "string",
      log: "string",
      image_size_bytes: "integer",
      "digest_local?": "string",
      "error?": "string",
      created_at: "string",
      "finished_at?": "string",
      updated_at: "string",
      artifacts: { array: { ref: "EnvironmentArtifact" } },
    },
  },
  EnvironmentArtifact: {
    object: {
      target: "string",
      image_ref: "string",
      "digest?": "string",
      status: "string",
      "error?": "string",
      created_at: "string",
      updated_at: "string",
    },
  },
  EnvironmentBuildRequest: { object: { spec_id: "string", "targets?": { array: "string" } } },
  Identity: { object: { name: "string", owner: "string", scopes: { array: { enum: ["read", "use", "admin"] } } } },
  MadeKey: {
    object: {
      id: "string",
      name: "string",
      owner: "string",
      scopes: { array: { enum: ["read", "use", "admin"] } },
      state: { enum: ["active", "expired", "revoked"] },
      "allowed_hosts?": { array: "string" },
      hint: "string",
      created_at: "string",
      created_by: "string",
      "expires_at?": "string",
      "revoked_at?": "string",
      "last_used_at?": "string",
      key: "string",
    },
  },
  Key: {
    object: {
      id: "string",
      name: "string",
      owner: "string",
      scopes: { array: { enum: ["read", "use", "admin"] } },
      state: { enum: ["active", "expired", "revoked"] },
      "allowed_hosts?": { array: "string" },
      hint: "string",
      created_at: "string",
      created_by: "string",
      "expires_at?": "string",
      "revoked_at?": "string",
      "last_used_at?": "string",
    },
  },
  KeyRequest: {
    object: {
      name: "string",
      "owner?": "string",
      "scopes?": { array: { enum: ["read", "use", "admin"] } },
      "expires_in?": "duration",
      "allowed_hosts?": { array: "string" },
    },
  },
  KeyRotateRequest: { object: { "grace?": "duration" } },
  AuditEntry: {
    object: {
      id: "integer",
      at: "string",
      actor: "string",
      "key_id?": "string",
      owner: "string",
      "about?": { array: "string" },
      method: "string",
      route: "string",
      path: "string",
      status: "integer",
      request_id: "string",
      "address?": "string",
      "user_agent?": "string",
      "duration_ms?": "number",
    },
  },
  AdminAuditEntry: {
    object: {
      id: "integer",
      actor: "string",
      method: "string",
      path: "string",
      status: "integer",
      duration_ms: "integer",
      request_id: "string",
      remote_addr: "string",
      user_agent: "string",
      tenant_id: "string",
      created_at: "string",
    },
  },
  FleetNode: {
    object: {
      id: "string",
      name: "string",
      url: "string",
      role: "string",
      state: { enum: ["up", "silent", "lost"] },
      draining: "boolean",
      self: "boolean",
      version: "string",
      labels: { record: "string" },
      architecture: "string",
      host_identity: "string",
      providers: { array: "string" },
      seen_at: "string",
      load: {
        object: {
          sandboxes: "integer",
          max_sandboxes: "integer",
          queued: "integer",
          vcpus: "integer",
          memory_mb: "integer",
          free_memory_mb: "integer",
          load_average: "number",
          "clock_offset_ms?": "number",
        },
      },
    },
  },
  DrainRequest: { object: { "move?": "boolean" } },
  NodeDrain: {
    object: {
      draining: "boolean",
      moving: "boolean",
      moved: "integer",
      left: { array: { object: { id: "string", reason: "string" } } },
    },
  },
  RemovedNode: { object: { forgotten: { array: "string" } } },
  MovedSandbox: {
    object: {
      id: "string",
      node: "string",
      former_node: "string",
      state: "string",
      stopped_ms: "number",
      total_ms: "number",
      bytes: "integer",
      known_bytes: "integer",
    },
  },
  SandboxMoveRequest: { object: { "to?": "string" } },
  Tenant: {
    object: {
      id: "string",
      name: "string",
      owner_id: "string",
      settings: "string",
      created_at: "string",
      updated_at: "string",
    },
  },
  TenantRequest: { object: { "id?": "any", name: "string", "owner_id?": "string", "settings?": "any" } },
  TenantChange: { object: { "name?": "string", "owner_id?": "string", "settings?": "any" } },
  TenantMember: {
    object: {
      tenant_id: "string",
      user_id: "string",
      role: { enum: ["viewer", "operator", "admin"] },
      created_at: "string",
      updated_at: "string",
    },
  },
  TenantMemberRequest: { object: { role: { enum: ["viewer", "operator", "admin"] }, "user_id?": "string" } },
  TenantPolicy: {
    object: {
      id: "string",
      tenant_id: "string",
      resource_type: "string",
      effect: { enum: ["allow", "deny"] },
      pattern: "string",
      priority: "integer",
      created_at: "string",
      updated_at: "string",
    },
  },
  TenantPolicyRequest: {
    object: {
      resource_type: { enum: ["image", "provider", "network"] },
      effect: { enum: ["allow", "deny"] },
      pattern: "string",
      "priority?": "integer",
    },
  },
};

export const operations: Record<keyof Operations, { body?: Shape; reply?: Shape }> = {
  "POST /sandboxes": { body: { ref: "SpawnRequest" }, reply: { ref: "Sandbox" } },
  "GET /sandboxes": { reply: { array: { ref: "Sandbox" } } },
  "DELETE /sandboxes": { reply: { object: { pruned: "integer" } } },
  "POST /sandboxes/admission": { body: { ref: "SpawnRequest" }, reply: { ref: "Admission" } },
  "GET /sandboxes/stats": { reply: { record: { ref: "SandboxStats" } } },
  "GET /sandboxes/{id}": { reply: { ref: "Sandbox" } },
  "DELETE /sandboxes/{id}": { reply: { ref: "Status" } },
  "POST /sandboxes/{id}/extend": { body: { ref: "ExtendRequest" }, reply: { ref: "Sandbox" } },
  "GET /sandboxes/{id}/network": { reply: { ref: "SandboxNetwork" } },
  "PUT /sandboxes/{id}/network": { body: { ref: "NetworkRequest" }, reply: { ref: "Sandbox" } },
  "POST /sandboxes/{id}/volumes": { body: { ref: "VolumeMountRequest" }, reply: { ref: "Sandbox" } },
  "DELETE /sandboxes/{id}/volumes/{name}": { reply: { ref: "Sandbox" } },
  "POST /sandboxes/{id}/pause": { reply: { ref: "Sandbox" } },
  "POST /sandboxes/{id}/resume": { reply: { ref: "Sandbox" } },
  "POST /sandboxes/{id}/suspend": { reply: { ref: "Sandbox" } },
  "POST /sandboxes/{id}/fork": { body: { ref: "ForkRequest" }, reply: { ref: "Fork" } },
  "POST /sandboxes/{id}/checkpoints": { body: { ref: "CheckpointRequest" }, reply: { ref: "Checkpoint" } },
  "GET /sandboxes/{id}/checkpoints": { reply: { array: { ref: "Checkpoint" } } },
  "POST /sandboxes/{id}/restore": { body: { ref: "RestoreRequest" }, reply: { ref: "Sandbox" } },
  "GET /checkpoints": { reply: { array: { ref: "Checkpoint" } } },
  "GET /checkpoints/{id}": { reply: { ref: "Checkpoint" } },
  "DELETE /checkpoints/{id}": { reply: { ref: "Status" } },
  "GET /sandboxes/{id}/logs": { reply: { array: "string" } },
  "GET /sandboxes/{id}/stats": { reply: { ref: "SandboxStats" } },
  "POST /sandboxes/{id}/exec": { body: { ref: "ExecRequest" }, reply: { ref: "ExecResult" } },
  "GET /sandboxes/{id}/history": { reply: { array: { ref: "ExecRecord" } } },
  "POST /sandboxes/{id}/processes": { body: { ref: "ProcessRequest" }, reply: { ref: "ProcessStarted" } },
  "GET /sandboxes/{id}/processes": { reply: { array: { ref: "Process" } } },
  "GET /sandboxes/{id}/processes/{process}": { reply: { ref: "Process" } },
  "GET /sandboxes/{id}/processes/{process}/output": {},
  "POST /sandboxes/{id}/processes/{process}/signal": { body: { ref: "SignalRequest" }, reply: { ref: "Status" } },
  "POST /sandboxes/{id}/processes/{process}/stdin": { reply: { ref: "Status" } },
  "POST /sandboxes/{id}/code": { body: { ref: "CodeRequest" }, reply: { ref: "CodeExecution" } },
  "GET /sandboxes/{id}/contexts": { reply: { array: { ref: "CodeContext" } } },
  "POST /sandboxes/{id}/contexts": { body: { ref: "ContextRequest" }, reply: { ref: "CodeContext" } },
  "POST /sandboxes/{id}/contexts/{context}/restart": { reply: { ref: "CodeContext" } },
  "DELETE /sandboxes/{id}/contexts/{context}": { reply: { ref: "Status" } },
  "POST /run": { body: { ref: "RunRequest" }, reply: { ref: "RunResult" } },
  "GET /sandboxes/{id}/exec/ws": {},
  "GET /sandboxes/{id}/terminal": {},
  "GET /sandboxes/{id}/tunnel/{port}": {},
  "POST /sandboxes/{id}/files": { body: { ref: "WriteFileRequest" }, reply: { ref: "Status" } },
  "PUT /sandboxes/{id}/files": { reply: { ref: "Status" } },
  "GET /sandboxes/{id}/files": {},
  "DELETE /sandboxes/{id}/files": { reply: { ref: "Status" } },
  "PUT /sandboxes/{id}/files/raw": { reply: { ref: "Status" } },
  "GET /sandboxes/{id}/files/raw": {},
  "GET /sandboxes/{id}/files/list": { reply: { array: { ref: "FileInfo" } } },
  "GET /sandboxes/{id}/files/stat": { reply: { ref: "FileInfo" } },
  "GET /sandboxes/{id}/files/glob": { reply: { array: "string" } },
  "POST /sandboxes/{id}/files/move": { body: { ref: "MoveRequest" }, reply: { ref: "Status" } },
  "POST /sandboxes/{id}/files/copy": { body: { ref: "CopyRequest" }, reply: { ref: "Status" } },
  "POST /sandboxes/{id}/files/chmod": { body: { ref: "ChmodRequest" }, reply: { ref: "Status" } },
  "POST /sandboxes/{id}/files/mkdir": { body: { ref: "MkdirRequest" }, reply: { ref: "Status" } },
  "GET /sandboxes/{id}/files/archive": {},
  "PUT /sandboxes/{id}/files/archive": { reply: { ref: "Status" } },
  "GET /sandboxes/{id}/files/watch": {},
  "POST /templates": { body: { ref: "TemplateCreateRequest" }, reply: { ref: "Template" } },
  "GET /templates": { reply: { array: { ref: "Template" } } },
  "GET /templates/{name}": { reply: { ref: "Template" } },
  "PUT /templates/{name}": { body: { ref: "TemplateRequest" }, reply: { ref: "Template" } },
  "DELETE /templates/{name}": { reply: { ref: "Status" } },
  "POST /templates/{name}/spawn": { body: { ref: "TemplateSpawnRequest" }, reply: { ref: "Sandbox" } },
  "GET /admin/quotas": { reply: { array: { ref: "OwnerQuota" } } },
  "GET /quotas": { reply: { array: { ref: "OwnerQuota" } } },
  "GET /admin/quotas/summary": { reply: { ref: "QuotaSummary" } },
  "GET /quotas/summary": { reply: { ref: "QuotaSummary" } },
  "GET /admin/quotas/{owner}": { reply: { ref: "OwnerQuota" } },
  "PUT /admin/quotas/{owner}": { body: { ref: "QuotaRequest" }, reply: { ref: "OwnerQuota" } },
  "DELETE /admin/quotas/{owner}": { reply: { ref: "Status" } },
  "GET /quotas/{owner}": { reply: { ref: "OwnerQuota" } },
  "PUT /quotas/{owner}": { body: { ref: "QuotaRequest" }, reply: { ref: "OwnerQuota" } },
  "DELETE /quotas/{owner}": { reply: { ref: "Status" } },
  "GET /admin/quotas/{owner}/usage": { reply: { ref: "QuotaUsage" } },
  "GET /quotas/{owner}/usage": { reply: { ref: "QuotaUsage" } },
  "GET /secrets": { reply: { array: { ref: "Secret" } } },
  "GET /secrets/{name}": { reply: { ref: "Secret" } },
  "PUT /secrets/{name}": { body: { ref: "SecretRequest" }, reply: { ref: "Secret" } },
  "DELETE /secrets/{name}": { reply: { ref: "Status" } },
  "GET /volumes": { reply: { array: { ref: "Volume" } } },
  "POST /volumes": { body: { ref: "VolumeRequest" }, reply: { ref: "Volume" } },
  "GET /usage/volumes": { reply: { array: { ref: "VolumeUsage" } } },
  "GET /volumes/{name}": { reply: { ref: "Volume" } },
  "PATCH /volumes/{name}": { body: { ref: "VolumeResize" }, reply: { ref: "Volume" } },
  "DELETE /volumes/{name}": { reply: { ref: "Status" } },
  "POST /volumes/{name}/clone": { body: { ref: "VolumeClone" }, reply: { ref: "Volume" } },
  "GET /volumes/{name}/content": {},
  "PUT /volumes/{name}/content": { reply: { ref: "Volume" } },
  "GET /admin/providers": { reply: { array: { ref: "Provider" } } },
  "GET /providers": { reply: { array: { ref: "Provider" } } },
  "GET /admin/providers/{name}": { reply: { ref: "ProviderDetail" } },
  "GET /providers/{name}": { reply: { ref: "ProviderDetail" } },
  "POST /admin/providers/test": { reply: { record: "boolean" } },
  "POST /providers/test": { reply: { record: "boolean" } },
  "GET /pool/status": { reply: { ref: "PoolStatus" } },
  "GET /snapshots": { reply: { array: { ref: "Snapshot" } } },
  "POST /snapshots": { body: { ref: "SpawnRequest" }, reply: { ref: "Snapshot" } },
  "GET /snapshots/{key}": { reply: { ref: "Snapshot" } },
  "DELETE /snapshots/{key}": { reply: { ref: "Status" } },
  "POST /snapshots/gc": { body: { ref: "SnapshotGcRequest" }, reply: { ref: "SnapshotGc" } },
  "GET /images": { reply: { array: { ref: "Image" } } },
  "DELETE /images": { reply: { ref: "Status" } },
  "GET /images/inspect": { reply: { ref: "ImageDetails" } },
  "POST /images/pull": { body: { ref: "PullRequest" }, reply: { ref: "Image" } },
  "POST /images/import": { body: { ref: "ImportRequest" }, reply: { ref: "Image" } },
  "POST /images/tag": { body: { ref: "TagRequest" }, reply: { ref: "Image" } },
  "POST /images/gc": { body: { ref: "ImageGcRequest" }, reply: { ref: "ImageGc" } },
  "POST /images/build": { reply: { ref: "ImageBuild" } },
  "GET /health": { reply: { ref: "Health" } },
  "GET /live": { reply: { ref: "Health" } },
  "GET /ready": { reply: { ref: "Ready" } },
  "GET /config": { reply: { record: "any" } },
  "PATCH /config": { body: { ref: "ConfigPatch" }, reply: { ref: "ConfigUpdated" } },
  "GET /system/stats": { reply: { ref: "SystemStats" } },
  "GET /system/history": { reply: { array: { ref: "SystemSample" } } },
  "GET /doctor": { reply: { ref: "Doctor" } },
  "GET /events": {},
  "GET /events/history": { reply: { ref: "EventHistory" } },
  "GET /admin/metrics": { reply: { record: "any" } },
  "GET /metrics": { reply: { record: "any" } },
  "GET /admin/metrics/prometheus": {},
  "GET /metrics/prometheus": {},
  "GET /admin/diagnostics": { reply: { record: "any" } },
  "GET /diagnostics": { reply: { record: "any" } },
  "GET /admin/workers": { reply: { array: { ref: "Worker" } } },
  "GET /workers": { reply: { array: { ref: "Worker" } } },
  "GET /admin/workers/{id}": { reply: { ref: "Worker" } },
  "DELETE /admin/workers/{id}": {},
  "GET /workers/{id}": { reply: { ref: "Worker" } },
  "DELETE /workers/{id}": {},
  "POST /worker/{id}/heartbeat": {},
  "POST /worker/{id}/leases/{resource}/renew": {},
  "POST /workers/{id}/heartbeat": {},
  "POST /admin/workers/{id}/heartbeat": {},
  "POST /admin/workers/{id}/leases/{resource}/renew": {},
  "POST /admin/worker-tokens": {},
  "POST /environments/specs": { body: { ref: "EnvironmentRequest" }, reply: { ref: "Environment" } },
  "GET /environments/specs": { reply: { array: { ref: "Environment" } } },
  "GET /environments/specs/{id}": { reply: { ref: "Environment" } },
  "DELETE /environments/specs/{id}": { reply: { ref: "Status" } },
  "GET /environments/specs/{id}/suggestions": {
    reply: { object: { spec_id: "string", suggestions: { array: "string" } } },
  },
  "POST /environments/builds": { body: { ref: "EnvironmentBuildRequest" }, reply: { ref: "EnvironmentBuild" } },
  "GET /environments/builds": {
    reply: { array: { object: { build: { ref: "EnvironmentBuild" }, spec: { ref: "Environment" } } } },
  },
  "GET /environments/builds/{id}": { reply: { ref: "EnvironmentBuild" } },
  "POST /environments/builds/{id}/cancel": { reply: { ref: "EnvironmentBuild" } },
  "GET /environments/builds/{id}/spawn-config": {
    reply: {
      object: {
        build_id: "string",
        build_status: "string",
        ready: "boolean",
        provider: "string",
        image: "string",
        target: "string",
        digest: "string",
        note: "string",
      },
    },
  },
  "GET /environments/registry-connections": { reply: { array: { record: "any" } } },
  "POST /environments/registry-connections": {},
  "DELETE /environments/registry-connections/{id}": {},
  "GET /identity": { reply: { ref: "Identity" } },
  "POST /keys": { body: { ref: "KeyRequest" }, reply: { ref: "MadeKey" } },
  "GET /keys": { reply: { array: { ref: "Key" } } },
  "POST /keys/{key}/rotate": { body: { ref: "KeyRotateRequest" }, reply: { ref: "MadeKey" } },
  "DELETE /keys/{key}": { reply: { ref: "Key" } },
  "GET /audit": { reply: { array: { ref: "AuditEntry" } } },
  "GET /admin/audit": { reply: { array: { ref: "AdminAuditEntry" } } },
  "GET /nodes": { reply: { array: { ref: "FleetNode" } } },
  "GET /nodes/{node}": { reply: { ref: "FleetNode" } },
  "DELETE /nodes/{node}": { reply: { ref: "RemovedNode" } },
  "POST /nodes/{node}/drain": { body: { ref: "DrainRequest" }, reply: { ref: "FleetNode" } },
  "GET /nodes/{node}/drain": { reply: { ref: "NodeDrain" } },
  "POST /nodes/{node}/undrain": { reply: { ref: "FleetNode" } },
  "POST /sandboxes/{id}/move": { body: { ref: "SandboxMoveRequest" }, reply: { ref: "MovedSandbox" } },
  "GET /admin/tenants": { reply: { object: { tenants: { array: { ref: "Tenant" } } } } },
  "POST /admin/tenants": { body: { ref: "TenantRequest" }, reply: { object: { tenant: { ref: "Tenant" } } } },
  "GET /admin/tenants/{id}": { reply: { object: { tenant: { ref: "Tenant" } } } },
  "PUT /admin/tenants/{id}": { body: { ref: "TenantChange" }, reply: { object: { tenant: { ref: "Tenant" } } } },
  "DELETE /admin/tenants/{id}": {},
  "GET /admin/tenants/{id}/members": { reply: { object: { members: { array: { ref: "TenantMember" } } } } },
  "PUT /admin/tenants/{id}/members/{member}": {
    body: { ref: "TenantMemberRequest" },
    reply: { object: { member: { ref: "TenantMember" }, "key?": "string" } },
  },
  "DELETE /admin/tenants/{id}/members/{member}": {},
  "GET /admin/tenants/{id}/policies": { reply: { object: { policies: { array: { ref: "TenantPolicy" } } } } },
  "POST /admin/tenants/{id}/policies": {
    body: { ref: "TenantPolicyRequest" },
    reply: { object: { policy: { ref: "TenantPolicy" } } },
  },
  "DELETE /admin/tenants/{id}/policies/{policy}": {},
  "GET /admin/tenants/{id}/audit": {
    reply: {
      object: {
        tenant_id: "string",
        admin_audit: { array: { ref: "AdminAuditEntry" } },
        op_audit: { array: { record: "any" } },
        exported_at: "string",
      },
    },
  },
  "GET /sandboxes/{id}/ports/{port}/{path}": {},
};
