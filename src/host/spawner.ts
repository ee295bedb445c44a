/**
 * Starts processes through a small one of their own (`spawner/`, in Rust). A fork of this process copies the tables of all its memory,
 * and Node stands still until the child runs: milliseconds for everybody, and more on a busy host. A server has a spawner; a command
 * that starts one machine needs none.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { join, resolve } from "node:path";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "./error.ts";
import { packageRoot } from "./paths.ts";
import {
  adoptProcess,
  childEnvironment,
  type HostProcess,
  hostBootId,
  KILL_LIMIT_MS,
  type ProcessExit,
  type ProcessRecord,
  type SpawnOptions,
  spawnProcess,
  stillThere,
} from "./process.ts";
import { withTimeLimit } from "./time-limit.ts";

const SIGNALS = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]));
/** What the spawner says of a failed start is a number. */
const ERRORS = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** What the published package brings along. */
const PREBUILT = join(packageRoot, "prebuilt", "stacyvm-spawner");

/** The package's own, else where set-up puts it. */
export function spawnerPath(assets: string): string {
  return existsSync(PREBUILT) ? PREBUILT : join(assets, "spawner", "stacyvm-spawner");
}

interface Child {
  record: ProcessRecord;
  settle(exit: ProcessExit): void;
  /** How it is looked after since the spawner died. */
  adopted?: Promise<HostProcess | undefined>;
  /** Asked for: what the spawner has not done yet when it dies is done without it. */
  killed: boolean;
}

const LOOK_AGAIN_MS = 500;

/** One process of ours, and what it has started. */
class Session {
  readonly #process: ChildProcess & { stdin: Writable; stdout: Readable };
  readonly #starting = new Map<string, { resolve(child: [number, string]): void; reject(error: Error): void }>();
  readonly #children = new Map<number, Child>();
  /** Ends that came before anybody had asked for them: a child that lived for a moment. */
  readonly #early = new Map<number, ProcessExit>();
  #waiting = 0;
  #next = 0;
  #rest = "";
  open = true;
  /** It never ran: nothing can have been started by it. */
  failed = false;

  constructor(path: string) {
    const spawner = spawn(path, [String(process.pid)], {
      stdio: ["pipe", "pipe", "ignore"],
      detached: true,
      cwd: "/",
      env: {},
    });
    this.#process = spawner;
    spawner.on("error", () => {
      this.failed = spawner.pid === undefined;
      this.#lost();
    });
    // Not at its exit: what it said last may still be there to be read.
    spawner.on("close", () => this.#lost());
    // Of a process without free descriptors Node makes no channels at all.
    if ((spawner.stdin as Writable | undefined) === undefined) {
      throw new StacyError("unavailable", `cannot start ${path}`, {
        remedy: "see whether this process has run out of open files",
      });
    }
    this.#process.stdin.on("error", () => this.#lost());
    this.#process.stdout.setEncoding("latin1").on("data", (text: string) => this.#read(text));
    this.#process.unref();
    this.#hold(0);
  }

  async spawn(options: SpawnOptions): Promise<HostProcess> {
    const { command, args, fds = [] } = options;
    const id = String(this.#next++);
    const env = Object.entries(childEnvironment(options.env)).map(([name, value]) => `${name}=${value}`);
    const started = new Promise<[number, string]>((resolve, reject) => this.#starting.set(id, { resolve, reject }));
    const argv = [command, ...args];
    const fields = [id, resolve(options.cwd), resolve(options.log), fds.length, ...fds, argv.length, ...argv, ...env];
    started.catch(() => {});
    this.#hold(1);
    try {
      // First: one that could not be named would run for nobody.
      const boot = await hostBootId();
      this.#write("spawn", ...fields);
      const [pid, startTime] = await started.catch((cause: unknown) => {
        throw new StacyError("unavailable", `cannot start ${command}: ${(cause as Error).message}`, {
          cause,
          remedy: "run `stacyvm doctor`",
        });
      });
      return this.#look({ pid, startTime, hostBootId: boot });
    } finally {
      this.#starting.delete(id);
      this.#hold(-1);
    }
  }

  #look(record: ProcessRecord): HostProcess {
    const { pid } = record;
    const child: Child = { record, settle() {}, killed: false };
    const exited = new Promise<ProcessExit>((settle) => {
      child.settle = settle;
    });
    const early = this.#early.get(pid);
    this.#early.delete(pid);
    if (early !== undefined) child.settle(early);
    else if (this.open) this.#children.set(pid, child);
    else this.#adopt(child);
    return {
      record,
      exited,
      check() {
        void child.adopted?.then((adopted) => adopted?.check());
      },
      kill: async () => {
        child.killed = true;
        // Whoever kills wants to know: the wait keeps our process alive.
        this.#hold(1);
        try {
          if (this.#children.has(pid)) this.#write("kill", pid);
          const end = async (): Promise<ProcessExit> => {
            await (await child.adopted)?.kill();
            return exited;
          };
          return await withTimeLimit(end(), KILL_LIMIT_MS, () => stillThere(pid));
        } finally {
          this.#hold(-1);
        }
      },
      release() {},
    };
  }

  /** Its children go on, as those of a server that died. */
  close(): void {
    this.open = false;
    this.#process.stdin.end();
  }

  #write(...fields: (string | number)[]): void {
    this.#process.stdin.write(`${[fields.length, ...fields].join("\0")}\0`);
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#answer(line.split(" "));
  }

  #answer([what, first = "", second = "", third = ""]: string[]): void {
    if (what === "started") this.#starting.get(first)?.resolve([Number(second), third]);
    else if (what === "failed") this.#starting.get(first)?.reject(new Error(ERRORS.get(Number(second)) ?? second));
    else {
      const exit =
        what === "killed" ? { signal: SIGNALS.get(Number(second)) ?? "SIGKILL" } : { exitCode: Number(second) };
      const pid = Number(first);
      const child = this.#children.get(pid);
      this.#children.delete(pid);
      if (child === undefined) this.#early.set(pid, exit);
      else child.settle(exit);
    }
  }

  /** The spawner is gone; what it has started is not. */
  #lost(): void {
    this.open = false;
    for (const { reject } of this.#starting.values()) reject(new Error("the spawner ended"));
    for (const child of this.#children.values()) this.#adopt(child);
    this.#children.clear();
  }

  #adopt(child: Child): void {
    child.adopted = adoptSurely(child.record);
    void child.adopted.then((adopted) => {
      if (adopted === undefined) child.settle({});
      else void adopted.exited.then(child.settle);
      if (child.killed) adopted?.kill().catch(() => {}); // whoever waits for it says so
    });
  }

  /** Keeps our process alive while somebody waits for an answer. */
  #hold(change: 1 | 0 | -1): void {
    this.#waiting += change;
    const channel = this.#process.stdout as Readable & { ref(): void; unref(): void };
    const input = this.#process.stdin as Writable & { unref?(): void };
    input.unref?.();
    if (this.#waiting > 0) channel.ref();
    else channel.unref();
  }
}

/** What cannot be seen is not gone: it is looked at again. */
async function adoptSurely(record: ProcessRecord): Promise<HostProcess | undefined> {
  for (;;) {
    try {
      return await adoptProcess(record);
    } catch {
      await delay(LOOK_AGAIN_MS, undefined, { ref: false });
    }
  }
}

export class Spawner implements Disposable {
  readonly #path: string;
  #session: Session | undefined;

  /** @param path the binary; it starts now */
  constructor(path: string) {
    this.#path = path;
    this.#session = new Session(path);
  }

  /** As `spawnProcess`, which does it where the spawner does not run. A spawner that died is started again. @throws StacyError `unavailable` when the program cannot be started */
  readonly spawn = async (options: SpawnOptions): Promise<HostProcess> => {
    if (this.#session?.open !== true) this.#session = new Session(this.#path);
    const session = this.#session;
    try {
      return await session.spawn(options);
    } catch (error) {
      if (session.failed) return spawnProcess(options);
      throw error;
    }
  };

  [Symbol.dispose](): void {
    this.#session?.close();
  }
}
