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
  endProcess,
  type HostProcess,
  hostBootId,
  isAlive,
  KILL_LIMIT_MS,
  notLimited,
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
  /** Its end, by the spawner, or never any more. */
  told: PromiseWithResolvers<void>;
  /** It is gone, and the spawner has not said so. */
  owed: boolean;
  /** How it is looked after since the spawner died. */
  adopted?: Promise<HostProcess | undefined>;
  /** Asked for: what the spawner has not done yet when it dies is done without it. */
  killed: boolean;
}

const LOOK_AGAIN_MS = 500;
/** What the spawner has not ended by then is ended without it. It takes microseconds, and on a host that is very busy a moment. */
const KILL_ANSWER_MS = 1_000;
/**
 * A spawner that owes an answer and says nothing in so many looks hangs, for example in a file of a disk that does not answer. Looks, not time: while this
 * process stands still it hears nobody.
 */
const LOOKS = 10;
const LOOK_MS = 1_000;

/** One process of ours, and what it has started. */
class Session {
  readonly #process: ChildProcess & { stdin: Writable; stdout: Readable };
  readonly #starting = new Map<string, { resolve(child: [number, string]): void; reject(error: Error): void }>();
  readonly #limiting = new Map<string, { resolve(): void; reject(error: Error): void }>();
  readonly #children = new Map<number, Child>();
  /** Ends that came before anybody had asked for them: a child that lived for a moment. */
  readonly #early = new Map<number, ProcessExit>();
  #waiting = 0;
  #next = 0;
  #rest = "";
  /** Answers that it owes. */
  #owed = 0;
  #silentLooks = 0;
  readonly #lookMs: number;
  #watch: NodeJS.Timeout | undefined;
  open = true;
  /** It never ran: nothing can have been started by it. */
  failed = false;

  constructor(path: string, lookMs: number) {
    this.#lookMs = lookMs;
    const spawner = spawn(path, [String(process.pid)], {
      stdio: ["pipe", "pipe", "ignore"],
      detached: true,
      cwd: "/",
      // What it has forked is ours also before that has become another program; by its own directory it is no machine's.
      env: childEnvironment({}),
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
    const { command, args, fds = [], signal } = options;
    const id = String(this.#next++);
    const env = Object.entries(childEnvironment(options.env)).map(([name, value]) => `${name}=${value}`);
    const argv = [command, ...args];
    const fields = [id, resolve(options.cwd), resolve(options.log), fds.length, ...fds, argv.length, ...argv, ...env];
    const unwanted = Promise.withResolvers<never>();
    const leave = (): void => unwanted.reject(signal?.reason);
    this.#hold(1);
    try {
      // First: one that could not be named would run for nobody.
      const boot = await hostBootId();
      signal?.throwIfAborted();
      signal?.addEventListener("abort", leave, { once: true });
      const child = this.#ask(id, fields).then(([pid, startTime]) => this.#look({ pid, startTime, hostBootId: boot }));
      // It may start when nobody waits for it any longer, and nobody else would come back for it.
      unwanted.promise.catch(() => child.then(({ kill }) => kill()).catch(() => {}));
      return await Promise.race([child, unwanted.promise]);
    } catch (cause) {
      signal?.throwIfAborted();
      throw new StacyError("unavailable", `cannot start ${command}: ${(cause as Error).message}`, {
        cause,
        remedy: "run `stacyvm doctor`",
      });
    } finally {
      signal?.removeEventListener("abort", leave);
      this.#hold(-1);
    }
  }

  async #ask(id: string, fields: (string | number)[]): Promise<[pid: number, startTime: string]> {
    const { promise, resolve, reject } = Promise.withResolvers<[number, string]>();
    // Also of one that died just now.
    if (!this.open) throw new Error("the spawner ended");
    this.#starting.set(id, { resolve, reject });
    this.#write("spawn", ...fields);
    try {
      await this.#owe(promise);
      return await promise;
    } finally {
      this.#starting.delete(id);
    }
  }

  /** Until `answer` settles, a spawner that is silent for long is one that hangs. */
  #owe(answer: Promise<unknown>): Promise<void> {
    if (this.#owed++ === 0) {
      this.#silentLooks = 0;
      this.#watch = setInterval(() => {
        if (++this.#silentLooks > LOOKS) this.#giveUp();
      }, this.#lookMs).unref();
    }
    const paid = (): void => {
      if (--this.#owed === 0) clearInterval(this.#watch);
    };
    return answer.then(paid, paid);
  }

  /** The next one is started by whoever needs it; what this one has started is looked after without it. */
  #giveUp(): void {
    this.#process.kill("SIGKILL");
    this.#process.stdin.destroy();
    this.#lost(`the spawner did not answer for ${(LOOKS * this.#lookMs) / 1000} s`);
  }

  #look(record: ProcessRecord): HostProcess {
    const { pid } = record;
    const child: Child = { record, settle() {}, told: Promise.withResolvers(), owed: false, killed: false };
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
      check: () => {
        if (child.adopted === undefined) void this.#checkEnd(child, exited);
        else void child.adopted.then((adopted) => adopted?.check());
      },
      kill: async (stopped) => {
        child.killed = true;
        // Whoever kills wants to know: the wait keeps our process alive.
        this.#hold(1);
        try {
          const end = async (): Promise<ProcessExit> => {
            if (this.#children.has(pid)) {
              this.#write("kill", pid);
              if (stopped !== undefined) void this.#caughtUp().then((done) => done && stopped());
              if (!(await settlesWithin(exited, KILL_ANSWER_MS))) {
                await endProcess(child.record);
                this.#owesEnd(child);
                child.settle({});
              }
            }
            await (await child.adopted)?.kill(child.owed ? undefined : stopped);
            return exited;
          };
          return await withTimeLimit(end(), KILL_LIMIT_MS, () => stillThere(pid));
        } finally {
          this.#hold(-1);
        }
      },
      limitFiles: (bytes) => this.#limitFiles(child, bytes),
      release() {},
    };
  }

  async #limitFiles(child: Child, bytes: number): Promise<void> {
    const { record } = child;
    if (!this.#children.has(record.pid)) return (await child.adopted)?.limitFiles(bytes);
    const id = String(this.#next++);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#limiting.set(id, { resolve, reject });
    this.#hold(1);
    try {
      this.#write("limit", id, record.pid, bytes);
      await this.#owe(promise);
      await promise;
    } catch (cause) {
      // It may have ended meanwhile, or the spawner, which leaves it to us.
      if (!(await isAlive(record))) return;
      if (this.open) throw notLimited(record.pid, cause);
      await (await child.adopted)?.limitFiles(bytes);
    } finally {
      this.#limiting.delete(id);
      this.#hold(-1);
    }
  }

  /** Requests are carried out in turn: the answer to one more says that those before it were. @returns false: the spawner is gone */
  async #caughtUp(): Promise<boolean> {
    const id = String(this.#next++);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#limiting.set(id, { resolve, reject });
    // Nobody's pid: it is refused.
    this.#write("limit", id, 0, 0);
    await promise.catch(() => {});
    this.#limiting.delete(id);
    return this.open;
  }

  async #checkEnd(child: Child, exited: Promise<ProcessExit>): Promise<void> {
    if (await settlesWithin(exited, KILL_ANSWER_MS)) return;
    if (!(await isAlive(child.record).catch(() => true))) this.#owesEnd(child);
  }

  /** It is gone, and nobody has said so. */
  #owesEnd(child: Child): void {
    if (child.owed || this.#children.get(child.record.pid) !== child) return;
    child.owed = true;
    void this.#owe(child.told.promise);
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
    this.#silentLooks = 0;
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#answer(line.split(" "));
  }

  #answer([what, first = "", second = "", third = ""]: string[]): void {
    if (what === "started") this.#starting.get(first)?.resolve([Number(second), third]);
    else if (what === "limited") this.#limiting.get(first)?.resolve();
    else if (what === "failed")
      (this.#starting.get(first) ?? this.#limiting.get(first))?.reject(new Error(ERRORS.get(Number(second)) ?? second));
    else {
      const exit =
        what === "killed" ? { signal: SIGNALS.get(Number(second)) ?? "SIGKILL" } : { exitCode: Number(second) };
      const pid = Number(first);
      const child = this.#children.get(pid);
      this.#children.delete(pid);
      if (child === undefined) this.#early.set(pid, exit);
      else child.settle(exit);
      child?.told.resolve();
    }
  }

  /** The spawner is gone; what it has started is not. */
  #lost(why = "the spawner ended"): void {
    this.open = false;
    for (const { reject } of [...this.#starting.values(), ...this.#limiting.values()]) reject(new Error(why));
    for (const child of this.#children.values()) {
      child.told.resolve();
      this.#adopt(child);
    }
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

function settlesWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  return Promise.race([work.then(() => true), delay(ms, false, { ref: false })]);
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
  readonly #lookMs: number;
  #session: Session | undefined;

  /** @param path the binary; it starts now @param lookMs between two looks at whether it has answered */
  constructor(path: string, lookMs = LOOK_MS) {
    this.#path = path;
    this.#lookMs = lookMs;
    this.#session = new Session(path, lookMs);
  }

  /** As `spawnProcess`, which does it where the spawner does not run. One that died, or hangs, is started again. @throws StacyError `unavailable` when the program cannot be started */
  readonly spawn = async (options: SpawnOptions): Promise<HostProcess> => {
    if (this.#session?.open !== true) this.#session = new Session(this.#path, this.#lookMs);
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
