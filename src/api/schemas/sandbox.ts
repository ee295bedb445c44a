import { z } from "@hono/zod-openapi";
import { COPIED_DIRECTORIES } from "../../directories/directory.ts";
import type { MachineStats, NetworkStatus } from "../../providers/provider.ts";
import { formatDuration } from "../../sandboxes/duration.ts";
import { FORKED_VOLUMES } from "../../sandboxes/forked-volumes.ts";
import type { Admission } from "../../sandboxes/limits.ts";
import { DEFAULT_OWNER } from "../../sandboxes/owner.ts";
import type { CheckpointRecord, SandboxRecord } from "../../sandboxes/record.ts";
import type { SpawnInput } from "../../sandboxes/resolve.ts";
import { SAVED_VOLUMES } from "../../sandboxes/state-changes.ts";
import { freeSlots } from "../../sandboxes/volume-mounts.ts";
import { AllowedHosts, Duration, EnvMap, GuestText, maybe, StringMap, WarmContexts, warmContexts } from "./common.ts";
import { DirectoryBody, DirectoryRequest, directoryBody, directoryInput } from "./directory.ts";
import { OwnSecret, secretInput } from "./secret.ts";
import { defined, iso } from "./values.ts";
import {
  FreeSlotsBody,
  slotFields,
  spareSlots,
  VolumeMountBody,
  VolumeMountRequest,
  VolumeSlotFields,
  volumeInput,
  volumeMountBody,
} from "./volume.ts";

const size = z.int().min(0).max(1_048_576);

export const SpawnRequest = z
  .object({
    name: maybe(z.string().max(128)).openapi({
      type: "string",
      description: "What it is called; stands wherever its id may, and no two of an owner have the same",
    }),
    image: maybe(GuestText.max(512)),
    provider: maybe(z.string().max(64)),
    memory_mb: maybe(size).openapi({ type: "integer", description: "MiB" }),
    vcpus: maybe(z.int().min(0).max(32)),
    disk_mb: maybe(size).openapi({ type: "integer", description: "Size of the writable layer, MiB" }),
    ttl: maybe(Duration),
    template: maybe(z.string().max(128)),
    checkpoint: maybe(z.string().max(64)),
    owner_id: maybe(z.string().max(256)),
    metadata: maybe(StringMap),
    env: maybe(EnvMap),
    setup: maybe(z.array(GuestText.max(65_536)).max(64)),
    init: maybe(z.boolean()).openapi({
      type: "boolean",
      description: "Start the image's /sbin/init (systemd), with its services, before the golden snapshot is saved",
    }),
    contexts: maybe(WarmContexts),
    allowed_hosts: maybe(AllowedHosts),
    secrets: maybe(z.array(z.union([z.string().max(128), OwnSecret])).max(64)).openapi({
      description: "The owner's by name, or with a value for this sandbox alone; their hosts are allowed, too",
    }),
    volumes: maybe(z.array(VolumeMountRequest).max(16)).openapi({
      description: "The owner's, by name: disks that stay when the sandbox goes",
    }),
    mounts: maybe(z.array(DirectoryRequest).max(16)).openapi({
      description: "Directories of the server's host; for administrators, and where `mounts.allow` permits",
    }),
    ...VolumeSlotFields,
    idle_timeout: maybe(Duration),
    idle_action: maybe(z.enum(["destroy", "pause", "suspend"])),
    idle_counts: maybe(z.enum(["processes", "calls"])).openapi({
      type: "string",
      enum: ["processes", "calls"],
      description: "What counts as use: also what runs in it (default), or calls alone",
    }),
    forkable: maybe(z.boolean()),
  })
  .openapi("SpawnRequest");

export function spawnInput(
  body: Omit<z.output<typeof SpawnRequest>, "name"> & { name?: string | undefined },
  user: string | undefined,
): SpawnInput {
  return defined({
    name: body.name,
    image: body.image,
    provider: body.provider,
    memoryMiB: body.memory_mb,
    vcpus: body.vcpus,
    diskMiB: body.disk_mb,
    ttlMs: body.ttl,
    template: body.template,
    checkpoint: body.checkpoint,
    ownerId: user ?? body.owner_id,
    metadata: body.metadata,
    env: body.env,
    setup: body.setup,
    init: body.init,
    contexts: warmContexts(body.contexts),
    allowedHosts: body.allowed_hosts,
    secrets: body.secrets?.map((each) => (typeof each === "string" ? each : secretInput(each.name, each))),
    volumes: volumeInput(body.volumes),
    directories: directoryInput(body.mounts),
    spareSlots: spareSlots(body),
    idleTimeoutMs: body.idle_timeout,
    idleAction: body.idle_action,
    idleCounts: body.idle_counts,
    forkable: body.forkable,
  });
}

export const BootBody = z
  .object({
    path: z.enum(["warm", "restored", "cold"]),
    idle: z.boolean().optional(),
    vmm: z.string(),
    guest: z.string(),
    key: z.string().optional(),
    fallback: z.string().optional(),
    phases: z.record(z.string(), z.number()),
    total_ms: z.number(),
  })
  .openapi("Boot");

/** The name of this machine among workers; the published server calls its own so. */
export const LOCAL_WORKER = "local";

export const SandboxBody = z
  .object({
    id: z.string(),
    name: z.string().optional(),
    state: z.enum(["creating", "running", "paused", "suspended", "error", "expired", "destroyed"]),
    provider: z.string(),
    image: z.string(),
    memory_mb: z.int(),
    vcpus: z.int(),
    disk_mb: z.int(),
    owner: z.string(),
    owner_id: z.string().optional().openapi({ description: "The user that the client named, for quotas" }),
    tenant_id: z.string().optional().openapi({ description: "The owner as a tenant; absent: the default one" }),
    created_at: z.string(),
    expires_at: z.string(),
    metadata: z.record(z.string(), z.string()),
    preview_domain: z.string(),
    worker_id: z.string().openapi({ description: "`local`: the machine that answers", example: "local" }),
    template: z.string().optional(),
    checkpoint: z.string().optional(),
    forked_from: z.string().optional(),
    idle_timeout: z.string().optional(),
    resume_on_use: z.boolean().optional(),
    allowed_hosts: z.array(z.string()).optional(),
    secrets: z.array(z.string()).optional().openapi({ description: "Names of those that its programs may use" }),
    volumes: z.array(VolumeMountBody).optional().openapi({ description: "Volumes that it has" }),
    mounts: z.array(DirectoryBody).optional().openapi({ description: "Directories of the host that it has" }),
    free_volume_slots: FreeSlotsBody.optional().openapi({
      description: "Places for volumes that can be attached; absent: it was started without any",
    }),
    boot: BootBody.optional(),
    error: z
      .object({
        code: z.string(),
        message: z.string(),
        phase: z.string().optional(),
        at: z.string(),
        console: z.array(z.string()),
      })
      .optional(),
    /** Its machine does not answer since the server's last start, and is asked again; `state` is the one that it had. */
    unreachable: z.object({ since: z.string(), reason: z.string() }).optional(),
  })
  .openapi("Sandbox");

/** Plain fields, since a list has many of these: what is undefined JSON leaves out. */
export function sandboxBody(record: SandboxRecord, previewDomain: string): z.output<typeof SandboxBody> {
  const { boot, failure, unreachable } = record;
  return {
    id: record.id,
    name: record.name,
    state: record.state,
    provider: record.provider,
    image: record.image,
    memory_mb: record.memoryMiB,
    vcpus: record.vcpus,
    disk_mb: record.diskMiB,
    owner: record.owner,
    created_at: iso(record.createdAt),
    expires_at: iso(record.expiresAt),
    metadata: record.metadata,
    preview_domain: previewDomain,
    worker_id: LOCAL_WORKER,
    owner_id: record.ownerId,
    tenant_id: record.owner === DEFAULT_OWNER ? undefined : record.owner,
    template: record.template,
    checkpoint: record.checkpoint,
    forked_from: record.forkedFrom,
    allowed_hosts: record.allowedHosts,
    secrets: record.secrets,
    volumes: record.volumes?.map(volumeMountBody),
    mounts: record.directories?.map(directoryBody),
    free_volume_slots: record.slots && slotFields(freeSlots(record)),
    resume_on_use: record.resumeOnUse,
    idle_timeout: record.idleTimeoutMs > 0 ? formatDuration(record.idleTimeoutMs) : undefined,
    boot: boot && {
      path: boot.path,
      vmm: boot.vmm,
      guest: boot.guest,
      phases: boot.phases,
      total_ms: boot.totalMs,
      idle: boot.idle,
      key: boot.key,
      fallback: boot.fallback,
    },
    error: failure && {
      code: failure.code,
      message: failure.message,
      at: iso(failure.at),
      console: failure.console,
      phase: failure.phase,
    },
    unreachable: unreachable && { since: iso(unreachable.since), reason: unreachable.reason },
  };
}

/** Exactly these keys: the published Python SDK refuses any other (rest-api.md, trap 1). */
export const AdmissionBody = z
  .strictObject({
    allowed: z.boolean(),
    queueable: z.boolean(),
    reason: z.enum(["max_ttl", "max_sandboxes", "max_sandboxes_per_owner"]).optional(),
    active_sandboxes: z.int(),
    max_sandboxes: z.int(),
    active_owner_sandboxes: z.int().optional(),
    max_owner_sandboxes: z.int().optional(),
    max_ttl: z.string().optional(),
  })
  .openapi("Admission");

export function admissionBody(admission: Admission): z.output<typeof AdmissionBody> {
  return {
    allowed: admission.allowed,
    queueable: admission.queueable,
    active_sandboxes: admission.activeSandboxes,
    max_sandboxes: admission.maxSandboxes,
    ...defined({
      reason: admission.reason,
      active_owner_sandboxes: admission.activeOwnerSandboxes,
      max_owner_sandboxes: admission.maxOwnerSandboxes,
      max_ttl: admission.maxTtlMs === undefined ? undefined : formatDuration(admission.maxTtlMs),
    }),
  };
}

export const ForkRequest = z
  .object({
    count: maybe(z.int().min(1).max(64)),
    name: maybe(z.string().max(128)).openapi({ type: "string", description: "Of a single copy" }),
    ttl: maybe(Duration),
    metadata: maybe(StringMap),
    env: maybe(EnvMap),
    volumes: maybe(z.enum(FORKED_VOLUMES)).openapi({
      type: "string",
      enum: [...FORKED_VOLUMES],
      description:
        "What a copy gets of volumes that the sandbox writes to: a `clone` of each, which stays when the copy goes (default); the same, mounted `read_only`; or `none`",
    }),
    mounts: maybe(z.enum(COPIED_DIRECTORIES)).openapi({
      type: "string",
      enum: [...COPIED_DIRECTORIES],
      description:
        "What a copy gets of directories of the host: it reads them (`read_only`, default); `copy_on_write`: what it writes stays in the copy; or `none`",
    }),
  })
  .openapi("ForkRequest");

export const NetworkRequest = z.object({ allowed_hosts: AllowedHosts }).openapi("NetworkRequest");

export const NetworkBody = z
  .object({
    allowed_hosts: z.array(z.string()),
    open: z.int(),
    connected: z.int(),
    refused: z.int(),
    failed: z.int(),
    sent: z.int().openapi({ description: "Bytes to hosts" }),
    received: z.int().openapi({ description: "Bytes from hosts" }),
    problem: z.string().optional(),
  })
  .openapi("SandboxNetwork");

export function networkBody({ allowedHosts, ...rest }: NetworkStatus): z.output<typeof NetworkBody> {
  return { allowed_hosts: [...allowedHosts], ...rest };
}

export const StatsBody = z
  .object({
    supported: z.boolean(),
    cpu_pct: z.number().optional().openapi({ description: "Of one core" }),
    mem_bytes: z.int().optional().openapi({
      description: "What it alone has written to memory; page cache that the host can take back is not counted",
    }),
    mem_pss_bytes: z
      .int()
      .optional()
      .openapi({ description: "The same, with its share of what it has in common with others" }),
    mem_limit_bytes: z.int().optional(),
    disk_bytes: z.int().optional(),
  })
  .openapi("SandboxStats");

export function statsBody(stats: MachineStats): z.output<typeof StatsBody> {
  return {
    supported: true,
    cpu_pct: stats.cpuPercent,
    mem_bytes: stats.privateBytes,
    mem_pss_bytes: stats.pssBytes,
    mem_limit_bytes: stats.memoryLimitBytes,
    disk_bytes: stats.diskBytes,
  };
}

export const ForkBody = z.object({ sandboxes: z.array(SandboxBody), stopped_ms: z.number() }).openapi("Fork");

export const CheckpointRequest = z
  .object({
    name: maybe(z.string().max(128)),
    volumes: maybe(z.enum(SAVED_VOLUMES)).openapi({
      type: "string",
      enum: [...SAVED_VOLUMES],
      description: "Of a sandbox that has volumes: a `snapshot` of each is saved with it (default), or it is `refuse`d",
    }),
  })
  .openapi("CheckpointRequest");

export const CheckpointBody = z
  .object({
    id: z.string(),
    sandbox_id: z.string(),
    provider: z.string(),
    image: z.string(),
    memory_mb: z.int(),
    vcpus: z.int(),
    disk_mb: z.int(),
    owner: z.string(),
    owner_id: z.string().optional(),
    name: z.string().optional(),
    bytes: z.int(),
    damaged: z
      .string()
      .optional()
      .openapi({ description: "What is wrong with its files: nothing starts from it until they are put back" }),
    volumes: z.array(VolumeMountBody).optional().openapi({ description: "Volumes that are saved with it" }),
    created_at: z.string(),
    stopped_ms: z.number().optional(),
  })
  .openapi("Checkpoint");

export function checkpointBody(
  record: CheckpointRecord & { stoppedMs?: number; damaged?: string | undefined },
): z.output<typeof CheckpointBody> {
  return {
    id: record.id,
    sandbox_id: record.sandboxId,
    provider: record.provider,
    image: record.image,
    memory_mb: record.memoryMiB,
    vcpus: record.vcpus,
    disk_mb: record.diskMiB,
    owner: record.owner,
    bytes: record.bytes,
    created_at: iso(record.createdAt),
    ...defined({
      owner_id: record.ownerId,
      name: record.name,
      volumes: record.volumes?.map(volumeMountBody),
      damaged: record.damaged,
      stopped_ms: record.stoppedMs,
    }),
  };
}
