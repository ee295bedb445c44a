/**
 * A lock between processes on one data directory, which the kernel releases when its holder dies, however it dies. It is a lock on a
 * file of that directory (fcntl, by way of SQLite, which Node brings along), so it holds between containers and network namespaces
 * that share the directory, and nobody can take it who may not open the file.
 */
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "./error.ts";

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
  try {
    file = new DatabaseSync(lockFile, { timeout: 0 });
    // Nothing is ever written: the file stays empty, and there is no journal.
    file.exec("BEGIN EXCLUSIVE");
  } catch (cause) {
    file?.close();
    const code = (cause as { errcode?: number }).errcode ?? 0;
    if (TAKEN.has(code)) return undefined;
    throw new StacyError("unavailable", `the lock ${lockFile} cannot be taken: ${(cause as Error).message}`, {
      cause,
      remedy: "the data directory needs a filesystem with file locks, and room for an empty file",
    });
  }
  return lockOf(file);
}

function lockOf(file: DatabaseSync): Lock {
  const release = async (): Promise<void> => {
    if (file.isOpen) file.close();
  };
  return { release, [Symbol.asyncDispose]: release };
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
