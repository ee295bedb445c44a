/**
 * One connection to SQLite, in WAL mode with `synchronous=NORMAL`: a commit survives the death of this process at any moment (the
 * pages are the kernel's) and costs no fsync. What must survive the host's death too calls `sync` afterwards.
 *
 * Any statement may fail (disk full, locked by another program, read-only, damaged). Then it throws a typed error, no transaction
 * stays open, and the next call finds the connection as it was.
 */
import { chmodSync, closeSync, existsSync, openSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { StacyError } from "../host/error.ts";
import { DatabaseCheck } from "./database-check.ts";
import { MIGRATIONS } from "./migrations.ts";

export type Value = string | number | null;
export type Row = Record<string, unknown>;

/** While it opens there is nothing else to do; later, who meets a lock comes back (store.ts) and holds up nobody. */
const OPEN_BUSY_MS = 5_000;
const MODE = 0o600;
const OTHERS = 0o077;
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;

export class Database {
  readonly #db: DatabaseSync;
  readonly #path: string | undefined;
  readonly #check: DatabaseCheck | undefined;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * Opens or creates, and migrates forward.
   * @throws StacyError `corrupt`, `no-space`, `unavailable` (locked, not writable), `conflict` (made by a newer version)
   */
  constructor(path: string) {
    let db: DatabaseSync | undefined;
    try {
      if (path !== ":memory:") keepToOwner(path);
      db = new DatabaseSync(path, { timeout: OPEN_BUSY_MS });
      db.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;");
      migrate(db);
      db.exec("PRAGMA busy_timeout=0;");
    } catch (error) {
      closeQuietly(db);
      throw error instanceof StacyError ? error : databaseError(error, `cannot open the database ${path}`);
    }
    this.#db = db;
    this.#path = db.location() ?? undefined;
    this.#check = this.#path === undefined ? undefined : new DatabaseCheck(this.#path);
  }

  /** @throws StacyError as a write does */
  all(sql: string, values: Value[] = []): Row[] {
    return this.#try("read", () => this.#statement(sql).all(...values));
  }

  /** @throws StacyError as a write does */
  get(sql: string, values: Value[] = []): Row | undefined {
    return this.#try("read", () => this.#statement(sql).get(...values));
  }

  /**
   * All of it, or nothing.
   * @param work calls `run` and does nothing else that could not be done again
   * @throws StacyError `no-space`, `unavailable`, `corrupt`, `internal`
   */
  transaction(work: (run: (sql: string, values: Value[]) => void) => void): void {
    this.#try("write", () => {
      this.#rollBack(); // one that could not be rolled back when it failed
      this.#db.exec("BEGIN IMMEDIATE");
      try {
        work((sql, values) => void this.#statement(sql).run(...values));
        this.#db.exec("COMMIT");
      } catch (error) {
        try {
          this.#rollBack();
        } catch {} // the next transaction tries again; this error is the one that says why
        throw error;
      }
    });
  }

  /** What was committed is on disk afterwards. */
  async sync(): Promise<void> {
    if (this.#path === undefined) return;
    try {
      // In WAL mode a transaction is durable when the log is; the log itself was made when the database was opened.
      await using file = await open(`${this.#path}-wal`, "r");
      await file.sync();
    } catch (error) {
      throw databaseError(error, "the database could not be brought to disk");
    }
  }

  /** Looks for damage, beside this thread. @returns `ok`, or what is wrong */
  check(): Promise<string> {
    return this.#check?.run() ?? Promise.resolve("ok");
  }

  close(): void {
    this.#statements.clear();
    this.#db.close();
  }

  #rollBack(): void {
    if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #try<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw databaseError(error, `the database refused a ${what}`);
    }
  }
}

/** Another program holds it for a moment: worth coming back. */
export function isBusy(error: unknown): boolean {
  const code = resultCode(error instanceof StacyError ? error.cause : error);
  return code === SQLITE_BUSY || code === SQLITE_LOCKED;
}

/** SQLite's primary result code (sqlite.org/rescode.html); extended ones carry it in their lowest byte. */
function resultCode(error: unknown): number | undefined {
  const { errcode } = (error ?? {}) as { errcode?: unknown };
  return typeof errcode === "number" ? errcode & 0xff : undefined;
}

function databaseError(error: unknown, doing: string): StacyError {
  const message = `${doing}: ${(error as Error).message}`;
  const detail = { phase: "database", cause: error };
  switch (resultCode(error)) {
    case 13: // FULL
      return new StacyError("no-space", message, { ...detail, remedy: "free disk space; nothing needs a restart" });
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return new StacyError("unavailable", message, {
        ...detail,
        remedy: "end the program that holds the database, for example a backup or a sqlite3 shell",
      });
    case 3: // PERM
    case 8: // READONLY
    case 10: // IOERR
    case 14: // CANTOPEN
    case 23: // AUTH
      return new StacyError("unavailable", message, {
        ...detail,
        remedy: "see that its file and its directory can be written, and that the disk is healthy",
      });
    case 11: // CORRUPT
    case 26: // NOTADB
      return new StacyError("corrupt", message, {
        ...detail,
        remedy: "stop the server and restore the database from a backup, or repair it with `sqlite3 FILE .recover`",
      });
    default:
      return new StacyError("internal", message, detail);
  }
}

/**
 * It holds hashes of keys and what ran, and SQLite gives what it makes beside it the same mode.
 * @throws StacyError `permission` for one that is open to other users and cannot be closed to them
 */
function keepToOwner(path: string): void {
  const found = ["", "-wal", "-shm"].map((each) => `${path}${each}`).filter((each) => existsSync(each));
  if (!found.includes(path)) {
    try {
      closeSync(openSync(path, "a", MODE));
    } catch {} // SQLite says why it cannot be
  }
  for (const each of found) {
    if ((statSync(each).mode & OTHERS) === 0) continue;
    try {
      chmodSync(each, MODE);
    } catch (cause) {
      throw new StacyError("permission", `${each} is open to other users of this host, and cannot be closed to them`, {
        phase: "database",
        cause,
        remedy: `give it to the user of the server, mode ${MODE.toString(8)}`,
      });
    }
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

function closeQuietly(db: DatabaseSync | undefined): void {
  try {
    db?.close();
  } catch {} // it never came to be open
}
