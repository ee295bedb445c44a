/**
 * The fleet's PostgreSQL: statements through a pool, and one connection of its own that listens. Nothing depends on a session's state, so
 * a PgBouncer in its transaction mode may stand between; that one cannot pass on notices, so what they tell is asked for from time to
 * time too (`fleet.listen_url` goes around it). Statements have no names for the same reason: PgBouncer before 1.21 knows none.
 *
 * It may be away at any time. A statement fails then after a few seconds at most, and while the last one failed for that reason, `away` says
 * so and whoever is asked to wait for one can refuse at once.
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import pg from "pg";
import { StacyError } from "../../host/error.ts";
import type { Log } from "../../sandboxes/observer.ts";

const CONNECT_MS = 3_000;
const STATEMENT_MS = 5_000;
const IDLE_MS = 30_000;
/** Between two attempts to listen. */
const LISTEN_AGAIN_MS = 2_000;
/** A listening connection is asked so often whether it is still there. */
const LISTEN_CHECK_MS = 10_000;
/** One that stands still does not say good-bye. */
const END_MS = 500;

/**
 * The words of PostgreSQL for what a retry mends: connection lost, starting, stopping, too many connections, read-only
 * after a fail-over, ended for a time limit, a lock or a deadlock, a password that is being changed.
 */
const TRANSIENT = /^(08|57P|57014|53|25006|40|55P03|28P01)/;

/** Of `sqlState`: no such table, schema, column or function. */
export const GONE: ReadonlySet<string> = new Set(["42P01", "3F000", "42703", "42883"]);

export interface DatabaseOptions {
  url: string;
  /** For notices; absent: `url`. */
  listenUrl?: string | undefined;
  /** Connections at once, beside the one that listens. */
  connections: number;
  log: Log;
}

export interface Rows<T> {
  rows: T[];
  /** Rows that a statement has changed. */
  count: number;
}

export class FleetDatabase implements AsyncDisposable {
  readonly #options: DatabaseOptions;
  readonly #pool: pg.Pool;
  /** All connections that are there, so that none outlives us. */
  readonly #clients = new Set<pg.ClientBase>();
  /** Of the pool, those that nobody uses now. */
  readonly #idle = new Set<pg.ClientBase>();
  readonly #listeners = new Map<string, (payload: string) => void>();
  #listening: pg.Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #listen: Promise<void> = Promise.resolve();
  #away: StacyError | undefined;
  #outages = 0;
  #closed = false;

  /** Connects with the first statement only. @throws StacyError `invalid` for an address that is none */
  constructor(options: DatabaseOptions) {
    this.#options = options;
    this.#pool = new pg.Pool({ ...connection(options.url), max: options.connections, idleTimeoutMillis: IDLE_MS });
    // An idle connection that ends: the next statement has another one.
    this.#pool.on("error", () => {});
    this.#pool.on("connect", (client) => void this.#clients.add(client));
    this.#pool.on("remove", (client) => {
      this.#clients.delete(client);
      this.#idle.delete(client);
    });
    this.#pool.on("acquire", (client) => void this.#idle.delete(client));
    this.#pool.on("release", (_error, client) => {
      if (this.#clients.has(client)) this.#idle.add(client);
    });
  }

  /** Why the last statement was not answered; absent: it was. */
  get away(): StacyError | undefined {
    return this.#away;
  }

  /** How often it went away: statements that were not answered then may have been done, also later. */
  get outages(): number {
    return this.#outages;
  }

  /**
   * One statement, which is a transaction of its own. One whose connection was lost may have been done.
   * @throws StacyError `unavailable` when the database is away; whatever PostgreSQL says, as it says it
   */
  async query<T extends object>(sql: string, values: readonly unknown[] = []): Promise<Rows<T>> {
    try {
      const { rows, rowCount } = await this.#pool.query<T>(sql, [...values]);
      this.#back();
      return { rows, count: rowCount ?? 0 };
    } catch (error) {
      throw await this.#failure(error);
    }
  }

  /** Several statements as one transaction. */
  async transaction<T>(
    work: (query: <R extends object>(sql: string, values?: unknown[]) => Promise<R[]>) => Promise<T>,
  ): Promise<T> {
    let client: pg.PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (error) {
      throw await this.#failure(error);
    }
    let broken: Error | undefined;
    try {
      await client.query("BEGIN");
      const done = await work(async (sql, values = []) => (await client.query(sql, values)).rows);
      await client.query("COMMIT");
      this.#back();
      return done;
    } catch (error) {
      await client.query("ROLLBACK").catch((thrown: Error) => {
        broken = thrown;
      });
      throw await this.#failure(error);
    } finally {
      client.release(broken);
    }
  }

  /** What is told on a channel, from now on and as long as there is a connection. */
  listen(channel: string, told: (payload: string) => void): void {
    this.#listeners.set(channel, told);
    // Else the next look does.
    void this.#listening?.query(`LISTEN ${channel}`).catch(() => {});
    if (this.#timer !== undefined) return;
    const look = (): void => {
      this.#listen = this.#look().catch(() => {}); // the polling tells; the next look tries again
      void this.#listen.then(() => {
        const wait = this.#listening === undefined ? LISTEN_AGAIN_MS : LISTEN_CHECK_MS;
        if (!this.#closed) this.#timer = setTimeout(look, wait).unref();
      });
    };
    this.#timer = setTimeout(look, 0).unref();
  }

  async #look(): Promise<void> {
    if (this.#listening !== undefined) {
      const client = this.#listening;
      await client.query("SELECT 1").catch(() => this.#deaf(client));
      return;
    }
    const client = new pg.Client(connection(this.#options.listenUrl || this.#options.url));
    this.#clients.add(client);
    client.on("error", () => this.#deaf(client));
    client.on("end", () => this.#deaf(client));
    client.on("notification", ({ channel, payload }) => this.#listeners.get(channel)?.(payload ?? ""));
    try {
      await client.connect();
      // Names of ours, with nothing in them that would need quotes.
      for (const channel of this.#listeners.keys()) await client.query(`LISTEN ${channel}`);
      if (this.#closed) return this.#cut(client);
      this.#listening = client;
      // What was told while nobody listened.
      for (const told of this.#listeners.values()) told("");
    } catch (error) {
      this.#cut(client);
      throw error;
    }
  }

  #cut(client: pg.ClientBase): void {
    this.#clients.delete(client);
    socketOf(client).destroy();
  }

  #deaf(client: pg.Client): void {
    if (this.#listening !== client) return;
    this.#listening = undefined;
    this.#cut(client);
  }

  #back(): void {
    if (this.#away === undefined) return;
    this.#away = undefined;
    this.#options.log.info({ phase: "fleet" }, "the fleet's database answers again");
  }

  async #failure(error: unknown): Promise<unknown> {
    if (!isAway(error)) return error;
    const words =
      error instanceof Error && error.message !== "" ? error.message : String((error as { code?: string }).code);
    const away = awayError(words, error);
    if (this.#away === undefined && !this.#closed)
      this.#options.log.warn({ phase: "fleet", err: error }, `the fleet's database does not answer: ${words}`);
    if (this.#away === undefined) this.#outages += 1;
    this.#away = away;
    // They lead to the same database: after a fail-over each of them would be waited for in vain.
    await Promise.all(
      [...this.#idle].map(async (client) => {
        const socket = socketOf(client);
        if (!socket.closed) await once(socket.destroy(), "close").catch(() => {});
      }),
    );
    await setImmediate(); // the pool has let go of them
    return away;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#listen;
    clearTimeout(this.#timer);
    const client = this.#listening;
    this.#listening = undefined;
    const ended = Promise.all([client?.end().catch(() => {}), this.#pool.end().catch(() => {})]);
    const cut = setTimeout(() => {
      for (const each of this.#clients) this.#cut(each);
    }, END_MS);
    await ended;
    clearTimeout(cut);
  }
}

export function awayError(words: string, cause?: unknown): StacyError {
  return new StacyError("unavailable", `the fleet's database does not answer: ${words}`, {
    cause,
    remedy: "try again in a moment; what runs already goes on meanwhile",
    data: { retryAfterMs: 2_000 },
  });
}

/** Nothing that the database says of the statement: it was not answered at all, or not for now. */
function isAway(error: unknown): boolean {
  if (error instanceof StacyError) return false;
  if (error instanceof pg.DatabaseError) return TRANSIENT.test(error.code ?? "");
  return error instanceof Error;
}

/** The code that PostgreSQL gives an error, for example `23505`. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/** What PostgreSQL says beside it: of which constraint it is, and more about it. */
export function detailOf(error: unknown): { constraint: string; detail: string } {
  const { constraint = "", detail = "" } = error instanceof pg.DatabaseError ? error : {};
  return { constraint, detail };
}

/** Its types leave it out. */
function socketOf(client: pg.ClientBase): Socket {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

function connection(url: string): pg.ClientConfig {
  if (!/^postgres(ql)?:\/\//.test(url) || !URL.canParse(url)) {
    throw new StacyError("invalid", "fleet.database_url is not the address of a PostgreSQL", {
      remedy: 'write it as "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"',
    });
  }
  return {
    ...{ connectionString: url, application_name: "stacyvm", keepAlive: true },
    ...{ connectionTimeoutMillis: CONNECT_MS, query_timeout: STATEMENT_MS },
  };
}
