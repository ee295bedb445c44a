/** This server's part of a fleet, put together: what it says, what it knows of the others, and where things are. */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { Keys } from "../access/keys.ts";
import type { FleetNodes } from "../api/fleet-nodes.ts";
import type { Config } from "../config/schema.ts";
import { replaceFile } from "../host/durable.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { hostIdentity } from "../host/host-identity.ts";
import type { Log } from "../sandboxes/observer.ts";
import type { QuotaStore } from "../sandboxes/quotas.ts";
import type { OwnerQuota, SandboxRecord, Template } from "../sandboxes/record.ts";
import type { Registry } from "../sandboxes/registry.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import type { Store } from "../sandboxes/store.ts";
import type { TemplateStore } from "../sandboxes/templates.ts";
import type { Directory, NodeRole, Ownership } from "./contract.ts";
import { FleetDatabase } from "./database/database.ts";
import { Nodes } from "./database/nodes.ts";
import { Ownerships } from "./database/ownerships.ts";
import { revisions } from "./database/revisions.ts";
import { FleetEvents } from "./events.ts";
import { FleetKeys } from "./keys.ts";
import { loadOf, NO_LOAD } from "./load.ts";
import { Locations } from "./locations.ts";
import { Membership } from "./membership.ts";
import type { Moves } from "./moving/moves.ts";
import { FleetRegistry } from "./registry.ts";
import { ROWS_CHANNEL, SharedRows } from "./shared-rows.ts";
import { startAs } from "./starts.ts";

const ID_FILE = "node-id";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

type TemplateName = Pick<Template, "owner" | "name">;
type QuotaName = Pick<OwnerQuota, "owner" | "ownerId">;

export interface FleetParts {
  config: Config["fleet"];
  /** Where its id is kept. */
  dataDir: string;
  /** How others reach it, where the configuration does not say. */
  url: string;
  role: NodeRole;
  version: string;
  /** The default first. */
  providers: readonly string[];
  log: Log;
}

/** One server's. It is disposed of when nothing of its sandboxes changes any more. */
export class Fleet implements AsyncDisposable {
  readonly directory: Directory;
  readonly registry: Registry;
  readonly nodes: Nodes;
  readonly events: FleetEvents;
  readonly #database: FleetDatabase;
  readonly #registry: FleetRegistry;
  readonly #membership: Membership;
  readonly #log: Log;
  #sandboxes: Sandboxes | undefined;
  #keys: FleetKeys | undefined;
  #moves: Moves | undefined;
  #shared: { templates: SharedRows<Template, TemplateName>; quotas: SharedRows<OwnerQuota, QuotaName> } | undefined;

  private constructor(
    parts: FleetParts,
    id: string,
    identity: string,
    incarnation: string,
    earlier: readonly string[],
  ) {
    const { config, log, providers, role, version } = parts;
    const { database_url: url, listen_url: listenUrl, database_connections: connections } = config;
    const database = new FleetDatabase({ url, listenUrl, connections, log });
    const name = config.node_name || hostname();
    const self = {
      ...{ id, name, url: config.url || parts.url, role, version, providers, labels: config.labels },
      ...{ architecture: process.arch, hostIdentity: identity, load: NO_LOAD },
    };
    const nodes = new Nodes(database, config.lost_after);
    const membership = new Membership({
      ...{ database, nodes, self, incarnation, earlier, log },
      heartbeatMs: config.heartbeat,
    });
    const ownerships = new Ownerships(database, id, incarnation);
    const assertOpen = (): void => membership.assertOpen();
    const registry = new FleetRegistry({
      ...{ ownerships, nodeId: id, assertOpen, log },
      nodes: () => membership.nodes(),
    });
    this.directory = new Locations(membership, ownerships, (idOrName, whose) => this.#own(idOrName, whose));
    this.registry = registry;
    this.nodes = nodes;
    this.events = new FleetEvents(database, id, log);
    this.#log = log;
    this.#database = database;
    this.#registry = registry;
    this.#membership = membership;
  }

  /** Nothing is asked of the database yet. @throws StacyError `invalid` */
  static async open(parts: FleetParts): Promise<Fleet> {
    const incarnation = randomUUID();
    const [id, identity, earlier] = await Promise.all([
      nodeId(parts.dataDir),
      hostIdentity(),
      startAs(incarnation, parts.dataDir, parts.log),
    ]);
    return new Fleet(parts, id, `${identity.cpu} ${identity.kernel}`, incarnation, earlier);
  }

  /**
   * Joins, or goes on trying while the database is away.
   * @param sandboxes after they were taken over
   * @throws StacyError `conflict` when this server cannot be the node that it says
   */
  async join(sandboxes: Sandboxes): Promise<void> {
    this.#sandboxes = sandboxes;
    this.#registry.follow(
      () => sandboxes.list(),
      (id) => sandboxes.transits.has(id),
    );
    this.#shared?.templates.follow((all) => sandboxes.templates.take(all));
    this.#shared?.quotas.follow((all) => sandboxes.quotas.take(all));
    await this.#membership.start(
      () => loadOf(sandboxes),
      async () => {
        await this.#registry.reconcile();
        await this.#registry.flush();
      },
      () => this.#poll(),
    );
    this.events.follow(sandboxes.events);
    this.#database.listen(ROWS_CHANNEL, () => void this.#poll().catch(() => {})); // the next heartbeat tries again
  }

  /** Keys as the whole fleet has them. @param local where this server keeps its own */
  keys(local: ConstructorParameters<typeof FleetKeys>[1]): Keys {
    this.#keys = new FleetKeys(this.#database, local, this.#log);
    const keys = new Keys(this.#keys);
    this.#keys.follow(keys);
    return keys;
  }

  /** Templates and quotas as the whole fleet has them. @param local where this server keeps its own */
  shared(local: Store): TemplateStore & QuotaStore {
    const templates = new SharedRows<Template, TemplateName>({
      ...{ database: this.#database, kind: "templates", keyOf: ({ owner, name }) => JSON.stringify([owner, name]) },
      local: {
        all: () => local.templates(),
        put: (row) => local.putTemplate(row),
        remove: ({ owner, name }) => local.deleteTemplate(owner, name),
        meta: local,
      },
    });
    const quotas = new SharedRows<OwnerQuota, QuotaName>({
      ...{ database: this.#database, kind: "quotas", keyOf: ({ owner, ownerId }) => JSON.stringify([owner, ownerId]) },
      local: {
        all: () => local.quotas(),
        put: (row) => local.putQuota(row),
        remove: ({ owner, ownerId }) => local.deleteQuota(owner, ownerId),
        meta: local,
      },
    });
    this.#shared = { templates, quotas };
    return {
      templates: () => local.templates(),
      putTemplate: (row) => templates.put(row),
      deleteTemplate: (owner, name) => templates.remove({ owner, name }),
      quotas: () => local.quotas(),
      putQuota: (row) => quotas.put(row),
      deleteQuota: (owner, ownerId) => quotas.remove({ owner, ownerId }),
    };
  }

  /** Whose a sandbox is when it moves. */
  get ownership(): Pick<FleetRegistry, "epochOf" | "renew" | "owners" | "take"> {
    return this.#registry;
  }

  /** Sandboxes move from now on, and those that were on their way are looked after. */
  moveBy(moves: Moves): void {
    this.#moves = moves;
    void moves.settle();
  }

  /** What others have changed of what all have alike. @throws StacyError `unavailable` */
  async #poll(): Promise<void> {
    void this.#moves?.settle();
    const all = await revisions(this.#database);
    await this.#keys?.sync(all.get("keys"));
    await this.#shared?.templates.sync(all.get("templates"));
    await this.#shared?.quotas.sync(all.get("quotas"));
  }

  /** Reads the nodes anew. @throws StacyError `unavailable` */
  refresh(): Promise<void> {
    return this.#membership.refresh();
  }

  /** For the routes of administrators. */
  admin(): FleetNodes {
    const { directory, nodes } = this;
    return {
      self: directory.self.id,
      list: async () => {
        await this.refresh().catch((error: unknown) => {
          if (asStacyError(error).code !== "unavailable") throw error;
        });
        return directory.nodes();
      },
      drain: async (id, draining, move = false) => {
        await nodes.drain(id, draining);
        await this.#lookAgain();
        if (move) await this.#moving().drain(id, "start");
        // One that does not answer gives nothing away.
        else if (!draining) await this.#moves?.drain(id, "stop").catch(() => {});
      },
      drained: (id) => this.#moving().drain(id, "say"),
      remove: async (id, force) => {
        const forgotten = await nodes.remove(id, force);
        await this.#lookAgain();
        return forgotten;
      },
      move: (id, to) => this.#moving().move(id, to),
    };
  }

  /** What this server has changed itself it goes by at once; the others hear of it. */
  async #lookAgain(): Promise<void> {
    // The first may be a reading that had begun before.
    for (let reading = 0; reading < 2; reading++) await this.refresh().catch(() => {}); // the next heartbeat reads it
  }

  /** @throws StacyError `unavailable` */
  #moving(): Moves {
    if (this.#moves !== undefined) return this.#moves;
    throw new StacyError("unavailable", "sandboxes move between nodes that know fleet.secret", {
      remedy: "make one with `openssl rand -hex 32`, and give it to all nodes",
    });
  }

  /** Whether it is another node's now, under a newer epoch, though its machine is here. */
  lost(id: string): boolean {
    return this.#registry.lost(id);
  }

  #own(idOrName: string, whose: string | undefined): Ownership | undefined {
    const sandboxes = this.#sandboxes;
    if (sandboxes === undefined || this.#registry.lost(idOrName)) return undefined;
    const id = whose === undefined ? idOrName : (sandboxes.idNamed(whose, idOrName) ?? idOrName);
    if (this.#registry.lost(id)) return undefined;
    const record = sandboxes.transits.has(id) ? undefined : sandboxes.find(id);
    if (record === undefined || (whose !== undefined && record.owner !== whose)) return undefined;
    return ownershipOf(record, this.#membership.self.id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#membership[Symbol.asyncDispose]();
    await this.#registry[Symbol.asyncDispose]();
    await this.events[Symbol.asyncDispose]();
    await this.#database[Symbol.asyncDispose]();
  }
}

/** What is here needs no epoch: this server would be told of a newer one. */
function ownershipOf(
  { id, owner, name, state, image, memoryMiB, vcpus, diskMiB, createdAt, expiresAt }: SandboxRecord,
  nodeId: string,
): Ownership {
  return {
    ...{ sandboxId: id, nodeId, epoch: 0, owner, state, image, memoryMiB, vcpus, diskMiB, createdAt, expiresAt },
    ...(name === undefined ? {} : { name }),
  };
}

async function nodeId(dataDir: string): Promise<string> {
  const path = join(dataDir, ID_FILE);
  const there = await readFile(path, "utf8").catch((error: unknown) => {
    if (errno(error) !== "ENOENT") throw error;
    return undefined;
  });
  if (there === undefined) {
    const id = randomUUID();
    await replaceFile(path, `${id}\n`);
    return id;
  }
  const id = there.trim();
  if (UUID.test(id)) return id;
  throw new StacyError("corrupt", `${path} does not hold the id of a node`, {
    remedy: "remove it: this server is another node then; the one before is removed by `stacyvm node rm`",
  });
}
