/** Numbers and facts about the server itself: for Prometheus, for pages that show them, and for whoever looks for a fault. */
import { z } from "@hono/zod-openapi";
import { redact } from "../../config/schema.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { publishedMetrics } from "../published-metrics.ts";
import { eventBody } from "../schemas/event.ts";
import { iso, isoSeconds } from "../schemas/values.ts";
import { limitsBody } from "../schemas/worker.ts";
import { systemReport } from "../system-report.ts";

const Anything = z.record(z.string(), z.unknown());
const tag = "system";
const RECENT = 50;
/** As the published server names processors. */
const ARCHITECTURES: Partial<Record<NodeJS.Architecture, string>> = { x64: "amd64" };

export function reportRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { config, limits, store, metrics, version } = parts;
  endpoints.add(
    {
      method: "get",
      path: "/metrics",
      scope: "read",
      admin: true,
      tag,
      summary: "Numbers as JSON",
      responses: { 200: { description: "Numbers", schema: Anything } },
    },
    async ({ sandboxes }) => json(await systemReport(parts, sandboxes)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/metrics/prometheus",
      scope: "read",
      admin: true,
      tag,
      summary: "Numbers for Prometheus",
      description:
        "Our own names, then those of the published server. What there is of all owners (sandboxes, snapshots, machines kept ready, connections) is for administrators.",
      responses: { 200: { description: "Text format 0.0.4", type: "text/plain" } },
    },
    async ({ sandboxes }) =>
      new Response(
        `${await metrics.text(sandboxes.caller.everything)}\n${await publishedMetrics(await systemReport(parts, sandboxes))}`,
        {
          headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
        },
      ),
  );
  endpoints.add(
    {
      method: "get",
      path: "/diagnostics",
      scope: "read",
      admin: true,
      tag,
      summary: "What helps to find a fault, without secrets",
      responses: { 200: { description: "Facts", schema: Anything } },
    },
    async ({ sandboxes }) => {
      const begun = performance.now();
      const check = await store.check();
      const checkMs = Math.round(performance.now() - begun);
      const { failure } = store;
      const { everything } = sandboxes.caller;
      const report = await systemReport(parts, sandboxes);
      return json({
        generated_at: isoSeconds(Date.now()),
        started_at: iso(parts.startedAt),
        build: {
          version,
          goos: process.platform,
          goarch: ARCHITECTURES[process.arch] ?? process.arch,
          node: process.version,
        },
        process: {
          uptime: report.uptime,
          goroutines: report.goroutines,
          memory: {
            alloc: report.memory_alloc,
            sys: report.memory_sys,
            heap_alloc: report.memory_heap_alloc,
            gc_cycles: report.gc_cycles,
          },
          resources: countResources(),
        },
        store: {
          healthy: check === "ok" && failure === undefined,
          latency_ms: checkMs,
          ...(check === "ok" ? {} : { error: check }),
          ...(failure === undefined ? {} : { error: failure.message }),
          // Of all owners' things.
          ...(everything && failure !== undefined ? { unwritten: failure.unwritten } : {}),
          ...(everything ? { rows: store.counts() } : {}),
        },
        limits: limitsBody(limits),
        scheduler: report.scheduler,
        quotas: report.quotas,
        rate_limit: report.rate_limit,
        providers: report.providers.items,
        workers: report.workers,
        leases: report.leases,
        sandboxes: report.sandboxes,
        pools: sandboxes.pools().map((pool) => ({
          key: pool.key,
          image: pool.image,
          vcpus: pool.vcpus,
          memory_mb: pool.memoryMiB,
          warm: pool.warm,
          idle: pool.idle,
          target: pool.target,
          filling: pool.filling,
        })),
        events: {
          ...report.events,
          recent: sandboxes.events.recent(RECENT).map(eventBody),
        },
        operations: report.operations,
        // Names of registries and paths of this host: for those who look after it.
        ...(everything ? { config: redact(config) } : {}),
        remediation: {
          operations: "docs/operations.md",
          security: "docs/security.md",
          troubleshooting: "docs/troubleshooting.md",
        },
        redactions: ["API keys", "registry credentials", "environment variables of sandboxes and templates"],
      });
    },
  );
}

/** Handles that keep a Node process busy, by kind: a leak shows here first. */
function countResources(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}
