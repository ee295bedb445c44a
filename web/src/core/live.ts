/** What there is right now: sandboxes, what they use, what happens; and whether the server answers at all. */
import {
  Client,
  type Identity,
  type SandboxInfo,
  type SandboxStats,
  type StacyEvent,
  type SystemStats,
} from "../../../sdk/src/index.ts";
import { BEAT_LIMIT_MS, BEAT_MS } from "./beat.ts";
import { Store } from "./store.ts";

export interface Spawn {
  id: string;
  at: number;
  path: "warm" | "restored" | "cold";
  totalMs: number;
}

/** What a sandbox used at a moment, ms since 1970. */
export interface Sample {
  at: number;
  cpu: number;
  memory: number;
  disk: number;
}

const KEPT_SPAWNS = 200;
const KEPT_EVENTS = 500;
/** Half an hour, at one each two seconds. */
const KEPT_SAMPLES = 900;
const POLL_MS = 2_000;
/** A server that limits requests needs no more proof of life than this. */
const SLOW_BEAT_MS = 15_000;
/** Events come in bursts; the list is asked for once for all of them. */
const GATHER_MS = 200;

export class Live extends Store {
  readonly client: Client;
  /** Its calls say at once how it is. */
  readonly #pulse: Client;
  sandboxes: SandboxInfo[] = [];
  /** By id; one without a machine has none. */
  stats: Record<string, SandboxStats> = {};
  system: SystemStats | undefined;
  /** Oldest first. */
  spawns: Spawn[] = [];
  /** Newest first. */
  events: StacyEvent[] = [];
  identity: Identity | undefined;
  version = "";
  /** The server's own machines run in software: slow, and no boundary. */
  emulated = false;
  /** Since when the server does not answer, ms since 1970. */
  lostSince: number | undefined;
  readonly #samples = new Map<string, Sample[]>();
  #asking: Promise<void> | undefined;
  #stream = new AbortController();
  #beatMs = BEAT_MS;

  constructor(url: string, apiKey: string | undefined) {
    super();
    this.client = new Client({ url, apiKey, timeoutMs: 30_000 });
    this.#pulse = new Client({ url, apiKey, timeoutMs: BEAT_LIMIT_MS, retries: 0 });
  }

  find(id: string): SandboxInfo | undefined {
    return this.sandboxes.find((each) => each.id === id);
  }

  /** Oldest first. */
  samples(id: string): readonly Sample[] {
    return this.#samples.get(id) ?? [];
  }

  get admin(): boolean {
    return this.identity?.scopes.includes("admin") === true;
  }

  /** @throws StacyError `UNAUTHORIZED` when the server wants another key */
  async open(): Promise<void> {
    await this.refresh();
    const [identity, providers, { version }, page, starts] = await Promise.all([
      this.client.identity(),
      this.client.providers(),
      this.client.health(),
      this.client.eventHistory({ limit: KEPT_EVENTS }),
      this.client.eventHistory({ limit: KEPT_SPAWNS, types: ["sandbox.running"] }),
    ]);
    this.identity = identity;
    this.version = version;
    this.emulated = providers.find((each) => each.default)?.accelerator === "tcg";
    this.events = page.events;
    for (const event of starts.events.reverse()) this.#seeSpawn(event);
    void this.#beat();
    void this.#poll();
    void this.#follow();
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") void this.#prove();
    });
    this.changed();
  }

  async refresh(): Promise<void> {
    this.sandboxes = (await this.client.list()).map(({ info }) => info);
    const ids = new Set(this.sandboxes.map(({ id }) => id));
    for (const id of this.#samples.keys()) if (!ids.has(id)) this.#samples.delete(id);
    this.changed();
  }

  async #beat(): Promise<never> {
    for (;;) {
      await new Promise((wake) => setTimeout(wake, this.#beatMs));
      await this.#prove();
    }
  }

  /** Asks for a sign of life. Any answer is one. */
  async #prove(): Promise<void> {
    try {
      await this.#pulse.health();
      this.#answered();
    } catch (error) {
      const { status } = error as { status?: number };
      if (status === 429) this.#beatMs = SLOW_BEAT_MS;
      if (status === undefined) this.#lost();
      else this.#answered();
    }
  }

  #lost(): void {
    if (this.lostSince !== undefined) return;
    this.lostSince = Date.now();
    this.#stream.abort();
    this.changed();
  }

  #answered(): void {
    if (this.lostSince === undefined) return;
    this.lostSince = undefined;
    void this.#follow();
    void this.refresh().catch(() => {}); // the next beat says
    this.changed();
  }

  /** Events, until the server is lost; then this is called anew. */
  async #follow(): Promise<void> {
    this.#stream = new AbortController();
    const { signal } = this.#stream;
    try {
      for await (const event of this.client.events({ after: this.events[0]?.id, signal })) {
        if (this.events.some(({ id }) => id === event.id)) continue;
        this.events = [event, ...this.events].slice(0, KEPT_EVENTS);
        this.#seeSpawn(event);
        if (event.type.startsWith("sandbox.") || event.type === "reconcile.action") this.#ask();
        this.changed();
      }
    } catch {
      await this.#prove();
      // It answers, and yet the stream has ended: as a server that stops does it.
      if (!signal.aborted) setTimeout(() => void this.#follow(), BEAT_MS);
    }
  }

  #seeSpawn({ type, sandboxId, timestamp, data }: StacyEvent): void {
    const { path, total_ms: totalMs } = (data ?? {}) as { path?: Spawn["path"]; total_ms?: number };
    if (type !== "sandbox.running" || sandboxId === undefined || path === undefined || totalMs === undefined) return;
    this.spawns = [...this.spawns, { id: sandboxId, at: Date.parse(timestamp), path, totalMs }].slice(-KEPT_SPAWNS);
  }

  #ask(): void {
    this.#asking ??= new Promise<void>((wake) => setTimeout(wake, GATHER_MS)).then(async () => {
      await this.refresh().catch(() => {}); // the next beat says
      this.#asking = undefined;
    });
  }

  async #poll(): Promise<never> {
    for (;;) {
      if (document.visibilityState === "visible" && this.lostSince === undefined) {
        await this.#measure().catch(() => {}); // the next one may succeed
      }
      await new Promise((wake) => setTimeout(wake, this.#beatMs === BEAT_MS ? POLL_MS : SLOW_BEAT_MS));
    }
  }

  async #measure(): Promise<void> {
    const [stats, system] = await Promise.all([this.client.stats(), this.client.systemStats()]);
    this.stats = stats;
    this.system = system;
    const at = Date.now();
    for (const [id, { cpuPct = 0, memBytes = 0, diskBytes = 0 }] of Object.entries(stats)) {
      const samples = this.#samples.get(id) ?? [];
      samples.push({ at, cpu: cpuPct, memory: memBytes, disk: diskBytes });
      if (samples.length > KEPT_SAMPLES) samples.shift();
      this.#samples.set(id, samples);
    }
    this.changed();
  }
}
