/** The server's numbers at one moment, under the names of the published interface (`/metrics`, `/diagnostics`). */
import { formatDuration } from "../sandboxes/duration.ts";
import type { Limits } from "../sandboxes/limits.ts";
import type { View } from "../sandboxes/view.ts";
import type { RouteParts } from "./context.ts";
import type { OperationCount } from "./metrics.ts";
import { providerBody } from "./schemas/provider.ts";
import { LOCAL_WORKER } from "./schemas/sandbox.ts";
import { localWorker } from "./schemas/worker.ts";

export type SystemReport = Awaited<ReturnType<typeof systemReport>>;

/** @param sandboxes as the caller may see them */
export async function systemReport(parts: RouteParts, sandboxes: View) {
  const { metrics, config, rateLimiter } = parts;
  const list = sandboxes.list();
  const by = (key: "state" | "provider"): Record<string, number> => {
    const counts: Record<string, number> = {};
    for (const record of list) counts[record[key]] = (counts[record[key]] ?? 0) + 1;
    return counts;
  };
  const memory = process.memoryUsage();
  const uptimeMs = Date.now() - parts.startedAt;
  const providers = (await parts.providers.reports()).map((report) =>
    providerBody(report, sandboxes.countOf(report.name)),
  );
  const quotas = sandboxes.quotas.summary();
  const limited = rateLimiter?.counts ?? { allowed: 0, rejected: 0, forgotten: 0, clients: 0 };
  const states = by("state");
  const { followers, kept, published } = sandboxes.events.counts();
  const newest = await sandboxes.events.newest().catch(() => 0); // facts are asked for when something is away
  return {
    uptime: formatDuration(uptimeMs),
    uptime_seconds: Math.floor(uptimeMs / 1000),
    /** Go's word. Here: what keeps the process awake (sockets, timers, requests to the kernel). */
    goroutines: process.getActiveResourcesInfo().length,
    memory_alloc: memory.heapUsed,
    memory_sys: memory.rss,
    memory_heap_alloc: memory.heapUsed,
    gc_cycles: await metrics.collections(),
    sandboxes: {
      total: list.length,
      active: states.running ?? 0,
      by_state: states,
      by_provider: by("provider"),
      by_worker: list.length === 0 ? {} : { [LOCAL_WORKER]: list.length },
    },
    providers: {
      total: providers.length,
      healthy: providers.filter(({ healthy }) => healthy).length,
      items: providers,
    },
    workers: { total: 1, online: 1, stale: 0, unhealthy: 0, items: [localWorker(parts)] },
    // One machine holds what is its own; there is nobody to agree with.
    leases: { total: 0, active: 0, expired: 0, by_holder: {} },
    events: {
      subscribers: followers,
      history_size: kept,
      events_total: published,
      last_id: `evt-${newest}`,
    },
    operations: metrics.operations().map((count) => operationBody(count, sandboxes.caller.everything)),
    scheduler: schedulerBody(parts.limits, sandboxes.queue),
    quotas: {
      total: quotas.total,
      with_max_sandboxes: quotas.withMaxSandboxes,
      with_max_ttl: quotas.withMaxTtl,
      with_max_exec_timeout: quotas.withMaxExecTimeout,
    },
    rate_limit: {
      enabled: rateLimiter !== undefined,
      requests_per_minute: config.rate_limit.requests_per_minute,
      burst: config.rate_limit.burst,
      key_by: config.rate_limit.key_by,
      active_buckets: limited.clients,
      allowed_total: limited.allowed,
      limited_total: limited.rejected,
      evicted_total: limited.forgotten,
      // Here a bucket is forgotten when it is full again and room is needed.
      bucket_ttl: "0s",
      cleanup_interval: "0s",
    },
  };
}

/** @param words with what the last one failed of: whose words those are, nobody knows */
function operationBody(count: OperationCount, words: boolean) {
  const samples = count.success + count.failure;
  return {
    operation: count.name,
    provider: count.provider,
    success_total: count.success,
    failure_total: count.failure,
    latency_count: samples,
    latency_total_ms: Math.round(count.totalMs),
    latency_min_ms: Math.round(count.minMs),
    latency_max_ms: Math.round(count.maxMs),
    latency_avg_ms: samples === 0 ? 0 : Math.round(count.totalMs / samples),
    ...(count.lastError === undefined || !words ? {} : { last_error: count.lastError }),
    last_observed_unix: Math.floor(count.lastAt / 1000),
  };
}

function schedulerBody(limits: Limits, queue: View["queue"]) {
  const waits = queue.left + queue.timedOut;
  const average = waits === 0 ? 0 : queue.waitedMs / waits;
  return {
    spawn_overflow: limits.overflow,
    spawn_queue_depth: queue.waiting,
    max_spawn_queue: limits.maxQueue,
    spawn_queue_timeout: formatDuration(limits.queueTimeoutMs),
    admission_control: "local",
    worker_id: LOCAL_WORKER,
    selected_worker_id: LOCAL_WORKER,
    eligible_workers: 1,
    spawn_queued_total: queue.entered,
    spawn_dequeued_total: queue.left,
    spawn_queue_timeouts: queue.timedOut,
    spawn_queue_wait_count: waits,
    spawn_queue_wait_total: formatDuration(queue.waitedMs),
    spawn_queue_wait_max: formatDuration(queue.longestMs),
    spawn_queue_wait_avg: formatDuration(average),
    spawn_queue_wait_total_ms: Math.round(queue.waitedMs),
    spawn_queue_wait_max_ms: Math.round(queue.longestMs),
    spawn_queue_wait_avg_ms: Math.round(average),
  };
}
