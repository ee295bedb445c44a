/** The host: its load now and over the last hour, and whether it has what sandboxes need. */
import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { iso } from "../schemas/values.ts";
import { SystemHistory } from "../system-history.ts";
import { SystemSampler } from "../system-stats.ts";

const Stats = z.object({
  cpu_pct: z.number(),
  mem_pct: z.number(),
  disk_pct: z.number(),
  net_rx_bps: z.number(),
  net_tx_bps: z.number(),
  load1: z.number(),
});

export function hostRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const tag = "system";
  const sampler = new SystemSampler(parts.dataDir);
  const history = new SystemHistory(parts.dataDir, parts.stopping);

  endpoints.add(
    {
      method: "get",
      path: "/system/stats",
      scope: "read",
      tag,
      summary: "Load of the host",
      responses: { 200: { description: "Percentages, bytes per second, load", schema: Stats.openapi("SystemStats") } },
    },
    async () => json(await sampler.read()),
  );
  endpoints.add(
    {
      method: "get",
      path: "/system/history",
      scope: "read",
      tag,
      summary: "Load of the host over the last hour, or since the server started",
      responses: {
        200: {
          description: "Oldest first, one each ten seconds",
          schema: z.array(Stats.extend({ at: z.string() }).openapi("SystemSample")),
        },
      },
    },
    () => json(history.samples.map(({ at, ...stats }) => ({ at: iso(at), ...stats }))),
  );
  endpoints.add(
    {
      method: "get",
      path: "/doctor",
      scope: "admin",
      tag,
      summary: "What this host has and lacks, as `stacyvm doctor` says it",
      responses: {
        200: {
          description: "`ready`: a sandbox can start",
          schema: z
            .object({
              ready: z.boolean(),
              findings: z.array(
                z
                  .object({
                    name: z.string(),
                    state: z.enum(["ok", "note", "missing"]),
                    detail: z.string(),
                    meaning: z.string(),
                    remedy: z.string().optional(),
                  })
                  .openapi("Finding"),
              ),
            })
            .openapi("Doctor"),
        },
      },
      errors: [501],
    },
    async () => {
      if (parts.doctor === undefined) throw new StacyError("not-supported", "this server cannot examine its host");
      const findings = (await parts.doctor()).map(({ name, state, detail, meaning, remedy }) => ({
        ...{ name, state, detail, meaning },
        ...(remedy === undefined ? {} : { remedy }),
      }));
      return json({ ready: findings.every(({ state }) => state !== "missing"), findings });
    },
  );
}
