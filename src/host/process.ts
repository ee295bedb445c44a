/**
 * Processes that outlive us: each runs in its own session, writes to a file and is named by pid *and* start time, so that a
 * recycled pid is never taken for ours. Started ones report their exit through Node; adopted ones are watched in /proc.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { open, readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { errno, StacyError } from "./error.ts";
import { isRoot } from "./is-root.ts";
import { runTool } from "./run.ts";
import { withTimeLimit } from "./time-limit.ts";

/** Names one process for sure. Stored on disk. */
export interface ProcessRecord {
  pid: number;
  /** Field 22 of `/proc/<pid>/stat`, in clock ticks since boot. */
  startTime: string;
  /** `/proc/sys/kernel/random/boot_id` of the host; a record of another boot is void. */
  hostBootId: string;
}

/** The same pid is not enough: the kernel gives it to others later. */
export function isSameProcess(a: ProcessRecord | undefined, b: ProcessRecord): boolean {
  return a?.pid === b.pid && a.startTime === b.startTime && a.hostBootId === b.hostBootId;
}

export interface ProcessExit {
  exitCode?: number;
  signal?: NodeJS.Signals;
}

export interface HostProcess {
  readonly record: ProcessRecord;
  /** Settles once, never rejects. Both fields are absent for an adopted process: only its parent learns them. */
  readonly exited: Promise<ProcessExit>;
  /** Looks at once whether it is gone, for example after its socket closed. A no-op for processes that we started. */
  check(): void;
  /**
   * SIGKILL, then waits until it is gone. Idempotent; safe against recycled pids. @throws StacyError `timeout`, `permission`
   * @param stopped told at most once, when the kernel has taken the signal: nothing of the program runs any more, though what it had is
   * still being given back. Not told where that is not known
   */
  kill(stopped?: () => void): Promise<ProcessExit>;
  /** No file becomes larger by what it writes from now on. Nothing when it is gone. @throws StacyError `unavailable` */
  limitFiles(bytes: number): Promise<void>;
  /** Stops looking after it: it goes on, and `exited` may never settle. */
  release(): void;
}

/** A killed process is gone in milliseconds, unless the kernel holds it, for example for a disk that does not answer. */
export const KILL_LIMIT_MS = 10_000;
/** It takes milliseconds, and on a host that is very busy seconds. */
const LIMIT_LIMIT_MS = 60_000;
/**
 * In the environment of every machine monitor that we start: with its working directory it proves whose a process is, also one that
 * no record names yet. (The jailer empties the environment; its processes are told by their root. A jail that it did not make
 * is only the working directory.)
 */
const MARK = "STACYVM_MACHINE";

export interface SpawnOptions {
  command: string;
  args: string[];
  cwd: string;
  /** File that stdout and stderr are appended to. */
  log: string;
  /** Descriptors that the child gets as 3, 4, ... */
  fds?: number[];
  env?: Record<string, string>;
  /** Nobody wants it any longer: one that starts all the same is ended. */
  signal?: AbortSignal | undefined;
}

let bootId: Promise<string> | undefined;
export function hostBootId(): Promise<string> {
  bootId ??= readFile("/proc/sys/kernel/random/boot_id", "utf8").then(
    (text) => text.trim(),
    (error: unknown) => {
      bootId = undefined;
      throw notSeen("the host's boot", error);
    },
  );
  return bootId;
}

/** No such process, or file: what /proc says of one that is gone. */
const GONE = ["ENOENT", "ESRCH", "ENOTDIR", "ELOOP"];
/** Another user's: never one that we started, unless we are root without the right to see what is there (`worksIn`). */
const NOT_OURS = ["EACCES", "EPERM"];

/** A host that is short of descriptors or memory shows nothing; what is not seen is not gone. */
function notSeen(what: string, cause: unknown): StacyError {
  return new StacyError("unavailable", `cannot see ${what}: ${(cause as Error).message}`, {
    cause,
    remedy: "see whether the host has run out of open files or memory",
  });
}

/** The value for what is gone or somebody else's. @throws StacyError `unavailable` for every other reason */
function absent<T>(value: T, what: string, reasons: readonly string[]): (error: unknown) => T {
  return (error) => {
    if (reasons.includes(errno(error) ?? "")) return value;
    throw notSeen(what, error);
  };
}

/**
 * Start time of a live process, or `undefined` when there is none (a zombie counts as gone).
 * @throws StacyError `unavailable` when that cannot be seen
 */
export async function processStartTime(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(absent(undefined, `process ${pid}`, GONE));
  if (stat === undefined) return undefined;
  // The name in parentheses may hold anything, also spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

/** Our own record, for lock files and half-made directories. */
export async function ownRecord(): Promise<ProcessRecord> {
  return processRecord(process.pid);
}

/** One that has ended already gets a start time that no process has. */
async function processRecord(pid: number): Promise<ProcessRecord> {
  return { pid, startTime: (await processStartTime(pid)) ?? "0", hostBootId: await hostBootId() };
}

/** @throws StacyError `unavailable` when that cannot be seen */
export async function isAlive(record: ProcessRecord): Promise<boolean> {
  return record.hostBootId === (await hostBootId()) && record.startTime === (await processStartTime(record.pid));
}

/** A guest's monitor needs nothing of our environment, which may hold keys. */
export function childEnvironment(env?: Record<string, string>): Record<string, string> {
  return { ...(env ?? { PATH: process.env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin" }), [MARK]: "1" };
}

/** `spawnProcess`, or a spawner's. */
export type SpawnProcess = (options: SpawnOptions) => Promise<HostProcess>;

/** @throws StacyError `unavailable` when the program cannot be started */
export async function spawnProcess(options: SpawnOptions): Promise<HostProcess> {
  options.signal?.throwIfAborted();
  const log = await open(options.log, "a");
  let child: ChildProcess;
  try {
    child = spawn(options.command, options.args, {
      cwd: options.cwd,
      detached: true,
      env: childEnvironment(options.env),
      stdio: ["ignore", log.fd, log.fd, ...(options.fds ?? [])],
    });
  } finally {
    void log.close();
  }
  const exited = new Promise<ProcessExit>((settle) => {
    child.once("exit", (code, signal) => settle(code === null ? { signal: signal ?? "SIGKILL" } : { exitCode: code }));
  });
  if (child.pid === undefined) {
    const cause = await new Promise<Error>((settle) => child.once("error", settle));
    throw new StacyError("unavailable", `cannot start ${options.command}: ${cause.message}`, {
      cause,
      remedy: "run `stacyvm doctor`",
    });
  }
  child.on("error", () => {}); // a failed kill; the exit tells the truth
  child.unref();
  const kill = (pid: number, stopped?: () => void): Promise<ProcessExit> => {
    if (child.kill("SIGKILL")) stopped?.();
    // The wait must keep our process alive: whoever kills wants to know.
    child.ref();
    return withTimeLimit(exited, KILL_LIMIT_MS, () => stillThere(pid));
  };
  const { pid } = child;
  const record = await processRecord(pid).catch(async (error: unknown) => {
    await kill(pid).catch(() => {}); // nobody could name it later
    throw error;
  });
  const limitFiles = (bytes: number): Promise<void> => limitFilesOf(record, bytes);
  return { record, exited, check() {}, kill: (stopped) => kill(pid, stopped), limitFiles, release() {} };
}

/** With the system's program: only a spawner can do it by itself. */
async function limitFilesOf(record: ProcessRecord, bytes: number): Promise<void> {
  try {
    await runTool("prlimit", [`--pid=${record.pid}`, `--fsize=${bytes}:${bytes}`], { timeoutMs: LIMIT_LIMIT_MS });
  } catch (cause) {
    if (await isAlive(record)) throw notLimited(record.pid, cause);
  }
}

export function notLimited(pid: number, cause: unknown): StacyError {
  return new StacyError("unavailable", `the files of process ${pid} cannot be limited: ${(cause as Error).message}`, {
    cause,
    remedy: "see whether the host has run out of processes, memory or open files",
  });
}

export function stillThere(pid: number): StacyError {
  return new StacyError("timeout", `process ${pid} was killed and is still there after ${KILL_LIMIT_MS} ms`, {
    remedy: "see what it waits for in /proc/<pid>/stack; its end is tried again",
  });
}

/** `undefined` when the recorded process is gone. @throws StacyError `unavailable` when that cannot be seen */
export async function adoptProcess(record: ProcessRecord, pollMs = 500): Promise<HostProcess | undefined> {
  if (!(await isAlive(record))) return undefined;
  let settle: (exit: ProcessExit) => void = () => {};
  const exited = new Promise<ProcessExit>((resolve) => {
    settle = resolve;
  });
  let gone = false;
  const end = (): void => {
    gone = true;
    clearInterval(timer);
    settle({});
  };
  const look = async (): Promise<void> => {
    // What cannot be seen now is looked at again.
    if (gone || (await isAlive(record).catch(() => true)) || gone) return;
    end();
  };
  const timer = setInterval(look, pollMs);
  timer.unref();
  return {
    record,
    exited,
    check() {
      // A process whose socket has just closed may need a moment to become a zombie or to vanish.
      let tries = 0;
      const again = async (): Promise<void> => {
        await look();
        // A socket that we closed ourselves leads here too: nobody waits for that then.
        if (!gone && ++tries < 50) setTimeout(again, 2 * tries).unref();
      };
      void again();
    },
    async kill(stopped) {
      await endProcess(record, stopped);
      end();
      return exited;
    },
    limitFiles: (bytes) => limitFilesOf(record, bytes),
    release() {
      gone = true;
      clearInterval(timer);
    },
  };
}

/**
 * SIGKILL, then waits until it is gone; nothing when it is no more. @throws StacyError `timeout`, `permission`, `unavailable`
 * @param stopped as of `HostProcess.kill`
 */
export async function endProcess(record: ProcessRecord, stopped?: () => void): Promise<void> {
  const deadline = performance.now() + KILL_LIMIT_MS;
  let tell = stopped;
  while (await isAlive(record)) {
    try {
      process.kill(record.pid, "SIGKILL");
      tell?.();
      tell = undefined;
    } catch (cause) {
      if (errno(cause) === "ESRCH") return;
      throw new StacyError("permission", `process ${record.pid} may not be ended`, { cause });
    }
    if (performance.now() > deadline) throw stillThere(record.pid);
    await new Promise((wake) => setTimeout(wake, 2));
  }
}

/**
 * Whether the process works in this directory, by inode: another name of it counts, a copy of it does not. The record alone does not
 * say that: a copied data directory names the original's processes.
 * @throws StacyError `unavailable` when that cannot be seen, also by a root that may not look at its machines' users
 */
export async function worksIn(record: ProcessRecord, dir: string): Promise<boolean> {
  const at = await inode(`/proc/${record.pid}/cwd`);
  if (at === NO_INODE) {
    if (!isRoot() || (await seesOthers()) || !(await isAlive(record))) return false;
    throw notLookedAt(`process ${record.pid}`);
  }
  if (at === (await inode(dir))) return true;
  const roots = await jailRoots(dir);
  return roots.has(at) || roots.has(await inode(`/proc/${record.pid}/root`));
}

const CAP_SYS_PTRACE = 19;

/** Whether /proc shows us processes of other users. */
async function seesOthers(): Promise<boolean> {
  return (await ownCapabilities()).has(CAP_SYS_PTRACE);
}

/** Numbers: Linux, include/uapi/linux/capability.h. */
export async function ownCapabilities(): Promise<Set<number>> {
  const status = await readFile("/proc/self/status", "latin1").catch(absent("", "our own rights", []));
  const effective = BigInt(`0x${/^CapEff:\s*(\w+)$/m.exec(status)?.[1] ?? "0"}`);
  return new Set(Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => ((effective >> BigInt(bit)) & 1n) === 1n));
}

/**
 * Ends the processes in `dir` or below it that are proven to be ours, and waits until they are gone.
 * @returns their pids @throws as `endProcess`
 */
export async function endOwnProcessesIn(dir: string): Promise<number[]> {
  const roots = await jailRoots(dir);
  const ended = new Set<number>();
  // Again until none is found: one that was ended may have started another just before.
  for (;;) {
    const pids = await ownPidsIn(dir, roots);
    if (pids.length === 0) return [...ended];
    const records = await Promise.all(pids.map(processRecord));
    // Looked at once more, now that they are named: a pid may have become another process's, maybe that of another machine.
    const proven = new Set(await ownPidsIn(dir, roots));
    const ours = records.filter(({ pid }) => proven.has(pid));
    await Promise.all(ours.map((each) => endProcess(each)));
    for (const { pid } of ours) ended.add(pid);
  }
}

async function ownPidsIn(dir: string, jailRoots: ReadonlySet<string>): Promise<number[]> {
  const pids = await processesIn(dir);
  const ours = await Promise.all(pids.map((pid) => isOurs(pid, jailRoots)));
  return pids.filter((_, at) => ours[at]);
}

/** Whether any process, whoever's, works in `dir` or below it. @throws StacyError `unavailable` when that cannot be seen */
export async function hasProcesses(dir: string): Promise<boolean> {
  if ((await processesIn(dir)).length > 0) return true;
  if (isRoot() && !(await seesOthers())) throw notLookedAt(`the processes in ${dir}`);
  return false;
}

function notLookedAt(what: string): StacyError {
  return new StacyError("unavailable", `${what} cannot be looked at`, { remedy: "give the server CAP_SYS_PTRACE" });
}

async function isOurs(pid: number, jailRoots: ReadonlySet<string>): Promise<boolean> {
  const environment = await readFile(`/proc/${pid}/environ`, "latin1").catch(
    absent("", `the environment of process ${pid}`, [...GONE, ...NOT_OURS]),
  );
  return environment.split("\0").includes(`${MARK}=1`) || jailRoots.has(await inode(`/proc/${pid}/root`));
}

/**
 * Pids of live processes whose working directory is `dir` or below it, whoever started them: by inode. The name alone that /proc shows
 * proves nothing, since in another mount namespace (a container's, any user's own) another directory may have it. A chrooted
 * process shows `/`, so those are told by the inode of their root, which a jailer puts at `jail/<program>/<id>/root`.
 * @throws StacyError `unavailable` when they cannot be seen
 */
export async function processesIn(dir: string): Promise<number[]> {
  const found: number[] = [];
  // One with a mount namespace of its own shows the name that its directory had there at its start.
  const [roots, dirs] = await Promise.all([jailRoots(dir), dirInodes(dir)]);
  // /proc names a directory by its own path, whatever links led to it.
  const own = await realpath(dir).catch(absent(dir, dir, GONE));
  const names = await readdir("/proc").catch(absent([], "the processes", []));
  await Promise.all(
    names.map(async (name) => {
      if (!/^\d+$/.test(name)) return;
      const link = `/proc/${name}/cwd`;
      const cwd = await readlink(link).catch(absent("", `where process ${name} works`, [...GONE, ...NOT_OURS]));
      if (cwd === "") return;
      const at = await inode(link);
      if (dirs.has(at) || roots.has(at) || (await isBelow(own, cwd, link))) found.push(Number(name));
    }),
  );
  return found.sort((a, b) => a - b);
}

/** Whether a process that says that it works at `cwd` does so in `own` or below it. @param link leads to where it works */
async function isBelow(own: string, cwd: string, link: string): Promise<boolean> {
  if (cwd !== own && !cwd.startsWith(`${own}/`)) return false;
  const [at, here] = await Promise.all([inode(link), inode(cwd)]);
  if (at === here) return at !== NO_INODE;
  // What has been removed or renamed since is still below its parents.
  const levels = cwd.slice(own.length).split("/").length - 1;
  const above = await inode(`${link}${"/..".repeat(levels)}`);
  return above !== NO_INODE && above === (await inode(own));
}

/** Inodes of `dir` and of the two levels of directories below it: a data directory's machines are there, under whichever name. */
async function dirInodes(dir: string): Promise<Set<string>> {
  const first = (await directoriesIn(dir)).map((name) => join(dir, name));
  const second = (
    await Promise.all(first.map(async (at) => (await directoriesIn(at)).map((name) => join(at, name))))
  ).flat();
  const inodes = new Set(await Promise.all([dir, ...first, ...second].map(inode)));
  inodes.delete(NO_INODE);
  return inodes;
}

async function directoriesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(absent([], dir, [...GONE, ...NOT_OURS]));
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

/** Inodes of `jail/<program>/<id>/root` in `dir` and in the directories in it. */
async function jailRoots(dir: string): Promise<Set<string>> {
  const jails = ["jail", ...(await namesIn(dir)).map((name) => join(name, "jail"))].map((jail) => join(dir, jail));
  const below = async (parents: string[]): Promise<string[]> =>
    (await Promise.all(parents.map(async (at) => (await namesIn(at)).map((name) => join(at, name))))).flat();
  const ids = await below(await below(jails));
  const roots = new Set(await Promise.all(ids.map((id) => inode(join(id, "root")))));
  roots.delete(NO_INODE);
  return roots;
}

function namesIn(dir: string): Promise<string[]> {
  return readdir(dir).catch(absent([], dir, [...GONE, ...NOT_OURS]));
}

const NO_INODE = "gone";

/** Device and inode, or a name that no file has. @throws StacyError `unavailable` when it cannot be seen */
function inode(path: string): Promise<string> {
  return stat(path).then(({ dev, ino }) => `${dev}:${ino}`, absent(NO_INODE, path, [...GONE, ...NOT_OURS]));
}
