/** The providers of this server by name: picking, health, adoption, events. */
import { asStacyError, StacyError } from "../host/error.ts";
import { ownValue } from "../host/own-value.ts";
import type {
  Adoption,
  PoolStatus,
  Provider,
  ProviderEvent,
  ProviderHealth,
  SandboxSpec,
} from "../providers/provider.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import type { Log } from "./observer.ts";

export interface ProviderReport extends ProviderHealth {
  name: string;
  default: boolean;
  latencyMs: number;
  checkedAt: number;
}

const WARNINGS: ReadonlySet<ProviderEvent["type"]> = new Set(["restore.failed", "snapshot.rejected", "volume.failed"]);

export class Providers {
  readonly #all: readonly Provider[];
  readonly #aliases: Readonly<Record<string, string>>;
  readonly #events: Events;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #stops: (() => void)[];

  constructor(
    all: readonly Provider[],
    parts: {
      aliases: Readonly<Record<string, string>>;
      events: Events;
      log: Log;
      clock: Clock;
      /** Its name, of the sandbox that has it in that slot. */
      volume(sandboxId: string, slot: number): string | undefined;
    },
  ) {
    if (all.length === 0) throw new StacyError("invalid", "there is no provider");
    this.#all = all;
    this.#aliases = parts.aliases;
    this.#events = parts.events;
    this.#log = parts.log;
    this.#clock = parts.clock;
    const failed = ({ sandboxId = "", data: { slot, ...rest } }: ProviderEvent): Record<string, unknown> => ({
      volume: parts.volume(sandboxId, Number(slot)),
      ...rest,
      remedy: "look after the host's disk; what the sandbox has not synced to the volume may be lost",
    });
    this.#stops = all.map((provider) =>
      provider.onEvent((event) => {
        const level = WARNINGS.has(event.type) ? "warn" : "info";
        const data = { provider: provider.name, ...(event.type === "volume.failed" ? failed(event) : event.data) };
        this.#log[level]({ sandbox: event.sandboxId, ...data }, event.type);
        this.#events.emit(event.type, event.sandboxId, data);
      }),
    );
  }

  get default(): Provider {
    const [first] = this.#all;
    if (first === undefined) throw new StacyError("internal", "there is no provider");
    return first;
  }

  get names(): string[] {
    return this.#all.map(({ name }) => name);
  }

  /** @param name its own, or one of the configured aliases. @throws StacyError `not-found` */
  pick(name: string | undefined): Provider {
    const meant = ownValue(this.#aliases, name ?? "") ?? name;
    if (meant === undefined || meant === "" || meant === "auto") return this.default;
    const found = this.#all.find((provider) => provider.name === meant);
    if (found === undefined) {
      throw new StacyError("not-found", `there is no provider ${JSON.stringify(name)}`, {
        remedy: `use ${this.names.join(" or ")}`,
      });
    }
    return found;
  }

  async report(provider: Provider): Promise<ProviderReport> {
    const begun = performance.now();
    const health = await provider.health();
    return {
      ...health,
      name: provider.name,
      default: provider === this.default,
      latencyMs: performance.now() - begun,
      checkedAt: this.#clock.now(),
    };
  }

  reports(): Promise<ProviderReport[]> {
    return Promise.all(this.#all.map((provider) => this.report(provider)));
  }

  /** Ids of all sandboxes of which there are machines. */
  async machines(): Promise<string[]> {
    return [...new Set((await Promise.all(this.#all.map((provider) => provider.machines()))).flat())].sort();
  }

  async adopt(wanted: readonly { id: string; provider: string }[]): Promise<Adoption> {
    const all: Adoption = { adopted: [], unreachable: [], gone: [], removed: [] };
    for (const provider of this.#all) {
      const ids = new Set(wanted.filter((each) => each.provider === provider.name).map(({ id }) => id));
      const others = new Set(wanted.map(({ id }) => id).filter((id) => !ids.has(id)));
      const found = await provider.adopt(ids, others);
      all.adopted.push(...found.adopted);
      all.unreachable.push(...found.unreachable);
      all.gone.push(...found.gone);
      all.removed.push(...found.removed);
    }
    return all;
  }

  pools(): PoolStatus[] {
    return this.#all.flatMap((provider) => provider.pool());
  }

  /**
   * In the background: a pool that cannot be filled must not stop whoever saved the template.
   * @param owner the template: what it wanted before, of whichever provider, it wants no longer
   */
  pin(owner: string, name: string | undefined, spec: Omit<SandboxSpec, "id" | "checkpoint">, count: number): void {
    let provider: Provider | undefined;
    try {
      provider = this.pick(name);
    } catch {} // a template for a provider that this host does not have; its spawn says so
    for (const other of this.#all) if (other !== provider) void other.pin(owner, spec, 0);
    provider?.pin(owner, spec, count).catch((error: unknown) => {
      const failure = asStacyError(error);
      this.#log.warn({ provider: provider.name, image: spec.image, err: failure }, "the pool could not be filled");
      this.#events.emit("provider.failed", undefined, {
        provider: provider.name,
        operation: "pin",
        message: failure.message,
      });
    });
  }

  all(): readonly Provider[] {
    return this.#all;
  }

  async close(): Promise<void> {
    for (const stop of this.#stops) stop();
    const results = await Promise.allSettled(this.#all.map((provider) => provider.close()));
    for (const result of results) {
      if (result.status === "rejected") this.#log.error({ err: result.reason }, "a provider did not close cleanly");
    }
  }
}
