import { z } from "@hono/zod-openapi";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { ProviderReport } from "../../sandboxes/providers.ts";
import type { ServerParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { NameParam } from "../schemas/common.ts";
import { defined, iso } from "../schemas/sandbox.ts";

const ProviderBody = z
  .object({
    name: z.string(),
    healthy: z.boolean(),
    default: z.boolean(),
    latency_ms: z.number(),
    last_checked: z.string(),
    error: z.string().optional(),
    detail: z.string().optional(),
    remedy: z.string().optional(),
    version: z.string().optional(),
    accelerator: z.string().optional(),
    capabilities: z.array(z.string()),
    runtime_count: z.int().optional(),
  })
  .openapi("Provider");

const CAPABILITIES = [
  "exec",
  "stream",
  "files",
  "terminal",
  "pause",
  "suspend",
  "fork",
  "checkpoint",
  "snapshots",
  "stats",
  "tunnel",
];

export function providerRoutes(endpoints: Endpoints, parts: ServerParts): void {
  const { sandboxes } = parts;
  const { providers } = sandboxes;
  const tag = "providers";
  const countOf = (name: string): number => sandboxes.list().filter(({ provider }) => provider === name).length;
  const body = (report: ProviderReport): z.output<typeof ProviderBody> => ({
    name: report.name,
    healthy: report.healthy,
    default: report.default,
    latency_ms: report.latencyMs,
    last_checked: iso(report.checkedAt),
    capabilities: CAPABILITIES,
    runtime_count: countOf(report.name),
    ...(report.healthy ? { detail: report.detail } : { error: report.detail }),
    ...defined({ remedy: report.remedy, version: report.version, accelerator: report.accelerator }),
  });
  for (const [prefix, scope] of [
    ["", "read"],
    ["/admin", "admin"],
  ] as const) {
    endpoints.add(
      {
        method: "get",
        path: `${prefix}/providers`,
        scope,
        tag,
        summary: "Providers and their health",
        responses: { 200: { description: "The default first", schema: z.array(ProviderBody) } },
      },
      async () => json((await providers.reports()).map(body)),
    );
  }
  endpoints.add(
    {
      method: "get",
      path: "/providers/{name}",
      scope: "read",
      tag,
      summary: "One provider",
      params: NameParam,
      responses: {
        200: {
          description: "The provider",
          schema: z
            .object({
              name: z.string(),
              healthy: z.boolean(),
              default: z.boolean(),
              sandbox_count: z.int(),
              health: ProviderBody,
              config: z.record(z.string(), z.string()),
            })
            .openapi("ProviderDetail"),
        },
      },
      errors: [404],
    },
    async ({ params }) => {
      const report = await providers.report(providers.pick(params.name));
      const { limits } = sandboxes;
      return json({
        name: report.name,
        healthy: report.healthy,
        default: report.default,
        sandbox_count: countOf(report.name),
        health: body(report),
        config: {
          default_image: limits.defaultImage,
          default_memory_mb: String(limits.defaultMemoryMiB),
          default_vcpus: String(limits.defaultVcpus),
          default_ttl: formatDuration(limits.defaultTtlMs),
        },
      });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/providers/test",
      scope: "read",
      tag,
      summary: "Check every provider now",
      responses: { 200: { description: "Healthy, by name", schema: z.record(z.string(), z.boolean()) } },
    },
    async () => {
      const reports = await providers.reports();
      return json(Object.fromEntries(reports.map(({ name, healthy }) => [name, healthy])));
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/pool/status",
      scope: "read",
      tag,
      summary: "Machines kept ready",
      responses: {
        200: {
          description: "`enabled: false`, or the pools",
          schema: z
            .object({
              enabled: z.boolean(),
              vms: z.int().optional(),
              max_vms: z.int().optional(),
              total_users: z.int().optional(),
              max_users_per_vm: z.int().optional(),
              pools: z.array(z.record(z.string(), z.unknown())).optional(),
            })
            .openapi("PoolStatus"),
        },
      },
    },
    () => {
      const pools = providers.pools();
      if (pools.length === 0) return json({ enabled: false });
      return json({
        enabled: true,
        vms: pools.reduce((sum, pool) => sum + pool.warm, 0),
        max_vms: pools.reduce((sum, pool) => sum + pool.target, 0),
        // Here every machine has one user.
        total_users: 0,
        max_users_per_vm: 1,
        pools: pools.map((pool) => ({
          key: pool.key,
          image: pool.image,
          vcpus: pool.vcpus,
          memory_mb: pool.memoryMiB,
          warm: pool.warm,
          idle: pool.idle,
          target: pool.target,
          filling: pool.filling,
        })),
      });
    },
  );
}
