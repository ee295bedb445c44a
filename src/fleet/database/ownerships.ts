/**
 * Who has a sandbox. Each row has an epoch of its owner, and every write says under which it is made: one under an older epoch, or of
 * another node, changes nothing. Names are an owner's own in the whole fleet, held by an index.
 */
import { StacyError } from "../../host/error.ts";
import type { Ownership, OwnershipFilter } from "../contract.ts";
import { type FleetDatabase, sqlState } from "./database.ts";

const UNIQUE = "23505";

interface Row {
  id: string;
  node_id: string;
  /** PostgreSQL's `bigint`s come as text. */
  epoch: string;
  owner: string;
  name: string | null;
  state: string;
  image: string;
  created_at: string;
  expires_at: string;
}

const COLUMNS = "id, node_id, epoch, owner, name, state, image, created_at, expires_at";

/** What a node says of a sandbox of its own. */
export type Claim = Omit<Ownership, "nodeId" | "epoch">;

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
   * This node has it from now on; asked twice, the first epoch stays.
   * @throws StacyError `conflict` for a name that another one of its owner has; `unavailable` when another node has that id, this
   *   node is none of the fleet any more, or the database is away
   */
  async claim(claim: Claim): Promise<Ownership> {
    const { sandboxId, owner, name, state, image, createdAt, expiresAt } = claim;
    const values = [
      sandboxId,
      this.#nodeId,
      this.#incarnation,
      owner,
      name ?? null,
      state,
      image,
      createdAt,
      expiresAt,
    ];
    try {
      const { rows } = await this.#database.query<Row>(
        `INSERT INTO stacyvm.sandboxes AS s (id, node_id, owner, name, state, image, created_at, expires_at)
         SELECT $1, n.id, $4, $5, $6, $7, $8::bigint, $9::bigint FROM stacyvm.nodes n
           WHERE n.id = $2 AND n.incarnation = $3 AND n.removed_at IS NULL FOR KEY SHARE OF n
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at WHERE s.node_id = excluded.node_id
         RETURNING ${COLUMNS}`,
        values,
      );
      const [row] = rows;
      if (row !== undefined) return ownership(row);
    } catch (error) {
      if (sqlState(error) !== UNIQUE) throw error;
      throw new StacyError("conflict", `the name ${name} is that of another sandbox in the fleet`, {
        remedy: `choose another one, or remove that sandbox: \`stacyvm rm ${name}\``,
      });
    }
    throw new StacyError("unavailable", `this server cannot have the sandbox ${sandboxId} in the fleet`, {
      remedy: "try again; `stacyvm node ls` shows whether this server was removed from the fleet",
    });
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

function ownership(row: Row): Ownership {
  return {
    ...{ sandboxId: row.id, nodeId: row.node_id, epoch: Number(row.epoch), owner: row.owner },
    ...(row.name === null ? {} : { name: row.name }),
    ...{ state: row.state, image: row.image, createdAt: Number(row.created_at), expiresAt: Number(row.expires_at) },
  };
}
