/**
 * Saving and loading a machine's state by QEMU's migration. RAM that is a shared file stays out of the stream
 * (`x-ignore-shared`), which is then some 60 KB; a clone's private RAM is in it.
 */
import { StacyError } from "../../host/error.ts";
import type { Qmp, QmpEvent } from "./qmp.ts";
import { hasFileUri, type SaveTarget } from "./save-file.ts";

/** A full stream, with RAM; inside a snapshot that is being made. */
export const STREAM_FILE = "stream.bin";

/**
 * Where a clone reads its state from. `fd`: the number that the process inherited the open file as: it saves the
 * shell and `cat` of `exec:` on the hot path.
 */
export function incomingUri(version: string, path: string, fd: number): string {
  return hasFileUri(version) ? `file:${path}` : `fd:${fd}`;
}

/** A full stream is as fast as the disk takes it. */
const SAVE_LIMIT_MS = 300_000;
/** Milliseconds, as a rule; what is loaded on a host that is short of everything takes longer. */
const LOAD_LIMIT_MS = 60_000;
const FINALIZE_LIMIT_MS = 30_000;

const IGNORE_SHARED = { capability: "x-ignore-shared", state: true };
const EVENTS = { capability: "events", state: true };

/** Writes the state to `target` and leaves the machine stopped. @param shared RAM is a shared file and stays out */
export async function migrateOut(qmp: Qmp, target: SaveTarget, shared: boolean): Promise<void> {
  const done = Promise.withResolvers<void>();
  done.promise.catch(() => {});
  const follow = ({ event, data }: QmpEvent): void => {
    if (event !== "MIGRATION") return;
    if (data.status === "completed") done.resolve();
    if (data.status === "failed" || data.status === "cancelled") {
      void migrationError(qmp).then((why) =>
        done.reject(new StacyError("internal", `QEMU could not save the machine: ${why}`)),
      );
    }
  };
  void qmp.lost.then(done.reject);
  void target.failed.then(done.reject);
  await qmp
    .following(follow, () =>
      Promise.all([
        qmp.execute("migrate-set-capabilities", { capabilities: [EVENTS, { ...IGNORE_SHARED, state: shared }] }),
        // The default of 128 MiB/s would make the machine stand still for longer than it needs.
        qmp.execute("migrate-set-parameters", { "max-bandwidth": 1_099_511_627_776 }),
        qmp.execute("migrate", { uri: target.uri }),
        qmp.bounded(done.promise, "that the machine is saved", { timeoutMs: SAVE_LIMIT_MS }),
      ]),
    )
    .catch((error: unknown) => {
      throw target.failure ?? error;
    });
  await finalized(qmp);
  await qmp.bounded(target.finish(), "that what was saved is in its file", { timeoutMs: SAVE_LIMIT_MS });
}

/** The event comes before QEMU leaves `finish-migrate`, and until it does it refuses `cont`. */
async function finalized(qmp: Qmp): Promise<void> {
  for (const deadline = performance.now() + FINALIZE_LIMIT_MS; performance.now() < deadline; ) {
    const { status } = await qmp.execute<{ status: string }>("query-status");
    if (status !== "finish-migrate") return;
    await new Promise((wake) => setTimeout(wake, 1));
  }
  throw new StacyError("timeout", `QEMU did not end its save within ${FINALIZE_LIMIT_MS} ms`);
}

/** Ends a save that nobody waits for; nothing when there is none. */
export async function cancelMigration(qmp: Qmp): Promise<void> {
  await qmp.execute("migrate_cancel");
  await finalized(qmp);
}

async function migrationError(qmp: Qmp): Promise<string> {
  const info = await qmp.execute<{ "error-desc"?: string; status?: string }>("query-migrate").catch(() => undefined);
  return info?.["error-desc"] ?? info?.status ?? "no reason given";
}

/** Loads a state; settles when the machine runs or, with `resume` false, stands loaded. @param shared as it was saved */
export async function loadState(qmp: Qmp, uri: string, resume: boolean, shared: boolean): Promise<void> {
  let resumed = false;
  const done = Promise.withResolvers<void>();
  done.promise.catch(() => {});
  const follow = ({ event, data }: QmpEvent): void => {
    if (event === "RESUME") resumed = true;
    if (event !== "MIGRATION") return;
    if (data.status === "completed") done.resolve();
    if (data.status === "failed") done.reject(new StacyError("corrupt", "the saved state does not load"));
  };
  void qmp.lost.then(done.reject);
  await qmp.following(follow, async () => {
    // Answered in order, so they need not wait for one another.
    await Promise.all([
      qmp.execute("migrate-set-capabilities", { capabilities: [EVENTS, { ...IGNORE_SHARED, state: shared }] }),
      qmp.execute("migrate-incoming", { uri }, { timeoutMs: LOAD_LIMIT_MS }),
      qmp.bounded(done.promise, "that the machine is loaded", { timeoutMs: LOAD_LIMIT_MS }),
    ]);
    // A state that was saved while running starts by itself (RunningQemu.pause).
    if (resume && !resumed) await qmp.execute("cont");
    if (!resume && resumed) await qmp.execute("stop");
  });
}
