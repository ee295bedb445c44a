import { z } from "@hono/zod-openapi";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { NameParam } from "../schemas/common.ts";
import { ProviderBody, providerBody } from "../schemas/provider.ts";

export function providerRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { providers, limits } = parts;
  const tag = "providers";
  endpoints.add(
    {
      method: "get",
      path: "/providers",
      scope: "read",
      admin: true,
      tag,
      summary: "Providers and their health",
      responses: { 200: { description: "The default first", schema: z.array(ProviderBody) } },
    },
    async ({ sandboxes }) =>
      json((await providers.reports()).map((report) => providerBody(report, sandboxes.countOf(report.name)))),
  );
  endpoints.add(
    {
      method: "get",
      path: "/providers/{name}",
      scope: "read",
      admin: true,
      tag,
      summary: "One provider",
      description: "By its name, or by one of `providers.aliases`.",
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
    async ({ sandboxes, params }) => {
      const report = await providers.report(providers.pick(params.name));
      return json({
        name: report.name,
        healthy: report.healthy,
        default: report.default,
        sandbox_count: sandboxes.countOf(report.name),
        health: providerBody(report, sandboxes.countOf(report.name)),
        config: {
          type: report.name,
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
      admin: true,
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
    ({ sandboxes }) => {
      const pools = sandboxes.pools();
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
