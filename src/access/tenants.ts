/**
 * The published server's tenants, which are owners here: one is there as soon as a key names it or somebody has made it, and its
 * members are its keys. What a tenant has beside (a name to read, settings that nobody here looks at) is kept.
 */
import { randomBytes } from "node:crypto";
import { z } from "zod";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import { checkOwnerName, DEFAULT_OWNER } from "../sandboxes/owner.ts";
import { type Scope, scopesUpTo } from "./identity.ts";
import type { KeyRecord, Keys, Role } from "./keys.ts";

const TENANT = z.object({
  id: z.string(),
  name: z.string(),
  /** The user whom its maker named; it means nothing to the server. */
  ownerId: z.string(),
  /** A JSON document. */
  settings: z.string(),
  createdAt: z.number(),
  updatedAt: z.number(),
});
/** Times are ms since 1970. */
export type Tenant = z.infer<typeof TENANT>;

export interface Member {
  user: string;
  role: Role;
  createdAt: number;
}

export interface TenantStore {
  documents<T>(kind: string, schema: z.ZodType<T>): T[];
  putDocument(kind: string, record: { id: string }): Promise<void>;
  deleteDocument(kind: string, id: string): Promise<void>;
}

/** Who makes a member. */
interface MemberMaker {
  name: string;
  /** The only tenant that it may know of. */
  only: string | undefined;
}

export type TenantInput = Partial<Pick<Tenant, "name" | "ownerId" | "settings">>;

const KIND = "tenant";
const MAX_TENANTS = 10_000;

/** Within an owner there is nothing above `use`: the scope `admin` is the whole server's, and is never given this way. */
const SCOPES: Record<Role, Scope> = { viewer: "read", operator: "use", admin: "use" };

export class Tenants {
  readonly #store: TenantStore;
  readonly #keys: Keys;
  readonly #startedAt: number;
  readonly #now: () => number;
  readonly #made: Map<string, Tenant>;
  /** Each change looks first, and what it saw has to hold until it is written. */
  readonly #changes = new SerialQueue();

  /** @param startedAt since when the default owner is there, ms since 1970 */
  constructor(store: TenantStore, keys: Keys, startedAt: number, now: () => number = Date.now) {
    this.#store = store;
    this.#keys = keys;
    this.#startedAt = startedAt;
    this.#now = now;
    this.#made = new Map(store.documents(KIND, TENANT).map((tenant) => [tenant.id, tenant]));
  }

  /** By id: those that were made, those that a working key names, and the default owner; or only one of them. */
  list(only: string | undefined): Tenant[] {
    const all = new Map<string, Tenant>([[DEFAULT_OWNER, plain(DEFAULT_OWNER, this.#startedAt)]]);
    if (only !== undefined) all.set(only, plain(only, this.#startedAt));
    for (const { owner, createdAt } of this.#active()) if (!all.has(owner)) all.set(owner, plain(owner, createdAt));
    for (const [id, tenant] of this.#made) all.set(id, tenant);
    const found = [...all.values()].filter(({ id }) => only === undefined || id === only);
    return found.sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** @throws StacyError `not-found` */
  get(id: string, only: string | undefined): Tenant {
    const found = this.list(only).find((tenant) => tenant.id === id);
    if (found === undefined) throw new StacyError("not-found", `there is no tenant ${JSON.stringify(id.slice(0, 64))}`);
    return found;
  }

  /** @param id default: a new one. @throws StacyError `conflict`, `invalid`, `limit` */
  create(id: string | undefined, input: TenantInput & { name: string }): Promise<Tenant> {
    return this.#changes.run(async () => {
      const own = checkOwnerName(id ?? `tenant-${randomBytes(4).toString("hex")}`);
      if (this.list(undefined).some((tenant) => tenant.id === own)) {
        const remedy = "choose another id, or PUT it";
        throw new StacyError("conflict", `the tenant ${own} exists already`, { remedy });
      }
      if (this.#made.size >= MAX_TENANTS) throw new StacyError("limit", `there are ${MAX_TENANTS} tenants already`);
      return await this.#save({ ...plain(own, this.#now()), ...input });
    });
  }

  /** @throws StacyError `not-found` */
  change(id: string, input: TenantInput, only: string | undefined): Promise<Tenant> {
    return this.#changes.run(() => this.#save({ ...this.get(id, only), ...input, updatedAt: this.#now() }));
  }

  /**
   * Revokes its keys, so nobody gets in as that owner any more. What the owner has stays: sandboxes until their time is over.
   * @throws StacyError `not-found`, `conflict`
   */
  remove(id: string, only: string | undefined): Promise<void> {
    return this.#changes.run(async () => {
      this.get(id, only);
      if (id === DEFAULT_OWNER) {
        throw new StacyError("conflict", `the tenant ${id} cannot be deleted: it owns what has no other owner`);
      }
      for (const key of this.#active(id)) await this.#keys.revoke(key.id);
      await this.#store.deleteDocument(KIND, id);
      this.#made.delete(id);
    });
  }

  /** Oldest first. @throws StacyError `not-found` */
  members(id: string, only: string | undefined): Member[] {
    this.get(id, only);
    return this.#active(id).map(memberOf);
  }

  /**
   * Makes a key for a member, or lets the one that is there do something else.
   * @returns the secret of a new key, which nobody can ever see again
   * @throws StacyError `not-found`
   */
  putMember(id: string, user: string, role: Role, by: MemberMaker): Promise<{ member: Member; secret?: string }> {
    return this.#changes.run(() => this.#putMember(id, user, role, by));
  }

  async #putMember(id: string, user: string, role: Role, by: MemberMaker): ReturnType<Tenants["putMember"]> {
    this.get(id, by.only);
    const [known, ...others] = this.#keysOf(id, user);
    // One of the server's administrators is a tenant's already.
    if (known?.scopes.includes("admin") && role === "admin") return { member: memberOf(known) };
    const scopes = [SCOPES[role]];
    if (known !== undefined) {
      // Several keys may have the name: none of them may stay more than the member is.
      const most = scopesUpTo(scopes);
      const more = ({ scopes: own }: KeyRecord): boolean => role !== "admin" && own.some((scope) => !most.has(scope));
      for (const key of others.filter(more)) await this.#keys.change(key.id, { scopes, role });
      return { member: memberOf(await this.#keys.change(known.id, { scopes, role })) };
    }
    const { record, secret } = await this.#keys.create({ name: user, owner: id, scopes, role }, by.name);
    return { member: memberOf(record), secret };
  }

  /** Revokes the member's keys. @throws StacyError `not-found` */
  removeMember(id: string, user: string, only: string | undefined): Promise<void> {
    return this.#changes.run(async () => {
      this.get(id, only);
      const found = this.#keysOf(id, user);
      if (found.length === 0) {
        throw new StacyError("not-found", `there is no member ${JSON.stringify(user.slice(0, 128))}`);
      }
      for (const key of found) await this.#keys.revoke(key.id);
    });
  }

  #active(owner?: string): KeyRecord[] {
    return this.#keys.list(owner).filter((key) => this.#keys.state(key) === "active");
  }

  #keysOf(owner: string, user: string): KeyRecord[] {
    return this.#active(owner).filter(({ name }) => name === user);
  }

  async #save(tenant: Tenant): Promise<Tenant> {
    await this.#store.putDocument(KIND, tenant);
    this.#made.set(tenant.id, tenant);
    return tenant;
  }
}

function plain(id: string, at: number): Tenant {
  return { id, name: id, ownerId: id, settings: "{}", createdAt: at, updatedAt: at };
}

function memberOf({ name, scopes, role, createdAt }: KeyRecord): Member {
  const byScope = scopes.includes("admin") ? "admin" : scopes.includes("use") ? "operator" : "viewer";
  return { user: name, role: role ?? byScope, createdAt };
}
