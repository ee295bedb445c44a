/** What a running sandbox uses now, in E2B's form. There is no history: a list has one entry. */
import { StacyError } from "../../host/error.ts";
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

/** Clients ask by their own clock, in whole seconds; E2B's samples are so far apart. */
const SLACK_MS = 5_000;

/** @param start s since 1970, as it is written. @throws StacyError `invalid` */
export function isNow(start: string | undefined, end: string | undefined, now = Date.now()): boolean {
  const [from, to] = [Number(start ?? 0) * 1000, Number(end ?? Infinity) * 1000];
  if (Number.isNaN(from) || Number.isNaN(to)) throw new StacyError("invalid", "start, end: must be seconds since 1970");
  return from <= now + SLACK_MS && now - SLACK_MS <= to;
}
