/**
 * `console.log` stays small, whatever the guest prints, and so does `vmm.log`, whatever the guest makes the monitor complain of. The monitor
 * writes to them by itself, also while no daemon runs, so they are cut from outside: the last part is kept and what was before is dropped.
 */
import { open, stat } from "node:fs/promises";
import { join } from "node:path";
import { CONSOLE_BOUNDS } from "../host/bounds.ts";
import { runTool } from "../host/run.ts";
import { FILES } from "./vmm.ts";

/** @param dir the machine's, where it is now: a claim renames directories @returns ends it */
export function keepShort(dir: () => string): () => void {
  let busy = false;
  const timer = setInterval(async () => {
    if (busy) return;
    busy = true;
    // One that is gone with its machine, or for which the disk is full: the next round sees.
    await Promise.allSettled([shorten(join(dir(), FILES.console)), dropBeginning(join(dir(), FILES.log))]);
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

/** The same for a writer that keeps a position of its own: what is dropped takes no room any more, and the end stays where it was. */
export async function dropBeginning(path: string): Promise<void> {
  const { size, blocks } = await stat(path);
  if (blocks * 512 <= CONSOLE_BOUNDS.mostBytes) return;
  const dropped = String(size - CONSOLE_BOUNDS.keptBytes);
  await runTool("fallocate", ["--punch-hole", "--offset", "0", "--length", dropped, path], { package: "util-linux" });
}
