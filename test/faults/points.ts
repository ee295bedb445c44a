/**
 * Makes the n-th call of a kind fail, or ends the process at it, as SQLite's own tests do: the product's code knows nothing of it.
 * Importing this file patches Node's own modules; calls pass until a point is armed.
 *
 *     fs.open    open, readFile, readdir     EMFILE        fs.sync    fsync of files and directories    EIO
 *     fs.write   writeFile, FileHandle's     ENOSPC        fs.rename  rename                            EIO
 *     fs.make    mkdir, symlink, link        ENOSPC        fs.copy    copyFile                          ENOSPC
 *     fs.remove  rm, unlink, rmdir           EIO           process    a program that cannot be started
 *     db         a statement of SQLite       FULL          db.io      the same                          IOERR
 *     monitor    a command that the monitor refuses        monitor.cut  its connection breaks instead
 *     agent      the agent's connection breaks instead of a frame
 *     monitor.mute, agent.mute                             from this command or frame on the connection is open and nobody answers
 */
import childProcess from "node:child_process";
import fs from "node:fs";
import fsPromises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";
import { basename } from "node:path";
import { DatabaseSync, StatementSync } from "node:sqlite";

export const KINDS = [
  ...["fs.open", "fs.write", "fs.make", "fs.remove", "fs.sync", "fs.rename", "fs.copy"],
  ...["process", "db", "db.io", "monitor", "monitor.cut", "agent"],
] as const;
/** Each of these waits until a limit is over: forms of their own. */
export const MUTE_KINDS = ["monitor.mute", "agent.mute"] as const;
export type Kind = (typeof KINDS)[number] | (typeof MUTE_KINDS)[number];
export const isMute = (kind: Kind): boolean => (MUTE_KINDS as readonly Kind[]).includes(kind);
/** Where a daemon can be stopped; the other kinds are the same places again. */
export const STOP_KINDS = KINDS.filter((kind) => kind !== "db.io" && kind !== "monitor.cut");

interface Armed {
  kind: Kind;
  /** The call that fails, from 1. */
  at: number;
  /** `once`: only this call. `lasting`: all from this one on. `stop`: the process ends at it. */
  how: "once" | "lasting" | "stop";
}

let armed: Armed | undefined;
let calls: Partial<Record<Kind, string[]>> | undefined;

/** The calls of each kind, in order: from where each was made, as far as they were counted and not armed. */
export type Calls = Partial<Record<Kind, readonly string[]>>;

/** Of more calls than this from one place, as of the writes of a file, not every one is tried. */
const LOOP = 12;

/** From now on the `at`-th call of `kind` fails. */
export function arm(kind: Kind, at: number, how: Armed["how"] = "once"): void {
  armed = { kind, at, how };
  calls = {};
}

/** From now on calls of all kinds are counted, and none fails. */
export function countCalls(): void {
  armed = undefined;
  calls = {};
}

/** @returns what was called, and whether the armed call came */
export function disarm(): { calls: Calls; reached: boolean } {
  const made = calls ?? {};
  const reached = armed !== undefined && (made[armed.kind]?.length ?? 0) >= armed.at;
  armed = undefined;
  calls = undefined;
  return { calls: made, reached };
}

/**
 * Which of these calls are tried, from 1: all of them, but of those that come from one place over and over the first, the last, and some
 * evenly between. @param most at most so many, spread over all
 */
export function choose(made: readonly string[], most = Number.POSITIVE_INFINITY): number[] {
  const places = Map.groupBy(
    made.map((_, index) => index + 1),
    (n) => made[n - 1],
  );
  const all = [...places.values()].flatMap((group) => spread(group, LOOP)).sort((a, b) => a - b);
  return spread(all, most);
}

function spread(list: number[], most: number): number[] {
  if (list.length <= most) return list;
  const step = (list.length - 1) / Math.max(1, most - 1);
  return Array.from({ length: most }, (_, i) => list[Math.round(i * step)] as number);
}

/** Where in the product a call comes from. */
function place(): string {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 50;
  const { stack = "" } = new Error();
  Error.stackTraceLimit = stackTraceLimit;
  const ours = stack.split("\n").flatMap((line) => /\/src\/[^)]*/.exec(line) ?? []);
  return ours.join(" ");
}

/** Whether this is the call. */
function hit(kind: Kind): boolean {
  if (calls === undefined) return false;
  calls[kind] ??= [];
  calls[kind].push(armed === undefined ? place() : "");
  if (armed?.kind !== kind) return false;
  const n = calls[kind].length;
  if (n < armed.at || (n > armed.at && armed.how !== "lasting")) return false;
  if (armed.how === "stop") process.kill(process.pid, "SIGKILL");
  return true;
}

function failure(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: injected, ${what}`), { code, syscall: what });
}

// biome-ignore lint/suspicious/noExplicitAny: whatever Node's functions take
type Any = any;

function patch(target: Any, name: string, kind: Kind, code: string): void {
  const original = target[name];
  if (typeof original !== "function") return;
  target[name] = function (this: Any, ...args: Any[]) {
    // How many processes this host has is no matter of the operation.
    if (String(args[0]).startsWith("/proc")) return original.apply(this, args);
    return hit(kind) ? Promise.reject(failure(code, name)) : original.apply(this, args);
  };
}

const handle = await fsPromises.open("/dev/null");
const FileHandle = Object.getPrototypeOf(handle);
await handle.close();
for (const name of ["open", "readFile", "readdir", "opendir"]) patch(fsPromises, name, "fs.open", "EMFILE");
for (const name of ["writeFile", "appendFile", "truncate"]) patch(fsPromises, name, "fs.write", "ENOSPC");
for (const name of ["write", "writev", "writeFile", "appendFile", "truncate"]) {
  patch(FileHandle, name, "fs.write", "ENOSPC");
}
for (const name of ["mkdir", "mkdtemp", "symlink", "link"]) patch(fsPromises, name, "fs.make", "ENOSPC");
for (const name of ["rm", "unlink", "rmdir"]) patch(fsPromises, name, "fs.remove", "EIO");
for (const name of ["sync", "datasync"]) patch(FileHandle, name, "fs.sync", "EIO");
patch(fsPromises, "rename", "fs.rename", "EIO");
for (const name of ["copyFile", "cp"]) patch(fsPromises, name, "fs.copy", "ENOSPC");
Object.assign(fs.promises, fsPromises);

const { spawn } = childProcess;
childProcess.spawn = ((command: string, ...rest: Any[]) =>
  (spawn as Any)(hit("process") ? `/injected${command}` : command, ...rest)) as typeof spawn;

for (const [target, names] of [
  [DatabaseSync.prototype, ["exec"]],
  [StatementSync.prototype, ["run", "get", "all"]],
] as const) {
  for (const name of names) {
    const original = (target as Any)[name];
    (target as Any)[name] = function (this: Any, ...args: Any[]) {
      const errcode = hit("db") ? 13 : hit("db.io") ? 10 : undefined;
      if (errcode === undefined) return original.apply(this, args);
      throw Object.assign(new Error("injected"), { code: "ERR_SQLITE_ERROR", errcode });
    };
  }
}

const ROLES: Record<string, "api" | "qmp" | "agent"> = {
  "api.sock": "api",
  "qmp.sock": "qmp",
  "v.sock": "agent",
  "agent.sock": "agent",
};

/** Which of a monitor's sockets an address is. One may be a descriptor that was opened before (src/host/unix-socket.ts). */
function roleOf(address: unknown): "api" | "qmp" | "agent" | undefined {
  if (typeof address !== "string") return undefined;
  return ROLES[basename(/^\/proc\/self\/fd\/\d+$/.test(address) ? fs.readlinkSync(address) : address)];
}

function watchSocket(socket: net.Socket, address: unknown): net.Socket {
  const role = roleOf(address);
  if (role === undefined) return socket;
  const write = socket.write.bind(socket) as Any;
  const cut = (): boolean => {
    socket.destroy(failure("ECONNRESET", "write"));
    return false;
  };
  let mute = false;
  socket.write = ((data: Any, ...rest: Any[]) => {
    mute ||= hit(role === "agent" ? "agent.mute" : "monitor.mute");
    if (mute) return true;
    if (role === "agent") return hit("agent") ? cut() : write(data, ...rest);
    if (hit("monitor.cut")) return cut();
    if (!hit("monitor")) return write(data, ...rest);
    // What no monitor knows is answered with its own kind of error.
    const refused =
      role === "api"
        ? String(data).replace(/^(\w+) \/\S*/, "$1 /injected")
        : String(data).replace(/"execute":"[^"]*"/, '"execute":"injected"');
    return write(refused, ...rest);
  }) as typeof socket.write;
  return socket;
}

const { connect } = net;
net.connect = ((...args: Any[]) => watchSocket((connect as Any)(...args), args[0])) as typeof connect;
net.createConnection = net.connect;

syncBuiltinESMExports();
