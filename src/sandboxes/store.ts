/**
 * The database: SQLite in WAL mode with `synchronous=NORMAL`, so that a commit survives the death of this process at any
 * moment (the pages are the kernel's) and costs no fsync.
 *
 * Writes are grouped: all that are asked for in one turn of the event loop become one transaction at its end, and whoever must
 * know awaits `committed()`. History and events can wait longer (`later`): they are written every 50 ms at most.
 */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { StacyError } from "../host/error.ts";
import { MIGRATIONS } from "./migrations.ts";
import type { CheckpointRecord, ExecRecord, OwnerQuota, SandboxRecord, Template } from "./record.ts";

const LATER_MS = 50;
const KEEP_EXECS = 50_000;
const KEEP_EVENTS = 50_000;
const KEEP_DESTROYED = 5_000;
const PRUNE_EVERY = 1_000;

type Value = string | number | null;

export interface StoredEvent {
  id: number;
  data: string;
}

export class Store implements Disposable {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #soon: [string, Value[]][] = [];
  #late: [string, Value[]][] = [];
  #flush: Promise<void> | undefined;
  #lateTimer: NodeJS.Timeout | undefined;
  #sincePrune = 0;
  #closed = false;

  /** Opens or creates, and migrates forward. @throws StacyError `corrupt`, `conflict` (made by a newer version) */
  constructor(path: string) {
    try {
      this.#db = new DatabaseSync(path);
      this.#db.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=5000;");
      migrate(this.#db);
    } catch (error) {
      if (error instanceof StacyError) throw error;
      throw new StacyError("corrupt", `cannot open the database ${path}: ${(error as Error).message}`, {
        cause: error,
        remedy: "restore it from a backup, or move it away to start empty",
      });
    }
  }

  // Sandboxes

  putSandbox(record: SandboxRecord, now: number): Promise<void> {
    return this.#write(
      "INSERT INTO sandboxes VALUES (?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET state=excluded.state, updated_at=excluded.updated_at, data=excluded.data",
      [record.id, record.state, record.createdAt, now, JSON.stringify(record)],
    );
  }

  /** All that were not destroyed. */
  liveSandboxes(): SandboxRecord[] {
    return this.#json("SELECT data FROM sandboxes WHERE state <> 'destroyed' ORDER BY created_at");
  }

  hasSandbox(id: string): boolean {
    return this.#get("SELECT 1 AS one FROM sandboxes WHERE id = ?", [id]) !== undefined;
  }

  // Templates, quotas, checkpoints

  templates(): Template[] {
    return this.#json("SELECT data FROM templates ORDER BY name");
  }

  putTemplate(template: Template): Promise<void> {
    return this.#write("INSERT OR REPLACE INTO templates VALUES (?,?)", [template.name, JSON.stringify(template)]);
  }

  deleteTemplate(name: string): Promise<void> {
    return this.#write("DELETE FROM templates WHERE name = ?", [name]);
  }

  quotas(): OwnerQuota[] {
    return this.#json("SELECT data FROM quotas ORDER BY owner_id");
  }

  putQuota(quota: OwnerQuota): Promise<void> {
    return this.#write("INSERT OR REPLACE INTO quotas VALUES (?,?)", [quota.ownerId, JSON.stringify(quota)]);
  }

  deleteQuota(ownerId: string): Promise<void> {
    return this.#write("DELETE FROM quotas WHERE owner_id = ?", [ownerId]);
  }

  checkpoints(): CheckpointRecord[] {
    return this.#json("SELECT data FROM checkpoints ORDER BY id");
  }

  putCheckpoint(record: CheckpointRecord): Promise<void> {
    return this.#write("INSERT OR REPLACE INTO checkpoints VALUES (?,?,?)", [
      record.id,
      record.sandboxId,
      JSON.stringify(record),
    ]);
  }

  deleteCheckpoint(id: string): Promise<void> {
    return this.#write("DELETE FROM checkpoints WHERE id = ?", [id]);
  }

  // History

  addExec(record: ExecRecord): void {
    this.#later("INSERT INTO execs (sandbox_id, data) VALUES (?,?)", [record.sandboxId, JSON.stringify(record)]);
  }

  /** Newest first. */
  execs(sandboxId: string, limit: number): ExecRecord[] {
    this.#flushNow();
    return this.#json("SELECT data FROM execs WHERE sandbox_id = ? ORDER BY id DESC LIMIT ?", [sandboxId, limit]);
  }

  addEvent(event: StoredEvent): void {
    this.#later("INSERT INTO events VALUES (?,?)", [event.id, event.data]);
  }

  /** In order, after `id`. */
  eventsAfter(id: number, limit: number): StoredEvent[] {
    this.#flushNow();
    return this.#all("SELECT id, data FROM events WHERE id > ? ORDER BY id LIMIT ?", [
      id,
      limit,
    ]) as unknown as StoredEvent[];
  }

  // Small facts

  meta(key: string): string | undefined {
    return (this.#get("SELECT value FROM meta WHERE key = ?", [key]) as { value: string } | undefined)?.value;
  }

  putMeta(key: string, value: string): Promise<void> {
    return this.#write("INSERT OR REPLACE INTO meta VALUES (?,?)", [key, value]);
  }

  /** Rows by table, for diagnostics. */
  counts(): Record<string, number> {
    const count = (table: string): number =>
      (this.#get(`SELECT count(*) AS n FROM ${table}`, []) as { n: number } | undefined)?.n ?? 0;
    return Object.fromEntries(
      ["sandboxes", "templates", "quotas", "checkpoints", "execs", "events"].map((table) => [table, count(table)]),
    );
  }

  /** Finds damage. @returns `ok`, or SQLite's first complaint */
  check(): string {
    return Object.values(this.#get("PRAGMA quick_check(1)", []) ?? { result: "no answer" }).join(" ");
  }

  /** Settles when all that was asked for until now is in the database. */
  committed(): Promise<void> {
    return this.#flush ?? Promise.resolve();
  }

  /** Writes what is outstanding and closes. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#flushNow();
    this.#closed = true;
    clearTimeout(this.#lateTimer);
    this.#statements.clear();
    this.#db.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #write(sql: string, values: Value[]): Promise<void> {
    if (this.#closed) return Promise.reject(new StacyError("unavailable", "the database is closed"));
    this.#soon.push([sql, values]);
    this.#flush ??= new Promise<void>((resolve, reject) => {
      setImmediate(() => {
        try {
          this.#flushNow();
          resolve();
        } catch (error) {
          reject(
            new StacyError("internal", `the database refused a write: ${(error as Error).message}`, { cause: error }),
          );
        }
      });
    });
    return this.#flush;
  }

  #later(sql: string, values: Value[]): void {
    if (this.#closed) return;
    this.#late.push([sql, values]);
    if (this.#late.length >= 1_000) void this.#write("SELECT 1", []).catch(() => {});
    this.#lateTimer ??= setTimeout(() => {
      this.#lateTimer = undefined;
      // The next regular write meets and reports a broken database; history alone must not end the daemon.
      void this.#write("SELECT 1", []).catch(() => {});
    }, LATER_MS).unref();
  }

  #flushNow(): void {
    this.#flush = undefined;
    const work = [...this.#soon, ...this.#late];
    if (work.length === 0 || this.#closed) return;
    const late = this.#late.length;
    this.#soon = [];
    this.#late = [];
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      for (const [sql, values] of work) {
        if (sql !== "SELECT 1") this.#statement(sql).run(...values);
      }
      this.#prune(late);
      this.#db.exec("COMMIT");
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  /** Bounds what grows, once in a while. */
  #prune(added: number): void {
    this.#sincePrune += added;
    if (this.#sincePrune < PRUNE_EVERY) return;
    this.#sincePrune = 0;
    this.#statement("DELETE FROM execs WHERE id <= (SELECT max(id) FROM execs) - ?").run(KEEP_EXECS);
    this.#statement("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?").run(KEEP_EVENTS);
    this.#statement(
      "DELETE FROM sandboxes WHERE state = 'destroyed' AND id NOT IN (SELECT id FROM sandboxes WHERE state = 'destroyed' ORDER BY updated_at DESC LIMIT ?)",
    ).run(KEEP_DESTROYED);
  }

  #json<T>(sql: string, values: Value[] = []): T[] {
    return (this.#all(sql, values) as { data: string }[]).map((row) => JSON.parse(row.data) as T);
  }

  #all(sql: string, values: Value[]): Record<string, unknown>[] {
    return this.#statement(sql).all(...values);
  }

  #get(sql: string, values: Value[]): Record<string, unknown> | undefined {
    return this.#statement(sql).get(...values);
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

function migrate(db: DatabaseSync): void {
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version > MIGRATIONS.length) {
    throw new StacyError("conflict", `the database has schema ${version}, this version knows ${MIGRATIONS.length}`, {
      remedy: "use the newer StacyVM that wrote it, or restore a backup made before the upgrade",
    });
  }
  for (let step = version; step < MIGRATIONS.length; step++) {
    // PRAGMA user_version is part of the transaction: a step happens whole or not at all.
    db.exec(`BEGIN IMMEDIATE; ${MIGRATIONS[step]}; PRAGMA user_version = ${step + 1}; COMMIT;`);
  }
}
