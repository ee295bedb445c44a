/** Ownership of a data directory, for a server that the user starts and for what needs it alone: a background server gives it up. */
import { setTimeout as delay } from "node:timers/promises";
import type { Lock } from "../host/lock.ts";
import type { DataPaths } from "../host/paths.ts";
import { lockDataDir } from "./data-dir.ts";
import { findLocal } from "./local-socket.ts";

/** Commands that use it may finish in this time. */
const WAIT_MS = 60_000;
const POLL_MS = 50;

/** `undefined` when another server has it, or a background server is still used. @throws StacyError `unavailable` */
export async function takeDataDir(paths: DataPaths): Promise<Lock | undefined> {
  for (const deadline = performance.now() + WAIT_MS; ; ) {
    const lock = await lockDataDir(paths);
    if (lock !== undefined) return lock;
    using local = await findLocal(paths.root);
    if (local !== undefined && local.background === undefined) return undefined;
    if (performance.now() > deadline) return undefined;
    local?.end();
    await delay(POLL_MS);
  }
}
