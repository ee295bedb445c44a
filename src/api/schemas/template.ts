import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { Limits } from "../../sandboxes/limits.ts";
import type { OwnerQuota, Template } from "../../sandboxes/record.ts";
import { TEMPLATE_NAME, type TemplateInput } from "../../sandboxes/templates.ts";
import {
  AllowedHosts,
  Duration,
  EnvMap,
  GuestText,
  maybe,
  QuotaDuration,
  StringMap,
  WarmContexts,
  warmContexts,
} from "./common.ts";
import { defined, iso } from "./values.ts";
import {
  slotFields,
  spareSlots,
  VolumeMountBody,
  VolumeMountRequest,
  VolumeSlotFields,
  volumeInput,
} from "./volume.ts";

const whole = z.int().min(0).max(1_048_576);

/** Both spellings: `cpu_cores` and `ttl_seconds` are the server's old ones, `vcpus` and `ttl` the SDKs' (rest-api.md, trap 2). */
export const TemplateRequest = z
  .object({
    name: maybe(z.string()),
    version: maybe(whole),
    image: z.string().min(1, "is required").max(512),
    description: maybe(z.string().max(4_096)),
    setup: maybe(z.array(GuestText.max(65_536)).max(64)),
    start_command: maybe(GuestText.max(65_536)).openapi({
      type: "string",
      description: "Runs when the machine is saved, and goes on in each sandbox",
    }),
    ready_command: maybe(GuestText.max(65_536)).openapi({
      type: "string",
      description: "Is asked until it succeeds; then the machine is saved",
    }),
    contexts: maybe(WarmContexts),
    allowed_hosts: maybe(AllowedHosts),
    memory_mb: maybe(whole),
    cpu_cores: maybe(z.int().min(0).max(32)),
    vcpus: maybe(z.int().min(0).max(32)),
    ttl_seconds: maybe(z.number().min(0)),
    ttl: maybe(Duration),
    env: maybe(EnvMap),
    secrets: maybe(z.array(z.object({ name: z.string(), inject_at: z.string().default("") })).max(64)),
    volumes: maybe(z.array(VolumeMountRequest).max(16)).openapi({
      type: "array",
      description:
        "Volumes of whoever spawns from it, by name; a spawn's own take the place of those with the same name or path",
    }),
    ...VolumeSlotFields,
    pool_size: maybe(z.int().min(0).max(256)),
    provider: maybe(z.string().max(64)),
    metadata: maybe(StringMap),
    shared: maybe(z.boolean()).openapi({ type: "boolean", description: "Every owner finds it; for administrators" }),
  })
  .openapi("TemplateRequest");

function startOf(command: string | undefined, ready: string | undefined): Pick<TemplateInput, "start"> {
  if (command) return { start: { command, ...(ready ? { ready } : {}) } };
  if (!ready) return {};
  throw new StacyError("invalid", "ready_command: there is no start_command that it could be about");
}

/** @param defaults for what the request leaves out */
export function templateInput(
  body: z.output<typeof TemplateRequest>,
  name: string,
  defaults: Pick<Limits, "defaultMemoryMiB" | "defaultVcpus" | "defaultTtlMs">,
): TemplateInput {
  return {
    name,
    image: body.image,
    description: body.description ?? "",
    setup: body.setup ?? [],
    ...startOf(body.start_command, body.ready_command),
    ...defined({ contexts: warmContexts(body.contexts) }),
    allowedHosts: body.allowed_hosts ?? [],
    memoryMiB: body.memory_mb || defaults.defaultMemoryMiB,
    vcpus: body.vcpus || body.cpu_cores || defaults.defaultVcpus,
    ttlMs: body.ttl || (body.ttl_seconds ?? 0) * 1000 || defaults.defaultTtlMs,
    env: body.env ?? {},
    secrets: (body.secrets ?? []).map(({ name, inject_at }) => ({ name, injectAt: inject_at })),
    ...defined({ volumes: volumeInput(body.volumes), spareSlots: spareSlots(body) }),
    poolSize: body.pool_size ?? 0,
    metadata: body.metadata ?? {},
    ...(body.provider ? { provider: body.provider } : {}),
    ...(body.version ? { version: body.version } : {}),
    ...(body.shared === undefined ? {} : { shared: body.shared }),
  };
}

export const TemplateName = z.string().regex(TEMPLATE_NAME, "is not a template's name: 1 to 128 visible characters");

export const TemplateBody = z
  .object({
    name: z.string(),
    owner: z.string(),
    shared: z.boolean(),
    version: z.int(),
    image: z.string(),
    description: z.string(),
    setup: z.array(z.string()),
    start_command: z.string().optional(),
    ready_command: z.string().optional(),
    contexts: z.array(z.object({ language: z.string(), code: z.string() })).optional(),
    allowed_hosts: z.array(z.string()),
    memory_mb: z.int(),
    cpu_cores: z.int(),
    vcpus: z.int(),
    ttl_seconds: z.number(),
    ttl: z.string(),
    env: z.record(z.string(), z.string()),
    secrets: z.array(z.object({ name: z.string(), inject_at: z.string() })),
    volumes: z.array(VolumeMountBody).optional().openapi({ description: "Volumes that its sandboxes get" }),
    volume_slots: z.int().optional().openapi({ description: "Free places for volumes to be written" }),
    volume_slots_read_only: z.int().optional().openapi({ description: "The same, to be only read" }),
    pool_size: z.int(),
    provider: z.string(),
    metadata: z.record(z.string(), z.string()),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("Template");

export function templateBody(template: Template): z.output<typeof TemplateBody> {
  return {
    name: template.name,
    owner: template.owner,
    shared: template.shared === true,
    version: template.version,
    image: template.image,
    description: template.description,
    setup: template.setup,
    ...defined({
      start_command: template.start?.command,
      ready_command: template.start?.ready,
      contexts: template.contexts,
    }),
    allowed_hosts: template.allowedHosts,
    memory_mb: template.memoryMiB,
    cpu_cores: template.vcpus,
    vcpus: template.vcpus,
    ttl_seconds: template.ttlMs / 1000,
    ttl: formatDuration(template.ttlMs),
    env: template.env,
    secrets: template.secrets.map((secret) => ({ name: secret.name, inject_at: secret.injectAt })),
    ...defined({
      volumes: template.volumes?.map(({ name, path, readOnly = false }) => ({ name, path, read_only: readOnly })),
    }),
    ...(template.spareSlots === undefined ? {} : slotFields(template.spareSlots)),
    pool_size: template.poolSize,
    provider: template.provider ?? "",
    metadata: template.metadata,
    created_at: iso(template.createdAt),
    updated_at: iso(template.updatedAt),
  };
}

export const TemplateSpawnRequest = z
  .object({ name: maybe(z.string().max(128)), provider: maybe(z.string().max(64)), ttl: maybe(Duration) })
  .openapi("TemplateSpawnRequest");

export const QuotaRequest = z
  .object({
    max_sandboxes: maybe(z.int().min(0)),
    max_ttl: maybe(QuotaDuration),
    max_exec_timeout: maybe(QuotaDuration),
  })
  .openapi("QuotaRequest");

export const QuotaBody = z
  .object({
    owner_id: z.string(),
    max_sandboxes: z.int(),
    max_ttl: z.string(),
    max_exec_timeout: z.string(),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("OwnerQuota");

export function quotaBody(quota: OwnerQuota): z.output<typeof QuotaBody> {
  return {
    owner_id: quota.ownerId,
    max_sandboxes: quota.maxSandboxes,
    max_ttl: formatDuration(quota.maxTtlMs),
    max_exec_timeout: formatDuration(quota.maxExecTimeoutMs),
    created_at: iso(quota.createdAt),
    updated_at: iso(quota.updatedAt),
  };
}

export const QuotaUsageBody = z
  .object({
    owner_id: z.string(),
    active_sandboxes: z.int(),
    max_sandboxes: z.int(),
    max_ttl: z.string(),
    max_exec_timeout: z.string(),
    quota_configured: z.boolean(),
  })
  .openapi("QuotaUsage");

/** Exactly these keys (rest-api.md, trap 8). */
export const QuotaSummaryBody = z
  .strictObject({
    total: z.int(),
    with_max_sandboxes: z.int(),
    with_max_ttl: z.int(),
    with_max_exec_timeout: z.int(),
  })
  .openapi("QuotaSummary");

export { defined };
