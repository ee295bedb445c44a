/** The control plane's JSON: what clients send, and sandboxes as they are shown. Sizes in MiB, times in seconds. */
import { z } from "zod";
import { AllowedHosts, GuestText, maybe } from "../../api/schemas/common.ts";
import type { SandboxRecord } from "../../sandboxes/record.ts";
import { ENVD_VERSION } from "../parts.ts";

const Seconds = z
  .number()
  .min(0)
  .max(10 ** 9);
const Strings = z.record(z.string(), z.string());

/** With a port, or `${PORT}` for whichever it is. */
const HOST_NAME = /^[\w.${}:[\]-]{1,300}$/;

export const NewSandbox = z.object({
  templateID: z.string().min(1).max(600),
  timeout: maybe(Seconds),
  autoPause: maybe(z.boolean()),
  autoPauseMemory: maybe(z.boolean()),
  autoResume: maybe(z.object({ enabled: z.boolean() })),
  secure: maybe(z.boolean()),
  allow_internet_access: maybe(z.boolean()),
  network: maybe(
    z.object({
      allowOut: maybe(AllowedHosts),
      denyOut: maybe(AllowedHosts),
      allowPublicTraffic: maybe(z.boolean()),
      maskRequestHost: maybe(z.string().regex(HOST_NAME, "is no host name")),
      egressProxy: z.unknown().optional(),
      httpsPorts: maybe(z.array(z.number()).max(256)),
      rules: z.unknown().optional(),
    }),
  ),
  metadata: maybe(Strings),
  envVars: maybe(Strings),
  mcp: z.unknown().optional(),
  iam: z.unknown().optional(),
  volumeMounts: maybe(z.array(z.object({ name: z.string().max(128), path: GuestText.max(1_024) })).max(64)),
});
export type NewSandbox = z.output<typeof NewSandbox>;

export const Timeout = z.object({ timeout: Seconds });
export const Connect = z.object({ timeout: maybe(Seconds), memory: maybe(z.boolean()) });
export const Resume = Connect.extend({ autoPause: maybe(z.boolean()) });
export const Pause = z.object({ memory: maybe(z.boolean()) });
export const Refresh = z.object({ duration: maybe(Seconds) });
export const Snapshot = z.object({ name: maybe(z.string()) });
export const Fork = z.object({ timeout: maybe(Seconds), count: maybe(z.int().min(1).max(64)) });
export const Network = z.object({
  allow_internet_access: maybe(z.boolean()),
  allowOut: maybe(AllowedHosts),
  denyOut: maybe(AllowedHosts),
  rules: z.unknown().optional(),
  egressProxy: z.unknown().optional(),
});
export type NetworkWish = Partial<z.output<typeof Network>>;

/** What we have to remember of a sandbox for E2B's clients: beside their own metadata, and never shown as theirs. */
const OWN = "stacyvm.e2b/";
export const own = {
  template: `${OWN}template`,
  /** The client's metadata have a word `template` of their own. */
  named: `${OWN}named`,
} as const;

/** A new sandbox's metadata: the client's, and what we remember. */
export function remembered({ metadata = {}, templateID }: NewSandbox): Record<string, string> {
  return {
    ...metadata,
    [own.template]: templateID,
    ...(metadata.template === undefined ? {} : { [own.named]: "yes" }),
  };
}

export function stateOf(record: SandboxRecord): "running" | "paused" {
  return record.state === "paused" || record.state === "suspended" ? "paused" : "running";
}

export function metadataOf(record: SandboxRecord): Record<string, string> {
  // What a template adds is the server's, too. Forks of an earlier version have it from their source, and no template.
  const isOurs = Object.hasOwn(record.metadata, own.template)
    ? () => !Object.hasOwn(record.metadata, own.named)
    : (value: string) => value === record.template;
  const added = ([key, value]: [string, string]): boolean =>
    key.startsWith(OWN) || (key === "template" && isOurs(value));
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
    volumeMounts: (record.volumes ?? []).map(({ name, path }) => ({ name, path })),
  };
}

/** What an answer that opens a sandbox tells of it: all that is kept for who asks again. */
export interface Opened {
  id: string;
  template: string;
}

export function openedOf(record: SandboxRecord): Opened {
  return { id: record.id, template: templateOf(record) };
}

/** Of a sandbox, for the caller that is answered. */
export interface TokensOf {
  of(id: string): string;
  traffic(id: string): string;
}

/**
 * As the answer to who made it or connects to it.
 * @param domain below which its ports have names; absent: the client was not reached by such a name either
 */
export function opened({ id, template }: Opened, tokens: TokensOf, domain?: string): Record<string, unknown> {
  return {
    sandboxID: id,
    templateID: template,
    alias: template,
    clientID: "stacyvm",
    envdVersion: ENVD_VERSION,
    domain: domain ?? null,
    trafficAccessToken: tokens.traffic(id),
    // Also for who asks to do without: a client that gets a token shows it.
    envdAccessToken: tokens.of(id),
  };
}
