/**
 * Rows that all servers of a fleet have alike: templates, and quotas. The fleet's database has the truth; each server keeps a copy in its own
 * database and reads it from memory, so reading needs nobody. A change is written there first, and refused while it is away, or when another
 * server has changed the same row meanwhile.
 */
import { isDeepStrictEqual } from "node:util";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { Store } from "../sandboxes/store.ts";
import type { FleetDatabase } from "./database/database.ts";
import { counted, type Revision, revisionOf } from "./database/revisions.ts";
import { closed } from "./registry.ts";

const MOST_WRITTEN = 10_000;
export const ROWS_CHANNEL = "stacyvm_rows";

/** `T`: a row; `K`: what of it names it. */
export interface SharedRowsParts<T extends K, K> {
  database: FleetDatabase;
  kind: "templates" | "quotas";
  /** One row's name within its kind. */
  keyOf(row: K): string;
  /** This server's copies. */
  local: { all(): T[]; put(row: T): Promise<void>; remove(row: K): Promise<void> } & {
    meta: Pick<Store, "meta" | "putMeta">;
  };
}

export class SharedRows<T extends object & K, K> {
  readonly #parts: SharedRowsParts<T, K>;
  /** Versions in the database by key; absent: it was not asked yet. */
  #known: Map<string, number> | undefined;
  /** Versions that this server wrote itself; 0: it removed the row. */
  readonly #written = new Map<string, number>();
  #revision = "";
  #apply: ((all: T[]) => void) | undefined;
  /** Reading and writing, one after another: what is read must not undo what was written since. */
  readonly #turns = new SerialQueue();

  constructor(parts: SharedRowsParts<T, K>) {
    this.#parts = parts;
  }

  /** @param apply is told what all are now, whenever others have changed them */
  follow(apply: (all: T[]) => void): void {
    this.#apply = apply;
  }

  /** @throws StacyError `unavailable`, `conflict` */
  async put(row: T): Promise<void> {
    const { kind, keyOf, local, database } = this.#parts;
    const key = keyOf(row);
    const asked = this.#joined().get(key) ?? 0;
    return this.#turns.run(async () => {
      const known = await this.#asAsked(key, asked);
      const { rows } = await database.query<{ version: string }>(
        `${this.#counted()} INSERT INTO stacyvm.shared AS s (kind, key, data) SELECT $1, $2, $3::json FROM told
         ON CONFLICT (kind, key) DO UPDATE SET data = excluded.data, version = s.version + 1 WHERE s.version = $4 RETURNING version`,
        [kind, key, JSON.stringify(row), known],
      );
      const [written] = rows;
      if (written === undefined) throw await this.#changed();
      this.#known?.set(key, Number(written.version));
      this.#wrote(key, Number(written.version));
      await local.put(row);
    });
  }

  /** @throws StacyError `unavailable`, `conflict` */
  async remove(row: K): Promise<void> {
    const { kind, keyOf, local, database } = this.#parts;
    const key = keyOf(row);
    const asked = this.#joined().get(key) ?? 0;
    return this.#turns.run(async () => {
      const known = await this.#asAsked(key, asked);
      const { count } = await database.query(
        `${this.#counted()} DELETE FROM stacyvm.shared USING told WHERE kind = $1 AND key = $2 AND version = $3`,
        [kind, key, known],
      );
      if (count === 0) throw await this.#changed();
      this.#known?.delete(key);
      this.#wrote(key, 0);
      await local.remove(row);
    });
  }

  /** Takes over what the database says, where that has changed. @param known absent: it is asked for @throws StacyError `unavailable` */
  sync(known?: Revision): Promise<void> {
    return this.#turns.run(() => this.#sync(known));
  }

  async #sync(read?: Revision): Promise<void> {
    const { kind, keyOf, local, database } = this.#parts;
    const { n, fleet } = read ?? (await revisionOf(database, kind));
    if (n === this.#revision) return;
    const { rows } = await database.query<{ key: string; version: string; data: T }>(
      "SELECT key, version, data FROM stacyvm.shared WHERE kind = $1",
      [kind],
    );
    const known = new Map(rows.map(({ key, version }) => [key, Number(version)]));
    const found = new Map(rows.map(({ key, data }) => [key, data]));
    const here = new Map(local.all().map((row) => [keyOf(row), row]));
    // What a server had that was alone until now comes along; later what the fleet does not know was removed there.
    const joins = local.meta.meta(`fleet-of-${kind}`) !== fleet;
    for (const [key, row] of joins ? here : []) {
      if (found.has(key)) continue;
      await database.query(
        `${this.#counted()} INSERT INTO stacyvm.shared (kind, key, data) SELECT $1, $2, $3::json FROM told ON CONFLICT DO NOTHING`,
        [kind, key, JSON.stringify(row)],
      );
      known.set(key, 1);
      found.set(key, row);
    }
    for (const [key, row] of here) if (!found.has(key)) await local.remove(row);
    for (const [key, row] of found) if (!isDeepStrictEqual(here.get(key), row)) await local.put(row);
    if (joins) await local.meta.putMeta(`fleet-of-${kind}`, fleet);
    this.#known = known;
    this.#apply?.([...found.values()]);
    // Of before the reading: what was written since is read with the next look.
    this.#revision = n;
  }

  /**
   * What another server has made of a row between the question and its turn was not known to whoever asks; what this one has, was.
   * @returns the version that is there now @throws StacyError `conflict`
   */
  async #asAsked(key: string, asked: number): Promise<number> {
    const known = this.#joined().get(key) ?? 0;
    if (known !== asked && known !== this.#written.get(key)) throw await this.#changed();
    return known;
  }

  #wrote(key: string, version: number): void {
    // One that is forgotten costs a change that comes right behind another of this server's a refusal.
    if (this.#written.size >= MOST_WRITTEN) this.#written.clear();
    this.#written.set(key, version);
  }

  /** A look at what another server has made of it. @returns what to tell whoever asked */
  async #changed(): Promise<StacyError> {
    await this.#sync();
    return new StacyError("conflict", "it was changed on another server meanwhile", {
      remedy: "look at it and try again",
    });
  }

  #joined(): Map<string, number> {
    if (this.#known !== undefined) return this.#known;
    throw closed("this server has not joined its fleet yet", "try again in a moment");
  }

  #counted(): string {
    return counted(this.#parts.kind, ROWS_CHANNEL);
  }
}
