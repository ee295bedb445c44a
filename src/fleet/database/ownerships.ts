/**
 * Who has a sandbox. Each row has an epoch of its owner, and every write says under which it is made: one under an older epoch, or of
 * another node, changes nothing. Names are an owner's own in the whole fleet, held by an index.
 */
import { StacyError } from "../../host/error.ts";
import { explain } from "../../sandboxes/limits.ts";
import { idTaken, type MostTaken, type Taken } from "../../sandboxes/registry.ts";
import type { Ownership, OwnershipFilter } from "../contract.ts";
import { detailOf, type FleetDatabase, sqlState } from "./database.ts";

const UNIQUE = "23505";
/** Ours, of the function `admit` (schema.ts). */
const OVER = "SV001";
/** A request that comes again after this long is another one, ms. */
const KEY_KEPT_MS = 24 * 3_600_000;
const KEYS_INDEX = "sandboxes_request";

interface Row {
  id: string;
  node_id: string;
  /** PostgreSQL's `bigint`s come as text. */
  epoch: string;
  owner: string;
  name: string | null;
  state: string;
  image: string;
  memory_mib: string;
  vcpus: string;
  disk_mib: string;
  created_at: string;
  expires_at: string;
}

const COLUMNS = "id, node_id, epoch, owner, name, state, image, memory_mib, vcpus, disk_mib, created_at, expires_at";

/** What a node says of a sandbox of its own. */
export interface Claim extends Omit<Ownership, "nodeId" | "epoch"> {
  /** The user that its client has named. */
  ownerId?: string;
  /** Of the request that it is made for; no two of an owner have the same. */
  requestKey?: string;
}

/** A write under an epoch. */
export interface Published {
  sandboxId: string;
  epoch: number;
  state: string;
  expiresAt: number;
}

export class Ownerships {
  readonly #database: FleetDatabase;
  readonly #nodeId: string;
  readonly #incarnation: string;

  constructor(database: FleetDatabase, nodeId: string, incarnation: string) {
    this.#database = database;
    this.#nodeId = nodeId;
    this.#incarnation = incarnation;
  }

  /**
   * This node has it from now on; asked twice, the first epoch stays. What all nodes have of its owner is counted with it.
   * @param most absent: however much they have
   * @throws StacyError `conflict` for a name that another one of its owner has; `limit`; `unavailable` when another node has that id
   *   (`isTaken`) or has made one for that request, this node is none of the fleet any more, or the database is away
   */
  async claim(claim: Claim, most?: MostTaken): Promise<Ownership> {
    const { sandboxId, owner, name, state, image, createdAt, expiresAt } = claim;
    const { ownerId, memoryMiB, vcpus, diskMiB, requestKey } = claim;
    const values = [
      ...[sandboxId, this.#nodeId, this.#incarnation, owner, name ?? null, state, image, createdAt, expiresAt],
      ...[ownerId ?? null, memoryMiB, vcpus, diskMiB, requestKey ?? null],
    ];
    // Whoever has neither a limit nor a key pays for none.
    const asks = most !== undefined || requestKey !== undefined;
    if (asks) values.push(JSON.stringify(mostOf(most)), createdAt - KEY_KEPT_MS);
    const own =
      "jsonb_build_object('sandboxes', 1, 'memory_mib', $11::bigint, 'vcpus', $12::bigint, 'disk_mib', $13::bigint)";
    const admitted = asks ? `AND stacyvm.admit($1, $4, $10, ${own}, $15::jsonb, $14, $16::bigint)` : "";
    try {
      const { rows } = await this.#database.query<Row>(
        `INSERT INTO stacyvm.sandboxes AS s
           (id, node_id, owner, name, state, image, created_at, expires_at, owner_id, memory_mib, vcpus, disk_mib, request_key)
         SELECT $1, n.id, $4, $5, $6, $7, $8::bigint, $9::bigint, $10, $11::bigint, $12::bigint, $13::bigint, $14 FROM stacyvm.nodes n
           WHERE n.id = $2 AND n.incarnation = $3 AND n.removed_at IS NULL ${admitted} FOR KEY SHARE OF n
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at, owner_id = excluded.owner_id,
           memory_mib = excluded.memory_mib, vcpus = excluded.vcpus, disk_mib = excluded.disk_mib WHERE s.node_id = excluded.node_id
         RETURNING ${COLUMNS}`,
        values,
      );
      const [row] = rows;
      if (row !== undefined) return ownership(row);
    } catch (error) {
      throw refusalOf(error, claim);
    }
    const [other] = await this.of([sandboxId]);
    if (other !== undefined && other.nodeId !== this.#nodeId) throw idTaken(sandboxId);
    throw new StacyError("unavailable", `this server cannot have the sandbox ${sandboxId} in the fleet`, {
      remedy: "try again; `stacyvm node ls` shows whether this server was removed from the fleet",
    });
  }

  /**
   * The same of one that was there before its row, which the table has lost. Its request's key may be another one's by now and stays that
   * one's; one that has failed, or is old, has none any more.
   */
  async reclaim(claim: Claim): Promise<Ownership> {
    const { requestKey, ...rest } = claim;
    const forgotten = claim.state === "error" || claim.createdAt < Date.now() - KEY_KEPT_MS;
    if (requestKey === undefined || forgotten) return this.claim(rest);
    return this.claim(claim).catch((error: unknown) => {
      if (error instanceof StacyError && detailOf(error.cause).constraint === KEYS_INDEX) return this.claim(rest);
      throw error;
    });
  }

  /** What an owner's sandboxes take together on all nodes, and those of its user. */
  async taken(owner: string, user: string | undefined): Promise<{ user?: Taken; all: Taken }> {
    const { rows } = await this.#database.query<TakenRow>(
      `SELECT * FROM stacyvm.taken($1, NULL, '') ${user === undefined ? "" : "UNION ALL SELECT * FROM stacyvm.taken($1, $2, '')"}`,
      user === undefined ? [owner] : [owner, user],
    );
    const [all, ofUser] = rows.map((row) => ({
      ...{ sandboxes: Number(row.sandboxes), memoryMiB: Number(row.memory_mib) },
      ...{ vcpus: Number(row.vcpus), diskMiB: Number(row.disk_mib) },
    }));
    return { all: all as Taken, ...(ofUser === undefined ? {} : { user: ofUser }) };
  }

  /** What was made for a request, by the key that its client has chosen. */
  async requested(owner: string, key: string): Promise<Ownership | undefined> {
    const { rows } = await this.#database.query<Row>(
      `SELECT ${COLUMNS} FROM stacyvm.sandboxes WHERE owner = $1 AND request_key = $2 AND state <> 'error' AND created_at >= $3`,
      [owner, key, Date.now() - KEY_KEPT_MS],
    );
    return rows.map(ownership)[0];
  }

  /** What is now so, of several. @returns ids of those that this changed; of the others this node is not the owner under that epoch */
  async publish(all: readonly Published[]): Promise<Set<string>> {
    const { rows } = await this.#database.query<{ id: string }>(
      `UPDATE stacyvm.sandboxes s SET state = u.state, expires_at = u.expires_at
       FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[]) AS u(id, epoch, state, expires_at)
       WHERE s.id = u.id AND s.epoch = u.epoch AND s.node_id = $1 RETURNING s.id`,
      [
        this.#nodeId,
        all.map(({ sandboxId }) => sandboxId),
        all.map(({ epoch }) => epoch),
        all.map(({ state }) => state),
        all.map(({ expiresAt }) => expiresAt),
      ],
    );
    return new Set(rows.map(({ id }) => id));
  }

  /** Nobody has them any more; those that are another's, or under another epoch, stay. */
  async release(all: readonly { sandboxId: string; epoch: number }[]): Promise<void> {
    await this.#database.query(
      `DELETE FROM stacyvm.sandboxes s USING unnest($2::text[], $3::bigint[]) AS u(id, epoch)
       WHERE s.id = u.id AND s.epoch = u.epoch AND s.node_id = $1`,
      [this.#nodeId, all.map(({ sandboxId }) => sandboxId), all.map(({ epoch }) => epoch)],
    );
  }

  /**
   * Under a new epoch, so that whoever was offered it cannot take it any more.
   * @returns `undefined`: this node does not have it
   */
  async renew(sandboxId: string): Promise<Ownership | undefined> {
    const { rows } = await this.#database.query<Row>(
      `UPDATE stacyvm.sandboxes SET epoch = nextval('stacyvm.epoch') WHERE id = $1 AND node_id = $2 RETURNING ${COLUMNS}`,
      [sandboxId, this.#nodeId],
    );
    return rows.map(ownership)[0];
  }

  /**
   * From the node that has it under this epoch. Asked twice, it is taken once.
   * @returns `undefined`: it cannot be had any more
   */
  async take(sandboxId: string, from: Pick<Ownership, "nodeId" | "epoch">): Promise<Ownership | undefined> {
    const { rows } = await this.#database.query<Row>(
      `UPDATE stacyvm.sandboxes s SET node_id = n.id, epoch = nextval('stacyvm.epoch') FROM stacyvm.nodes n
       WHERE s.id = $1 AND s.node_id = $2 AND s.epoch = $3 AND n.id = $4 AND n.incarnation = $5 AND n.removed_at IS NULL
       RETURNING ${COLUMNS.split(", ")
         .map((name) => `s.${name}`)
         .join(", ")}`,
      [sandboxId, from.nodeId, from.epoch, this.#nodeId, this.#incarnation],
    );
    const [taken] = rows.map(ownership);
    if (taken !== undefined) return taken;
    // The answer to the first question may have been lost.
    const [now] = await this.of([sandboxId]);
    return now?.nodeId === this.#nodeId ? now : undefined;
  }

  /** By ids; those that nobody has are left out. */
  async of(ids: readonly string[]): Promise<Ownership[]> {
    const { rows } = await this.#database.query<Row>(
      `SELECT ${COLUMNS} FROM stacyvm.sandboxes WHERE id = ANY($1::text[])`,
      [ids],
    );
    return rows.map(ownership);
  }

  async named(owner: string, name: string): Promise<Ownership | undefined> {
    const { rows } = await this.#database.query<Row>(
      `SELECT ${COLUMNS} FROM stacyvm.sandboxes WHERE owner = $1 AND name = $2`,
      [owner, name],
    );
    return rows.map(ownership)[0];
  }

  /** Newest first. */
  async all({ owner, nodeId }: OwnershipFilter = {}): Promise<Ownership[]> {
    const { rows } = await this.#database.query<Row>(
      `SELECT ${COLUMNS} FROM stacyvm.sandboxes
       WHERE ($1::text IS NULL OR owner = $1) AND ($2::uuid IS NULL OR node_id = $2) ORDER BY created_at DESC, id DESC`,
      [owner ?? null, nodeId ?? null],
    );
    return rows.map(ownership);
  }
}

interface TakenRow {
  sandboxes: string;
  memory_mib: string;
  vcpus: string;
  disk_mib: string;
}

/** As the function `admit` reads it. */
function mostOf({ user, all }: MostTaken = {}): object {
  const said = ({ sandboxes, memoryMiB, vcpus, diskMiB }: Partial<Taken>): object => ({
    ...{ sandboxes, memory_mib: memoryMiB, vcpus, disk_mib: diskMiB },
  });
  return { ...(user && { user: said(user) }), ...(all && { all: said(all) }) };
}

function refusalOf(error: unknown, { name }: Claim): unknown {
  const state = sqlState(error);
  const { constraint, detail } = detailOf(error);
  if (state === OVER) {
    const { has, most } = JSON.parse(detail) as { has: number; most: number };
    const reason = "max_sandboxes_per_owner";
    const { message, remedy } = explain({ reason, activeOwnerSandboxes: has, maxOwnerSandboxes: most });
    return new StacyError("limit", message, { phase: "admission", remedy, data: { reason } });
  }
  if (state !== UNIQUE) return error;
  if (constraint === KEYS_INDEX) {
    return new StacyError("unavailable", "another node makes a sandbox for this idempotency key", {
      cause: error,
      phase: "claim",
      remedy: "ask again: it is answered with that one",
      data: { retryAfterMs: 1_000 },
    });
  }
  return new StacyError("conflict", `the name ${name} is that of another sandbox in the fleet`, {
    remedy: `choose another one, or remove that sandbox: \`stacyvm rm ${name}\``,
  });
}

function ownership(row: Row): Ownership {
  return {
    ...{ sandboxId: row.id, nodeId: row.node_id, epoch: Number(row.epoch), owner: row.owner },
    ...(row.name === null ? {} : { name: row.name }),
    ...{ state: row.state, image: row.image, memoryMiB: Number(row.memory_mib), vcpus: Number(row.vcpus) },
    ...{ diskMiB: Number(row.disk_mib), createdAt: Number(row.created_at), expiresAt: Number(row.expires_at) },
  };
}
