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

/** Private and proportional memory of a process, bytes. */
export async function processMemory(pid: number): Promise<{ privateBytes: number; pssBytes: number }> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "latin1").catch(() => "");
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
  return { privateBytes: (kib("Private_Dirty") + kib("Private_Clean")) * 1024, pssBytes: kib("Pss") * 1024 };
}
