/** From the configuration's sections to the options of each layer: the same for the server and for every command. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { HostRules } from "../egress/host-rules.ts";
import { groupsOf, Network } from "../egress/network.ts";
import { StacyError } from "../host/error.ts";
import type { ImagesOptions } from "../images/store.ts";
import type { Limits } from "../sandboxes/limits.ts";
import { Seal } from "../sandboxes/seal.ts";
import type { Config } from "./schema.ts";

export function limitsOf(config: Config): Limits {
  const d = config.defaults;
  return {
    defaultImage: d.image,
    defaultMemoryMiB: d.memory_mb,
    defaultVcpus: d.vcpus,
    defaultDiskMiB: d.disk_size_mb,
    defaultTtlMs: d.ttl,
    defaultHosts: d.allowed_hosts,
    hostGroups: groupsOf(config.network.groups),
    defaultWorkdir: d.workdir,
    providerAliases: config.providers.aliases,
    imageAliases: config.images.aliases,
    defaultIdleTimeoutMs: d.idle_timeout,
    idleAction: d.idle_action,
    maxTtlMs: d.max_ttl,
    defaultExecTimeoutMs: d.default_exec_timeout,
    maxExecTimeoutMs: d.max_exec_timeout,
    maxSandboxes: d.max_sandboxes,
    maxSandboxesPerOwner: d.max_sandboxes_per_owner,
    maxVolumesPerOwner: d.max_volumes_per_owner,
    maxVolumeMiBPerOwner: d.max_volume_mb_per_owner,
    maxMemoryMiB: d.max_memory_mb,
    maxVcpus: d.max_vcpus,
    maxDiskMiB: d.max_disk_mb,
    overflow: d.spawn_overflow,
    queueTimeoutMs: d.spawn_queue_timeout,
    maxQueue: d.max_spawn_queue,
    maxKeptReady: config.warm.max_pool_size,
  };
}

/** @throws StacyError `invalid` naming the entry */
export function networkOf({
  network,
  defaults,
  auth,
  server,
}: Pick<Config, "network" | "defaults" | "auth" | "server">): Network {
  if (network.host_ports.includes(server.port)) {
    throw new StacyError(
      "invalid",
      `network.host_ports: ${server.port} is this server's own port, which may do everything`,
      {
        remedy: "leave it out",
      },
    );
  }
  const groups = groupsOf(network.groups);
  for (const { allowed_hosts: hosts } of auth.keys) new HostRules(hosts ?? [], groups);
  new HostRules(defaults.allowed_hosts, groups); // a wrong one would fail every spawn
  return new Network({
    allow: network.allow,
    private: network.private,
    names: network.names,
    hostPorts: network.host_ports,
    groups: network.groups,
    trusted: certificatesOf(network.ca_file),
    limits: {
      maxBytes: network.max_bytes,
      bytesPerSecond: network.max_bytes_per_second,
      connectionsPerMinute: network.connections_per_minute,
    },
    maxConnections: network.max_connections,
    maxConnectionsTotal: network.max_connections_total,
    idleMs: network.idle_timeout,
  });
}

function certificatesOf(path: string): string[] {
  if (path === "") return [];
  const found = readAtStart(path, "network.ca_file").match(
    /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g,
  );
  if (found === null) throw new StacyError("invalid", `network.ca_file: there is no certificate in ${path}`);
  return found;
}

const CREDENTIAL = "stacyvm-secrets-key";

/** What values of secrets are kept with; `undefined`: they are not kept. @throws StacyError `invalid` */
export function sealOf({ secrets }: Pick<Config, "secrets">): Seal | undefined {
  const { CREDENTIALS_DIRECTORY: credentials } = process.env;
  const credential = credentials === undefined ? undefined : join(credentials, CREDENTIAL);
  if (secrets.key !== "") return new Seal(secrets.key);
  if (secrets.key_file !== "") return new Seal(readAtStart(secrets.key_file, "secrets.key_file"));
  return credential !== undefined && existsSync(credential) ? new Seal(readAtStart(credential, CREDENTIAL)) : undefined;
}

function readAtStart(path: string, key: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new StacyError("invalid", `${key}: ${(cause as Error).message}`, { cause });
  }
}

export function imagesOptions(images: Config["images"]): ImagesOptions {
  return {
    aliases: images.aliases,
    policy: { allow: images.allow, deny: images.deny },
    offline: images.offline,
    standIns: { python: "stacyvm/python", busybox: "stacyvm/busybox" },
    registries: Object.fromEntries(
      Object.entries(images.registries).map(([host, { insecure, endpoint, username, password }]) => [
        host,
        {
          ...(insecure === undefined ? {} : { insecure }),
          ...(endpoint === undefined ? {} : { endpoint }),
          ...(username === undefined ? {} : { username }),
          ...(password === undefined ? {} : { password }),
        },
      ]),
    ),
    limits: { bytes: images.max_image_bytes, entries: images.max_image_entries },
  };
}
