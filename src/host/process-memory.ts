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
  /** What it alone has written, bytes: it comes back with its end, and not before. */
  privateBytes: number;
  /** That, with its share of what others have mapped as well, bytes. */
  pssBytes: number;
}

export async function processMemory(pid: number): Promise<ProcessMemory> {
  return memoryOf(await readFile(`/proc/${pid}/smaps_rollup`, "latin1").catch(() => ""));
}

/**
 * Pages of files that only it has mapped and that are as on disk (`Private_Clean`) are not counted: they are page cache, which the kernel
 * takes back without writing anything. They are many where QEMU has saved a machine that was loaded from a file: it reads all of the
 * guest's memory for that, holes too.
 * @param text of /proc/PID/smaps_rollup (proc_pid_smaps(5))
 */
export function memoryOf(text: string): ProcessMemory {
  const bytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
  return { privateBytes: bytes("Private_Dirty"), pssBytes: bytes("Pss") - bytes("Private_Clean") };
}
