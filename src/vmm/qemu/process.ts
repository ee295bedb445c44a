/** The QEMU process behind every state of a machine: its monitor, its end, and why it ended. */
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { StacyError } from "../../host/error.ts";
import { exists } from "../../host/exists.ts";
import type { HostProcess, ProcessRecord } from "../../host/process.ts";
import { tailLines } from "../../host/tail.ts";
import { connectUnix } from "../../host/unix-socket.ts";
import { MonitorGroup, type Share } from "../cgroup.ts";
import { keepShort, lastWords } from "../console-file.ts";
import { exitError, hangUpError } from "../exit.ts";
import { Undoing } from "../undoing.ts";
import {
  type AgentStream,
  type ConnectOptions,
  type ExitReport,
  FILES,
  type VmmProcess,
  type VolumeAccess,
  volumeFile,
} from "../vmm.ts";
import { allowFile } from "../volume-size.ts";
import { AGENT_SOCKET, QMP_SOCKET } from "./arguments.ts";
import { cancelMigration, migrateOut } from "./migration.ts";
import { Qmp } from "./qmp.ts";
import { mostSaved, saveTarget } from "./save-file.ts";
import { Starvation } from "./starvation.ts";
import { VolumeFailures } from "./volume-failures.ts";
import { hideVolumes, replaceFile, showVolume } from "./volume-files.ts";

const LOG_LINES = 20;
const RECONNECT_LIMIT_MS = 5_000;

/** A machine that an earlier version started has its sockets in its directory itself. */
async function placeOf(dir: string, socket: string): Promise<string> {
  const former = basename(socket);
  return (await exists(join(dir, former))) ? former : socket;
}

/** What a QEMU that was killed left is in the way of the next one's bind, or taken for it. */
export async function removeSockets(dir: string): Promise<void> {
  const sockets = [QMP_SOCKET, AGENT_SOCKET].flatMap((socket) => [socket, basename(socket)]);
  await Promise.all(sockets.map((socket) => rm(join(dir, socket), { force: true })));
}

export class QemuProcess implements VmmProcess {
  readonly exited: Promise<ExitReport>;
  /** Of a pause that failed. */
  readonly undoing = new Undoing();
  readonly #process: HostProcess;
  #dir: string;
  #qmp: Qmp | undefined;
  #reopening: Promise<Qmp> | undefined;
  #killed = false;
  #released = false;
  /** The agent's port has had no connection yet in this machine's life. */
  #clean: boolean;
  #guestEnded = false;
  #stream: { destroy(): void } | undefined;
  #early: AgentStream | undefined;

  readonly #letFiles: () => Promise<void>;
  readonly #group: MonitorGroup;
  readonly #starvation = new Starvation(
    () => this.#dir,
    async () => {
      const qmp = await this.monitor();
      // Not before: somebody may want it to stand still by then.
      if (!this.#standing) await qmp.execute("cont");
    },
  );
  readonly volumeFailures = new VolumeFailures();
  /** Somebody wants it to stand still. */
  #standing = false;

  /** @param clean no host process can have used the agent's port before */
  constructor(process: HostProcess, dir: string, clean: boolean) {
    this.#group = new MonitorGroup(process.record.pid);
    this.#letFiles = keepShort(() => this.#dir);
    this.#process = process;
    this.#dir = dir;
    this.#clean = clean;
    this.exited = process.exited.then(async (exit): Promise<ExitReport> => {
      this.#qmp?.close();
      this.#starvation.end();
      this.undoing.end();
      this.#group.remove();
      await this.#letFiles();
      const [vmmLog, console] = await Promise.all([
        // Where the directory is now: a claim renamed it.
        tailLines(join(this.dir, FILES.log), LOG_LINES),
        lastWords(join(this.dir, FILES.console)),
        // Of one that was released they are the next daemon's, which may have put another machine in this place.
        this.#released ? undefined : removeSockets(this.dir).catch(() => {}),
      ]);
      const reason = this.#killed
        ? "requested"
        : this.#guestEnded || exit.exitCode === 0
          ? "guest"
          : exit.exitCode === undefined && exit.signal === undefined
            ? "unknown"
            : "crash";
      return { ...exit, reason, vmmLog, console };
    });
  }

  get dir(): string {
    return this.#dir;
  }

  relocate(dir: string): void {
    this.#dir = dir;
  }

  get record(): ProcessRecord {
    return this.#process.record;
  }

  /** Gives the machine its share of the host; nobody waits for it. */
  confine(share: Share): void {
    void this.#group.limit(share);
  }

  /** An error that says how the process ended, once it has. */
  ended(doing: string): Promise<StacyError> {
    return this.exited.then((report) => {
      const words = report.vmmLog.slice(-3).join("; ") || report.console.slice(-3).join("; ");
      return exitError("QEMU", report, doing, words);
    });
  }

  /** Connects the monitor; commands may be written at once, also before QEMU reads them. */
  async connectMonitor(timeoutMs: number, signal?: AbortSignal): Promise<Qmp> {
    const socket = await connectUnix(this.dir, await placeOf(this.dir, QMP_SOCKET), {
      timeoutMs,
      gone: this.ended("starting"),
      ...(signal === undefined ? {} : { signal }),
    });
    const qmp = new Qmp(socket, () =>
      hangUpError(this.ended("answering"), new StacyError("machine-exited", "QEMU closed its monitor")),
    );
    qmp.onEvent(({ event, data }) => {
      if (event === "SHUTDOWN" && data.guest === true) this.#guestEnded = true;
    });
    qmp.onEvent((event) => {
      this.#starvation.heard(event);
      this.volumeFailures.heard(event);
    });
    // For an adopted process the hang-up is the first sign of its end.
    void qmp.closed.then(() => this.#process.check());
    this.#qmp = qmp;
    return qmp;
  }

  /** The monitor. One whose connection broke, while QEMU lives, is opened again: once for all who ask, since it serves one client at a time. */
  async monitor(): Promise<Qmp> {
    if (this.#reopening === undefined && this.#qmp?.open === true) return this.#qmp;
    this.#reopening ??= this.#reopen().finally(() => {
      this.#reopening = undefined;
    });
    return this.#reopening;
  }

  async #reopen(): Promise<Qmp> {
    if (this.#released) throw new StacyError("internal", "the machine was released");
    const qmp = await this.connectMonitor(RECONNECT_LIMIT_MS);
    if (this.#released) qmp.close(); // the next daemon needs it free
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  /** The host's disk has no room for what the guest writes. Never rejects. */
  get starved(): Promise<StacyError> {
    return this.#starvation.noticed;
  }

  /** The guest is to stand still from now on. */
  stands(): void {
    this.#standing = true;
  }

  /** Lets the guest run, for the first time or after `stands`. */
  async goOn(): Promise<void> {
    const qmp = await this.monitor();
    this.#standing = false;
    await qmp.execute("cont");
  }

  /** Lets the guest go on after a stop that failed, and may still be carried out: QEMU takes this right after it. */
  undoStop(): void {
    this.#standing = false;
    this.undoing.begin(() => this.goOn());
  }

  /** Saves the state to the absolute `path` and leaves the machine stopped. @param memoryMiB its RAM; 0: that is a shared file, and stays out */
  async save(version: string, path: string, memoryMiB: number): Promise<void> {
    const qmp = await this.monitor();
    const target = await saveTarget(version, this.dir, path, mostSaved(memoryMiB));
    try {
      await migrateOut(qmp, target, memoryMiB === 0);
    } catch (error) {
      // Should it still be at it, it has to end before the machine can go on.
      await this.monitor()
        .then(cancelMigration)
        .catch(() => {});
      throw error;
    } finally {
      await target.close();
    }
  }

  /** Opens the agent's connection for the first `connectAgent`. */
  async connectEarly(): Promise<void> {
    this.#early = await this.connectAgent();
  }

  async connectAgent(options: ConnectOptions = {}): Promise<AgentStream> {
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined && !early.stream.destroyed) return early;
    // The port takes one connection at a time: a newer stream wins.
    this.#stream?.destroy();
    const stream = await connectUnix(this.dir, await placeOf(this.dir, AGENT_SOCKET), {
      timeoutMs: options.timeoutMs ?? 10_000,
      gone: this.ended("running"),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    this.#stream = stream;
    const clean = this.#clean;
    this.#clean = false;
    return { stream, clean };
  }

  /** Its guest has closed the disk that is in the slot. */
  async takeVolume(slot: number, access: VolumeAccess): Promise<void> {
    // What a server that died in here left: a file with another name is given to no other QEMU.
    await hideVolumes(this.dir);
    const shown = await showVolume(this.dir, slot, access);
    try {
      if (access === "write") await allowFile(this.#process, join(this.dir, volumeFile(slot)));
      await replaceFile(await this.monitor(), slot, access, shown);
      this.volumeFailures.replaced(slot);
    } finally {
      // It has opened it.
      await rm(join(this.dir, shown), { force: true });
    }
  }

  async kill(stopped?: () => void): Promise<ExitReport> {
    // A released machine belongs to the next daemon.
    if (!this.#released) this.#killed = true;
    await this.#process.kill(stopped);
    return this.exited;
  }

  async release(): Promise<void> {
    this.#released = true;
    this.#starvation.end();
    this.undoing.end();
    this.#process.release();
    this.#early?.stream.destroy();
    this.#stream?.destroy();
    this.#qmp?.close();
    await this.#letFiles();
  }
}
