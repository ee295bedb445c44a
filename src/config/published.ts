/** A configuration of the published StacyVM: how it is recognised, and what it is here. Pure. */
import { configKeys } from "./schema.ts";

type Tree = Record<string, unknown>;

/** Keys that only the published StacyVM has. */
const THEIRS = new Set(
  "providers.mock providers.firecracker providers.docker providers.e2b providers.custom providers.proot defaults.pool_size defaults.pool_template auth.enabled auth.admin_audit_retention rate_limit.bucket_ttl rate_limit.cleanup_interval database.driver database.dsn pool worker".split(
    " ",
  ),
);
/** Of sections that both have, what is not ours is theirs. */
const THEIRS_PREFIX = /^(auth\.(worker|oidc)_|environments\.)/;
const OURS = new Set(configKeys());
const THEIR_PROVIDERS = new Set(["docker", "mock", "proot", "e2b", "custom"]);
const CONTAINERS = new Set(["docker", "mock", "proot"]);
const CONTAINER_LIMITS = [
  "memory",
  "cpus",
  "pids_limit",
  "user",
  "read_only_rootfs",
  "dropped_caps",
  "seccomp_profile",
];

export function isTheirKey(path: string): boolean {
  return THEIRS.has(path) || (THEIRS_PREFIX.test(path) && !OURS.has(path));
}

export function isPublishedConfig(raw: Tree): boolean {
  const provider = at(raw, "providers.default");
  return THEIR_PROVIDERS.has(String(provider)) || leaves(raw).some(({ path }) => isTheirKey(ancestor(path)));
}

export interface Migrated {
  config: Tree;
  /** What could not be taken over, or was changed, in sentences. */
  notes: string[];
}

/** @param raw a whole file of theirs */
export function migrateConfig(raw: Tree): Migrated {
  const config: Tree = {};
  const notes: string[] = [];
  for (const { path, value } of leaves(raw)) {
    if (isTheirKey(ancestor(path)) || path === "providers.default" || path === "database.path") continue;
    if (OURS.has(path)) put(config, path, value);
    else notes.push(`${path} has no counterpart here`);
  }

  // Their defaults, where ours are others.
  const provider = String(at(raw, "providers.default") ?? "docker");
  if (CONTAINERS.has(provider)) {
    put(config, "defaults.workdir", "/workspace");
    if (at(raw, "providers.docker.network_mode") !== "none") put(config, "defaults.allowed_hosts", ["*:*"]);
    notes.push(
      "containers had the network and began in /workspace: defaults.allowed_hosts and defaults.workdir keep that",
    );
  }
  const keyed = Boolean(at(raw, "auth.api_key") || at(raw, "auth.admin_api_key"));
  const host = String(at(raw, "server.host") ?? "0.0.0.0");
  if (keyed) put(config, "server.host", host);
  else {
    put(config, "server.host", "127.0.0.1");
    if (!/^(127\.|localhost$|::1$)/.test(host)) notes.push("without an API key this server listens on loopback only");
  }
  if (at(raw, "server.cors_allowed_origins") === undefined) {
    notes.push("pages of other origins may not call this server unless server.cors_allowed_origins names them");
  }
  // Theirs were served by another program, on the web's own port.
  const domain = String(at(raw, "server.preview_domain") ?? "localhost");
  if (domain === "localhost") {
    put(config, "server.preview_domain", `localhost:${at(raw, "server.port") ?? 7423}`);
    notes.push("server.preview_domain has this server's port: it serves previews itself, of every port");
  } else {
    notes.push(`server.preview_domain: this server serves previews itself; let your proxy pass *.${domain} on to it`);
  }
  if (CONTAINER_LIMITS.some((key) => at(raw, `providers.docker.${key}`) !== undefined)) {
    notes.push(
      "providers.docker: a sandbox is a machine, not a container; it has defaults.memory_mb and defaults.vcpus, and its commands run as root in it",
    );
  }
  const binary = at(raw, "providers.firecracker.firecracker_path");
  if (typeof binary === "string" && binary !== "/usr/local/bin/firecracker") put(config, "firecracker.path", binary);
  for (const [path, why] of [
    ["pool.enabled", "machines are kept ready by themselves, one user each (`warm`)"],
    ["auth.oidc_enabled", "tokens of an issuer are set up anew: auth.oidc_issuer and what is beside it"],
    ["auth.worker_token", "no other worker can join; run a server on each machine"],
    ["providers.e2b.enabled", "sandboxes are made here, not by E2B"],
    ["providers.custom.enabled", "sandboxes are made here, not by another server"],
  ] as const) {
    if (at(raw, path)) notes.push(`${path}: ${why}`);
  }
  return { config, notes };
}

/** `providers.docker.socket` and what is below it belong to `providers.docker`. */
function ancestor(path: string): string {
  for (const key of THEIRS) if (path === key || path.startsWith(`${key}.`)) return key;
  return path;
}

function leaves(node: Tree, prefix = ""): { path: string; value: unknown }[] {
  return Object.entries(node).flatMap(([key, value]) => {
    const path = prefix === "" ? key : `${prefix}.${key}`;
    const deeper = typeof value === "object" && value !== null && !Array.isArray(value) && !OURS.has(path);
    return deeper ? leaves(value as Tree, path) : [{ path, value }];
  });
}

function at(node: Tree, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>(
      (here, key) => (typeof here === "object" && here !== null ? (here as Tree)[key] : undefined),
      node,
    );
}

function put(node: Tree, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop() ?? "";
  let here = node;
  for (const key of keys) {
    here[key] ??= {};
    here = here[key] as Tree;
  }
  here[last] = value;
}
