/** A provider whose machines are plain objects, for the rules of a sandbox's life; real machines are in the tests of test/. */
import { Network } from "../src/egress/network.ts";
import type { Agent } from "../src/guest/agent.ts";
import { StacyError } from "../src/host/error.ts";
import {
  type Adoption,
  type ChangeOptions,
  type CopiedSlot,
  checkpointKey,
  type MachineState,
  type Provider,
  type SandboxMachine,
  type SandboxSpec,
  type SpecVolume,
  type UnreachableMachine,
} from "../src/providers/provider.ts";
import type { Clock } from "../src/sandboxes/clock.ts";
import type { EventLog } from "../src/sandboxes/events.ts";
import { silentLog, silentObserver } from "../src/sandboxes/observer.ts";
import type { QuotaStore } from "../src/sandboxes/quotas.ts";
import type { Registry } from "../src/sandboxes/registry.ts";
import { Sandboxes } from "../src/sandboxes/sandboxes.ts";
import { Store } from "../src/sandboxes/store.ts";
import type { TemplateStore } from "../src/sandboxes/templates.ts";
import type { ExitReport } from "../src/vmm/vmm.ts";

/** Time that passes when the test says so. */
export class FakeClock implements Clock {
  #now = 1_000_000;
  readonly #timers = new Map<() => void, number>();

  now(): number {
    return this.#now;
  }

  /** Somebody sets the clock; what waits goes on waiting as long as before. */
  set(now: number): void {
    for (const [call, at] of this.#timers) this.#timers.set(call, at - this.#now + now);
    this.#now = now;
  }

  after(ms: number, call: () => void): () => void {
    this.#timers.set(call, this.#now + ms);
    return () => void this.#timers.delete(call);
  }

  /** Lets `ms` pass, in steps of a second, and lets what was woken run. */
  async pass(ms: number): Promise<void> {
    for (const end = this.#now + ms; this.#now < end; ) {
      this.#now = Math.min(end, this.#now + 1_000);
      for (const [call, at] of [...this.#timers]) {
        if (at > this.#now) continue;
        this.#timers.delete(call);
        call();
      }
      await settle();
    }
  }
}

/** Lets everything that can go on now go on. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((wake) => setImmediate(wake));
}

/** Something that waits until the test lets it go on, or it is told to end. */
export class Gate {
  #open = Promise.withResolvers<void>();
  closed = false;

  close(): void {
    this.closed = true;
    this.#open = Promise.withResolvers();
  }
  open(): void {
    this.closed = false;
    this.#open.resolve();
  }
  async pass(signal?: AbortSignal): Promise<void> {
    if (!this.closed) return;
    const told = Promise.withResolvers<never>();
    const abort = (): void => told.reject(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) abort();
    await Promise.race([this.#open.promise, told.promise]);
  }
}

export class FakeMachine implements SandboxMachine {
  readonly id: string;
  readonly boot = { path: "restored", vmm: "qemu", guest: "linux", phases: {}, totalMs: 1 } as const;
  /** What runs in it, as the agent says. */
  commands = 0;
  readonly agent = { info: async () => ({ commands: this.commands }) } as Agent;
  /** What its calls under way fail with. */
  why: StacyError | undefined;
  readonly process = undefined;
  hosts: readonly string[] = [];
  get network() {
    return { allowedHosts: this.hosts, ...new Network().egress([], this.agent).status };
  }
  state: MachineState = "running";
  secretsChanged(): void {}
  readonly #exited = Promise.withResolvers<ExitReport>();
  readonly exited = this.#exited.promise;
  readonly #provider: FakeProvider;
  /** Changes wait here; a change that is told to end leaves the machine as it was. */
  readonly gate = new Gate();
  /** What the next change fails with. */
  failure: Error | undefined;
  destroyed = 0;
  /** Changes under way: there must never be two. */
  #changing = false;

  constructor(provider: FakeProvider, id: string) {
    this.#provider = provider;
    this.id = id;
    provider.machinesById.set(id, this);
  }

  async #change<T>(options: ChangeOptions | undefined, work: () => T | Promise<T>): Promise<T> {
    if (this.#changing) throw new Error(`two changes of ${this.id} at once`);
    this.#changing = true;
    try {
      await this.gate.pass(options?.signal);
      if (this.destroyed > 0) throw new StacyError("not-found", "the machine is gone");
      if (this.failure !== undefined) throw this.failure;
      return await work();
    } finally {
      this.#changing = false;
    }
  }

  #become(state: MachineState, options?: ChangeOptions): Promise<void> {
    return this.#change(options, () => {
      this.state = state;
    });
  }

  allow(hosts: readonly string[], options?: ChangeOptions): Promise<void> {
    return this.#change(options, () => {
      this.hosts = hosts;
    });
  }
  pause(options?: ChangeOptions): Promise<void> {
    return this.#become("paused", options);
  }
  resume(options?: ChangeOptions): Promise<void> {
    return this.#become("running", options);
  }
  suspend(options?: ChangeOptions): Promise<void> {
    return this.#become("suspended", options);
  }
  restore(_id: string, options?: ChangeOptions): Promise<void> {
    return this.#become("running", options);
  }
  /** What its copies were given of its volumes, by copy. */
  readonly copied = new Map<string, CopiedSlot[]>();
  async fork(
    ids: string[],
    options?: Parameters<SandboxMachine["fork"]>[1],
  ): Promise<{ machines: SandboxMachine[]; stoppedMs: number }> {
    return this.#change(options, async () => {
      await options?.volumes?.copy();
      for (const id of ids) this.copied.set(id, (await options?.volumes?.slots(id)) ?? []);
      if (this.#provider.spawnFailure !== undefined) throw this.#provider.spawnFailure;
      return { machines: ids.map((id) => new FakeMachine(this.#provider, id)), stoppedMs: 1 };
    });
  }
  checkpoint(id: string, options?: ChangeOptions): Promise<{ bytes: number; stoppedMs: number }> {
    return this.#change(options, () => {
      this.#provider.saved.add(checkpointKey(id));
      return { bytes: 1, stoppedMs: 1 };
    });
  }
  /** By slot: what is attached. */
  readonly attached = new Map<number, string>();
  /** Programs hold what is attached. */
  held = false;
  attach({ slot, name }: SpecVolume, options?: ChangeOptions): Promise<void> {
    return this.#change(options, () => {
      this.attached.set(slot, name);
      if (this.attachFailure !== undefined) throw this.attachFailure;
    });
  }
  attachFailure: Error | undefined;
  detach(
    { slot }: Pick<SpecVolume, "slot">,
    options: ChangeOptions & { force?: boolean } = {},
  ): Promise<{ reusable: boolean }> {
    return this.#change(options, () => {
      if (this.held && options.force !== true) throw new StacyError("conflict", "sh (7) works in it");
      this.attached.delete(slot);
      return { reusable: !this.held };
    });
  }
  async console(): Promise<string[]> {
    return [];
  }
  async stats() {
    return { cpuPercent: 0, privateBytes: 0, pssBytes: 0, memoryLimitBytes: 0, diskBytes: 0 };
  }
  async destroy(why?: StacyError, stopped?: () => void): Promise<void> {
    if (this.#provider.destroyFailure !== undefined) throw this.#provider.destroyFailure;
    this.why ??= why;
    if (this.#provider.removing !== undefined) {
      stopped?.();
      await this.#provider.removing;
    }
    this.destroyed += 1;
    this.state = "exited";
    this.#provider.machinesById.delete(this.id);
  }
  async release(): Promise<void> {}

  /** The monitor dies. */
  die(): void {
    this.state = "exited";
    this.#exited.resolve({ signal: "SIGSEGV", reason: "crash", vmmLog: [], console: ["the last line"] });
  }
}

export class FakeProvider implements Provider {
  readonly name = "qemu" as const;
  readonly machinesById: Map<string, FakeMachine> = new Map();
  readonly gate = new Gate();
  destroyFailure: Error | undefined;
  /** Its machines stop at once, and what is left of them is removed when this settles. */
  removing: Promise<void> | undefined;
  spawnFailure: Error | undefined;
  canPause = true;
  /** What the next `adopt` finds, and what `machines` tells. */
  found: Adoption = { adopted: [], unreachable: [], gone: [], removed: [] };
  strangers: string[] = [];
  /** What it was told to keep ready, in order. */
  readonly pins: [string, number][] = [];

  async health() {
    return { healthy: true, detail: "", canPause: this.canPause, canCopy: true };
  }
  async spawn(spec: SandboxSpec): Promise<SandboxMachine> {
    await this.gate.pass(spec.signal);
    if (this.spawnFailure !== undefined) throw this.spawnFailure;
    this.spawned.push(spec);
    return new FakeMachine(this, spec.id);
  }
  readonly spawned: SandboxSpec[] = [];
  /** Sandboxes whose machines leave something behind. */
  readonly remains = new Set<string>();
  async holds(id: string): Promise<boolean> {
    return this.remains.has(id) || this.machinesById.has(id);
  }
  /** By key. */
  readonly damage = new Map<string, string>();
  async checkpointDamage(id: string): Promise<string | undefined> {
    return this.damage.get(checkpointKey(id));
  }
  savedVolume(id: string, slot: number): string {
    return `${this.savedVolumes}/${id}-${slot}`;
  }
  /** Where what is saved of volumes is. */
  savedVolumes = "/nonexistent";
  async machines(): Promise<string[]> {
    return this.strangers;
  }
  async adopt(): Promise<Adoption> {
    return this.found;
  }
  async snapshots() {
    return [];
  }
  /** Keys of what is saved. */
  readonly saved = new Set<string>();
  async snapshotKeys() {
    return [...this.saved];
  }
  async buildSnapshot(): Promise<never> {
    throw new Error("not here");
  }
  async removeSnapshot(key: string): Promise<void> {
    if (!this.saved.delete(key)) throw new StacyError("not-found", "there is no such snapshot");
  }
  async imageUse() {
    return { needed: new Set<string>(), golden: [] };
  }
  pool() {
    return [];
  }
  async pin(owner: string, _spec: unknown, count: number): Promise<void> {
    this.pins.push([owner, count]);
  }
  async close(): Promise<void> {}
  onEvent() {
    return () => {};
  }
}

/** One that does not answer until the test says what came of it. */
export class FakeUnreachable implements UnreachableMachine {
  readonly id: string;
  readonly reason = "it does not answer";
  readonly #outcome = Promise.withResolvers<Awaited<UnreachableMachine["outcome"]>>();
  readonly outcome = this.#outcome.promise;
  readonly settle = this.#outcome.resolve;
  destroyed = false;

  constructor(id: string) {
    this.id = id;
  }
  async console(): Promise<string[]> {
    return ["still there"];
  }
  async destroy(): Promise<void> {
    this.destroyed = true;
  }
  async release(): Promise<void> {}
}

export function fakeWorld(
  options: {
    volumes?: string;
    maxVolumes?: number;
    store?: Store;
    maxSandboxes?: number;
    overflow?: "reject" | "queue";
    registry?: Registry;
    eventLog?: EventLog;
    provider?: FakeProvider;
    shared?: TemplateStore & QuotaStore;
  } = {},
) {
  const store = options.store ?? new Store(":memory:");
  const clock = new FakeClock();
  const provider = options.provider ?? new FakeProvider();
  const sandboxes = new Sandboxes({
    store,
    providers: [provider],
    limits: {
      ...{
        defaultWorkdir: "",
        providerAliases: {},
        imageAliases: {},
        defaultImage: "image",
        defaultMemoryMiB: 128,
        defaultVcpus: 1,
        defaultDiskMiB: 64,
        defaultTtlMs: 3_600_000,
      },
      ...{ defaultHosts: [], defaultIdleTimeoutMs: 0, idleAction: "destroy", maxTtlMs: 0, defaultExecTimeoutMs: 0 },
      ...{ maxExecTimeoutMs: 0, maxSandboxes: options.maxSandboxes ?? 0, maxSandboxesPerOwner: 0, maxMemoryMiB: 0 },
      ...{ maxVolumesPerOwner: options.maxVolumes ?? 0, maxVolumeMiBPerOwner: 0 },
      ...{ maxVcpus: 0, maxDiskMiB: 0, overflow: options.overflow ?? "reject", queueTimeoutMs: 10_000, maxQueue: 4 },
      maxKeptReady: 4,
    },
    ...{ clock, observer: silentObserver, log: silentLog, volumes: options.volumes ?? "/nonexistent/volumes" },
    registry: options.registry,
    eventLog: options.eventLog,
    shared: options.shared,
  });
  return { store, clock, provider, sandboxes };
}
