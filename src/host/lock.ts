/**
 * A lock between processes on one data directory, which the kernel releases when its holder dies, however it dies. It is a lock on a
 * file of that directory (fcntl, by way of SQLite, which Node brings along), so it holds between containers and network namespaces
 * that share the directory, and nobody can take it who may not open the file. The file goes with its lock: there are as many as are held.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, statSync, unlinkSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { errno, StacyError } from "./error.ts";

export interface Lock extends AsyncDisposable {
  release(): Promise<void>;
}

/** Between two attempts of one who waits: what is waited for takes seconds. */
const WAIT_MS = { first: 5, most: 100 };
/** SQLite's answers (sqlite.org/rescode.html) when another connection has the lock. */
const TAKEN = new Set([5, 261, 517]);

/**
 * Takes the lock, or `undefined` when another process (or another caller in this one) holds it.
 * @param path what it is about; the lock's file is in `locks/` beside it
 * @param what names the lock
 */
export async function tryLock(path: string, what: string): Promise<Lock | undefined> {
  const dir = join(dirname(path), "locks");
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const words = what.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 60);
  const name = createHash("sha256")
    .update(`${basename(path)} ${what}`)
    .digest("hex")
    .slice(0, 16);
  const lockFile = join(dir, `${words}-${name}`);
  let file: DatabaseSync | undefined;
  let id: string | undefined;
  try {
    // None of this waits for anything: nobody else in this process comes between.
    makeFile(lockFile);
    id = identity(lockFile);
    // Its holder has removed it meanwhile. SQLite would make it anew, without our mode, and fails when that one goes too.
    if (id === undefined) return tryLock(path, what);
    file = new DatabaseSync(lockFile, { timeout: 0 });
    // Nothing is ever written: the file stays empty, and there is no journal.
    file.exec("BEGIN EXCLUSIVE");
    if (identity(lockFile) !== id) {
      // Its holder has removed it meanwhile: a lock on what nobody else opens any more is none.
      file.close();
      return tryLock(path, what);
    }
  } catch (cause) {
    file?.close();
    // Not every filesystem goes on with a file that has been removed.
    if (id !== undefined && identity(lockFile) !== id) return tryLock(path, what);
    const code = (cause as { errcode?: number }).errcode ?? 0;
    if (TAKEN.has(code)) return undefined;
    throw new StacyError("unavailable", `the lock ${lockFile} cannot be taken: ${(cause as Error).message}`, {
      cause,
      remedy: "the data directory needs a filesystem with file locks, and room for an empty file",
    });
  }
  return lockOf(file, lockFile, id);
}

function lockOf(file: DatabaseSync, path: string, id: string): Lock {
  const release = async (): Promise<void> => {
    if (!file.isOpen) return;
    try {
      // While it is held, since the next one's may be there afterwards.
      if (identity(path) === id) unlinkSync(path);
    } catch {} // an empty file stays, for the next holder
    file.close();
  };
  return { release, [Symbol.asyncDispose]: release };
}

/** One that is there is not opened: to close it would take this process's locks off it (fcntl(2)). */
function makeFile(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if (errno(error) !== "EEXIST") throw error;
  }
}

/** As `directoryIdentity`. */
function identity(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found && `${found.dev}:${found.ino}:${found.birthtimeNs}`;
}

/** Takes the lock, waiting for its holder. @param signal gives up with its reason */
export async function lock(path: string, what: string, signal?: AbortSignal): Promise<Lock> {
  for (let pause = WAIT_MS.first; ; pause = Math.min(2 * pause, WAIT_MS.most)) {
    signal?.throwIfAborted();
    const taken = await tryLock(path, what);
    if (taken !== undefined) return taken;
    await delay(pause, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted());
  }
}
