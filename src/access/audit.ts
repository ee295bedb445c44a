/**
 * What administrators did: to the server, and with the things of owners that are not theirs. Kept in the database. What that cannot take (its
 * disk is full) waits in memory and is tried again; what has no room there is counted, and the count is an entry of its own as soon as one can be written.
 */
import { attempts } from "../host/attempts.ts";

export interface AuditEntry {
  /** ms since 1970 */
  at: number;
  /** Name of the key or of the token's subject. */
  actor: string;
  /** Of a key that this server has made. */
  keyId?: string;
  /** The actor's own owner. */
  owner: string;
  /** Other owners whose things it was about. */
  about?: string[];
  method: string;
  /** The route's pattern. */
  route: string;
  path: string;
  status: number;
  requestId: string;
  /** Where it came from. */
  address?: string;
  /** What asked. */
  userAgent?: string;
  /** ms until the answer began. */
  durationMs?: number;
}

export interface AuditFilter {
  actor?: string | undefined;
  method?: string | undefined;
  status?: number | undefined;
  /** Part of the path. */
  path?: string | undefined;
  about?: string | undefined;
  /** Only entries with a lower number. */
  before?: number | undefined;
  limit: number;
}

export interface AuditStore {
  addAudit(record: { at: number }): Promise<void>;
  audits<T>(before: number, limit: number): (T & { id: number })[];
}

/** Entries that one question may look through. */
const MAX_SCAN = 20_000;
const BATCH = 500;

/** Entries that wait for a database which cannot be written: some MiB. */
const MAX_WAITING = 10_000;

/** What became of entries that could not be written. */
export interface AuditTrouble {
  /** They are kept, and tried again. */
  waiting: number;
  /** For these there was no room. */
  lost: number;
}

export class Audit implements AsyncDisposable {
  readonly #store: AuditStore;
  readonly #failed: (error: unknown, trouble: AuditTrouble) => void;
  readonly #again: (signal: AbortSignal) => AsyncIterable<void>;
  readonly #over = new AbortController();
  #waiting: AuditEntry[] = [];
  #lost = 0;
  #retrying: Promise<void> | undefined;
  readonly #writing = new Set<Promise<void>>();

  /**
   * @param failed an entry could not be written, for the first time or again
   * @param again when to try again
   */
  constructor(
    store: AuditStore,
    failed: (error: unknown, trouble: AuditTrouble) => void,
    again: (signal: AbortSignal) => AsyncIterable<void> = attempts,
  ) {
    this.#store = store;
    this.#failed = failed;
    this.#again = again;
  }

  get trouble(): AuditTrouble {
    return { waiting: this.#waiting.length, lost: this.#lost };
  }

  add(entry: AuditEntry): void {
    // Behind those that wait: in the order in which it happened.
    if (this.#retrying !== undefined) {
      this.#keep(entry);
      return;
    }
    const write = this.#store
      .addAudit(entry)
      .catch((error: unknown) => {
        this.#keep(entry);
        this.#failed(error, this.trouble);
        this.#retrying ??= this.#retry();
      })
      .finally(() => this.#writing.delete(write));
    this.#writing.add(write);
  }

  #keep(entry: AuditEntry): void {
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push(entry);
    else this.#lost += 1;
  }

  async #retry(): Promise<void> {
    for await (const _ of this.#again(this.#over.signal)) {
      if (await this.#written()) break;
    }
    this.#retrying = undefined;
  }

  /** Whether nothing waits any more. */
  async #written(): Promise<boolean> {
    try {
      for (let entry = this.#waiting[0]; entry !== undefined; entry = this.#waiting[0]) {
        await this.#store.addAudit(entry);
        this.#waiting.shift();
      }
      const lost = this.#lost;
      if (lost > 0) await this.#store.addAudit(lostEntry(lost));
      this.#lost -= lost;
      return this.#waiting.length === 0;
    } catch (error) {
      this.#failed(error, this.trouble);
      return false;
    }
  }

  /** What waits is tried once more; what then still cannot be written is said for the last time. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#writing);
    this.#over.abort();
    await this.#retrying;
    const { waiting, lost } = this.trouble;
    if (waiting + lost > 0) await this.#written();
  }

  /** Newest first. */
  list(filter: AuditFilter): (AuditEntry & { id: number })[] {
    const found: (AuditEntry & { id: number })[] = [];
    let before = filter.before ?? Number.MAX_SAFE_INTEGER;
    for (let scanned = 0; scanned < MAX_SCAN && found.length < filter.limit; scanned += BATCH) {
      const batch = this.#store.audits<AuditEntry>(before, BATCH);
      found.push(...batch.filter((entry) => matches(entry, filter)));
      before = batch.at(-1)?.id ?? 0;
      if (batch.length < BATCH) break;
    }
    return found.slice(0, filter.limit);
  }
}

/** Stands where they would be. */
function lostEntry(lost: number): AuditEntry {
  const path = `${lost} entries were lost: the database could not be written`;
  return { at: Date.now(), actor: "server", owner: "", method: "LOST", route: "", path, status: 0, requestId: "" };
}

function matches(entry: AuditEntry, { actor, method, status, path, about }: AuditFilter): boolean {
  return (
    (actor === undefined || entry.actor === actor) &&
    (method === undefined || entry.method === method.toUpperCase()) &&
    (status === undefined || entry.status === status) &&
    (path === undefined || entry.path.includes(path)) &&
    (about === undefined || entry.about?.includes(about) === true)
  );
}
