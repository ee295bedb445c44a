/**
 * Where sandboxes are. What this server has itself it knows without asking; of the others it remembers what the database has said, until
 * a node says that it does not have one. So calls to known sandboxes need no database.
 */
import type { Directory, FleetNode, Ownership, OwnershipFilter } from "./contract.ts";
import type { Ownerships } from "./database/ownerships.ts";
import type { Membership } from "./membership.ts";

/** Remembered at most; the oldest go first. */
const MOST = 20_000;
const MOST_UNKNOWN = 10_000;
const UNKNOWN_MS = 1_000;
const SANDBOX_ID = /^sb-[0-9a-f]{8}$/;

/** Of this server's own. */
export type Own = (idOrName: string, whose: string | undefined) => Ownership | undefined;

export class Locations implements Directory {
  readonly #membership: Membership;
  readonly #ownerships: Pick<Ownerships, "of" | "named" | "all" | "requested">;
  readonly #own: Own;
  readonly #known = new Map<string, Ownership>();
  /** Ids that nobody had, and until when (ms of `performance.now()`) that is believed. */
  readonly #unknown = new Map<string, number>();
  /** Ids by owner and name, which cannot have a slash. */
  readonly #named = new Map<string, string>();

  constructor(membership: Membership, ownerships: Pick<Ownerships, "of" | "named" | "all" | "requested">, own: Own) {
    this.#membership = membership;
    this.#ownerships = ownerships;
    this.#own = own;
  }

  get self(): FleetNode {
    return this.#membership.self;
  }

  nodes(): readonly FleetNode[] {
    return this.#membership.nodes();
  }

  refresh(): Promise<void> {
    return this.#membership.refresh();
  }

  async ownerOf(idOrName: string, whose?: string): Promise<Ownership | undefined> {
    const own = this.#own(idOrName, whose);
    if (own !== undefined) return own;
    const isId = SANDBOX_ID.test(idOrName);
    if (!isId && whose === undefined) return undefined;
    if (isId && (this.#unknown.get(idOrName) ?? 0) > performance.now()) return undefined;
    const known = this.#known.get(isId ? idOrName : (this.#named.get(`${whose}/${idOrName}`) ?? ""));
    const found = known ?? (await this.#ask(idOrName, isId ? undefined : whose));
    if (found === undefined && isId) this.#remember(idOrName);
    // A row of this server's own that it has nothing of is about to go.
    if (found === undefined || found.nodeId === this.self.id) return undefined;
    if (known === undefined) this.#keep(found);
    return whose === undefined || found.owner === whose ? found : undefined;
  }

  /** @param whose of a name; absent: it is an id */
  async #ask(idOrName: string, whose: string | undefined): Promise<Ownership | undefined> {
    if (whose !== undefined) return this.#ownerships.named(whose, idOrName);
    const [found] = await this.#ownerships.of([idOrName]);
    return found;
  }

  /** Nobody has it, and whoever asks again and again does not ask the database each time. No id that comes to be was asked for before. */
  #remember(id: string): void {
    if (this.#unknown.size >= MOST_UNKNOWN) this.#unknown.clear();
    this.#unknown.set(id, performance.now() + UNKNOWN_MS);
  }

  mistaken(sandboxId: string, nodeId: string): void {
    const known = this.#known.get(sandboxId);
    if (known?.nodeId === nodeId) this.#forget(known);
  }

  requested(owner: string, key: string): Promise<Ownership | undefined> {
    return this.#ownerships.requested(owner, key);
  }

  async all(filter?: OwnershipFilter): Promise<Ownership[]> {
    return this.#ownerships.all(filter);
  }

  #keep(found: Ownership): void {
    this.#known.set(found.sandboxId, found);
    if (found.name !== undefined) this.#named.set(`${found.owner}/${found.name}`, found.sandboxId);
    if (this.#known.size <= MOST) return;
    for (const oldest of this.#known.values()) {
      this.#forget(oldest);
      break;
    }
  }

  #forget({ sandboxId, owner, name }: Ownership): void {
    this.#known.delete(sandboxId);
    if (name !== undefined && this.#named.get(`${owner}/${name}`) === sandboxId) this.#named.delete(`${owner}/${name}`);
  }
}
