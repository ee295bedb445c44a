import { readFile } from "node:fs/promises";

/** How much of the files with this name the process has in its memory: pages that were touched, whatever they hold. Bytes. */
export async function mappedBytes(pid: number, name: string): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps`, "latin1").catch(() => "");
  let bytes = 0;
  let counted = false;
  for (const line of text.split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) counted = line.endsWith(`/${name}`);
    else if (counted && line.startsWith("Rss:")) bytes += Number(/\d+/.exec(line)?.[0] ?? 0) * 1024;
  }
  return bytes;
}

export interface ProcessMemory {
  /** What it has written, bytes: it comes back with its end, and not before. */
  privateBytes: number;
  /** That, with its share of what others have mapped as well, bytes. */
  pssBytes: number;
}

export async function processMemory(pid: number): Promise<ProcessMemory> {
  return memoryOf(await readFile(`/proc/${pid}/smaps_rollup`, "latin1").catch(() => ""));
}

/**
 * Pages of files that only it has mapped are not counted: they are page cache, which the kernel takes back. They are many where QEMU has saved
 * a machine that was loaded from a file: it reads all of the guest's memory for that, holes too. A private page that was written is no
 * page of the file any more, but `Anonymous`; `Private_Dirty` has pages of a new file too, until they are on disk.
 * @param text of /proc/PID/smaps_rollup (proc_pid_smaps(5))
 */
export function memoryOf(text: string): ProcessMemory {
  const bytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
  const own = bytes("Anonymous");
  const cached = bytes("Private_Clean") + bytes("Private_Dirty") - own;
  return { privateBytes: own, pssBytes: Math.max(own, bytes("Pss") - Math.max(0, cached)) };
}
