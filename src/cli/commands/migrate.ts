import { constants, copyFile, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import type { TenantPolicyRequest } from "../../../sdk/src/generated.ts";
import type { Client } from "../../../sdk/src/index.ts";
import { errno, StacyError } from "../../host/error.ts";
import { exists } from "../../host/exists.ts";
import { printableLines } from "../../host/printable.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { note, printJson } from "../output.ts";
import type { PublishedData, PublishedPolicy, PublishedTenant } from "../published-database.ts";

interface MigrateOptions extends ClientOptions {
  /** A path; `true`: the configuration's; `false`: none. */
  database: string | boolean;
  dryRun?: boolean;
}

interface Report {
  config: string | undefined;
  kept: string | undefined;
  templates: string[];
  quotas: string[];
  tenants: string[];
  /** `acme: allow image alpine:*` */
  policies: string[];
  environments: string[];
  sandboxes: string[];
  notes: string[];
}

/** `stacyvm migrate CONFIG`: from the published StacyVM to this one. */
export function migrateCommand(): Command {
  return clientCommand(
    "migrate",
    "take over the configuration, templates, quotas, tenants and environments of the published StacyVM",
  )
    .argument("<config>", "its stacyvm.yaml; ours is written in its place, and it is kept as CONFIG.published")
    .option("--database <file>", "its SQLite database (default: the configuration's)")
    .option("--no-database", "only the configuration")
    .option("--dry-run", "print the new configuration and what would move, and change nothing")
    .action(migrate);
}

async function migrate(file: string, options: MigrateOptions): Promise<void> {
  const [
    { stringify },
    { isPublishedConfig, migrateConfig },
    { parseConfig, validateConfig },
    { readPublishedDatabase },
  ] = await Promise.all([
    import("yaml"),
    import("../../config/published.ts"),
    import("../../config/load.ts"),
    import("../published-database.ts"),
  ]);
  const path = resolve(file);
  const raw = parseConfig(await readFile(path, "utf8").catch(cannotRead(path)), path);
  const report: Report = {
    config: undefined,
    kept: undefined,
    templates: [],
    quotas: [],
    tenants: [],
    policies: [],
    environments: [],
    sandboxes: [],
    notes: [],
  };
  const theirs = isPublishedConfig(raw);
  if (!theirs && typeof options.database !== "string") {
    throw new StacyError("invalid", `${path} is not a configuration of the published StacyVM`, {
      remedy: "it needs no migration; to take over a database as well, name it with --database",
    });
  }
  const kept = `${path}.published`;
  if (theirs && (await exists(kept))) throw keptAlready(kept);
  const data = await database(path, raw, options, report, readPublishedDatabase);
  if (theirs) {
    const { config, notes } = migrateConfig(raw);
    validateConfig(structuredClone(config), path);
    report.notes.push(...notes);
    const text = `# Made by \`stacyvm migrate\` from a configuration of the published StacyVM.\n${stringify(config)}`;
    if (options.dryRun === true) {
      if (options.json !== true) process.stdout.write(printableLines(text)); // YAML, line by line
    } else {
      report.kept = kept;
      const fresh = `${path}.new`;
      await rm(fresh, { force: true }); // of one that did not come to its end
      await writeFile(fresh, text, { mode: 0o600, flag: "wx" });
      // At any time there is a whole file, and theirs is somewhere.
      await copyFile(path, kept, constants.COPYFILE_EXCL).catch((error: unknown) => {
        throw errno(error) === "EEXIST" ? keptAlready(kept) : error;
      });
      await rename(fresh, path);
    }
    report.config = path;
  }
  if (data.policiesForAll.length > 0) {
    report.notes.push(
      `policies for all were not taken over (${data.policiesForAll.join(", ")}): set images.allow, images.deny, network.allow`,
    );
  }
  for (const tenant of data.tenants) report.notes.push(...cannotMove(tenant));
  report.notes.push(...data.unreadable);
  report.sandboxes = data.sandboxes.map(({ id }) => id);
  if (options.dryRun === true) {
    report.templates = data.templates.map(({ name }) => name);
    report.quotas = data.quotas.map(({ owner_id }) => owner_id);
    report.tenants = data.tenants.map(({ id }) => id);
    report.policies = data.tenants.flatMap(({ id, policies }) => movable(policies).map((each) => named(id, each)));
    report.environments = data.environments.map(({ name }) => name);
  } else if (data.templates.length + data.quotas.length + data.tenants.length + data.environments.length > 0) {
    await withServer(options, ({ client }) => takeOver(client, data, report));
  }
  print(report, options);
}

async function database(
  config: string,
  raw: Record<string, unknown>,
  options: MigrateOptions,
  report: Report,
  read: (path: string) => PublishedData,
): Promise<PublishedData> {
  const none = {
    ...{ templates: [], quotas: [], tenants: [], policiesForAll: [], environments: [], sandboxes: [] },
    unreadable: [],
  };
  if (options.database === false) return none;
  if (typeof options.database === "string") return read(resolve(options.database));
  const { driver, path = "stacyvm.db" } = (raw.database ?? {}) as { driver?: unknown; path?: unknown };
  if (typeof path !== "string" || path === "") {
    throw new StacyError("invalid", "database.path is no path", { remedy: "name the database with --database" });
  }
  if (driver === "postgres") {
    report.notes.push(
      "its database is PostgreSQL, which is not read: its templates, quotas, tenants and environments have to be made again",
    );
    return none;
  }
  // Relative to where that server was started, which mostly was the configuration's directory.
  for (const candidate of [resolve(dirname(config), path), resolve(path)]) {
    if (await exists(candidate)) return read(candidate);
  }
  report.notes.push(`its database ${path} is not there; name it with --database`);
  return none;
}

const NETWORK = "network";
const movable = (policies: PublishedPolicy[]): PublishedPolicy[] =>
  policies.filter(({ resource_type }) => resource_type !== NETWORK);
const named = (tenant: string, { effect, resource_type, pattern }: PublishedPolicy): string =>
  `${tenant}: ${effect} ${resource_type} ${pattern}`;

/** What is left of a tenant, known before anything is changed. */
function cannotMove({ id, members, policies }: PublishedTenant): string[] {
  const scopes = members.map(({ user, role }) => `${user} (${role === "viewer" ? "read" : "use"})`);
  return [
    ...(members.length === 0
      ? []
      : [
          `the members of ${id} need keys: \`stacyvm key create --owner ${id} --scope SCOPE NAME\`, for ${scopes.join(", ")}`,
        ]),
    ...policies
      .filter(({ resource_type }) => resource_type === NETWORK)
      .map((each) => `not taken over: the policy ${named(id, each)}: network.allow decides, for all tenants`),
  ];
}

async function takeOver(client: Client, data: PublishedData, report: Report): Promise<void> {
  const attempt = async (what: string, work: () => Promise<unknown>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (!["BAD_REQUEST", "CONFLICT", "NOT_FOUND", "NOT_SUPPORTED"].includes(code ?? "")) throw error;
      report.notes.push(`${what} was not taken over: ${(error as Error).message}`);
      return false;
    }
  };
  for (const { allowed_hosts, memory_mb, ttl_seconds, pool_size, secrets, ...template } of data.templates) {
    const request = {
      ...template,
      allowedHosts: allowed_hosts,
      memoryMb: memory_mb,
      ttlSeconds: ttl_seconds,
      poolSize: pool_size,
      secrets: secrets.map(({ name, inject_at }) => ({ name, injectAt: inject_at })),
    };
    if (await attempt(`the template ${template.name}`, () => client.templates.create(request)))
      report.templates.push(template.name);
  }
  for (const { owner_id, max_sandboxes, max_ttl, max_exec_timeout } of data.quotas) {
    const quota = { maxSandboxes: max_sandboxes, maxTtl: max_ttl, maxExecTimeout: max_exec_timeout };
    if (await attempt(`the quota of ${owner_id}`, () => client.quotas.put(owner_id, quota)))
      report.quotas.push(owner_id);
  }
  for (const { members: _, policies, owner_id, ...rest } of data.tenants) {
    const tenant = { ...rest, ownerId: owner_id };
    if (await attempt(`the tenant ${tenant.id}`, () => client.transport.call("POST /admin/tenants", { body: tenant })))
      report.tenants.push(tenant.id);
    const there = await policiesOf(client, tenant.id);
    for (const each of movable(policies)) {
      if (there.has(policyText(each))) continue; // taken over before
      const { resource_type, ...policy } = each;
      const body = { resourceType: resource_type, ...policy } as TenantPolicyRequest;
      const make = () =>
        client.transport.call("POST /admin/tenants/{id}/policies", { params: { id: tenant.id }, body });
      if (await attempt(`the policy ${named(tenant.id, each)}`, make)) report.policies.push(named(tenant.id, each));
    }
  }
  for (const { owner_id, name, base_image, python_packages, apt_packages, python_version } of data.environments) {
    const body = {
      ...{ ownerId: owner_id, name, baseImage: base_image },
      ...{ pythonPackages: python_packages, aptPackages: apt_packages, pythonVersion: python_version },
    };
    const make = () => client.transport.call("POST /environments/specs", { body });
    if (await attempt(`the environment ${name}`, make)) report.environments.push(name);
  }
}

/** None where the tenant could not be made. */
async function policiesOf(client: Client, tenant: string): Promise<Set<string>> {
  try {
    const { policies } = await client.transport.call("GET /admin/tenants/{id}/policies", { params: { id: tenant } });
    return new Set(policies.map(({ resourceType, ...rest }) => policyText({ resource_type: resourceType, ...rest })));
  } catch (error) {
    if (["NOT_FOUND", "BAD_REQUEST"].includes((error as { code?: string }).code ?? "")) return new Set();
    throw error;
  }
}

function policyText(policy: PublishedPolicy): string {
  // Theirs takes no priority for 10, and so do we.
  return JSON.stringify([policy.resource_type, policy.effect, policy.pattern.trim(), policy.priority || 10]);
}

function print(report: Report, options: MigrateOptions): void {
  if (options.json === true) {
    printJson(report);
    return;
  }
  const would = options.dryRun === true ? "would be " : "";
  if (report.config !== undefined) {
    note(
      `configuration: ${report.config} ${would}written${report.kept === undefined ? "" : `; theirs is ${report.kept}`}`,
    );
  }
  for (const [what, names] of [
    ["templates", report.templates],
    ["quotas", report.quotas],
    ["tenants", report.tenants],
    ["policies", report.policies],
    ["environments", report.environments],
  ] as const) {
    if (names.length > 0) note(`${what}: ${names.join(", ")} ${would}taken over`);
  }
  if (report.sandboxes.length > 0) {
    note(`sandboxes: ${report.sandboxes.join(", ")} cannot move; they stay with the server that has them`);
  }
  for (const each of report.notes) note(`note: ${each}`);
  if (report.kept !== undefined) {
    note(
      `next: stop the published server, then \`stacyvm serve --config ${report.config}\`; docs/differences.md has the rest`,
    );
  }
}

function keptAlready(kept: string): StacyError {
  return new StacyError("conflict", `${kept} is there already, and would be lost`, {
    remedy: "move it elsewhere, and try again",
  });
}

function cannotRead(path: string): (cause: unknown) => never {
  return (cause) => {
    throw new StacyError("not-found", `cannot read ${path}: ${(cause as Error).message}`, { cause });
  };
}
