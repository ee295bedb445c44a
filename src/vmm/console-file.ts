/**
 * `console.log` stays small, whatever the guest prints, and so does `vmm.log`, whatever the guest makes the monitor complain of. The monitor
 * writes to them by itself, also while no daemon runs, so they are cut from outside: the last part is kept and what was before is dropped.
 */
import { type FileHandle, open, stat } from "node:fs/promises";
import { join } from "node:path";
import { CONSOLE_BOUNDS } from "../host/bounds.ts";
import { tailLines } from "../host/tail.ts";
import { FILES } from "./vmm.ts";

/** How much of an end a report holds, and where the cause of a kernel's death is looked for: its trace takes some hundred lines. */
const [REPORTED, SEARCHED] = [20, 300];
/** The first line of what a kernel says of itself before it ends. */
const OOPS =
  /\bBUG: |\bOops: |general protection fault|invalid opcode|double fault|unable to handle|Kernel panic|Out of memory|CPU#\d+ stuck/;

/** The last lines of a machine's console, for the report of its end; the first ones of a kernel's last trace come before them. */
export async function lastWords(path: string): Promise<string[]> {
  const lines = await tailLines(path, SEARCHED);
  const cause = lines.findIndex((line) => OOPS.test(line));
  const half = REPORTED / 2;
  if (cause === -1 || cause >= lines.length - REPORTED) return lines.slice(-REPORTED);
  return [...lines.slice(cause, cause + half), ...lines.slice(-half)];
}

/** @param dir the machine's, where it is now: a claim renames directories @returns ends it, when nothing of it is under way any more */
export function keepShort(dir: () => string): () => Promise<void> {
  let round: Promise<unknown> | undefined;
  const timer = setInterval(() => {
    // One that is gone with its machine, or for which the disk is full: the next round sees.
    round ??= Promise.allSettled([shorten(join(dir(), FILES.console)), dropBeginning(join(dir(), FILES.log))]).finally(
      () => {
        round = undefined;
      },
    );
  }, CONSOLE_BOUNDS.everyMs).unref();
  return async () => {
    clearInterval(timer);
    await round;
  };
}

/** The writer must append: one that keeps a position of its own would go on where it was. */
export async function shorten(path: string): Promise<void> {
  const { size } = await stat(path);
  if (size <= CONSOLE_BOUNDS.mostBytes) return;
  await using file = await open(path, "r+");
  const { kept } = await cut(file);
  await using end = await open(path, "a");
  await end.write(kept);
}

/** The same for a writer that keeps a position of its own: what is dropped takes no room any more, and the end stays where it was. */
export async function dropBeginning(path: string): Promise<void> {
  const { blocks } = await stat(path);
  if (blocks * 512 <= CONSOLE_BOUNDS.mostBytes) return;
  await using file = await open(path, "r+");
  const { kept, at } = await cut(file);
  await file.write(kept, 0, kept.length, at);
}

/** What is written between its reading and its cut is lost: a moment of somebody who writes very much. @returns the last part, and where it was */
async function cut(file: FileHandle): Promise<{ kept: Buffer; at: number }> {
  const { size } = await file.stat();
  const at = Math.max(0, size - CONSOLE_BOUNDS.keptBytes);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(size - at), 0, size - at, at);
  await file.truncate(0);
  return { kept: buffer.subarray(0, bytesRead), at };
}
