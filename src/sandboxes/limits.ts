/** What is decided before a spawn: limits, quotas and the answer of `admission`. Pure. */
import type { HostGroups } from "../egress/host-groups.ts";
import { formatDuration } from "./duration.ts";
import type { IdleAction } from "./record.ts";

/**
 * The size of a sandbox when nobody says one; the server's configuration may (`defaults`). The same for every way to start one, since
 * each size has a golden snapshot of its own: a second default would boot what the first has already saved.
 */
export const DEFAULT_SIZE = { memoryMiB: 1024, vcpus: 1, diskMiB: 1024 } as const;

/** The server's defaults and limits. Durations in ms, sizes in MiB; 0 means none. */
export interface Limits {
  defaultImage: string;
  defaultMemoryMiB: number;
  defaultVcpus: number;
  defaultDiskMiB: number;
  defaultTtlMs: number;
  /** Hosts that a sandbox may connect to when neither it nor its template says. */
  defaultHosts: readonly string[];
  /** Lists of hosts by name; default: the built-in ones. */
  hostGroups?: HostGroups;
  /** Where commands begin that do not say; empty: the image's own directory. */
  defaultWorkdir: string;
  /** Other names of providers, as clients send them. */
  providerAliases: Readonly<Record<string, string>>;
  /** What references to images stand for here. */
  imageAliases: Readonly<Record<string, string>>;
  defaultIdleTimeoutMs: number;
  idleAction: IdleAction;
  maxTtlMs: number;
  defaultExecTimeoutMs: number;
  maxExecTimeoutMs: number;
  maxSandboxes: number;
  maxSandboxesPerOwner: number;
  /** And their sizes together. */
  maxVolumesPerOwner: number;
  maxVolumeMiBPerOwner: number;
  maxMemoryMiB: number;
  maxVcpus: number;
  maxDiskMiB: number;
  overflow: "reject" | "queue";
  queueTimeoutMs: number;
  maxQueue: number;
  /** Machines that templates' `pool_size` keeps ready, of all owners together. */
  maxKeptReady: number;
}

/** What holds for one user of an owner; 0: no limit. */
export interface EffectiveQuota {
  /** Of the user alone. */
  maxSandboxes: number;
  /** Of all users of the owner together. */
  maxSandboxesOfAll: number;
  maxTtlMs: number;
  maxExecTimeoutMs: number;
}

export type AdmissionReason = "max_ttl" | "max_sandboxes" | "max_sandboxes_per_owner";

export interface Admission {
  allowed: boolean;
  /** Refused now, but a spawn would wait for its turn. */
  queueable: boolean;
  reason?: AdmissionReason;
  activeSandboxes: number;
  maxSandboxes: number;
  activeOwnerSandboxes?: number;
  maxOwnerSandboxes?: number;
  maxTtlMs?: number;
}

export interface AdmissionInput {
  limits: Limits;
  quota: EffectiveQuota;
  ttlMs: number;
  /** Sandboxes that hold or are getting a machine, of all owners. */
  active: number;
  /** The same of this user; `undefined` when none is named. */
  activeOwner: number | undefined;
  /** The same of all users of this owner. */
  activeOfAll: number;
  /** How many are asked for at once (fork). */
  count: number;
}

export function decideAdmission(input: AdmissionInput): Admission {
  const { limits, quota, active, activeOwner, activeOfAll, count } = input;
  const maxOwner = quota.maxSandboxes || limits.maxSandboxesPerOwner;
  const maxTtlMs = effectiveMax(limits.maxTtlMs, quota.maxTtlMs);
  const facts: Omit<Admission, "allowed" | "queueable"> = {
    activeSandboxes: active,
    maxSandboxes: limits.maxSandboxes,
    ...(activeOwner === undefined ? {} : { activeOwnerSandboxes: activeOwner, maxOwnerSandboxes: maxOwner }),
    ...(maxTtlMs === 0 ? {} : { maxTtlMs }),
  };
  const refuse = (reason: AdmissionReason, queueable: boolean): Admission => ({
    allowed: false,
    queueable: queueable && limits.overflow === "queue",
    reason,
    ...facts,
  });
  if (maxTtlMs > 0 && input.ttlMs > maxTtlMs) return refuse("max_ttl", false);
  // An owner at its limit does not wait in the common queue: it would hold up those who are within theirs.
  if (activeOwner !== undefined && maxOwner > 0 && activeOwner + count > maxOwner) {
    return refuse("max_sandboxes_per_owner", false);
  }
  if (quota.maxSandboxesOfAll > 0 && activeOfAll + count > quota.maxSandboxesOfAll) {
    Object.assign(facts, { activeOwnerSandboxes: activeOfAll, maxOwnerSandboxes: quota.maxSandboxesOfAll });
    return refuse("max_sandboxes_per_owner", false);
  }
  if (limits.maxSandboxes > 0 && active + count > limits.maxSandboxes) {
    return refuse("max_sandboxes", count <= limits.maxSandboxes);
  }
  return { allowed: true, queueable: false, ...facts };
}

/** The stricter of a server's and an owner's limit; 0 is none. */
export function effectiveMax(server: number, owner: number | undefined): number {
  if (owner === undefined || owner === 0) return server;
  return server === 0 ? owner : Math.min(server, owner);
}

export function explain(
  admission: Pick<Admission, "reason" | "activeOwnerSandboxes" | "maxOwnerSandboxes"> & Partial<Admission>,
): { message: string; remedy: string } {
  switch (admission.reason) {
    case "max_ttl":
      return {
        message: `the ttl is over the limit of ${formatDuration(admission.maxTtlMs ?? 0)}`,
        remedy: "ask for a shorter ttl, or raise defaults.max_ttl",
      };
    case "max_sandboxes_per_owner":
      return {
        message: `the owner has ${admission.activeOwnerSandboxes} of at most ${admission.maxOwnerSandboxes} sandboxes`,
        remedy: "destroy one of them, or raise the owner's quota",
      };
    default:
      return {
        message: `there are ${admission.activeSandboxes} of at most ${admission.maxSandboxes} sandboxes`,
        remedy: "destroy a sandbox, or raise defaults.max_sandboxes",
      };
  }
}
