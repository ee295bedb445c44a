/**
 * Keys that servers make, agreed upon in the fleet's database: one that is made on a node lets in on all of them, and one that is revoked on
 * any lets in nowhere. Each server keeps them in its own database too, and goes on letting in by those while the fleet's is away; what
 * changes them then is refused, except a revocation: that holds here at once, and everywhere when the database is back.
 */
import type { KeyRecord, KeyStore, Keys } from "../access/keys.ts";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { Log } from "../sandboxes/observer.ts";
import type { Store } from "../sandboxes/store.ts";
import type { FleetDatabase } from "./database/database.ts";
import { counted, type Revision, revisionOf } from "./database/revisions.ts";
import { closed } from "./registry.ts";

export const KEYS_CHANNEL = "stacyvm_keys";
/** In this server's own database: the fleet that its keys are of. */
const META = "fleet-of-keys";

const COUNTED = counted("keys", KEYS_CHANNEL);

interface Row {
  id: string;
  version: string;
  data: Omit<KeyRecord, "lastUsedAt">;
  last_used_at: string | null;
}

export class FleetKeys implements KeyStore {
  readonly #database: FleetDatabase;
  readonly #local: KeyStore & Pick<Store, "meta" | "putMeta">;
  readonly #log: Log;
  #keys: Keys | undefined;
  /** As the database has them, by id; absent: it was not asked yet. */
  #known: Map<string, { version: number; said: string }> | undefined;
  #revision = "";
  /** A revocation that the database has not heard of. */
  #pending = false;
  /** Reading and writing, one after another: what is read must not undo what was written since. */
  readonly #turns = new SerialQueue();

  constructor(database: FleetDatabase, local: KeyStore & Pick<Store, "meta" | "putMeta">, log: Log) {
    this.#database = database;
    this.#local = local;
    this.#log = log;
  }

  /** Those that are told what others have changed. */
  follow(keys: Keys): void {
    this.#keys = keys;
    this.#database.listen(KEYS_CHANNEL, () => {
      if (this.#known === undefined) return; // the first comparison is the server's joining
      this.sync().catch((error: unknown) =>
        this.#log.debug({ phase: "fleet", err: error }, "keys are read with the next heartbeat"),
      );
    });
  }

  keys<T>(): T[] {
    return this.#local.keys<T>();
  }

  /** @throws StacyError `unavailable`, `conflict` when another server has changed it */
  async putKey(record: KeyRecord): Promise<void> {
    const said = saidOf(record);
    const known = this.#known?.get(record.id);
    if (known?.said === said) {
      // Its use alone.
      await this.#local.putKey(record);
      const { lastUsedAt = 0 } = record;
      await this.#database
        .query("UPDATE stacyvm.keys SET last_used_at = greatest(last_used_at, $2) WHERE id = $1", [
          record.id,
          lastUsedAt,
        ])
        .catch(() => {}); // the next use says it
      return;
    }
    await this.#turns.run(() => this.#put(record, said));
  }

  async #put(record: KeyRecord, said: string): Promise<void> {
    if (record.revokedAt !== undefined) {
      this.#pending = true;
      await this.#local.putKey(record);
      await this.#revoke(record);
      this.#pending = false;
      return;
    }
    if (this.#known === undefined) throw closed("this server has not joined its fleet yet", "try again in a moment");
    const version = await this.#write(record, said, this.#known.get(record.id)?.version ?? 0);
    if (version === undefined) {
      await this.#sync();
      throw new StacyError("conflict", `the key ${record.name} was changed on another server meanwhile`, {
        remedy: "look at it and try again",
      });
    }
    await this.#local.putKey(record);
  }

  async deleteKey(id: string): Promise<void> {
    await this.#local.deleteKey(id);
    await this.#database.query(`${COUNTED} DELETE FROM stacyvm.keys USING told WHERE id = $1`, [id]);
  }

  /** @returns its version now; absent: another one has written it */
  async #write(record: KeyRecord, said: string, known: number): Promise<number | undefined> {
    const { rows } = await this.#database.query<{ version: string }>(
      `${COUNTED} INSERT INTO stacyvm.keys AS k (id, data) SELECT $1, $2::json FROM told
       ON CONFLICT (id) DO UPDATE SET data = excluded.data, version = k.version + 1 WHERE k.version = $3 RETURNING version`,
      [record.id, said, known],
    );
    const [row] = rows;
    if (row === undefined) return undefined;
    this.#known?.set(record.id, { version: Number(row.version), said });
    return Number(row.version);
  }

  /** Whatever else was changed of it: nothing brings it back. */
  async #revoke(record: KeyRecord): Promise<void> {
    const said = saidOf(record);
    const { rows } = await this.#database.query<{ version: string }>(
      `${COUNTED} INSERT INTO stacyvm.keys AS k (id, data) SELECT $1, $2::json FROM told
       ON CONFLICT (id) DO UPDATE SET data = excluded.data, version = k.version + 1 RETURNING version`,
      [record.id, said],
    );
    this.#known?.set(record.id, { version: Number(rows[0]?.version), said });
  }

  /** Takes over what the database says, where that has changed. @param known absent: it is asked for @throws StacyError `unavailable` */
  sync(known?: Revision): Promise<void> {
    return this.#turns.run(() => this.#sync(known));
  }

  async #sync(known?: Revision): Promise<void> {
    const keys = this.#keys;
    if (keys === undefined) return;
    const { n, fleet } = known ?? (await revisionOf(this.#database, "keys"));
    if (n === this.#revision && !this.#pending) return;
    const found = await this.#read();
    const here = keys.list();
    // Keys of a server that was alone until now come along; later one that the fleet does not know is one that it has removed.
    const joins = this.#local.meta(META) !== fleet;
    for (const record of here) {
      const there = found.get(record.id);
      if (record.revokedAt !== undefined && there !== undefined && there.revokedAt === undefined) {
        await this.#revoke(record);
        found.set(record.id, record);
      } else if (there === undefined && joins) {
        await this.#write(record, saidOf(record), 0);
        found.set(record.id, record);
      }
    }
    this.#pending = false;
    for (const record of here) if (!found.has(record.id)) await this.#local.deleteKey(record.id);
    const before = new Map(here.map((record) => [record.id, saidOf(record)]));
    for (const record of found.values()) if (before.get(record.id) !== saidOf(record)) await this.#local.putKey(record);
    if (joins) await this.#local.putMeta(META, fleet);
    keys.replace([...found.values()]);
    // Of before the reading: what was written since is read with the next look.
    this.#revision = n;
  }

  async #read(): Promise<Map<string, KeyRecord>> {
    const { rows } = await this.#database.query<Row>("SELECT id, version, data, last_used_at FROM stacyvm.keys");
    const records = new Map<string, KeyRecord>();
    const known = new Map<string, { version: number; said: string }>();
    for (const { id, version, data, last_used_at } of rows) {
      const record: KeyRecord = { ...data, ...(last_used_at === null ? {} : { lastUsedAt: Number(last_used_at) }) };
      records.set(id, record);
      known.set(id, { version: Number(version), said: saidOf(record) });
    }
    this.#known = known;
    return records;
  }
}

/** All of it but its use, in one order of fields. */
function saidOf({ lastUsedAt: _, ...record }: KeyRecord): string {
  return JSON.stringify(Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1))));
}
