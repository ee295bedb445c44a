/** What administrators did: to the server, and with the things of owners that are not theirs. Kept in the database. */

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

export class Audit {
  readonly #store: AuditStore;
  readonly #failed: (error: unknown) => void;

  /** @param failed an entry could not be written */
  constructor(store: AuditStore, failed: (error: unknown) => void) {
    this.#store = store;
    this.#failed = failed;
  }

  add(entry: AuditEntry): void {
    this.#store.addAudit(entry).catch(this.#failed);
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

function matches(entry: AuditEntry, { actor, method, status, path, about }: AuditFilter): boolean {
  return (
    (actor === undefined || entry.actor === actor) &&
    (method === undefined || entry.method === method.toUpperCase()) &&
    (status === undefined || entry.status === status) &&
    (path === undefined || entry.path.includes(path)) &&
    (about === undefined || entry.about?.includes(about) === true)
  );
}
