/**
 * What a row must be to be used: written by this program or an earlier one, so everything else is damage. Fields that came later are
 * not asked for.
 */
import { z } from "zod";

const size = { image: z.string(), memoryMiB: z.number(), vcpus: z.number(), diskMiB: z.number() };

export const sandboxRow = z.looseObject({
  owner: z.string(),
  ...size,
  id: z.string(),
  name: z.string().exactOptional(),
  state: z.enum(["creating", "running", "paused", "suspended", "error", "expired", "destroyed"]),
  provider: z.string(),
  createdAt: z.number(),
  expiresAt: z.number(),
  idleTimeoutMs: z.number(),
  idleAction: z.enum(["destroy", "pause", "suspend"]),
  idleCounts: z.literal("calls").exactOptional(),
  lent: z.literal(true).exactOptional(),
  transit: z.object({ is: z.enum(["leaving", "arriving"]), node: z.string(), since: z.number() }).exactOptional(),
  metadata: z.record(z.string(), z.string()),
  volumes: z
    .array(z.looseObject({ id: z.string(), name: z.string(), path: z.string(), readOnly: z.boolean() }))
    .exactOptional(),
  directories: z.array(z.looseObject({ source: z.string(), path: z.string(), readOnly: z.boolean() })).exactOptional(),
  ports: z.object({ closed: z.literal(true).exactOptional(), host: z.string().exactOptional() }).exactOptional(),
  request: z.object({ key: z.string(), digest: z.string() }).exactOptional(),
});

export const templateRow = z.looseObject({
  owner: z.string(),
  name: z.string(),
  image: z.string(),
  setup: z.array(z.string()),
  allowedHosts: z.array(z.string()),
  memoryMiB: z.number(),
  vcpus: z.number(),
  ttlMs: z.number(),
  env: z.record(z.string(), z.string()),
  poolSize: z.number(),
});

export const quotaRow = z.looseObject({
  owner: z.string(),
  ownerId: z.string(),
  maxSandboxes: z.number(),
  maxTtlMs: z.number(),
});

export const checkpointRow = z.looseObject({
  ...size,
  owner: z.string(),
  id: z.string(),
  sandboxId: z.string(),
  provider: z.string(),
});

export const execRow = z.looseObject({ sandboxId: z.string(), command: z.string(), startedAt: z.number() });

export const secretRow = z.looseObject({
  owner: z.string(),
  name: z.string(),
  sandbox: z.string().exactOptional(),
  hosts: z.array(z.string()),
  placement: z.looseObject({ kind: z.enum(["bearer", "header", "basic", "query"]) }),
  placeholder: z.string(),
  source: z.looseObject({ kind: z.enum(["value", "file", "environment"]) }),
});

export const keyRow = z.looseObject({ id: z.string() });

export const auditRow = z.looseObject({ at: z.number() });
