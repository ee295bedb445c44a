/**
 * The names under which the published StacyVM exports its numbers to Prometheus, so that its dashboards, alerts and scripts go on
 * working. All are gauges there, whatever their names say. Our own, with histograms, are in metrics.ts.
 */
import { Gauge, Registry } from "prom-client";
import type { SystemReport } from "./system-report.ts";

type Labels = Record<string, string>;
type Values = number | [Labels, number][];

interface Row {
  name: string;
  help: string;
  values: (report: SystemReport) => Values;
}

const counted = (label: string, counts: Record<string, number>): Values =>
  Object.entries(counts).map(([name, n]) => [{ [label]: name }, n]);
const ofOperations = (key: "success_total" | "failure_total" | `latency_${"total_ms" | "count" | "max_ms"}`) =>
  function values({ operations }: SystemReport): Values {
    return operations.map((each) => [{ operation: each.operation, provider: each.provider }, each[key]]);
  };

const TABLE: Row[] = [
  { name: "uptime_seconds", help: "Since the server started", values: (r) => r.uptime_seconds },
  { name: "runtime_goroutines", help: "What keeps the process awake", values: (r) => r.goroutines },
  { name: "runtime_memory_alloc_bytes", help: "Heap in use", values: (r) => r.memory_alloc },
  { name: "runtime_memory_sys_bytes", help: "Resident memory", values: (r) => r.memory_sys },
  { name: "runtime_gc_cycles_total", help: "Garbage collections", values: (r) => r.gc_cycles },
  { name: "sandboxes_total", help: "Sandboxes by state", values: (r) => counted("state", r.sandboxes.by_state) },
  {
    name: "sandboxes_by_provider_total",
    help: "Sandboxes by provider",
    values: (r) => counted("provider", r.sandboxes.by_provider),
  },
  {
    name: "sandboxes_by_worker_total",
    help: "Sandboxes by worker",
    values: (r) => counted("worker", r.sandboxes.by_worker),
  },
  {
    name: "provider_healthy",
    help: "1: it can spawn",
    values: (r) =>
      r.providers.items.map((each) => [{ provider: each.name, default: String(each.default) }, each.healthy ? 1 : 0]),
  },
  {
    name: "provider_health_latency_milliseconds",
    help: "How long its check took",
    values: (r) => r.providers.items.map((each) => [{ provider: each.name }, each.latency_ms]),
  },
  {
    name: "provider_runtime_sandboxes",
    help: "Sandboxes that the provider has",
    values: (r) => r.providers.items.map((each) => [{ provider: each.name }, each.runtime_count ?? 0]),
  },
  {
    name: "workers_total",
    help: "Workers: this machine",
    values: ({ workers: { total, online, stale, unhealthy } }) =>
      counted("status", { total, online, stale, unhealthy }),
  },
  {
    name: "leases_total",
    help: "Leases; one machine needs none",
    values: ({ leases: { total, active, expired } }) => counted("status", { total, active, expired }),
  },
  { name: "events_total", help: "Events since the server started", values: (r) => r.events.events_total },
  { name: "event_subscribers", help: "Open event streams", values: (r) => r.events.subscribers },
  { name: "event_history_size", help: "Events in memory", values: (r) => r.events.history_size },
  { name: "spawn_queue_depth", help: "Spawns that wait for room", values: (r) => r.scheduler.spawn_queue_depth },
  { name: "spawn_queue_capacity", help: "Spawns that may wait", values: (r) => r.scheduler.max_spawn_queue },
  { name: "spawn_queue_enqueued_total", help: "Spawns that waited", values: (r) => r.scheduler.spawn_queued_total },
  {
    name: "spawn_queue_dequeued_total",
    help: "Spawns that got room",
    values: (r) => r.scheduler.spawn_dequeued_total,
  },
  { name: "spawn_queue_timeout_total", help: "Spawns that got none", values: (r) => r.scheduler.spawn_queue_timeouts },
  {
    name: "spawn_queue_wait_milliseconds_sum",
    help: "Time spent waiting",
    values: (r) => r.scheduler.spawn_queue_wait_total_ms,
  },
  { name: "spawn_queue_wait_milliseconds_count", help: "Waits", values: (r) => r.scheduler.spawn_queue_wait_count },
  {
    name: "spawn_queue_wait_milliseconds_max",
    help: "The longest wait",
    values: (r) => r.scheduler.spawn_queue_wait_max_ms,
  },
  { name: "owner_quotas_total", help: "Owners with a quota", values: (r) => r.quotas.total },
  {
    name: "owner_quota_overrides_total",
    help: "Quotas by what they limit",
    values: ({ quotas }) =>
      counted("type", {
        max_sandboxes: quotas.with_max_sandboxes,
        max_ttl: quotas.with_max_ttl,
        max_exec_timeout: quotas.with_max_exec_timeout,
      }),
  },
  { name: "rate_limit_allowed_total", help: "Requests let in", values: (r) => r.rate_limit.allowed_total },
  { name: "rate_limit_blocked_total", help: "Requests refused", values: (r) => r.rate_limit.limited_total },
  { name: "rate_limit_evicted_buckets_total", help: "Clients forgotten", values: (r) => r.rate_limit.evicted_total },
  { name: "rate_limit_active_buckets", help: "Clients known", values: (r) => r.rate_limit.active_buckets },
  { name: "operation_success_total", help: "Operations that went well", values: ofOperations("success_total") },
  { name: "operation_failure_total", help: "Operations that failed", values: ofOperations("failure_total") },
  {
    name: "operation_latency_milliseconds_sum",
    help: "Time that operations took",
    values: ofOperations("latency_total_ms"),
  },
  { name: "operation_latency_milliseconds_count", help: "Operations", values: ofOperations("latency_count") },
  {
    name: "operation_latency_milliseconds_max",
    help: "The longest operation",
    values: ofOperations("latency_max_ms"),
  },
];

/** Text format 0.0.4. */
export function publishedMetrics(report: SystemReport): Promise<string> {
  const registry = new Registry();
  for (const { name, help, values } of TABLE) {
    const given = values(report);
    const rows: [Labels, number][] = typeof given === "number" ? [[{}, given]] : given;
    const labelNames = Object.keys(rows[0]?.[0] ?? {});
    const gauge = new Gauge({ name: `stacyvm_${name}`, help, labelNames, registers: [registry] });
    if (rows.length === 0) continue;
    gauge.reset();
    for (const [labels, value] of rows) gauge.set(labels, value);
  }
  return registry.metrics();
}
