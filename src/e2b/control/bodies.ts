/** The control plane's JSON: what clients send, and sandboxes as they are shown. Sizes in MiB, times in seconds. */
import { z } from "zod";
import type { SandboxRecord } from "../../sandboxes/record.ts";
import { ENVD_VERSION } from "../parts.ts";
import type { SandboxTokens } from "../sandbox-tokens.ts";

const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);
const Seconds = z
  .number()
  .min(0)
  .max(10 ** 9);
const Strings = z.record(z.string(), z.string());

export const NewSandbox = z.object({
  templateID: z.string().min(1).max(600),
  timeout: optional(Seconds),
  autoPause: optional(z.boolean()),
  autoPauseMemory: optional(z.boolean()),
  autoResume: optional(z.object({ enabled: z.boolean() })),
  secure: optional(z.boolean()),
  allow_internet_access: optional(z.boolean()),
  network: optional(
    z.object({
      allowOut: optional(z.array(z.string())),
      denyOut: optional(z.array(z.string())),
      allowPublicTraffic: optional(z.boolean()),
      maskRequestHost: optional(z.string()),
      egressProxy: z.unknown().optional(),
      httpsPorts: optional(z.array(z.number())),
      rules: z.unknown().optional(),
    }),
  ),
  metadata: optional(Strings),
  envVars: optional(Strings),
  mcp: z.unknown().optional(),
  iam: z.unknown().optional(),
  volumeMounts: optional(z.array(z.unknown())),
});
export type NewSandbox = z.output<typeof NewSandbox>;

export const Timeout = z.object({ timeout: Seconds });
export const Connect = z.object({ timeout: optional(Seconds), memory: optional(z.boolean()) });
export const Resume = Connect.extend({ autoPause: optional(z.boolean()) });
export const Pause = z.object({ memory: optional(z.boolean()) });
export const Refresh = z.object({ duration: optional(Seconds) });
export const Snapshot = z.object({ name: optional(z.string()) });
export const Fork = z.object({ timeout: optional(Seconds), count: optional(z.int().min(1).max(64)) });
export const Network = z.object({
  allow_internet_access: optional(z.boolean()),
  allowOut: optional(z.array(z.string())),
  denyOut: optional(z.array(z.string())),
  rules: z.unknown().optional(),
  egressProxy: z.unknown().optional(),
});

/** What we have to remember of a sandbox for E2B's clients: beside their own metadata, and never shown as theirs. */
const OWN = "stacyvm.e2b/";
export const own = {
  template: `${OWN}template`,
} as const;

export function stateOf(record: SandboxRecord): "running" | "paused" {
  return record.state === "paused" || record.state === "suspended" ? "paused" : "running";
}

export function metadataOf(record: SandboxRecord): Record<string, string> {
  // What a template adds is the server's, too.
  const added = ([key, value]: [string, string]): boolean =>
    key.startsWith(OWN) || (key === "template" && value === record.template);
  return Object.fromEntries(Object.entries(record.metadata).filter((entry) => !added(entry)));
}

export function templateOf(record: SandboxRecord): string {
  return record.metadata[own.template] ?? record.template ?? record.checkpoint ?? record.image;
}

/** As in lists. */
export function listed(record: SandboxRecord): Record<string, unknown> {
  return {
    sandboxID: record.id,
    templateID: templateOf(record),
    alias: templateOf(record),
    clientID: "stacyvm",
    startedAt: new Date(record.createdAt).toISOString(),
    endAt: new Date(record.expiresAt).toISOString(),
    state: stateOf(record),
    cpuCount: record.vcpus,
    memoryMB: record.memoryMiB,
    diskSizeMB: record.diskMiB,
    metadata: metadataOf(record),
    envdVersion: ENVD_VERSION,
  };
}

/**
 * As the answer to who made it or connects to it.
 * @param domain below which its ports have names; absent: the client was not reached by such a name either
 */
export function opened(record: SandboxRecord, tokens: SandboxTokens, domain?: string): Record<string, unknown> {
  return {
    sandboxID: record.id,
    templateID: templateOf(record),
    alias: templateOf(record),
    clientID: "stacyvm",
    envdVersion: ENVD_VERSION,
    domain: domain ?? null,
    trafficAccessToken: tokens.traffic(record.id),
    // Also for who asks to do without: a client that gets a token shows it.
    envdAccessToken: tokens.of(record.id),
  };
}
