/** The fleet's servers in the database: they register, say from time to time that they are there, are drained and removed. */
import { StacyError } from "../../host/error.ts";
import type { FleetNode, NodeLoad, NodeRole, NodeState } from "../contract.ts";
import { type FleetDatabase, sqlState } from "./database.ts";

/** A server that was not heard of for so many of its heartbeats is silent. */
const MISSED = 3;
export const NODES_CHANNEL = "stacyvm_nodes";
const UNIQUE = "23505";

/** What a server says of itself when it registers. */
export type OwnDescription = Omit<FleetNode, "state" | "draining" | "seenAt">;

interface NodeRow {
  id: string;
  name: string;
  url: string;
  role: NodeRole;
  version: string;
  labels: Record<string, string>;
  architecture: string;
  providers: string[];
  host_identity: string;
  load: NodeLoad;
  draining: boolean;
  heartbeat_ms: number;
  /** Since its last heartbeat, by the database's clock. */
  silent_ms: number;
  now_ms: number;
}

const COLUMNS = `id, name, url, role, version, labels, architecture, providers, host_identity, load, draining, heartbeat_ms,
  (extract(epoch FROM now() - seen_at) * 1000)::float8 AS silent_ms, (extract(epoch FROM now()) * 1000)::float8 AS now_ms`;
/** A change may be seen so long after its time: more than any statement takes. */
const LATE = "10 s";

/** What has become of the nodes since an earlier look. */
export interface NodeChanges {
  /** Of this look, for the next one. */
  at: string;
  /** How many there are. */
  count: number;
  nodes: FleetNode[];
  /** Ids. */
  removed: string[];
  /** All others have said that they are there. */
  silent: ReadonlyMap<string, NodeState>;
}

/**
 * What a heartbeat is answered with. `replaced`: another process has registered as this node since. `unknown`: the database has lost the
 * registration, as one that is back from a backup, or one whose fail-over has lost the last second: it has none, or that of an earlier process. A
 * removal is not lost so, it keeps its row.
 */
export type Heartbeat =
  | {
      draining: boolean;
      /** By the database's clock, ms since 1970. */
      now: number;
    }
  | "removed"
  | "replaced"
  | "unknown";

export class Nodes {
  readonly #database: FleetDatabase;
  readonly #lostAfterMs: number;

  constructor(database: FleetDatabase, lostAfterMs: number) {
    this.#database = database;
    this.#lostAfterMs = lostAfterMs;
  }

  /**
   * What an earlier process of it, or a copy, writes from now on changes nothing: what it has gets new epochs. A registration that was
   * held up on its way changes nothing either, when another one has come since.
   * @throws StacyError `conflict` when it was removed, or another one has its name; `unavailable`
   */
  async register(node: OwnDescription, incarnation: string, heartbeatMs: number): Promise<void> {
    const { id, name, url, role, version, labels, architecture, providers, hostIdentity, load } = node;
    const { rows: found } = await this.#database.query<{ incarnation: string; gone: boolean }>(
      "SELECT incarnation, removed_at IS NOT NULL AS gone FROM stacyvm.nodes WHERE id = $1",
      [id],
    );
    const [before] = found;
    if (before?.gone === true) throw removed(name);
    const values = [
      ...[id, incarnation, name, url, role, version, JSON.stringify(labels), architecture],
      ...[JSON.stringify(providers), hostIdentity, JSON.stringify(load), heartbeatMs],
      before?.incarnation ?? null,
    ];
    try {
      const { rows } = await this.#database.query(
        `WITH told AS (SELECT pg_notify('${NODES_CHANNEL}', $1::text)), registered AS (
         INSERT INTO stacyvm.nodes AS n (id, incarnation, name, url, role, version, labels, architecture, providers, host_identity, load, heartbeat_ms)
         SELECT $1::uuid, $2::uuid, $3, $4, $5, $6, $7::jsonb, $8, $9::jsonb, $10, $11::jsonb, $12::integer FROM told
         ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, name = excluded.name, url = excluded.url,
           role = excluded.role, version = excluded.version, labels = excluded.labels, architecture = excluded.architecture,
           providers = excluded.providers, host_identity = excluded.host_identity, load = excluded.load,
           heartbeat_ms = excluded.heartbeat_ms, seen_at = now(), changed_at = now()
         WHERE n.removed_at IS NULL AND n.incarnation = $13::uuid RETURNING id
         ), renewed AS (
           UPDATE stacyvm.sandboxes SET epoch = nextval('stacyvm.epoch') WHERE node_id IN (SELECT id FROM registered)
         ) SELECT id FROM registered`,
        values,
      );
      if (rows.length === 0) {
        throw new StacyError("unavailable", `another server has registered as the node ${name} at the same moment`, {
          remedy: "it is tried again by itself",
        });
      }
    } catch (error) {
      if (sqlState(error) !== UNIQUE) throw error;
      throw new StacyError("conflict", `another node of the fleet is called ${name}`, {
        remedy: "give this one another `fleet.node_name`, or remove that one: `stacyvm node rm`",
      });
    }
  }

  /**
   * @param load absent: as it was
   * @param earlier incarnations that were this node before
   */
  async beat(
    id: string,
    incarnation: string,
    load: NodeLoad | undefined,
    earlier: readonly string[] = [],
  ): Promise<Heartbeat> {
    const { rows } = await this.#database.query<{
      incarnation: string;
      removed: boolean;
      draining: boolean;
      now_ms: number;
    }>(
      `UPDATE stacyvm.nodes SET
         seen_at = CASE WHEN incarnation = $2 AND removed_at IS NULL THEN now() ELSE seen_at END,
         load = CASE WHEN incarnation = $2 THEN coalesce($3::jsonb, load) ELSE load END
       WHERE id = $1 RETURNING incarnation, removed_at IS NOT NULL AS removed, draining,
         (extract(epoch FROM now()) * 1000)::float8 AS now_ms`,
      [id, incarnation, load === undefined ? null : JSON.stringify(load)],
    );
    const [row] = rows;
    if (row === undefined) return "unknown";
    if (row.removed) return "removed";
    if (row.incarnation === incarnation) return { draining: row.draining, now: row.now_ms };
    return earlier.includes(row.incarnation) ? "unknown" : "replaced";
  }

  /** All that were not removed, by name. */
  async list(): Promise<FleetNode[]> {
    const { rows } = await this.#database.query<NodeRow>(
      `SELECT ${COLUMNS} FROM stacyvm.nodes WHERE removed_at IS NULL ORDER BY name`,
    );
    return rows.map((row) => this.#node(row));
  }

  /**
   * What has become of them, in one look at the table: those that others than themselves have changed since, and those of `ids`.
   * @param since `at` of the look before
   */
  async changes(since: string, ids: readonly string[]): Promise<NodeChanges> {
    const { rows } = await this.#database.query<{
      at: string;
      count: string;
      silent: [string, number, number][];
      found: (NodeRow & { removed: boolean })[];
    }>(
      `SELECT now()::text AS at, count(*) FILTER (WHERE NOT n.removed) AS count,
         coalesce(json_agg(json_build_array(id, silent_ms, heartbeat_ms)) FILTER
           (WHERE NOT n.removed AND silent_ms > ${MISSED} * heartbeat_ms), '[]') AS silent,
         coalesce(json_agg(n) FILTER (WHERE changed_at > $1::timestamptz - interval '${LATE}' OR id = ANY($2::uuid[])), '[]') AS found
       FROM (SELECT ${COLUMNS}, changed_at, removed_at IS NOT NULL AS removed FROM stacyvm.nodes) n`,
      [since, ids],
    );
    const [{ at, count, silent, found }] = rows as [(typeof rows)[number]];
    return {
      at,
      count: Number(count),
      silent: new Map(silent.map(([id, silentMs, heartbeatMs]) => [id, this.#state(silentMs, heartbeatMs)])),
      nodes: found.filter(({ removed }) => !removed).map((row) => this.#node(row)),
      removed: found.filter(({ removed }) => removed).map(({ id }) => id),
    };
  }

  /** New sandboxes go elsewhere from now on, or come again. @throws StacyError `not-found` */
  async drain(id: string, draining: boolean): Promise<void> {
    const { count } = await this.#database.query(
      `WITH told AS (SELECT pg_notify('${NODES_CHANNEL}', $1::text))
       UPDATE stacyvm.nodes SET draining = $2, changed_at = now() FROM told WHERE id = $1::uuid AND removed_at IS NULL`,
      [id, draining],
    );
    if (count === 0) throw notThere(id);
  }

  /**
   * Its rights end, and what it had is forgotten: nothing that it writes counts any more.
   * @param force also when it is there, or has sandboxes
   * @returns ids of the sandboxes that are forgotten
   * Idempotent. @throws StacyError `not-found`, `conflict`
   */
  async remove(id: string, force: boolean): Promise<string[]> {
    return this.#database.transaction(async (query) => {
      const [row] = await query<{ up: boolean; name: string; gone: boolean }>(
        `SELECT name, removed_at IS NOT NULL AS gone, now() - seen_at < ${MISSED} * heartbeat_ms * interval '1 ms' AS up
         FROM stacyvm.nodes WHERE id = $1 FOR UPDATE`,
        [id],
      );
      if (row === undefined) throw notThere(id);
      if (row.gone) return [];
      const has = await query<{ id: string }>("SELECT id FROM stacyvm.sandboxes WHERE node_id = $1 ORDER BY id", [id]);
      if (!force && (row.up || has.length > 0)) {
        const what = has.length === 0 ? "is up" : `has ${has.length === 1 ? "a sandbox" : `${has.length} sandboxes`}`;
        throw new StacyError("conflict", `the node ${row.name} ${what}`, {
          remedy: row.up
            ? "drain it, wait until it has none, and stop it; or remove it with `--force`: its sandboxes go on there, and the fleet knows nothing of them"
            : "with `--force` it is removed, and the fleet forgets what it had",
        });
      }
      await query("DELETE FROM stacyvm.sandboxes WHERE node_id = $1", [id]);
      await query("UPDATE stacyvm.nodes SET removed_at = now(), changed_at = now() WHERE id = $1", [id]);
      await query(`SELECT pg_notify('${NODES_CHANNEL}', $1)`, [id]);
      return has.map((each) => each.id);
    });
  }

  #state(silentMs: number, heartbeatMs: number): NodeState {
    if (silentMs > this.#lostAfterMs) return "lost";
    return silentMs > MISSED * heartbeatMs ? "silent" : "up";
  }

  #node(row: NodeRow): FleetNode {
    const { id, name, url, role, version, labels, architecture, providers, load, draining } = row;
    const state = this.#state(row.silent_ms, row.heartbeat_ms);
    return {
      ...{ id, name, url, role, version, labels, architecture, providers, load, draining, state },
      ...{ hostIdentity: row.host_identity, seenAt: Math.round(row.now_ms - row.silent_ms) },
    };
  }
}

export function removed(name: string): StacyError {
  return new StacyError("conflict", `the node ${name} was removed from the fleet`, {
    remedy: "to have it back as another one, remove the file `node-id` from its data directory and start it again",
  });
}

function notThere(id: string): StacyError {
  return new StacyError("not-found", `there is no node ${JSON.stringify(id.slice(0, 64))}`);
}
