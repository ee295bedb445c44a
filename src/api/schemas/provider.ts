import { z } from "@hono/zod-openapi";
import type { ProviderReport } from "../../sandboxes/providers.ts";
import { defined, isoSeconds } from "./values.ts";

export const ProviderBody = z
  .object({
    name: z.string(),
    healthy: z.boolean(),
    default: z.boolean(),
    latency_ms: z.int(),
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

/** The first line is in the published server's words. */
function capabilitiesOf({ canPause, canCopy }: ProviderReport): string[] {
  return [
    ...["spawn", "exec", "exec_stream", "files", "console", "health", "runtime_inventory", "snapshots", "microvm"],
    ...["terminal", "suspend", "stats", "tunnel"],
    ...(canPause ? ["pause"] : []),
    ...(canCopy ? ["fork", "checkpoint"] : []),
  ];
}

/** @param count its sandboxes */
export function providerBody(report: ProviderReport, count: number): z.output<typeof ProviderBody> {
  return {
    name: report.name,
    healthy: report.healthy,
    default: report.default,
    latency_ms: Math.round(report.latencyMs),
    last_checked: isoSeconds(report.checkedAt),
    capabilities: capabilitiesOf(report),
    runtime_count: count,
    ...(report.healthy ? { detail: report.detail } : { error: report.detail }),
    ...defined({ remedy: report.remedy, version: report.version, accelerator: report.accelerator }),
  };
}
