/** Keys that this server makes: kept as hashes, found by them, with an owner, scopes, an expiry, rotation and revocation. */
import { randomBytes } from "node:crypto";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import { checkOwnerName } from "../sandboxes/owner.ts";
import type { Scope } from "./identity.ts";
import { hashOf, newSecret } from "./secret.ts";

/** Times are ms since 1970. */
export interface KeyRecord {
  id: string;
  name: string;
  owner: string;
  scopes: Scope[];
  /** What its sandboxes may connect to at most; absent: no limit of its own. */
  allowedHosts?: string[];
  hash: string;
  /** The secret's first characters, to tell keys apart. */
  hint: string;
  createdAt: number;
  /** What the published interface calls its bearer (tenants.ts). */
  role?: Role;
  /** Name of who made it. */
  createdBy: string;
  expiresAt?: number;
  revokedAt?: number;
  /** To the minute. */
  lastUsedAt?: number;
  /** After a rotation the secret before works for a while. */
  before?: { hash: string; until: number };
}

export type Role = "viewer" | "operator" | "admin";

export type KeyState = "active" | "expired" | "revoked";

export interface KeyStore {
  keys<T>(): T[];
  putKey(record: KeyRecord): Promise<void>;
  deleteKey(id: string): Promise<void>;
}

export interface KeyInput {
  name: string;
  owner: string;
  scopes: Scope[];
  role?: Role;
  allowedHosts?: string[];
  /** ms from now; absent: never. */
  expiresInMs?: number;
}

/** Where the last use of a key is noted again, ms. */
const USE_NOTE_MS = 60_000;
/** A key that ended so long ago goes from the list, ms. */
const KEEP_ENDED_MS = 90 * 86_400_000;
const HINT_LENGTH = 12;

export class Keys {
  readonly #store: KeyStore;
  readonly #now: () => number;
  readonly #byId: Map<string, KeyRecord>;
  /** One change after another: what two make of the same record is never one with the secret of the other. A revocation waits for none. */
  readonly #changes = new SerialQueue();
  /** By each hash that lets in; so the time that a look-up takes says nothing about a secret. */
  #byHash = new Map<string, KeyRecord>();

  constructor(store: KeyStore, now: () => number = Date.now) {
    this.#store = store;
    this.#now = now;
    this.#byId = new Map(store.keys<KeyRecord>().map((record) => [record.id, record]));
    for (const record of this.#byId.values()) {
      const ended = Math.min(record.revokedAt ?? Infinity, record.expiresAt ?? Infinity);
      if (ended < now() - KEEP_ENDED_MS) this.#forget(record.id);
    }
    this.#index();
  }

  /** Whether anybody can get in with one. */
  get any(): boolean {
    return [...this.#byId.values()].some((record) => this.state(record) === "active");
  }

  /** Oldest first. */
  list(owner?: string): KeyRecord[] {
    return [...this.#byId.values()]
      .filter((record) => owner === undefined || record.owner === owner)
      .sort((a, b) => a.createdAt - b.createdAt);
  }

  state({ revokedAt, expiresAt }: KeyRecord): KeyState {
    if (revokedAt !== undefined) return "revoked";
    return expiresAt !== undefined && expiresAt <= this.#now() ? "expired" : "active";
  }

  /** By id, or by a name that only one active key has. @throws StacyError `not-found`, `conflict` */
  get(idOrName: string): KeyRecord {
    const found = this.#byId.get(idOrName);
    if (found !== undefined) return found;
    const named = this.list().filter((record) => record.name === idOrName && this.state(record) === "active");
    const [first] = named;
    if (first === undefined) throw new StacyError("not-found", `there is no key ${JSON.stringify(idOrName)}`);
    if (named.length > 1) {
      throw new StacyError("conflict", `${named.length} keys have the name ${idOrName}`, {
        remedy: "use the key's id",
      });
    }
    return first;
  }

  /** @returns the record, and the secret, which nobody can ever see again */
  async create(input: KeyInput, by: string): Promise<{ record: KeyRecord; secret: string }> {
    if (input.scopes.length === 0) throw new StacyError("invalid", "scopes: a key needs at least one");
    if (input.expiresInMs !== undefined && input.expiresInMs <= 0) {
      throw new StacyError("invalid", "expires_in: must be positive");
    }
    const secret = newSecret();
    const now = this.#now();
    const record: KeyRecord = {
      id: this.#freshId(),
      name: input.name,
      owner: checkOwnerName(input.owner),
      scopes: input.scopes,
      ...(input.allowedHosts === undefined ? {} : { allowedHosts: input.allowedHosts }),
      hash: hashOf(secret),
      hint: secret.slice(0, HINT_LENGTH),
      ...(input.role === undefined ? {} : { role: input.role }),
      createdAt: now,
      createdBy: by,
      ...(input.expiresInMs === undefined ? {} : { expiresAt: now + input.expiresInMs }),
    };
    await this.#save(record);
    return { record, secret };
  }

  /** Another secret for the same key. @param graceMs how long the one before works on */
  rotate(idOrName: string, graceMs: number): Promise<{ record: KeyRecord; secret: string }> {
    return this.#changes.run(() => this.#rotate(idOrName, graceMs));
  }

  async #rotate(idOrName: string, graceMs: number): ReturnType<Keys["rotate"]> {
    const { before: _earlier, ...kept } = this.get(idOrName);
    const state = this.state(kept);
    if (state !== "active") {
      throw new StacyError("conflict", `the key ${kept.name} is ${state}`, { remedy: "make a new one" });
    }
    const secret = newSecret();
    const record: KeyRecord = {
      ...kept,
      hash: hashOf(secret),
      hint: secret.slice(0, HINT_LENGTH),
      ...(graceMs > 0 ? { before: { hash: kept.hash, until: this.#now() + graceMs } } : {}),
    };
    await this.#save(record);
    return { record, secret };
  }

  /** The same secret may do something else from now on. @throws StacyError `not-found`, `conflict` */
  change(idOrName: string, to: { scopes: Scope[]; role: Role }): Promise<KeyRecord> {
    return this.#changes.run(async () => {
      const record: KeyRecord = { ...this.get(idOrName), ...to };
      const state = this.state(record);
      if (state !== "active") throw new StacyError("conflict", `the key ${record.name} is ${state}`);
      await this.#save(record);
      return record;
    });
  }

  /** At once, and for good. Idempotent. */
  async revoke(idOrName: string): Promise<KeyRecord> {
    const { before: _earlier, ...kept } = this.get(idOrName);
    const record: KeyRecord = { ...kept, revokedAt: kept.revokedAt ?? this.#now() };
    // Whatever the database says: it lets nobody in from now on.
    this.#take(record);
    await this.#store.putKey(record);
    return record;
  }

  /** These and no others, as several servers have agreed upon. One that is revoked here stays so. */
  replace(records: readonly KeyRecord[]): void {
    const before = new Map(this.#byId);
    this.#byId.clear();
    for (const record of records) {
      const here = before.get(record.id);
      const revokedAt = record.revokedAt ?? here?.revokedAt;
      const lastUsedAt = Math.max(record.lastUsedAt ?? 0, here?.lastUsedAt ?? 0);
      this.#byId.set(record.id, {
        ...record,
        ...(revokedAt === undefined ? {} : { revokedAt }),
        ...(lastUsedAt === 0 ? {} : { lastUsedAt }),
      });
    }
    this.#index();
  }

  /** The key whose secret has this hash, if it may be used now. */
  find(hash: string): KeyRecord | undefined {
    const now = this.#now();
    const record = this.#good(hash);
    if (record === undefined) return undefined;
    if (now - (record.lastUsedAt ?? 0) > USE_NOTE_MS) {
      record.lastUsedAt = now;
      // As it is when it is its turn: a change may be under way. The next use notes what this one could not.
      const { id } = record;
      void this.#changes.run(() => this.#store.putKey(this.#byId.get(id) ?? record)).catch(() => {});
    }
    return record;
  }

  /** Whether the secret with this hash is good now. */
  holds(hash: string): boolean {
    return this.#good(hash) !== undefined;
  }

  /** Every key that is good now, by the hash of its secret; of one that is being rotated, by both. */
  good(): [hash: string, record: KeyRecord][] {
    return [...this.#byId.keys()].flatMap((id) => this.goodOf(id));
  }

  /** The same of one key. */
  goodOf(id: string): [hash: string, record: KeyRecord][] {
    const record = this.#byId.get(id);
    if (record === undefined) return [];
    const hashes = [record.hash, ...(record.before === undefined ? [] : [record.before.hash])];
    return hashes.filter((hash) => this.holds(hash)).map((hash) => [hash, record]);
  }

  #good(hash: string): KeyRecord | undefined {
    const record = this.#byHash.get(hash);
    if (record === undefined || this.state(record) !== "active") return undefined;
    return record.hash !== hash && (record.before?.until ?? 0) <= this.#now() ? undefined : record;
  }

  async #save(record: KeyRecord): Promise<void> {
    await this.#store.putKey(record);
    if (this.#byId.get(record.id)?.revokedAt !== undefined) {
      throw new StacyError("conflict", `the key ${record.name} was revoked meanwhile`);
    }
    this.#take(record);
  }

  #take(record: KeyRecord): void {
    this.#byId.set(record.id, record);
    this.#index();
  }

  #index(): void {
    const all = [...this.#byId.values()];
    this.#byHash = new Map([
      ...all.flatMap((record) => (record.before === undefined ? [] : [[record.before.hash, record] as const])),
      ...all.map((record) => [record.hash, record] as const),
    ]);
  }

  #freshId(): string {
    for (;;) {
      const id = `key-${randomBytes(4).toString("hex")}`;
      if (!this.#byId.has(id)) return id;
    }
  }

  #forget(id: string): void {
    this.#byId.delete(id);
    void this.#store.deleteKey(id).catch(() => {}); // the next start tries again
  }
}
