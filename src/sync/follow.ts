/** Syncs again whenever something was changed on one of the sides, until it is told to stop, or the sandbox is gone. */
import { type FSWatcher, watch } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Client, NotFoundError, type Sandbox } from "../../sdk/src/index.ts";
import { StacyError } from "../host/error.ts";
import { type SyncOptions, syncRound } from "./round.ts";
import { TEMPORARY } from "./tree.ts";

/** After a change for more of them, ms. */
const GATHER_MS = 150;
const POLL_MS = 1_000;
/** For a server that is being started anew, ms. */
const PATIENCE_MS = 60_000;

export interface FollowOptions extends SyncOptions {
  client: Client;
  id: string;
  /** In the sandbox. */
  path: string;
  signal: AbortSignal;
  /** Is told when the sandbox stands still or nobody answers for it, and when it goes on. */
  waiting?: (state: string | undefined) => void;
  /** Both sides agree for now. */
  settled?: () => void;
}

/** @throws StacyError `not-found` when the sandbox is gone, and what the signal was aborted with */
export async function follow(options: FollowOptions): Promise<never> {
  const { signal } = options;
  const watchers = new Map<string, FSWatcher>();
  let wake = Promise.withResolvers<void>();
  const changed = (): void => wake.resolve();
  const stopped = aborted(signal);
  stopped.catch(() => {});
  try {
    for (let failing = 0; ; ) {
      const gone = new AbortController();
      const until = AbortSignal.any([signal, gone.signal]);
      const watched = watchThere(options, until, changed);
      watched.catch(() => {}); // heard below, when the round is over
      try {
        for (;;) {
          wake = Promise.withResolvers();
          const { again, directories } = await syncRound(options);
          failing = 0;
          watchHere(options.here, directories, watchers, changed);
          if (again) changed();
          else options.settled?.();
          await Promise.race([wake.promise, watched, stopped]);
          await delay(GATHER_MS, undefined, { signal });
        }
      } catch (error) {
        signal.throwIfAborted();
        failing ||= performance.now();
        await untilRunning(options, error, performance.now() - failing);
      } finally {
        gone.abort();
        await watched.catch(() => {});
      }
    }
  } finally {
    for (const watcher of watchers.values()) watcher.close();
  }
}

/** Ends with an error: the server's calls end when the sandbox stands still or is gone. */
async function watchThere(
  { client, id, path }: FollowOptions,
  signal: AbortSignal,
  changed: () => void,
): Promise<never> {
  const sandbox = await client.get(id, { signal });
  // What was changed before the watch had begun.
  const soon = setTimeout(changed, POLL_MS).unref();
  try {
    for await (const change of sandbox.files.watch(path, { recursive: true, signal })) {
      if (!change.path.includes(`/${TEMPORARY}`)) changed();
    }
  } finally {
    clearTimeout(soon);
  }
  throw new StacyError("unavailable", "the sandbox's changes are not told any more");
}

/** Of each directory by itself: what is ignored costs nothing. */
function watchHere(
  top: string,
  directories: readonly string[],
  watchers: Map<string, FSWatcher>,
  changed: () => void,
): void {
  const wanted = new Set(directories);
  for (const [directory, watcher] of watchers) {
    if (wanted.has(directory)) continue;
    watcher.close();
    watchers.delete(directory);
  }
  for (const directory of wanted) {
    if (watchers.has(directory)) continue;
    try {
      const watcher = watch(join(top, directory), (_, name) => {
        if (name?.startsWith(TEMPORARY) !== true) changed();
      });
      watcher.on("error", () => {
        watcher.close();
        if (watchers.get(directory) === watcher) watchers.delete(directory);
        changed();
      });
      watchers.set(directory, watcher);
      // What was changed in it before.
      changed();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") continue;
      throw new StacyError("limit", `${join(top, directory)} cannot be watched (${code ?? "error"})`, {
        remedy: "raise fs.inotify.max_user_watches, or name large directories in .gitignore",
        cause: error as Error,
      });
    }
  }
}

/** Waits while it is paused, suspended, or its server away. @throws `error` when that is not why */
async function untilRunning(options: FollowOptions, error: unknown, failingMs: number): Promise<void> {
  const { client, id, signal } = options;
  const begun = performance.now();
  for (let told: string | undefined; ; ) {
    let sandbox: Sandbox | undefined;
    try {
      sandbox = await client.get(id, { signal });
    } catch (thrown) {
      signal.throwIfAborted();
      if (thrown instanceof NotFoundError) throw gone(options);
      if (performance.now() - begun + failingMs > PATIENCE_MS) throw thrown;
    }
    const state = sandbox?.state ?? "out of reach";
    if (state === "running") {
      if (told !== undefined) {
        options.waiting?.(undefined);
        return;
      }
      // It runs, and yet: once more, for what was under way when it stood still.
      if (failingMs > PATIENCE_MS || !mayPass(error)) throw error;
      await delay(POLL_MS, undefined, { signal });
      return;
    }
    if (state === "destroyed" || state === "expired" || state === "error") throw gone(options);
    if (state !== told) options.waiting?.(state);
    told = state;
    await delay(POLL_MS, undefined, { signal });
  }
}

/** Errors of the way to the sandbox, and of what was removed while it was looked at. */
function mayPass(error: unknown): boolean {
  if (error instanceof StacyError) return error.code === "unavailable" || error.code === "timeout";
  const status = (error as { status?: number }).status;
  return status === undefined || status === 404 || status === 409 || status === 408 || status >= 500;
}

function gone({ id, here }: FollowOptions): StacyError {
  return new StacyError("not-found", `sandbox ${id} is gone; what was synced is in ${here}`, {
    remedy: "start another one, and sync with that",
  });
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason), { once: true }));
}
