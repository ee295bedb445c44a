/**
 * What happens on all servers, as one list with one numbering, which any of them reads from any place. Each server keeps its own events
 * itself, and brings them to the fleet's database as soon as that takes them: exactly once, by a mark of how far it has come that moves in
 * the same statement.
 *
 * An event's number is its transaction's id and its place within that. Whoever reads stops before the oldest transaction that is still under
 * way, so nothing can come to be before what was read already, and those who write wait for nobody. (A sequence would number an event
 * before others that are committed first.)
 */
import { setTimeout as delay } from "node:timers/promises";
import { asStacyError } from "../host/error.ts";
import { Waiters } from "../host/waiters.ts";
import type { EventLog, Events, EventType, SandboxEvent } from "../sandboxes/events.ts";
import type { Log } from "../sandboxes/observer.ts";
import { type FleetDatabase, GONE, sqlState } from "./database/database.ts";

/** So long what happens here is gathered, ms. */
const GATHER_MS = 50;
/** Between two looks at what has happened, while somebody follows, ms. */
const POLL_MS = 250;
/** Nobody has followed for so long: nobody looks any more, ms. */
const UNUSED_MS = 30_000;
const AGAIN_MS = 2_000;
const IDLE_MS = 60_000;
/** Of one page. */
const BATCH = 256;
/** Read with one look. */
const MOST_READ = 2_000;
const RING = 8_192;
/** Kept in the database; who follows from before that misses some. */
const KEPT = 200_000;
const SWEEP_MS = 60_000;
const END_MS = 1_000;

/**
 * Numbers are below this for good. The base grows when transactions begin anew, or again from an earlier one: in another cluster, or in one
 * that was set back to a backup.
 */
const HORIZON =
  "(SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint * 1024 + events_base FROM stacyvm.fleet)";
/** More than what others have read since: that of 67 million transactions. */
const JUMP = 2 ** 36;
const COLUMNS = "n, at, owner, sandbox_id, type, data";

interface Row {
  /** As text in a row, as a number in JSON. */
  n: string | number;
  at: string | number;
  owner: string | null;
  sandbox_id: string | null;
  type: EventType;
  data: Record<string, unknown> | null;
}

/** This server's. */
type OwnEvents = Pick<Events, "last" | "after" | "wait">;

export class FleetEvents implements EventLog, AsyncDisposable {
  readonly #database: Pick<FleetDatabase, "query" | "away">;
  readonly #nodeId: string;
  readonly #log: Log;
  #local: OwnEvents | undefined;
  /** The number here of the last one that the database has. */
  #sent: number | undefined;
  #sending: Promise<void> = Promise.resolve();
  #sweepAt = 0;
  readonly #closing = new AbortController();
  /** While somebody follows: all events after `#from`, and as far as `#last`. */
  #ring: SandboxEvent[] = [];
  #from = 0;
  #last: number | undefined;
  /** The greatest number that was read or written here, at most a minute old: what comes to be is greater. */
  #seen = 0;
  #polling: Promise<void> | undefined;
  #usedAt = 0;
  readonly #waiters = new Waiters();

  constructor(database: Pick<FleetDatabase, "query" | "away">, nodeId: string, log: Log) {
    this.#database = database;
    this.#nodeId = nodeId;
    this.#log = log;
  }

  /** Brings them from now on; those before are of a server that was alone. */
  follow(local: OwnEvents): void {
    this.#local = local;
    this.#sending = this.#bring(local);
  }

  async newest(): Promise<number> {
    if (this.#last !== undefined) return this.#last;
    const { rows } = await this.#database.query<{ n: string }>(`SELECT ${HORIZON} - 1 AS n`);
    return this.#sees(Number(rows[0]?.n));
  }

  #sees(number: number): number {
    this.#seen = Math.max(this.#seen, number);
    return number;
  }

  async after(number: number, owner?: string): Promise<SandboxEvent[]> {
    const last = this.#last;
    if (last !== undefined && number >= last) return [];
    if (last !== undefined && number >= this.#from) {
      const found: SandboxEvent[] = [];
      for (const event of this.#ring) {
        if (event.number > number && (owner === undefined || event.owner === owner)) found.push(event);
        if (found.length === BATCH) break;
      }
      return found;
    }
    const { rows } = await this.#database.query<Row>(
      `SELECT ${COLUMNS} FROM stacyvm.events WHERE n > $1 AND n < ${HORIZON} ${owner === undefined ? "" : "AND owner = $2"}
       ORDER BY n LIMIT ${BATCH}`,
      owner === undefined ? [number] : [number, owner],
    );
    const found = rows.map(eventOf);
    this.#sees(found.at(-1)?.number ?? 0);
    return found;
  }

  async before(number: number, owner?: string): Promise<SandboxEvent[]> {
    const { rows } = await this.#database.query<Row>(
      `SELECT ${COLUMNS} FROM stacyvm.events WHERE n < $1 AND n < ${HORIZON} ${owner === undefined ? "" : "AND owner = $2"}
       ORDER BY n DESC LIMIT ${BATCH}`,
      owner === undefined ? [number] : [number, owner],
    );
    return rows.map(eventOf);
  }

  wait(ms: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted || this.#closing.signal.aborted) return Promise.resolve(false);
    this.#usedAt = performance.now();
    this.#polling ??= this.#poll().finally(() => {
      this.#polling = undefined;
    });
    return this.#waiters.wait(ms, signal);
  }

  /** As long as somebody follows. */
  async #poll(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted && (this.#waiters.count > 0 || performance.now() - this.#usedAt < UNUSED_MS)) {
      const more = await this.#look().catch((error: unknown) => {
        this.#log.debug({ phase: "fleet", err: error }, "what happens is looked for again");
        return false;
      });
      if (!more) await delay(POLL_MS, undefined, { signal, ref: false }).catch(() => {});
    }
    this.#last = undefined;
    this.#ring = [];
  }

  /** @returns whether there is more at once */
  async #look(): Promise<boolean> {
    const from = this.#last;
    const read = `SELECT coalesce(json_agg(e), '[]') FROM
      (SELECT ${COLUMNS} FROM stacyvm.events WHERE n > $1 AND n < ${HORIZON} ORDER BY n LIMIT ${MOST_READ}) e`;
    const { rows } = await this.#database.query<{ horizon: string; found: Row[] }>(
      `SELECT ${HORIZON} - 1 AS horizon, (${read}) AS found`,
      [from ?? Number.MAX_SAFE_INTEGER],
    );
    const [{ horizon, found }] = rows as [{ horizon: string; found: Row[] }];
    // What was written here may be beyond it while others write; what was read never is.
    if (Number(horizon) < (from ?? this.#seen)) {
      await this.#raise();
      if (from !== undefined) return false;
    }
    this.#sees(Number(horizon));
    const events = found.map(eventOf);
    const full = events.length === MOST_READ;
    if (from === undefined) this.#from = Number(horizon);
    this.#ring.push(...events);
    this.#last = full ? (events.at(-1)?.number ?? from) : Number(horizon);
    const over = this.#ring.splice(0, this.#ring.length - RING).at(-1);
    if (over !== undefined) this.#from = over.number;
    // Who has come before the first look finds what has happened since with this one.
    if (events.length > 0 || from === undefined) {
      this.#waiters.wake();
    }
    return full;
  }

  async #bring(local: OwnEvents): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        this.#sent ??= await this.#marked(local.last);
        const { last } = local;
        if (await this.#send(local, this.#sent)) continue;
        await this.#sweep();
        // What came meanwhile has woken nobody.
        if (local.last !== last || (await local.wait(IDLE_MS, signal))) await delay(GATHER_MS, undefined, { signal });
      } catch (error) {
        if (signal.aborted) return;
        // Away, or without its tables until this server joins.
        const later = asStacyError(error).code === "unavailable" || GONE.has(sqlState(error) ?? "");
        this.#log[later ? "debug" : "warn"](
          { phase: "fleet", err: error },
          "what happens here is brought to the fleet later",
        );
        await delay(AGAIN_MS, undefined, { signal, ref: false }).catch(() => {});
      }
    }
  }

  /** How far the database has this server's. @param last one that comes anew begins here; a mark beyond it is of data that are no more */
  async #marked(last: number): Promise<number> {
    await this.#raise();
    const { rows } = await this.#database.query<{ n: string }>(
      `INSERT INTO stacyvm.event_marks AS m (node_id, n) VALUES ($1, $2)
       ON CONFLICT (node_id) DO UPDATE SET n = least(m.n, excluded.n) RETURNING n`,
      [this.#nodeId, last],
    );
    return Number(rows[0]?.n);
  }

  /** What comes from now on has greater numbers than all that are there, or were seen here. */
  async #raise(): Promise<void> {
    await this.#database.query(
      `UPDATE stacyvm.fleet SET events_base = m.n + ${JUMP} - pg_snapshot_xmax(pg_current_snapshot())::text::bigint * 1024
       FROM (SELECT greatest(max(n), $1::bigint) AS n FROM stacyvm.events) m
       WHERE m.n >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint * 1024 + events_base`,
      [this.#seen],
    );
  }

  /** @returns whether there were any */
  async #send(local: OwnEvents, sent: number): Promise<boolean> {
    const events = local.after(sent);
    const last = events.at(-1);
    if (last === undefined) return false;
    // Until its answer is here nobody knows.
    this.#sent = undefined;
    const { rows, count } = await this.#database.query<{ n: string }>(
      `WITH mark AS (
         UPDATE stacyvm.event_marks m SET n = $3 FROM stacyvm.fleet f WHERE node_id = $1 AND m.n = $2
           AND pg_current_xact_id()::text::bigint * 1024 + f.events_base > greatest((SELECT max(n) FROM stacyvm.events), $9::bigint)
         RETURNING m.n)
       INSERT INTO stacyvm.events (n, at, owner, sandbox_id, type, data)
       SELECT pg_current_xact_id()::text::bigint * 1024 + f.events_base + u.i, u.at, u.owner, u.sandbox_id, u.type, u.data::json
       FROM mark, stacyvm.fleet f,
         unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[]) WITH ORDINALITY AS u(at, owner, sandbox_id, type, data, i)
       RETURNING n`,
      [
        ...[this.#nodeId, sent, last.number, events.map(({ at }) => Math.round(at))],
        events.map(({ owner }) => owner ?? null),
        events.map(({ sandboxId }) => sandboxId ?? null),
        events.map(({ type }) => type),
        events.map(({ data }) => (data === undefined ? null : JSON.stringify(data))),
        this.#seen,
      ],
    );
    // Else the mark is another one, or numbers begin anew: it is read again.
    if (count > 0) this.#sent = last.number;
    for (const { n } of rows) this.#sees(Number(n));
    return true;
  }

  /** One of the servers, once a minute. */
  async #sweep(): Promise<void> {
    if (performance.now() < this.#sweepAt) return;
    this.#sweepAt = performance.now() + SWEEP_MS;
    await this.newest();
    const { count } = await this.#database.query(
      `UPDATE stacyvm.revisions SET n = extract(epoch FROM now())::bigint
       WHERE what = 'events swept' AND n < extract(epoch FROM now())::bigint - ${SWEEP_MS / 1_000}`,
    );
    if (count === 0) return;
    await this.#database.query(
      `DELETE FROM stacyvm.events WHERE n <= (SELECT n FROM stacyvm.events ORDER BY n DESC OFFSET ${KEPT} LIMIT 1)`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.#waiters.wake();
    await Promise.all([this.#sending, this.#polling]);
    const local = this.#local;
    const until = performance.now() + END_MS;
    try {
      while (local !== undefined && this.#sent !== undefined && performance.now() < until) {
        if (!(await this.#send(local, this.#sent))) break;
      }
    } catch {} // the next start brings them
  }
}

function eventOf({ n, at, owner, sandbox_id, type, data }: Row): SandboxEvent {
  return {
    ...{ number: Number(n), type, at: Number(at) },
    ...(sandbox_id === null ? {} : { sandboxId: sandbox_id }),
    ...(owner === null ? {} : { owner }),
    ...(data === null ? {} : { data }),
  };
}
