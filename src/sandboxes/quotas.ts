import { StacyError } from "../host/error.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import { checkOwner } from "./owner.ts";
import type { OwnerQuota } from "./record.ts";
import type { Store } from "./store.ts";

/** Limits per owner; they override or tighten the server's (limits.ts). */
export class Quotas {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #byOwner: Map<string, OwnerQuota>;

  constructor(parts: { store: Store; clock: Clock; events: Events }) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#byOwner = new Map(this.#store.quotas().map((quota) => [quota.ownerId, quota]));
  }

  list(): OwnerQuota[] {
    return [...this.#byOwner.values()].sort((a, b) => (a.ownerId < b.ownerId ? -1 : 1));
  }

  find(ownerId: string | undefined): OwnerQuota | undefined {
    return ownerId === undefined ? undefined : this.#byOwner.get(ownerId);
  }

  /** @throws StacyError `not-found` */
  get(ownerId: string): OwnerQuota {
    const found = this.#byOwner.get(ownerId);
    if (found === undefined) throw new StacyError("not-found", `there is no quota for ${JSON.stringify(ownerId)}`);
    return found;
  }

  async put(ownerId: string, limits: Omit<OwnerQuota, "ownerId" | "createdAt" | "updatedAt">): Promise<OwnerQuota> {
    const owner = checkOwner(ownerId);
    if (owner === undefined) throw new StacyError("invalid", "a quota needs an owner");
    const now = this.#clock.now();
    const quota = { ...limits, ownerId: owner, createdAt: this.#byOwner.get(owner)?.createdAt ?? now, updatedAt: now };
    await this.#store.putQuota(quota);
    this.#byOwner.set(owner, quota);
    this.#events.emit("quota.saved", undefined, { owner_id: owner });
    return quota;
  }

  /** @throws StacyError `not-found` */
  async remove(ownerId: string): Promise<void> {
    this.get(ownerId);
    await this.#store.deleteQuota(ownerId);
    this.#byOwner.delete(ownerId);
    this.#events.emit("quota.deleted", undefined, { owner_id: ownerId });
  }

  summary(): { total: number; withMaxSandboxes: number; withMaxTtl: number; withMaxExecTimeout: number } {
    const all = this.list();
    return {
      total: all.length,
      withMaxSandboxes: all.filter((quota) => quota.maxSandboxes > 0).length,
      withMaxTtl: all.filter((quota) => quota.maxTtlMs > 0).length,
      withMaxExecTimeout: all.filter((quota) => quota.maxExecTimeoutMs > 0).length,
    };
  }
}
