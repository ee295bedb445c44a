/** The Firecracker process behind every state of a machine: its API, its sockets, its end and why it ended. */
import { constants, open, readFile, rm, stat } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { MONITOR_BOUNDS } from "../../host/bounds.ts";
import { errno, StacyError } from "../../host/error.ts";
import { once } from "../../host/once.ts";
import { adoptProcess, type HostProcess, type ProcessRecord, type SpawnProcess } from "../../host/process.ts";
import { tailLines } from "../../host/tail.ts";
import { connectUnix } from "../../host/unix-socket.ts";
import type { Cell } from "../cell.ts";
import { MonitorGroup } from "../cgroup.ts";
import { keepShort, lastWords } from "../console-file.ts";
import { exitError, hangUpError } from "../exit.ts";
import { Undoing } from "../undoing.ts";
import {
  type AgentStream,
  type ConnectOptions,
  type ExitReport,
  FILES,
  type JailConfig,
  type MachineConfig,
  type VmmProcess,
  volumeFile,
} from "../vmm.ts";
import { allowFile, sizeToAllow } from "../volume-size.ts";
import { FirecrackerApi } from "./api.ts";
import { cellArguments, makeCellJail, type Shown } from "./cell-jail.ts";
import { bring, findJail, type Jail } from "./jail.ts";
import { jailerArguments, makeJail } from "./jailer.ts";
import { dialGuest, dialGuestOnce } from "./vsock.ts";

export const API_SOCKET = "api.sock";
/** Stored in snapshots, as `rootfs.ext4` and `base.img` are. */
export const VSOCK_SOCKET = "v.sock";

/** For another connection to a process that runs. */
const REOPEN_LIMIT_MS = 5_000;
/** Where the agent listens (guest/protocol.ts). */
const AGENT_PORT = 1024;
const SENTINEL_PORT = 1025;
const START_LIMIT_MS = 10_000;
const LOG_LINES = 20;
/**
 * Firecracker grows its descriptor table to the limit at start, and children of Node inherit the hard limit: a million
 * descriptors are 8 MiB and some ms for each machine. Below this it is not worth the extra program in between.
 */
const DESCRIPTORS_WORTH_LIMITING = 32_768;
const DESCRIPTORS = 2_048;

/** How a machine is to be jailed. */
export type JailPlan =
  | { by: "jailer"; jailer: string | undefined; config: JailConfig }
  | { by: "cell"; cell: Cell; files: readonly Shown[]; volumes: readonly string[] };

export interface StartFirecracker {
  firecracker: string;
  dir: string;
  jail: JailPlan | undefined;
  /** Of its machine (`mostWritten`), where that is known yet. */
  fileBytes?: number | undefined;
  signal: AbortSignal | undefined;
  spawn: SpawnProcess;
}

export class FirecrackerProcess implements VmmProcess {
  readonly exited: Promise<ExitReport>;
  readonly jail: Jail | undefined;
  /** Of a pause that was not answered. */
  readonly undoing = new Undoing();
  readonly #process: HostProcess;
  #dir: string;
  #api: FirecrackerApi | undefined;
  #killed = false;
  #released = false;
  readonly #letFiles: () => Promise<void>;
  readonly #group: MonitorGroup;
  /** Its files are since its start. */
  readonly #limited: boolean;

  private constructor(process: HostProcess, dir: string, jail: Jail | undefined, limited: boolean) {
    this.#limited = limited;
    this.#letFiles = keepShort(() => this.#dir);
    this.#process = process;
    this.#group = new MonitorGroup(process.record.pid);
    this.#dir = dir;
    this.jail = jail;
    this.exited = process.exited.then(async (exit): Promise<ExitReport> => {
      this.#api?.close();
      this.undoing.end();
      this.#group.remove();
      await this.#letFiles();
      const [vmmLog, console] = await Promise.all([
        tailLines(join(this.dir, FILES.log), LOG_LINES),
        lastWords(join(this.dir, FILES.console)),
        this.#removeLeftovers(),
      ]);
      // Firecracker ends with 0 when the guest reboots and also when it crashes by a triple fault; from 1.16 on, the latter is an error.
      const guestEnded =
        exit.exitCode === 0 ||
        vmmLog.some((line) => line.includes("exit_code=0") || (/[Vv]cpu/.test(line) && /\bShutdown\b/.test(line)));
      const unknown = exit.exitCode === undefined && exit.signal === undefined && !guestEnded;
      const reason = this.#killed ? "requested" : guestEnded ? "guest" : unknown ? "unknown" : "crash";
      return { ...exit, reason, vmmLog, console };
    });
  }

  /** Starts it and connects to its API. Nothing is left when that fails. */
  static async start(options: StartFirecracker): Promise<FirecrackerProcess> {
    const { dir, firecracker, jail: plan } = options;
    const inside = ["--api-sock", API_SOCKET, "--log-path", FILES.log, "--level", "Info"];
    // Firecracker removes no socket that an earlier process left, and refuses to start over it.
    const [jail] = await Promise.all([
      plan === undefined ? undefined : makePlanned(plan, dir, firecracker),
      rm(join(dir, API_SOCKET), { force: true }),
      rm(join(dir, VSOCK_SOCKET), { force: true }),
      touch(join(dir, FILES.log)),
    ]);
    const [{ command, args, limited }] = await Promise.all([
      commandLine(options, jail, inside),
      jail === undefined ? undefined : bring(jail, dir, join(dir, FILES.log), FILES.log, true),
    ]);
    const host = await options.spawn({
      command,
      args,
      cwd: dir,
      log: join(dir, FILES.console),
      signal: options.signal,
    });
    const process = new FirecrackerProcess(host, dir, jail, limited);
    try {
      await process.connect(START_LIMIT_MS, options.signal);
      return process;
    } catch (error) {
      await process.kill();
      throw error;
    }
  }

  /** That of an earlier daemon, not connected yet; `undefined` when it is gone. */
  static async find(dir: string, record: ProcessRecord): Promise<FirecrackerProcess | undefined> {
    const found = await adoptProcess(record);
    return found === undefined ? undefined : new FirecrackerProcess(found, dir, await findJail(dir), true);
  }

  async connect(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const socket = await connectUnix(this.workDir, API_SOCKET, {
      timeoutMs,
      gone: this.ended("starting"),
      ...(signal === undefined ? {} : { signal }),
    });
    this.#api = new FirecrackerApi(socket, {
      reopen: () =>
        connectUnix(this.workDir, API_SOCKET, { timeoutMs: REOPEN_LIMIT_MS, gone: this.ended("answering") }),
      why: () =>
        hangUpError(this.ended("answering"), new StacyError("machine-exited", "Firecracker closed its API connection")),
      gone: () => void this.#process.check(),
    });
  }

  /** What its share of the host takes longest to give, while there is no machine yet. */
  async enterGroup(): Promise<void> {
    await this.#group.enter();
  }

  /** Gives the machine its share of the host; nobody waits for it. */
  confine({ vcpus, memoryMiB }: MachineConfig): void {
    void this.#group.limit({ vcpus, memoryMiB, accelerator: "kvm" });
  }

  /** No file that it writes becomes larger than this machine needs, where that was not said at its start. @throws StacyError `unavailable` */
  async limitFiles(config: MachineConfig): Promise<void> {
    if (this.#limited) return;
    // Of a disk that is missing Firecracker says so.
    const most = await mostWritten(config, this.dir, this.dir).catch((error: unknown) => {
      if (errno(error) !== "ENOENT") throw error;
    });
    if (most !== undefined) await this.#process.limitFiles(most);
  }

  /** @throws StacyError `conflict` for one that is larger than the files that it may write */
  allowFile(path: string): Promise<void> {
    return allowFile(this.#process, path);
  }

  get record(): ProcessRecord {
    return this.#process.record;
  }

  get dir(): string {
    return this.#dir;
  }

  /** Firecracker's working directory as the host sees it. */
  get workDir(): string {
    return this.jail === undefined ? this.#dir : join(this.#dir, this.jail.root);
  }

  relocate(dir: string): void {
    this.#dir = dir;
  }

  get api(): FirecrackerApi {
    if (this.#api === undefined) throw new StacyError("internal", "the API is not connected");
    return this.#api;
  }

  /** An error that says how the process ended, once it has. */
  ended(doing: string): Promise<StacyError> {
    return this.exited.then((report) => {
      const words = [...report.vmmLog, ...report.console].filter((line) => /error|panic|fail/i.test(line)).at(-1);
      return exitError("Firecracker", report, doing, words ?? "");
    });
  }

  async connectAgent(options: ConnectOptions = {}): Promise<AgentStream> {
    const gone = this.ended("connecting to the agent");
    const { socket, ...opened } = await dialGuest(this.workDir, VSOCK_SOCKET, { ...options, port: AGENT_PORT, gone });
    return { stream: socket, clean: true, ...opened };
  }

  /** @returns `undefined` when the guest has nobody there */
  dialSentinel(timeoutMs: number): Promise<Socket | undefined> {
    const gone = this.ended("being saved");
    return dialGuestOnce(this.workDir, VSOCK_SOCKET, { port: SENTINEL_PORT, timeoutMs, gone });
  }

  async kill(stopped?: () => void): Promise<ExitReport> {
    // A released machine belongs to the next daemon.
    if (!this.#released) this.#killed = true;
    await this.#process.kill(stopped);
    return this.exited;
  }

  async release(): Promise<void> {
    this.#released = true;
    this.undoing.end();
    this.#process.release();
    this.#api?.close();
    await this.#letFiles();
  }

  async #removeLeftovers(): Promise<void> {
    // The next daemon's, which may have put another machine in this place.
    if (this.#released) return;
    const removals = [API_SOCKET, VSOCK_SOCKET].map((name) => rm(join(this.workDir, name), { force: true }));
    // The directory may be gone already: whoever removed it knew that the machine was dead.
    await Promise.allSettled(removals);
  }
}

function makePlanned(plan: JailPlan, dir: string, firecracker: string): Promise<Jail> {
  if (plan.by === "cell") return makeCellJail(dir, firecracker, plan.files, plan.volumes);
  if (plan.jailer !== undefined) return makeJail(dir, firecracker, plan.config);
  throw new StacyError("unavailable", "there is no jailer beside this Firecracker", {
    remedy: "set STACYVM_JAILER to its path, or set `firecracker.jail: false`",
  });
}

async function commandLine(
  { dir, firecracker, jail: plan, fileBytes }: StartFirecracker,
  jail: Jail | undefined,
  inside: string[],
): Promise<{ command: string; args: string[]; limited: boolean }> {
  let command = firecracker;
  let args = inside;
  if (jail !== undefined && plan?.by === "jailer") {
    return {
      command: plan.jailer as string,
      args: [...(await jailerArguments(jail, dir, firecracker, plan.config)), ...inside],
      // Only a root with CAP_SYS_RESOURCE may limit another user's process later.
      limited: true,
    };
  }
  if (jail !== undefined && plan?.by === "cell") {
    command = plan.cell.program;
    args = await cellArguments(jail, dir, firecracker, plan.files, plan.volumes, inside);
  }
  if (!(await descriptorsNeedLimit())) return { command, args, limited: false };
  const files = fileBytes === undefined ? [] : [`--fsize=${fileBytes}:${fileBytes}`];
  return {
    command: "prlimit",
    args: [`--nofile=${DESCRIPTORS}:${DESCRIPTORS}`, ...files, command, ...args],
    limited: fileBytes !== undefined,
  };
}

/**
 * The largest file that a machine's Firecracker makes by rights, bytes: a disk, or memory and state when it is saved. One that its guest has taken
 * over would fill the host's disk.
 * @param disks where its disk is, or one of the same size @param dir where its volumes are @throws as `stat`, for one that is missing
 */
export async function mostWritten(
  { memoryMiB, volumes = [] }: MachineConfig,
  disks: string,
  dir: string,
): Promise<number> {
  const slots = volumes.flatMap((access, slot) => (access === "write" ? [join(dir, volumeFile(slot))] : []));
  const [disk, ...found] = await Promise.all([join(disks, FILES.rootfs), ...slots].map((path) => stat(path)));
  const largest = Math.max(disk?.size ?? 0, ...found.map(({ size }) => sizeToAllow(size)));
  return Math.max(memoryMiB * 2 ** 20 + MONITOR_BOUNDS.stateBytes, largest);
}

function touch(path: string): Promise<void> {
  return open(path, constants.O_CREAT | constants.O_WRONLY, 0o600).then((file) => file.close());
}

const descriptorsNeedLimit = once(async () => {
  const limits = await readFile("/proc/self/limits", "latin1");
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  return !(Number(hard) <= DESCRIPTORS_WORTH_LIMITING);
});
