/** What a running sandbox uses now, in E2B's form. There is no history: a list has one entry. */
import type { View } from "../../sandboxes/view.ts";

export async function sampleMetrics(sandboxes: View, id: string): Promise<Record<string, unknown>> {
  using lease = await sandboxes.lease(id);
  const [info, stats] = await Promise.all([lease.agent.info(), lease.machine.stats()]);
  const now = Date.now();
  return {
    timestamp: new Date(now).toISOString(),
    timestampUnix: Math.floor(now / 1000),
    cpuCount: info.cpus,
    cpuUsedPct: Math.round((stats.cpuPercent / Math.max(1, info.cpus)) * 100) / 100,
    memTotal: info.memoryTotalBytes,
    memUsed: info.memoryTotalBytes - info.memoryAvailableBytes,
    memCache: 0,
    diskTotal: info.diskTotalBytes,
    diskUsed: info.diskTotalBytes - info.diskFreeBytes,
  };
}
