/**
 * `console.log` stays small, whatever the guest prints. The monitor appends to it by itself, also while no daemon runs, so it is cut from
 * outside: its last part is kept and what was before is dropped.
 */
import { open, stat } from "node:fs/promises";
import { CONSOLE_BOUNDS } from "../host/bounds.ts";

/** @param path where it is now: a claim renames directories @returns ends it */
export function keepShort(path: () => string): () => void {
  let busy = false;
  const timer = setInterval(async () => {
    if (busy) return;
    busy = true;
    await shorten(path()).catch(() => {}); // gone with its machine, or the disk is full: the next round sees
    busy = false;
  }, CONSOLE_BOUNDS.everyMs).unref();
  return () => clearInterval(timer);
}

/** The writer must append: one that keeps a position of its own would go on where it was. */
export async function shorten(path: string): Promise<void> {
  const { size } = await stat(path);
  if (size <= CONSOLE_BOUNDS.mostBytes) return;
  await using file = await open(path, "r+");
  const kept = Buffer.alloc(CONSOLE_BOUNDS.keptBytes);
  const { bytesRead } = await file.read(kept, 0, kept.length, size - kept.length);
  await file.truncate(0);
  await using end = await open(path, "a");
  await end.write(kept, 0, bytesRead);
}
