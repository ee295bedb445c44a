import { hostname } from "node:os";
import { z } from "@hono/zod-openapi";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { Limits } from "../../sandboxes/limits.ts";
import type { RouteParts } from "../context.ts";
import { LOCAL_WORKER } from "./sandbox.ts";
import { isoSeconds } from "./values.ts";

export const WorkerBody = z
  .object({
    id: z.string(),
    hostname: z.string(),
    status: z.string(),
    providers: z.array(z.string()),
    capabilities: z.array(z.string()),
    capacity: z.record(z.string(), z.unknown()),
    last_heartbeat: z.string(),
    created_at: z.string(),
    updated_at: z.string(),
    stale: z.boolean(),
  })
  .openapi("Worker");

/** The one worker that there is: this machine, which is well when it answers. */
export function localWorker({ providers, limits, startedAt }: RouteParts): z.output<typeof WorkerBody> {
  const now = isoSeconds(Date.now());
  return {
    id: LOCAL_WORKER,
    hostname: hostname(),
    status: "online",
    providers: providers.names,
    capabilities: ["api", "single_node", "spawn", "exec", "files"],
    capacity: limitsBody(limits),
    last_heartbeat: now,
    created_at: isoSeconds(startedAt),
    updated_at: now,
    stale: false,
  };
}

export function limitsBody(limits: Limits): Record<string, unknown> {
  return {
    max_sandboxes: limits.maxSandboxes,
    max_sandboxes_per_owner: limits.maxSandboxesPerOwner,
    default_exec_timeout: formatDuration(limits.defaultExecTimeoutMs),
    max_exec_timeout: formatDuration(limits.maxExecTimeoutMs),
    max_ttl: formatDuration(limits.maxTtlMs),
    spawn_overflow: limits.overflow,
    spawn_queue_timeout: formatDuration(limits.queueTimeoutMs),
    max_spawn_queue: limits.maxQueue,
  };
}
