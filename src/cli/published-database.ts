/** The database of the published StacyVM, read only: what can move here, and what cannot. */
import { DatabaseSync } from "node:sqlite";
import { StacyError } from "../host/error.ts";

export interface PublishedTemplate {
  name: string;
  image: string;
  description: string;
  setup: string[];
  allowed_hosts: string[];
  memory_mb: number;
  vcpus: number;
  ttl_seconds: number;
  env: Record<string, string>;
  secrets: { name: string; inject_at: string }[];
  pool_size: number;
}

export interface PublishedQuota {
  owner_id: string;
  max_sandboxes: number;
  /** `3600s` */
  max_ttl: string;
  max_exec_timeout: string;
}

export interface PublishedPolicy {
  resource_type: string;
  effect: string;
  pattern: string;
  priority: number;
}

export interface PublishedTenant {
  id: string;
  name: string;
  owner_id: string;
  settings: unknown;
  /** Users, who need keys here. */
  members: { user: string; role: string }[];
  policies: PublishedPolicy[];
}

export interface PublishedEnvironment {
  owner_id: string;
  name: string;
  base_image: string;
  python_packages: string[];
  apt_packages: string[];
  python_version: string;
}

export interface PublishedData {
  tenants: PublishedTenant[];
  /** Patterns of policies that are no tenant's, and hold for all. */
  policiesForAll: string[];
  environments: PublishedEnvironment[];
  templates: PublishedTemplate[];
  quotas: PublishedQuota[];
  /** Sandboxes that were not destroyed: containers and machines of another server, which stay there. */
  sandboxes: { id: string; provider: string; state: string; owner: string }[];
  /** Rows that mean nothing here, in sentences: they hold nothing else up. */
  unreadable: string[];
}

type Row = Record<string, string | number | null>;

/** @throws StacyError `invalid` when it is no such database */
export function readPublishedDatabase(path: string): PublishedData {
  try {
    using db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 });
    const rows = (sql: string): Row[] => db.prepare(sql).all() as Row[];
    const has = (table: string): boolean =>
      rows(`SELECT name FROM sqlite_master WHERE type='table' AND name='${table}'`).length > 0;
    if (!has("schema_migrations")) throw new Error("it has no table schema_migrations");
    const owner = rows("PRAGMA table_info(sandboxes)").some(({ name }) => name === "owner_id") ? "owner_id" : "''";
    const all = (table: string, order: string): Row[] =>
      has(table) ? rows(`SELECT * FROM ${table} ORDER BY ${order}`) : [];
    const unreadable: string[] = [];
    const each = <T>(what: string, from: Row[], of: (row: Row) => T): T[] =>
      from.flatMap((row) => {
        try {
          return [of(row)];
        } catch (error) {
          const name = String(row.name ?? row.id);
          unreadable.push(`${what} ${name} cannot be read and was not taken over: ${(error as Error).message}`);
          return [];
        }
      });
    const [members, policies] = [all("tenant_members", "user_id"), all("policies", "id")];
    const tenants = new Set(all("tenants", "id").map(({ id }) => id));
    for (const { tenant_id, effect, resource_type, pattern } of policies) {
      if (tenant_id === "" || tenants.has(tenant_id ?? null)) continue;
      const policy = `the policy ${effect} ${resource_type} ${pattern} of ${tenant_id}`;
      unreadable.push(`${policy} was not taken over: its database has no such tenant`);
    }
    return {
      unreadable,
      policiesForAll: policies
        .filter(({ tenant_id }) => tenant_id === "")
        .map(({ effect, resource_type, pattern }) => `${effect} ${resource_type} ${pattern}`),
      tenants: each("the tenant", all("tenants", "id"), (row) => ({
        ...{ id: String(row.id), name: String(row.name), owner_id: String(row.owner_id ?? "") },
        settings: parsed<unknown>(row.settings, {}),
        members: members
          .filter(({ tenant_id }) => tenant_id === row.id)
          .map(({ user_id, role }) => ({ user: String(user_id), role: String(role) })),
        policies: policies
          .filter(({ tenant_id }) => tenant_id === row.id)
          .map(({ resource_type, effect, pattern, priority }) => ({
            ...{ resource_type: String(resource_type), effect: String(effect), pattern: String(pattern) },
            priority: Number(priority),
          })),
      })),
      environments: each("the environment", all("environment_specs", "owner_id, name"), (row) => ({
        ...{ owner_id: String(row.owner_id), name: String(row.name), base_image: String(row.base_image) },
        python_packages: parsed<string[]>(row.python_packages, []),
        apt_packages: parsed<string[]>(row.apt_packages, []),
        python_version: String(row.python_version ?? ""),
      })),
      templates: each("the template", all("templates", "name"), templateOf),
      quotas: all("owner_quotas", "owner_id").map(quotaOf),
      sandboxes: rows(
        `SELECT id, provider, state, ${owner} AS owner FROM sandboxes WHERE state <> 'destroyed' ORDER BY id`,
      ).map((row) => ({
        id: String(row.id),
        provider: String(row.provider),
        state: String(row.state),
        owner: String(row.owner ?? ""),
      })),
    };
  } catch (cause) {
    throw new StacyError(
      "invalid",
      `${path} cannot be read as a database of the published StacyVM: ${(cause as Error).message}`,
      {
        cause,
        remedy: "name the right one with --database, or leave it out with --no-database",
      },
    );
  }
}

function templateOf(row: Row): PublishedTemplate {
  return {
    name: String(row.name),
    image: String(row.image),
    description: String(row.description ?? ""),
    setup: parsed(row.setup, []),
    allowed_hosts: parsed(row.allowed_hosts, []),
    memory_mb: Number(row.memory_mb),
    vcpus: Number(row.cpu_cores),
    ttl_seconds: Number(row.ttl_seconds),
    env: parsed(row.env, {}),
    secrets: parsed(row.secrets, []),
    pool_size: Number(row.pool_size),
  };
}

function quotaOf(row: Row): PublishedQuota {
  return {
    owner_id: String(row.owner_id),
    max_sandboxes: Number(row.max_sandboxes),
    max_ttl: `${Number(row.max_ttl_seconds)}s`,
    max_exec_timeout: `${Number(row.max_exec_timeout_seconds)}s`,
  };
}

/** A list or an object in JSON; their `null` is none, and so is nothing at all. */
function parsed<T>(value: unknown, none: T): T {
  return (JSON.parse(String(value || "null")) as T | null) ?? none;
}
