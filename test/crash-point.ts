/**
 * Preloaded into a daemon (`node --import`): kills it, as kill -9 does, at one step of its work. The step is told by a file, so that it
 * can be armed while the daemon runs: `[{"call": "rename", "match": "suspended.new -> ", "when": "after"}]`; of several, the first that is
 * met. What the daemon does is seen from outside of its code: the files
 * that it renames and makes, the processes that it starts, what it writes to a monitor, what it commits to the database.
 */
import childProcess from "node:child_process";
import { existsSync, readFileSync, unlinkSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";
import sqlite from "node:sqlite";

export interface CrashPoint {
  call: "rename" | "mkdir" | "symlink" | "rm" | "spawn" | "send" | "commit";
  /** A regular expression on what the call is about. */
  match: string;
  when: "before" | "after";
}

const file = process.env.STACYVM_CRASH_POINT ?? "";

function armed(): CrashPoint[] {
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as CrashPoint[]) : [];
}

function reach(call: CrashPoint["call"], text: string, when: CrashPoint["when"]): void {
  const isHere = (point: CrashPoint): boolean =>
    point.call === call && point.when === when && new RegExp(point.match).test(text);
  if (!armed().some(isHere)) return;
  unlinkSync(file);
  process.kill(process.pid, "SIGKILL");
}

/** Calls `original`, and looks before and after whether this is the step. */
function around<A extends unknown[], R>(
  call: CrashPoint["call"],
  original: (this: unknown, ...args: A) => R,
  text: (...args: A) => string,
): (this: unknown, ...args: A) => R {
  return function (this: unknown, ...args: A): R {
    const about = text(...args);
    reach(call, about, "before");
    const result = original.apply(this, args);
    if (result instanceof Promise) {
      return result.then((value) => {
        reach(call, about, "after");
        return value;
      }) as R;
    }
    reach(call, about, "after");
    return result;
  };
}

if (file !== "") {
  const target = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const call of ["rename", "mkdir", "symlink", "rm"] as const) {
    const original = target[call] as (...args: unknown[]) => unknown;
    target[call] = around(call, original, (...args) =>
      args.filter((arg) => typeof arg === "string").join(call === "symlink" ? " <- " : " -> "),
    );
  }
  const spawning = childProcess as unknown as { spawn(...args: unknown[]): unknown };
  spawning.spawn = around("spawn", spawning.spawn, (command, _args, options) => {
    return `${String(command)} in ${(options as { cwd?: string } | undefined)?.cwd ?? ""}`;
  });
  const socket = net.Socket.prototype as unknown as { write(...args: unknown[]): unknown };
  socket.write = around("send", socket.write, (data) => (typeof data === "string" ? data : ""));
  // A transaction is told by the rows that it writes.
  const database = sqlite.DatabaseSync.prototype;
  let rows = "";
  const prepare = database.prepare;
  database.prepare = function (sql) {
    const statement = prepare.call(this, sql);
    const run = statement.run.bind(statement) as (...args: unknown[]) => unknown;
    (statement as unknown as { run(...args: unknown[]): unknown }).run = (...args) => {
      rows += `${sql} ${args.join(" ")}\n`;
      return run(...args);
    };
    return statement;
  };
  const exec = database.exec;
  database.exec = function (sql) {
    if (sql !== "COMMIT") return exec.call(this, sql);
    const about = rows;
    rows = "";
    reach("commit", about, "before");
    exec.call(this, sql);
    reach("commit", about, "after");
  };
  syncBuiltinESMExports();
}
