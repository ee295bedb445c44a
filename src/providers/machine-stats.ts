/** What a machine uses on the host, from /proc. */
import { readFile } from "node:fs/promises";
import { processMemory } from "../host/process-memory.ts";
import { allocatedBytes } from "../host/sparse.ts";
import type { MachineStats } from "./provider.ts";

/** Linux counts process time in this unit wherever we run (getconf CLK_TCK). */
const TICKS_PER_SECOND = 100;

/** The last reading, from which the next one's CPU share is taken. */
export interface StatsBaseline {
  at?: number;
  ticks?: number;
}

export async function machineStats(
  pid: number | undefined,
  memoryMiB: number,
  disk: string,
  baseline: StatsBaseline,
): Promise<MachineStats> {
  const [cpuPercent, memory, diskBytes] = await Promise.all([
    pid === undefined ? 0 : cpu(pid, baseline),
    pid === undefined ? { privateBytes: 0, pssBytes: 0 } : processMemory(pid),
    allocatedBytes(disk).catch(() => 0),
  ]);
  return { cpuPercent, ...memory, memoryLimitBytes: memoryMiB * 2 ** 20, diskBytes };
}

async function cpu(pid: number, baseline: StatsBaseline): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  const now = performance.now();
  const { at, ticks: before } = baseline;
  baseline.at = now;
  baseline.ticks = ticks;
  if (at === undefined || before === undefined || now - at < 1) return 0;
  return Math.max(0, ((ticks - before) / TICKS_PER_SECOND / ((now - at) / 1000)) * 100);
}
