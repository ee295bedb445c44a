/** `/metrics` of a sandbox's agent, in E2B's names. */
import type { Agent } from "../../guest/agent.ts";

export async function sampleEnvd(agent: Agent): Promise<Record<string, number>> {
  const info = await agent.info();
  return {
    ts: Math.floor(info.nowMs / 1000),
    cpu_count: info.cpus,
    cpu_used_pct: Math.min(100, Math.round((info.load / Math.max(1, info.cpus)) * 10_000) / 100),
    mem_total: info.memoryTotalBytes,
    mem_used: info.memoryTotalBytes - info.memoryAvailableBytes,
    disk_total: info.diskTotalBytes,
    disk_used: info.diskTotalBytes - info.diskFreeBytes,
  };
}
