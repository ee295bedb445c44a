import { readFile } from "node:fs/promises";

/** Private and proportional memory of a process, bytes. */
export async function processMemory(pid: number): Promise<{ privateBytes: number; pssBytes: number }> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "latin1").catch(() => "");
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
  return { privateBytes: (kib("Private_Dirty") + kib("Private_Clean")) * 1024, pssBytes: kib("Pss") * 1024 };
}
