/** The host's memory: what is free, and what a process has to itself. */
import { readFile } from "node:fs/promises";
import { processMemory } from "./process-memory.ts";

export interface HostMemory {
  /** Free memory as a share of all, 0..1. */
  freeShare(): Promise<number>;
  /** Bytes of a process that nobody else shares. */
  privateBytes(pid: number): Promise<number>;
}

export const hostMemory: HostMemory = {
  async freeShare() {
    const text = await readFile("/proc/meminfo", "latin1");
    const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
    return kib("MemAvailable") / Math.max(1, kib("MemTotal"));
  },
  privateBytes: async (pid) => (await processMemory(pid)).privateBytes,
};
