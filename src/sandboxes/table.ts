/** All sandboxes that this daemon knows, and their rows. */
import { StacyError } from "../host/error.ts";
import { newSandboxId, type SandboxRecord } from "./record.ts";
import type { Registry } from "./registry.ts";
import type { Sandbox } from "./sandbox.ts";
import { holdsMachine } from "./state.ts";
import type { Store } from "./store.ts";

export class SandboxTable {
  readonly #all = new Map<string, Sandbox>();
  /** By owner and name, which cannot have a slash. */
  readonly #named = new Map<string, Sandbox>();
  readonly #store: Store;
  readonly #now: () => number;
  readonly #registry: Registry | undefined;

  constructor(store: Store, now: () => number, registry?: Registry) {
    this.#store = store;
    this.#now = now;
    this.#registry = registry;
  }

  add(sandbox: Sandbox): void {
    this.#all.set(sandbox.id, sandbox);
    const { owner, name } = sandbox.record;
    if (name !== undefined) this.#named.set(`${owner}/${name}`, sandbox);
  }

  remove(sandbox: Sandbox): void {
    this.#all.delete(sandbox.id);
    const { owner, name } = sandbox.record;
    // One that has ended left its name to others before everything of it was gone.
    if (this.#named.get(`${owner}/${name}`) === sandbox) this.#named.delete(`${owner}/${name}`);
  }

  /** The one that the owner calls so. One whose end has begun is called nothing any more. */
  findNamed(owner: string, name: string): Sandbox | undefined {
    const sandbox = this.#named.get(`${owner}/${name}`);
    return sandbox?.visible === true ? sandbox : undefined;
  }

  /** @throws StacyError `conflict` */
  assertFree(owner: string, name: string | undefined): void {
    const other = name === undefined ? undefined : this.#named.get(`${owner}/${name}`);
    // One that is about to come from another server keeps its name meanwhile.
    if (other === undefined || !(other.visible || other.record.transit?.is === "arriving")) return;
    throw new StacyError("conflict", `the name ${name} is that of sandbox ${other.id}`, {
      remedy: `choose another one, or remove that sandbox: \`stacyvm rm ${name}\``,
    });
  }

  /** Also those that nobody sees any more. */
  all(): Iterable<Sandbox> {
    return this.#all.values();
  }

  find(id: string): Sandbox | undefined {
    return this.#all.get(id);
  }

  /** @throws StacyError `not-found` */
  get(id: string): Sandbox {
    const sandbox = this.#all.get(id);
    if (sandbox === undefined || !sandbox.visible) {
      throw new StacyError("not-found", `there is no sandbox ${JSON.stringify(id.slice(0, 64))}`);
    }
    return sandbox;
  }

  /** Newest first. */
  list(): SandboxRecord[] {
    return [...this.#all.values()]
      .filter((sandbox) => sandbox.visible)
      .map((sandbox) => sandbox.record)
      .sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
  }

  countByState(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { state, visible } of this.#all.values()) if (visible) counts[state] = (counts[state] ?? 0) + 1;
    return counts;
  }

  /** Whose a sandbox is, or was as long as its history is kept. */
  ownerOf(id: string): string | undefined {
    return this.#all.get(id)?.record.owner ?? this.#store.ownerOfSandbox(id);
  }

  /** Sandboxes that hold or are getting a machine: all, those of the owner, and those of its user (if one is named). */
  activeOf(
    owner: string,
    user: string | undefined,
  ): { active: number; activeOfAll: number; activeOwner: number | undefined } {
    let active = 0;
    let activeOfAll = 0;
    let owned = 0;
    for (const sandbox of this.#all.values()) {
      // One whose machine is being ended uses the host, whatever its clients see.
      if (!holdsMachine(sandbox.state) && sandbox.visible) continue;
      active += 1;
      if (sandbox.record.owner !== owner) continue;
      activeOfAll += 1;
      if (sandbox.record.ownerId === user) owned += 1;
    }
    return { active, activeOfAll, activeOwner: user === undefined ? undefined : owned };
  }

  freshId(): string {
    for (;;) {
      const id = newSandboxId();
      // 32 bits: an id that the history knows would mix two lives.
      if (!this.#all.has(id) && !this.#store.hasSandbox(id)) return id;
    }
  }

  /**
   * Its row, in the database when this resolves. That of a suspended one is on disk for good, also when it ends: such a sandbox outlives
   * its host, which must neither forget it nor bring it back.
   */
  async save(sandbox: Sandbox): Promise<void> {
    const outlives = sandbox.machine?.state === "suspended";
    await this.#store.putSandbox(sandbox.record, this.#now());
    this.#registry?.publish(sandbox.record);
    if (outlives) await this.#store.sync();
  }

  /** All rows until now outlive the host. */
  sync(): Promise<void> {
    return this.#store.sync();
  }

  /** That its newest row is where `save` puts it, also after a `save` that failed. */
  async saved(sandbox: Sandbox): Promise<void> {
    await this.#store.sandboxWritten(sandbox.id);
    if (sandbox.machine?.state === "suspended") await this.#store.sync();
  }
}
