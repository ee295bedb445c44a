import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import { type EffectiveQuota, effectiveMax } from "./limits.ts";
import { checkUser } from "./owner.ts";
import type { OwnerQuota } from "./record.ts";
import type { Store } from "./store.ts";

/** As a user's id: all users of the owner together. */
export const EVERYBODY = "*";

/** Where they are kept. */
export type QuotaStore = Pick<Store, "quotas" | "putQuota" | "deleteQuota">;

/** Limits of users within their owner, and of an owner as a whole; they override or tighten the server's (limits.ts). */
export class Quotas {
  readonly #store: QuotaStore;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #byUser: Map<string, OwnerQuota>;
  /** What is in memory is what was written last. */
  readonly #changes = new SerialQueue();

  readonly #changed: () => void;

  /** @param changed is told after each change */
  constructor(parts: { store: QuotaStore; clock: Clock; events: Events }, changed: () => void = () => {}) {
    this.#changed = changed;
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#byUser = new Map(this.#store.quotas().map((quota) => [keyOf(quota.owner, quota.ownerId), quota]));
  }

  /** By user; without an owner, all. */
  list(owner?: string): OwnerQuota[] {
    return [...this.#byUser.values()]
      .filter((quota) => owner === undefined || quota.owner === owner)
      .sort((a, b) => (a.ownerId < b.ownerId ? -1 : a.ownerId > b.ownerId ? 1 : a.owner < b.owner ? -1 : 1));
  }

  find(owner: string, user: string | undefined): OwnerQuota | undefined {
    return user === undefined ? undefined : this.#byUser.get(keyOf(owner, user));
  }

  effective(owner: string, user: string | undefined): EffectiveQuota {
    const own = this.find(owner, user);
    const all = this.find(owner, EVERYBODY);
    return {
      maxSandboxes: own?.maxSandboxes ?? 0,
      maxSandboxesOfAll: all?.maxSandboxes ?? 0,
      maxTtlMs: effectiveMax(own?.maxTtlMs ?? 0, all?.maxTtlMs),
      maxExecTimeoutMs: effectiveMax(own?.maxExecTimeoutMs ?? 0, all?.maxExecTimeoutMs),
    };
  }

  /** @throws StacyError `not-found` */
  get(owner: string, user: string): OwnerQuota {
    const found = this.find(owner, user);
    if (found === undefined) throw new StacyError("not-found", `there is no quota for ${JSON.stringify(user)}`);
    return found;
  }

  put(
    owner: string,
    user: string,
    limits: Omit<OwnerQuota, "owner" | "ownerId" | "createdAt" | "updatedAt">,
  ): Promise<OwnerQuota> {
    return this.#changes.run(async () => {
      const ownerId = checkUser(user);
      if (ownerId === undefined) throw new StacyError("invalid", "a quota needs an owner");
      const now = this.#clock.now();
      const createdAt = this.find(owner, ownerId)?.createdAt ?? now;
      const quota = { ...limits, owner, ownerId, createdAt, updatedAt: now };
      await this.#store.putQuota(quota);
      this.#byUser.set(keyOf(owner, ownerId), quota);
      this.#events.emit("quota.saved", undefined, { owner_id: ownerId }, owner);
      this.#changed();
      return quota;
    });
  }

  /** @throws StacyError `not-found` */
  remove(owner: string, user: string): Promise<void> {
    return this.#changes.run(async () => {
      this.get(owner, user);
      await this.#store.deleteQuota(owner, user);
      this.#byUser.delete(keyOf(owner, user));
      this.#events.emit("quota.deleted", undefined, { owner_id: user }, owner);
      this.#changed();
    });
  }

  /** These and no others, as several servers have agreed upon. */
  take(all: readonly OwnerQuota[]): void {
    this.#byUser.clear();
    for (const quota of all) this.#byUser.set(keyOf(quota.owner, quota.ownerId), quota);
    this.#changed();
  }

  /** Of all owners, or of one. */
  summary(owner?: string): {
    total: number;
    withMaxSandboxes: number;
    withMaxTtl: number;
    withMaxExecTimeout: number;
  } {
    const all = this.list(owner);
    return {
      total: all.length,
      withMaxSandboxes: all.filter((quota) => quota.maxSandboxes > 0).length,
      withMaxTtl: all.filter((quota) => quota.maxTtlMs > 0).length,
      withMaxExecTimeout: all.filter((quota) => quota.maxExecTimeoutMs > 0).length,
    };
  }
}

/** An owner's name has no space. */
function keyOf(owner: string, user: string): string {
  return `${owner} ${user}`;
}
