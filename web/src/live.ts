/** What there is right now: the list of sandboxes once, and after each event that concerns them. */
import type { Boot, Client, SandboxInfo, StacyEvent } from "../../sdk/src/index.ts";

export interface Spawn {
  id: string;
  boot: Boot;
}

const KEPT_SPAWNS = 60;
const KEPT_EVENTS = 100;
/** Events come in bursts; the list is asked for once for all of them, ms. */
const GATHER_MS = 100;

export class Live {
  readonly client: Client;
  sandboxes: SandboxInfo[] = [];
  /** Oldest first. */
  readonly spawns: Spawn[] = [];
  /** Newest first. */
  readonly events: StacyEvent[] = [];
  readonly #listeners = new Set<() => void>();
  #asking: Promise<void> | undefined;

  constructor(client: Client) {
    this.client = client;
  }

  /** @returns stops telling */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws StacyError when the server cannot be asked */
  async refresh(): Promise<void> {
    this.sandboxes = (await this.client.list()).map(({ info }) => info);
    const known = new Set(this.spawns.map(({ id }) => id));
    const fresh = this.sandboxes.filter(({ id, boot }) => boot !== undefined && !known.has(id)).reverse();
    for (const { id, boot } of fresh) this.spawns.push({ id, boot: boot as Boot });
    this.spawns.splice(0, this.spawns.length - KEPT_SPAWNS);
    this.#tell();
  }

  /** Follows the events until aborted; the connection is taken up again by the SDK. */
  async follow(signal: AbortSignal): Promise<void> {
    for await (const event of this.client.events({ signal })) {
      this.events.unshift(event);
      this.events.splice(KEPT_EVENTS);
      if (event.type.startsWith("sandbox.")) this.#ask();
      this.#tell();
    }
  }

  #ask(): void {
    this.#asking ??= new Promise<void>((wake) => setTimeout(wake, GATHER_MS)).then(() => {
      this.#asking = undefined;
      return this.refresh().catch(() => {}); // the event stream tells when the server is gone
    });
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
