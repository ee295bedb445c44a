/**
 * What is kept: rows, and when they are written.
 *
 * Writes are grouped: all that are asked for in one turn of the event loop become one transaction at its end. Whoever must know
 * awaits the promise; it is rejected when the row is not in the database. History and events go with the next transaction, 50 ms
 * later at most.
 *
 * The database may fail (disk full, locked, damaged). What waits for it then does not wait for ever:
 * - a lock of another program is waited for, beside everything else, for 5 s;
 * - any other failure is the answer of all calls in that transaction;
 * - a sandbox's row is written again until it is there, since its newest state stays true whoever was told of the failure;
 * - history and events stay in memory and are read from there, the newest 10,000 of each.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { z } from "zod";
import { asStacyError, StacyError } from "../host/error.ts";
import { Database, isBusy, type Row, type Value } from "./database.ts";
import { type Log, silentLog } from "./observer.ts";
import { prune } from "./pruning.ts";
import type { CheckpointRecord, ExecRecord, OwnerQuota, SandboxRecord, SecretRecord, Template } from "./record.ts";
import {
  auditRow,
  checkpointRow,
  execRow,
  keyRow,
  quotaRow,
  sandboxRow,
  secretRow,
  templateRow,
} from "./row-schemas.ts";

const LATER_MS = 50;
const RETRY_MS = 1_000;
const BUSY_WAIT_MS = 5_000;
const BUSY_STEP_MS = 20;
const KEEP_UNWRITTEN = 10_000;
const PRUNE_EVERY = 1_000;

export interface StoredEvent {
  id: number;
  data: string;
  /** Absent: the server's own. */
  owner?: string;
}

interface Write {
  sql: string;
  values: Value[];
}

const PUT_SANDBOX =
  "INSERT INTO sandboxes VALUES (?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET state=excluded.state, updated_at=excluded.updated_at, data=excluded.data";
const LIVE = "SELECT id, data FROM sandboxes WHERE state <> 'destroyed' ORDER BY created_at";
const ADD_EXEC = "INSERT INTO execs (sandbox_id, data) VALUES (?,?)";
const ADD_EVENT = "INSERT OR IGNORE INTO events (id, data, owner) VALUES (?,?,?)";

export class Store implements Disposable {
  readonly #db: Database;
  readonly #log: Log;
  /** The open transaction: its writes, and what tells who waits. */
  #writes: Write[] = [];
  #commit: PromiseWithResolvers<void> | undefined;
  /** Sandboxes whose newest state is not in the database yet: the values of `PUT_SANDBOX` by id. */
  readonly #sandboxes = new Map<string, Value[]>();
  #execs: ExecRecord[] = [];
  #events: StoredEvent[] = [];
  #timer: NodeJS.Timeout | undefined;
  #failing: StacyError | undefined;
  #sincePrune = 0;
  #closed = false;

  /** Opens or creates. @throws StacyError as `Database` does */
  constructor(path: string, log: Log = silentLog) {
    this.#log = log;
    this.#db = new Database(path);
  }

  // Sandboxes

  /** Ids of those whose rows cannot be read. What belongs to them must stay until somebody has repaired the rows. */
  damagedSandboxes(): string[] {
    const readable = new Set(this.liveSandboxes().map(({ id }) => id));
    return this.#db.all(LIVE).flatMap(({ id }) => (readable.has(String(id)) ? [] : [String(id)]));
  }

  /** When it is rejected, the row is still tried again until this state or a newer one is there. */
  putSandbox(record: SandboxRecord, now: number): Promise<void> {
    if (this.#closed) return this.#refuse();
    this.#sandboxes.set(record.id, [record.id, record.state, record.createdAt, now, JSON.stringify(record)]);
    return this.#committing();
  }

  /** All that were not destroyed. */
  liveSandboxes(): SandboxRecord[] {
    return this.#records(sandboxRow, LIVE);
  }

  /** Settles when its newest state is in the database, also after an attempt that failed. */
  sandboxWritten(id: string): Promise<void> {
    return this.#sandboxes.has(id) ? this.#committing() : Promise.resolve();
  }

  /** What was committed until now outlives the host. @throws StacyError as a write does */
  sync(): Promise<void> {
    return this.#db.sync();
  }

  hasSandbox(id: string): boolean {
    return this.#sandboxes.has(id) || this.#db.get("SELECT 1 AS one FROM sandboxes WHERE id = ?", [id]) !== undefined;
  }

  /**
   * What has become of a sandbox that `asker` has offered. `ended`: it was here since then (ms since 1970), not only on its way, and is no more.
   * One that left to the asker itself is none: that was an earlier stay.
   */
  fateOf(id: string, since: number, asker: string): "here" | "arriving" | "ended" | "none" {
    const sql =
      "SELECT state, updated_at, data ->> '$.transit.is' AS transit, data ->> '$.transit.node' AS other FROM sandboxes WHERE id = ?";
    const row = this.#db.get(sql, [id]);
    if (row === undefined) return "none";
    const over = row.state === "destroyed" || row.state === "expired";
    if (row.transit === "arriving") return over ? "none" : "arriving";
    if (!over) return "here";
    const leftBefore = row.transit === "leaving" && row.other === asker;
    return leftBefore || Number(row.updated_at) < since ? "none" : "ended";
  }

  /** Whose it is or was, as far as the database knows it. */
  ownerOfSandbox(id: string): string | undefined {
    const unwritten = this.#sandboxes.get(id)?.at(-1);
    if (unwritten !== undefined) return (JSON.parse(String(unwritten)) as SandboxRecord).owner;
    const row = this.#db.get("SELECT data ->> '$.owner' AS owner FROM sandboxes WHERE id = ? AND json_valid(data)", [
      id,
    ]);
    return row?.owner as string | undefined;
  }

  // Templates, quotas, checkpoints: on disk when the promise is fulfilled

  templates(): Template[] {
    return this.#records(templateRow, "SELECT data FROM templates ORDER BY owner, name");
  }

  putTemplate(template: Template): Promise<void> {
    const { owner, name } = template;
    return this.#durable("INSERT OR REPLACE INTO templates VALUES (?,?,?)", [owner, name, JSON.stringify(template)]);
  }

  deleteTemplate(owner: string, name: string): Promise<void> {
    return this.#durable("DELETE FROM templates WHERE owner = ? AND name = ?", [owner, name]);
  }

  secrets(): SecretRecord[] {
    return this.#records(secretRow, "SELECT data FROM secrets ORDER BY owner, name");
  }

  putSecret(record: SecretRecord): Promise<void> {
    const { owner, name, sandbox } = record;
    const stored = sandbox === undefined ? name : `${sandbox}/${name}`;
    return this.#durable("INSERT OR REPLACE INTO secrets VALUES (?,?,?)", [owner, stored, JSON.stringify(record)]);
  }

  /** @param name of a sandbox's own one: behind its id and a slash */
  deleteSecret(owner: string, name: string): Promise<void> {
    return this.#durable("DELETE FROM secrets WHERE owner = ? AND name = ?", [owner, name]);
  }

  quotas(): OwnerQuota[] {
    return this.#records(quotaRow, "SELECT data FROM quotas ORDER BY owner, owner_id");
  }

  putQuota(quota: OwnerQuota): Promise<void> {
    const { owner, ownerId } = quota;
    return this.#durable("INSERT OR REPLACE INTO quotas VALUES (?,?,?)", [owner, ownerId, JSON.stringify(quota)]);
  }

  deleteQuota(owner: string, ownerId: string): Promise<void> {
    return this.#durable("DELETE FROM quotas WHERE owner = ? AND owner_id = ?", [owner, ownerId]);
  }

  checkpoints(): CheckpointRecord[] {
    return this.#records(checkpointRow, "SELECT data FROM checkpoints ORDER BY id");
  }

  /** Also one whose row cannot be read. */
  hasCheckpoint(id: string): boolean {
    return this.#db.get("SELECT 1 FROM checkpoints WHERE id = ?", [id]) !== undefined;
  }

  /** A new one. */
  addCheckpoint(record: CheckpointRecord): Promise<void> {
    const { id, sandboxId } = record;
    return this.#durable("INSERT INTO checkpoints VALUES (?,?,?)", [id, sandboxId, JSON.stringify(record)]);
  }

  putCheckpoint(record: CheckpointRecord): Promise<void> {
    const { id, sandboxId } = record;
    return this.#durable("INSERT OR REPLACE INTO checkpoints VALUES (?,?,?)", [id, sandboxId, JSON.stringify(record)]);
  }

  deleteCheckpoint(id: string): Promise<void> {
    return this.#durable("DELETE FROM checkpoints WHERE id = ?", [id]);
  }

  // History

  addExec(record: ExecRecord): void {
    if (this.#closed) return;
    this.#execs.push(record);
    this.#soon(LATER_MS);
  }

  /** Newest first. */
  execs(sandboxId: string, limit: number): ExecRecord[] {
    const unwritten = this.#execs.filter((record) => record.sandboxId === sandboxId).reverse();
    if (unwritten.length >= limit) return unwritten.slice(0, limit);
    const stored = this.#records<ExecRecord>(
      execRow,
      "SELECT data FROM execs WHERE sandbox_id = ? ORDER BY id DESC LIMIT ?",
      [sandboxId, limit - unwritten.length],
    );
    return [...unwritten, ...stored];
  }

  addEvent(event: StoredEvent): void {
    if (this.#closed) return;
    this.#events.push(event);
    this.#soon(LATER_MS);
  }

  /** In order, after `id`; with an owner, only that one's. */
  eventsAfter(id: number, limit: number, owner?: string): StoredEvent[] {
    const rows =
      owner === undefined
        ? this.#db.all("SELECT id, data FROM events WHERE id > ? ORDER BY id LIMIT ?", [id, limit])
        : this.#db.all("SELECT id, data FROM events WHERE owner = ? AND id > ? ORDER BY id LIMIT ?", [
            owner,
            id,
            limit,
          ]);
    const unwritten = this.#events.filter((event) => event.id > id && (owner === undefined || event.owner === owner));
    return [...(rows as unknown as StoredEvent[]), ...unwritten].slice(0, limit);
  }

  /** In order, the newest before `id`; with an owner, only that one's. */
  eventsBefore(id: number, limit: number, owner?: string): StoredEvent[] {
    const unwritten = this.#events.filter((event) => event.id < id && (owner === undefined || event.owner === owner));
    if (unwritten.length >= limit) return unwritten.slice(-limit);
    const left = limit - unwritten.length;
    const rows =
      owner === undefined
        ? this.#db.all("SELECT id, data FROM events WHERE id < ? ORDER BY id DESC LIMIT ?", [id, left])
        : this.#db.all("SELECT id, data FROM events WHERE owner = ? AND id < ? ORDER BY id DESC LIMIT ?", [
            owner,
            id,
            left,
          ]);
    return [...(rows as unknown as StoredEvent[]).reverse(), ...unwritten];
  }

  // Who may call, and what administrators did: the access layer's own records

  keys<T>(): T[] {
    return this.#records(keyRow, "SELECT data FROM keys ORDER BY id");
  }

  /** On disk when the promise is fulfilled: a revoked key must stay so. */
  putKey(record: { id: string }): Promise<void> {
    return this.#durable("INSERT OR REPLACE INTO keys VALUES (?,?)", [record.id, JSON.stringify(record)]);
  }

  deleteKey(id: string): Promise<void> {
    return this.#durable("DELETE FROM keys WHERE id = ?", [id]);
  }

  addAudit(record: { at: number }): Promise<void> {
    this.#sincePrune += 1;
    return this.#write("INSERT INTO audit (at, data) VALUES (?,?)", [record.at, JSON.stringify(record)]);
  }

  /** Newest first, before `id`. */
  audits<T>(before: number, limit: number): (T & { id: number })[] {
    return this.#db
      .all("SELECT id, data FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?", [before, limit])
      .flatMap((row) => this.#record<T>(auditRow, row).map((entry) => ({ ...entry, id: Number(row.id) })));
  }

  // Small collections: whoever keeps one says what a row must be

  documents<T>(kind: string, schema: z.ZodType<T>): T[] {
    return this.#records(schema, "SELECT data FROM documents WHERE kind = ? ORDER BY id", [kind]);
  }

  putDocument(kind: string, record: { id: string }): Promise<void> {
    return this.#durable("INSERT OR REPLACE INTO documents VALUES (?,?,?)", [kind, record.id, JSON.stringify(record)]);
  }

  deleteDocument(kind: string, id: string): Promise<void> {
    return this.#durable("DELETE FROM documents WHERE kind = ? AND id = ?", [kind, id]);
  }

  // Small facts

  meta(key: string): string | undefined {
    return (this.#db.get("SELECT value FROM meta WHERE key = ?", [key]) as { value: string } | undefined)?.value;
  }

  putMeta(key: string, value: string): Promise<void> {
    return this.#write("INSERT OR REPLACE INTO meta VALUES (?,?)", [key, value]);
  }

  /** Rows by table, for diagnostics. */
  counts(): Record<string, number> {
    const count = (table: string): number =>
      (this.#db.get(`SELECT count(*) AS n FROM ${table}`) as { n: number } | undefined)?.n ?? 0;
    return Object.fromEntries(
      [
        "sandboxes",
        "templates",
        "secrets",
        "quotas",
        "checkpoints",
        "execs",
        "events",
        "keys",
        "audit",
        "documents",
      ].map((table) => [table, count(table)]),
    );
  }

  /** What waits to be written because the last transaction failed, and why it did. */
  get failure(): { message: string; unwritten: number } | undefined {
    if (this.#failing === undefined) return undefined;
    const unwritten = this.#sandboxes.size + this.#execs.length + this.#events.length;
    return { message: this.#failing.message, unwritten };
  }

  /** Finds damage, without holding up anybody. @returns `ok`, or what is wrong */
  check(): Promise<string> {
    return this.#db.check();
  }

  /** Settles when all that was asked for until now is in the database. @throws StacyError when it is not */
  committed(): Promise<void> {
    return this.#commit?.promise ?? Promise.resolve();
  }

  /** Writes what is outstanding and closes; what cannot be written is said in the log. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#flush();
    if (this.#failing !== undefined) this.#log.error(this.failure ?? {}, "the database was closed with rows unwritten");
    this.#db.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  // Writing

  #write(sql: string, values: Value[]): Promise<void> {
    if (this.#closed) return this.#refuse();
    this.#writes.push({ sql, values });
    return this.#committing();
  }

  async #durable(sql: string, values: Value[]): Promise<void> {
    await this.#write(sql, values);
    await this.sync();
  }

  #refuse(): Promise<never> {
    return Promise.reject(new StacyError("unavailable", "the database is closed"));
  }

  /** The promise of the transaction at the end of this turn. */
  #committing(): Promise<void> {
    if (this.#commit === undefined) {
      const commit = Promise.withResolvers<void>();
      commit.promise.catch(() => {}); // whoever asked for a write may not wait for it
      this.#commit = commit;
      setImmediate(() => void this.#run(commit));
    }
    return this.#commit.promise;
  }

  /** Comes back while another program holds the database; what is asked for meanwhile joins. */
  async #run(commit: PromiseWithResolvers<void>): Promise<void> {
    const until = performance.now() + BUSY_WAIT_MS;
    while (this.#commit === commit) {
      const error = this.#flush(performance.now() < until);
      if (error === undefined) return;
      await sleep(BUSY_STEP_MS);
    }
  }

  /**
   * Writes all there is, and settles the promise.
   * @param patient leaves everything as it was when the database is locked. @returns why, then
   */
  #flush(patient = false): StacyError | undefined {
    const writes = this.#writes;
    const sandboxes = [...this.#sandboxes];
    const execs = this.#execs.length;
    const events = this.#events.length;
    try {
      if (writes.length + sandboxes.length + execs + events > 0) {
        this.#db.transaction((run) => {
          for (const { sql, values } of writes) run(sql, values);
          for (const [, values] of sandboxes) run(PUT_SANDBOX, values);
          for (const record of this.#execs) run(ADD_EXEC, [record.sandboxId, JSON.stringify(record)]);
          for (const { id, data, owner } of this.#events) run(ADD_EVENT, [id, data, owner ?? null]);
        });
      }
    } catch (thrown) {
      const error = asStacyError(thrown);
      if (patient && isBusy(error)) return error;
      this.#failed(error);
      return undefined;
    }
    for (const [id, values] of sandboxes) if (this.#sandboxes.get(id) === values) this.#sandboxes.delete(id);
    this.#writes = [];
    this.#execs.splice(0, execs);
    this.#events.splice(0, events);
    if (this.#failing !== undefined) this.#log.info({ phase: "database" }, "the database can be written again");
    this.#failing = undefined;
    this.#settle()?.resolve();
    this.#prune(execs + events);
    return undefined;
  }

  #failed(error: StacyError): void {
    this.#writes = []; // their callers are told, and may ask again
    this.#execs.splice(0, this.#execs.length - KEEP_UNWRITTEN);
    this.#events.splice(0, this.#events.length - KEEP_UNWRITTEN);
    // Once, and not for each of the attempts that follow.
    if (this.#failing?.message !== error.message) this.#log.error({ err: error, phase: "database" }, error.message);
    this.#failing = error;
    this.#settle()?.reject(error);
    this.#soon(RETRY_MS);
  }

  #settle(): PromiseWithResolvers<void> | undefined {
    const commit = this.#commit;
    this.#commit = undefined;
    return commit;
  }

  /** For what nobody waits for. */
  #soon(ms: number): void {
    if (this.#closed || this.#timer !== undefined) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        void this.#committing();
      },
      this.#failing === undefined ? ms : RETRY_MS,
    ).unref();
  }

  /** Bounds what grows, once in a while. What this cannot do now it does the next time. */
  #prune(added: number): void {
    this.#sincePrune += added;
    if (this.#sincePrune < PRUNE_EVERY || this.#closed) return;
    this.#sincePrune = 0;
    try {
      prune(this.#db);
    } catch (error) {
      this.#log.warn({ err: error, phase: "database" }, "old rows could not be removed");
    }
  }

  /** Rows that are JSON. One that is damaged is said in the log and left out. */
  #records<T>(schema: z.ZodType, sql: string, values: Value[] = []): T[] {
    return this.#db.all(sql, values).flatMap((row) => this.#record<T>(schema, row));
  }

  #record<T>(schema: z.ZodType, row: Row): T[] {
    try {
      const record: unknown = JSON.parse(String(row.data));
      const { success, error } = schema.safeParse(record);
      if (success) return [record as T];
      throw error;
    } catch (error) {
      this.#log.error({ err: error, row: String(row.data).slice(0, 200), phase: "database" }, "a row is damaged");
      return [];
    }
  }
}
