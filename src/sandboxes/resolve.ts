/** From what a client asks for to what a provider gets: template, checkpoint, defaults and limits, in one place. */
import { HostRules, withRefusals } from "../egress/host-rules.ts";
import { OWNER_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import type { WarmContext } from "../interpreter/contexts.ts";
import type { SandboxSpec } from "../providers/provider.ts";
import type { DirectoryCaller, DirectoryInput } from "./directories.ts";
import { START_INIT } from "./init.ts";
import type { Limits } from "./limits.ts";
import { DEFAULT_OWNER } from "./owner.ts";
import type {
  CheckpointRecord,
  ExpiryPause,
  IdleAction,
  PortRules,
  SandboxRecord,
  SecretRecord,
  SpareSlots,
  Template,
  VolumeInput,
} from "./record.ts";
import { byVariable, hostsToAllow, type SecretInput } from "./secrets.ts";

/** Everything is optional: absent means the template's value, then the server's default. Sizes in MiB, durations in ms. */
export interface SpawnInput {
  name?: string;
  image?: string;
  /** A part of something that was looked at as a whole: a step of a build. The owner's policies say nothing to it. */
  imageChecked?: boolean;
  provider?: string;
  memoryMiB?: number;
  vcpus?: number;
  diskMiB?: number;
  ttlMs?: number;
  template?: string;
  checkpoint?: string;
  /** Whose it becomes; default: the default owner's. */
  owner?: string;
  /** The user that the client named. */
  ownerId?: string;
  metadata?: Record<string, string>;
  env?: Record<string, string>;
  setup?: string[];
  /** The image's own init runs, before the other set-up commands. */
  init?: boolean;
  /** In place of the template's. */
  start?: NonNullable<Template["start"]>;
  contexts?: WarmContext[];
  /** Hosts that it may connect to (egress/host-rules.ts). */
  allowedHosts?: string[];
  /** The owner's by name, or the sandbox's own. */
  secrets?: (string | SecretInput)[];
  /** The owner's volumes by name, and where they are in the guest; beside the template's. */
  volumes?: VolumeInput[];
  /** Of the host, with who asks for them. */
  directories?: DirectoryInput[];
  directoriesFor?: DirectoryCaller;
  /** Places for further ones that are attached while it runs; absent: the template's. */
  spareSlots?: SpareSlots;
  /** It has no secrets at all, not even those that are everywhere: what it makes is an image for others. */
  withoutSecrets?: boolean;
  /** It ends with the call that it is made for. */
  lent?: true;
  /** What it may connect to at most, whoever says so; absent: no limit but the server's. */
  within?: readonly string[];
  idleTimeoutMs?: number;
  idleAction?: IdleAction;
  /** What counts as use: also what runs in it (default), or calls alone. */
  idleCounts?: "processes" | "calls";
  forkable?: boolean;
  /** Instead of its end (record.ts). */
  onExpiry?: ExpiryPause;
  ports?: PortRules;
  /** Kept with it. */
  request?: NonNullable<SandboxRecord["request"]>;
}

export interface ResolvedSpawn {
  spec: Omit<SandboxSpec, "id" | "signal">;
  provider: string | undefined;
  ttlMs: number;
  idleTimeoutMs: number;
  idleAction: IdleAction;
  idleCounts?: "calls";
  onExpiry?: ExpiryPause;
  metadata: Record<string, string>;
  /** Names of secrets. */
  secrets?: string[];
}

/** What the published SDKs send as `image` in every spawn, also in one from a template. */
const SDK_DEFAULT_IMAGE = "alpine:latest";

/** @throws StacyError `invalid`, `limit` */
export function resolveSpawn(
  input: SpawnInput,
  limits: Limits,
  template: Template | undefined,
  checkpoint: CheckpointRecord | undefined,
  secrets: readonly SecretRecord[] = [],
): ResolvedSpawn {
  const ttlMs = input.ttlMs ?? template?.ttlMs ?? limits.defaultTtlMs;
  if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive", { remedy: 'ask for a ttl such as "30m"' });
  // A checkpoint is a saved machine: its size and image are what they were.
  const size = checkpoint ?? {
    image: imageOf(input, template, limits),
    memoryMiB: bounded(
      "memory_mb",
      input.memoryMiB ?? template?.memoryMiB,
      limits.defaultMemoryMiB,
      limits.maxMemoryMiB,
    ),
    vcpus: bounded("vcpus", input.vcpus ?? template?.vcpus, limits.defaultVcpus, limits.maxVcpus),
    diskMiB: bounded("disk_mb", input.diskMiB, limits.defaultDiskMiB, limits.maxDiskMiB),
  };
  const asked = input.allowedHosts ?? (template?.allowedHosts.length ? template.allowedHosts : limits.defaultHosts);
  const listed = withRefusals(asked, input.within);
  // A secret that cannot be used would be of no use; a refusal in the list decides all the same.
  const used = hostsToAllow(secrets).filter((host) => !asked.includes(host));
  const allowedHosts = withRefusals([...asked, ...used], input.within);
  // What a shared template names is what its owner means.
  const imageOwner = template !== undefined && size.image === template.image ? template.owner : input.owner;
  const start = input.start ?? template?.start;
  const contexts = [...(template?.contexts ?? []), ...(input.contexts ?? [])];
  // A later one of the same language takes the place of an earlier one.
  const warm = contexts.filter(({ language }, i) => !contexts.slice(i + 1).some((each) => each.language === language));
  return {
    spec: {
      image: size.image,
      ...(imageOwner === undefined ? {} : { imageOwner }),
      owner: input.owner ?? DEFAULT_OWNER,
      memoryMiB: size.memoryMiB,
      vcpus: size.vcpus,
      diskMiB: size.diskMiB,
      env: { ...template?.env, ...input.env },
      setup: [...(input.init === true ? [START_INIT] : []), ...(template?.setup ?? []), ...(input.setup ?? [])],
      // With the template's environment alone: one that each sandbox has of its own would make each a machine to save.
      ...(start === undefined ? {} : { start: { ...start, env: template?.env ?? {} } }),
      ...(warm.length === 0 ? {} : { contexts: warm }),
      // A wrong one is the request's fault: said before anything is made.
      ...(used.length === 0 ? {} : { setupHosts: listed }),
      ...(allowedHosts.length === 0 ? {} : { allowedHosts: new HostRules(allowedHosts, limits.hostGroups).list }),
      ...(secrets.length === 0 ? {} : { secrets: placeholders(secrets, template) }),
      ...(checkpoint === undefined ? {} : { checkpoint: checkpoint.id }),
      ...(input.forkable === undefined ? {} : { forkable: input.forkable }),
    },
    provider: input.provider ?? (template?.provider || undefined) ?? checkpoint?.provider,
    ttlMs,
    idleTimeoutMs: input.idleTimeoutMs ?? limits.defaultIdleTimeoutMs,
    idleAction: input.idleAction ?? limits.idleAction,
    // An init runs for ever: if it counted, such a sandbox would never be idle.
    ...((input.idleCounts ?? (input.init === true ? "calls" : "processes")) === "calls"
      ? { idleCounts: "calls" as const }
      : {}),
    ...(input.onExpiry === undefined ? {} : { onExpiry: input.onExpiry }),
    metadata: boundedMetadata({
      ...template?.metadata,
      ...(template === undefined ? {} : { template: template.name }),
      ...input.metadata,
    }),
    ...(secrets.length === 0 ? {} : { secrets: secrets.map(({ name }) => name) }),
  };
}

/** By the variable that has it. */
function placeholders(secrets: readonly SecretRecord[], template: Template | undefined): Record<string, string> {
  const variable = ({ name }: SecretRecord): string =>
    template?.secrets.find((each) => each.name === name)?.injectAt || name;
  return Object.fromEntries([...byVariable(secrets, variable)].map(([name, { placeholder }]) => [name, placeholder]));
}

/** The golden machine of a template's shape, for its pool. */
export function templateSpec(template: Template, limits: Limits): Omit<SandboxSpec, "id" | "checkpoint"> {
  const { spec } = resolveSpawn({ owner: template.owner }, limits, template, undefined);
  return spec;
}

function imageOf(input: SpawnInput, template: Template | undefined, limits: Limits): string {
  const asked = input.image === "" ? undefined : input.image;
  // An image that the SDK filled in by itself must not override what the template is about.
  if (template !== undefined && (asked === undefined || asked === SDK_DEFAULT_IMAGE)) return template.image;
  return asked ?? limits.defaultImage;
}

/** It is in memory, in every list, and in the database, longer than its sandbox. @throws StacyError `invalid` */
export function boundedMetadata(metadata: Record<string, string>): Record<string, string> {
  const bytes = Object.entries(metadata).reduce((sum, entry) => sum + Buffer.byteLength(entry.join("")), 0);
  if (bytes > OWNER_BOUNDS.metadataBytes) {
    throw new StacyError("invalid", `metadata: has ${bytes} bytes, and may have ${OWNER_BOUNDS.metadataBytes}`, {
      remedy: "keep what is larger in a file of the sandbox",
    });
  }
  return metadata;
}

function bounded(name: string, asked: number | undefined, fallback: number, max: number): number {
  const value = asked === undefined || asked === 0 ? fallback : asked;
  if (max > 0 && value > max) throw new StacyError("limit", `${name} is over the limit of ${max}`, { final: true });
  return value;
}
