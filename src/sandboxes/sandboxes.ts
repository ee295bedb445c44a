/**
 * The life of all sandboxes: admission, spawn, states, time limits, adoption, end. Spawns run in parallel; nothing here holds a
 * lock over one.
 *
 * Order of writes. A sandbox's row is in the database (`creating`) before its machine exists, `running` before the client
 * hears of it, `destroyed` before its machine ends. So whatever moment the daemon dies at, the next one finds each machine
 * either wanted (a live row) or not, keeps the first kind and removes the second; and a row that was still `creating` names a
 * sandbox that no client knows of, which is removed too.
 */
import { asStacyError, StacyError } from "../host/error.ts";
import { Phases } from "../host/phases.ts";
import { within } from "../host/within.ts";
import type { Provider, SandboxMachine, SandboxSpec, SnapshotInfo } from "../providers/provider.ts";
import type { ExitReport } from "../vmm/vmm.ts";
import { Checkpoints } from "./checkpoints.ts";
import type { Clock } from "./clock.ts";
import { Events } from "./events.ts";
import { Executions } from "./executions.ts";
import { type Admission, decideAdmission, explain, type Limits } from "./limits.ts";
import { type Log, type Observer, observed } from "./observer.ts";
import { checkOwner } from "./owner.ts";
import { Providers } from "./providers.ts";
import { Quotas } from "./quotas.ts";
import { Reaper } from "./reaper.ts";
import {
  type CheckpointRecord,
  newSandboxId,
  type SandboxFailure,
  type SandboxRecord,
  type Template,
} from "./record.ts";
import { type ResolvedSpawn, resolveSpawn, type SpawnInput, templateSpec } from "./resolve.ts";
import { type Lease, Sandbox } from "./sandbox.ts";
import { type QueueCounts, SpawnQueue } from "./spawn-queue.ts";
import { assertMayBecome, holdsMachine, mayBecome, type SandboxState } from "./state.ts";
import type { Store } from "./store.ts";
import { Templates } from "./templates.ts";

export interface SandboxesOptions {
  store: Store;
  /** The first is the default. */
  providers: readonly Provider[];
  limits: Limits;
  clock: Clock;
  observer: Observer;
  log: Log;
}

/** How long an end may take before the answer stops waiting for it; the work goes on. */
const DESTROY_WAIT_MS = 30_000;

export class Sandboxes {
  readonly events: Events;
  readonly templates: Templates;
  readonly quotas: Quotas;
  readonly checkpoints: Checkpoints;
  readonly executions: Executions;
  readonly providers: Providers;
  readonly limits: Limits;
  readonly store: Store;
  readonly #clock: Clock;
  readonly #observer: Observer;
  readonly #log: Log;
  readonly #all = new Map<string, Sandbox>();
  readonly #queue: SpawnQueue;
  readonly #reaper: Reaper;
  readonly #undead = new Set<Sandbox>();
  /** Spawns and ends under way, which a stop waits for. */
  readonly #work = new Set<Promise<unknown>>();
  #closing = false;

  constructor(options: SandboxesOptions) {
    const { store, clock, observer, log, limits } = options;
    this.store = store;
    this.limits = limits;
    this.#clock = clock;
    this.#observer = observer;
    this.#log = log;
    this.events = new Events(store, () => clock.now());
    this.providers = new Providers(options.providers, {
      aliases: limits.providerAliases,
      events: this.events,
      log,
      clock,
    });
    this.quotas = new Quotas({ store, clock, events: this.events });
    this.templates = new Templates({ store, clock, events: this.events }, (template) => this.#pin(template));
    this.executions = new Executions({ store, events: this.events, observer, quotas: this.quotas, limits });
    this.checkpoints = new Checkpoints({ store, clock, events: this.events, providers: this.providers });
    this.#queue = new SpawnQueue(clock);
    this.#reaper = new Reaper(clock, {
      all: () => this.#all.values(),
      expire: (sandbox) => this.#expire(sandbox),
      idle: (sandbox) => this.#idle(sandbox),
      retry: () => this.#retryUndead(),
    });
  }

  /** Takes over what an earlier daemon left, removes what nobody owns, and begins to look after time limits. */
  async open(): Promise<{ adopted: string[]; removed: string[]; lost: string[] }> {
    const rows = this.store.liveSandboxes();
    const wanted = rows.filter((row) => row.state === "running" || row.state === "paused" || row.state === "suspended");
    const { adopted, removed } = await this.providers.adopt(wanted.map(({ id, provider }) => ({ id, provider })));
    const machines = new Map(adopted.map((machine) => [machine.id, machine]));
    const lost: string[] = [];
    // A row that cannot be written now is tried again by the store: a full disk must not keep a daemon from starting.
    for (const row of rows) {
      const sandbox = new Sandbox(row, () => this.#clock.now());
      const machine = machines.get(row.id);
      if (machine !== undefined) {
        sandbox.machine = machine;
        this.#all.set(row.id, sandbox);
        // What the machine is, counts: the daemon may have died between the change and its row.
        if (machine.state !== "exited") row.state = machine.state;
        setHosts(row, machine.network.allowedHosts);
        await this.#save(sandbox).catch(noop);
        this.#watch(sandbox, machine);
        this.events.emit("reconcile.action", row.id, { action: "adopted", state: row.state });
      } else if (row.state === "creating" || row.state === "expired") {
        row.state = "destroyed";
        await this.#save(sandbox).catch(noop);
        this.events.emit("reconcile.action", row.id, { action: "removed", reason: "half-made" });
      } else {
        this.#all.set(row.id, sandbox);
        if (row.state !== "error") {
          lost.push(row.id);
          await this.#fail(
            sandbox,
            new StacyError("machine-exited", "its machine was gone when the daemon started"),
            [],
          );
        }
      }
    }
    for (const template of this.templates.list()) if (template.poolSize > 0) this.#pin(template);
    this.#reaper.start();
    return { adopted: adopted.map(({ id }) => id), removed, lost };
  }

  // Reading

  /** Newest first. */
  list(): SandboxRecord[] {
    return [...this.#all.values()]
      .filter((sandbox) => sandbox.visible)
      .map((sandbox) => sandbox.record)
      .sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
  }

  /** @throws StacyError `not-found` */
  get(id: string): Sandbox {
    const sandbox = this.#all.get(id);
    if (sandbox === undefined || !sandbox.visible) {
      throw new StacyError("not-found", `there is no sandbox ${JSON.stringify(id.slice(0, 64))}`);
    }
    return sandbox;
  }

  countByState(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { state, visible } of this.#all.values()) if (visible) counts[state] = (counts[state] ?? 0) + 1;
    return counts;
  }

  /** Of a provider. */
  countOf(provider: string): number {
    return this.list().filter((record) => record.provider === provider).length;
  }

  get queue(): QueueCounts {
    return this.#queue.counts;
  }

  activeOf(ownerId: string | undefined): { active: number; activeOwner: number | undefined } {
    let active = 0;
    let owned = 0;
    for (const sandbox of this.#all.values()) {
      // One whose machine is still being made or ended uses the host, whatever its clients see.
      if (!holdsMachine(sandbox.state) && (sandbox.gone === undefined || sandbox.visible)) continue;
      active += 1;
      if (sandbox.record.ownerId === ownerId) owned += 1;
    }
    return { active, activeOwner: ownerId === undefined ? undefined : owned };
  }

  /** What a spawn would meet now. @throws StacyError `invalid`, `not-found` */
  admission(input: SpawnInput): Admission {
    const ownerId = checkOwner(input.ownerId);
    return this.#admit(this.#resolve(input).ttlMs, ownerId, 1);
  }

  // Spawning

  /**
   * Resolves with a sandbox that runs.
   * @param signal the client is gone: the sandbox is destroyed as soon as its machine is there (what was pulled or built stays)
   */
  async spawn(input: SpawnInput, signal?: AbortSignal): Promise<Sandbox> {
    this.#assertOpen();
    const phases = new Phases();
    const ownerId = checkOwner(input.ownerId);
    const resolved = this.#resolve(input);
    const provider = this.providers.pick(resolved.provider);
    const reserve = (): Sandbox | undefined => {
      const admission = this.#admit(resolved.ttlMs, ownerId, 1);
      if (admission.allowed)
        return this.#reserve(resolved, provider.name, { ...input, ...(ownerId ? { ownerId } : {}) });
      if (admission.queueable) return undefined;
      throw this.#refusal(admission);
    };
    const sandbox = reserve() ?? (await phases.phase("queue", () => this.#enqueue(reserve, signal)));
    return this.#track(this.#start(sandbox, provider, resolved.spec, phases, signal));
  }

  /** One for a piece of work: in use, and destroyed with its lease. */
  async borrow(input: SpawnInput, signal?: AbortSignal): Promise<Pick<Lease, "agent"> & AsyncDisposable> {
    const sandbox = await this.spawn(input, signal);
    const lease = sandbox.lease();
    return {
      agent: lease.agent,
      [Symbol.asyncDispose]: async () => {
        lease[Symbol.dispose]();
        await this.destroy(sandbox.id);
      },
    };
  }

  /** Builds the golden snapshot of what a spawn would be, unless it is there. */
  async buildSnapshot(input: SpawnInput, signal: AbortSignal): Promise<SnapshotInfo> {
    if (input.checkpoint) throw new StacyError("invalid", "checkpoint: a checkpoint is a saved machine already");
    const { spec, provider } = this.#resolve(input);
    return this.providers.pick(provider).buildSnapshot({ ...spec, signal });
  }

  #assertOpen(): void {
    if (this.#closing) throw new StacyError("unavailable", "the server is stopping");
  }

  #resolve(input: SpawnInput): ResolvedSpawn {
    const template = input.template ? this.templates.get(input.template) : undefined;
    const checkpoint = input.checkpoint ? this.checkpoints.get(input.checkpoint) : undefined;
    return resolveSpawn(input, this.limits, template, checkpoint);
  }

  #admit(ttlMs: number, ownerId: string | undefined, count: number): Admission {
    const quota = this.quotas.find(ownerId);
    return decideAdmission({ limits: this.limits, quota, ttlMs, count, ...this.activeOf(ownerId) });
  }

  #refusal(admission: Admission): StacyError {
    const { message, remedy } = explain(admission);
    this.events.emit("resource.limit", undefined, { reason: admission.reason });
    return new StacyError("limit", message, { phase: "admission", remedy, data: { reason: admission.reason } });
  }

  async #enqueue(reserve: () => Sandbox | undefined, signal: AbortSignal | undefined): Promise<Sandbox> {
    let sandbox: Sandbox | undefined;
    let refused: unknown;
    const attempt = (): boolean => {
      try {
        sandbox = reserve();
        return sandbox !== undefined;
      } catch (error) {
        refused = error; // a limit that waiting does not lift
        return true;
      }
    };
    this.events.emit("spawn.queued", undefined, { waiting: this.#queue.length + 1 });
    try {
      await this.#queue.wait(attempt, {
        max: this.limits.maxQueue,
        timeoutMs: this.limits.queueTimeoutMs,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      if (asStacyError(error).code === "timeout") this.events.emit("spawn.queue_timeout");
      throw error;
    }
    if (sandbox === undefined) throw refused;
    this.events.emit("spawn.dequeued", sandbox.id);
    return sandbox;
  }

  /** Takes the place at once (no await before the map knows it): admission counts what is in flight. */
  #reserve(resolved: ResolvedSpawn, provider: string, input: SpawnInput & { forkedFrom?: string }): Sandbox {
    const now = this.#clock.now();
    const record: SandboxRecord = {
      id: this.#freshId(),
      state: "creating",
      provider,
      image: resolved.spec.image,
      memoryMiB: resolved.spec.memoryMiB,
      vcpus: resolved.spec.vcpus,
      diskMiB: resolved.spec.diskMiB,
      createdAt: now,
      expiresAt: now + resolved.ttlMs,
      idleTimeoutMs: resolved.idleTimeoutMs,
      idleAction: resolved.idleAction,
      metadata: resolved.metadata,
      ...(resolved.spec.allowedHosts?.length ? { allowedHosts: [...resolved.spec.allowedHosts] } : {}),
      ...(input.ownerId === undefined ? {} : { ownerId: input.ownerId }),
      ...(input.template ? { template: input.template } : {}),
      ...(input.checkpoint ? { checkpoint: input.checkpoint } : {}),
      ...(input.forkedFrom === undefined ? {} : { forkedFrom: input.forkedFrom }),
    };
    const sandbox = new Sandbox(record, () => this.#clock.now());
    this.#all.set(record.id, sandbox);
    return sandbox;
  }

  #freshId(): string {
    for (;;) {
      const id = newSandboxId();
      // 32 bits: an id that the history knows would mix two lives.
      if (!this.#all.has(id) && !this.store.hasSandbox(id)) return id;
    }
  }

  async #start(
    sandbox: Sandbox,
    provider: Provider,
    spec: Omit<SandboxSpec, "id">,
    phases: Phases,
    signal: AbortSignal | undefined,
  ): Promise<Sandbox> {
    const { id } = sandbox;
    const abandon = (): void => void this.#end(sandbox, "destroyed", "the client went away").catch(() => {});
    let machine: SandboxMachine;
    try {
      await phases.phase("record", () => this.#save(sandbox));
      this.events.emit("sandbox.created", id, { image: spec.image, provider: provider.name });
      if (signal?.aborted === true) abandon();
      signal?.addEventListener("abort", abandon, { once: true });
      // Ended while its row was written (a shutdown, a DELETE of what the list shows): that end saw no machine to wait for.
      if (sandbox.state !== "creating") throw new StacyError("cancelled", `sandbox ${id} was ended before it was made`);
      const spawning = provider.spawn({ ...spec, id });
      // An end that comes while the machine is being made waits here for it.
      sandbox.machine = undefined;
      this.#making.set(id, spawning.then(noop, noop));
      machine = await spawning;
    } catch (error) {
      this.#making.delete(id);
      const failure = asStacyError(error);
      this.#observer.spawnFailed(failure, provider.name);
      this.#log.warn({ sandbox: id, phase: failure.phase, code: failure.code, err: failure }, "spawn failed");
      this.events.emit("sandbox.error", id, { code: failure.code, phase: failure.phase, message: failure.message });
      // Nobody got this sandbox: the error is the answer, and no record stays. An end that fails is logged and tried again.
      await this.#end(sandbox, "destroyed", "spawn failed").catch(noop);
      throw failure;
    } finally {
      signal?.removeEventListener("abort", abandon);
    }
    sandbox.machine = machine;
    this.#making.delete(id);
    if (sandbox.state !== "creating") {
      // Idempotent: whoever ended it may have come before there was a machine.
      await machine.destroy();
      await sandbox.gone;
      throw new StacyError("cancelled", `sandbox ${id} was ended while it was being made`);
    }
    this.#begin(sandbox, machine);
    this.#watch(sandbox, machine);
    try {
      await phases.phase("commit", () => this.#save(sandbox));
    } catch (error) {
      // Its client is told that there is none, so there must be none.
      await this.#end(sandbox, "destroyed", "it could not be recorded").catch(noop);
      throw error;
    }
    this.#observer.spawned(machine.boot, phases.total);
    this.#log.info(
      { sandbox: id, path: machine.boot.path, ms: phases.total, phases: { ...machine.boot.phases, ...phases.ms } },
      "sandbox runs",
    );
    this.events.emit("sandbox.running", id, { path: machine.boot.path, total_ms: machine.boot.totalMs });
    return sandbox;
  }

  /** Its time runs from now on: what an image's download took must not be taken from it. */
  #begin(sandbox: Sandbox, machine: SandboxMachine): void {
    const now = this.#clock.now();
    const { record } = sandbox;
    record.expiresAt += now - record.createdAt;
    record.boot = machine.boot;
    record.state = "running";
    sandbox.lastUsedAt = now;
  }

  /** Machines on their way, by sandbox. */
  readonly #making = new Map<string, Promise<void>>();

  // Changes

  /** @throws StacyError `invalid`, `limit`, `not-found` */
  async extend(id: string, ttlMs: number): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive");
    const { ownerId } = sandbox.record;
    const { maxTtlMs } = this.#admit(0, ownerId, 0);
    if (maxTtlMs !== undefined && ttlMs > maxTtlMs) {
      throw this.#refusal({ ...this.#admit(ttlMs, ownerId, 0), reason: "max_ttl" });
    }
    const before = sandbox.record.expiresAt;
    const expiresAt = this.#clock.now() + ttlMs;
    sandbox.record.expiresAt = expiresAt;
    try {
      await this.#save(sandbox);
    } catch (error) {
      if (sandbox.record.expiresAt === expiresAt) sandbox.record.expiresAt = before;
      this.#save(sandbox).catch(noop); // the row that is still tried must not be the refused one
      throw error;
    }
    this.events.emit("sandbox.extended", id, { expires_at: new Date(sandbox.record.expiresAt).toISOString() });
    return sandbox.record;
  }

  /** Other hosts that it may connect to, from now on. @throws StacyError `invalid`, `permission`, `not-found` */
  async setNetwork(id: string, hosts: readonly string[]): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    return sandbox.exclusive(async () => {
      await sandbox.machineIn(["running", "paused", "suspended"]).allow(hosts);
      setHosts(sandbox.record, hosts);
      await this.#save(sandbox);
      this.events.emit("sandbox.network", id, { allowed_hosts: hosts });
      return sandbox.record;
    });
  }

  /** A use of the running machine; one that idleness paused or suspended comes back first. */
  async lease(id: string): Promise<Lease> {
    const sandbox = this.get(id);
    if (sandbox.record.resumeOnUse === true && sandbox.state !== "running") await this.resume(id);
    return sandbox.lease();
  }

  pause(id: string): Promise<SandboxRecord> {
    return this.#change(id, "paused", "sandbox.paused", (machine) => machine.pause());
  }

  suspend(id: string): Promise<SandboxRecord> {
    return this.#change(id, "suspended", "sandbox.suspended", (machine) => machine.suspend());
  }

  resume(id: string): Promise<SandboxRecord> {
    return this.#change(id, "running", "sandbox.resumed", (machine) => machine.resume());
  }

  async #change(
    id: string,
    to: SandboxState,
    event: "sandbox.paused" | "sandbox.suspended" | "sandbox.resumed",
    work: (machine: SandboxMachine) => Promise<void>,
  ): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    return sandbox.exclusive(async () => {
      if (sandbox.state === to) {
        // Asked twice, two uses woke it at once, or the change was made and could not be recorded.
        await this.store.sandboxWritten(id);
        return sandbox.record;
      }
      const machine = sandbox.machineIn(["running", "paused", "suspended"]);
      assertMayBecome(id, sandbox.state, to);
      const { provider } = sandbox.record;
      await observed(this.#observer, { name: event, provider }, () => work(machine));
      // It may have been destroyed, or have died, meanwhile: that stands.
      assertMayBecome(id, sandbox.state, to);
      sandbox.record.state = to;
      delete sandbox.record.resumeOnUse;
      sandbox.lastUsedAt = this.#clock.now();
      await this.#save(sandbox);
      this.events.emit(event, id);
      return sandbox.record;
    });
  }

  /** Copies of a running sandbox, each its own from then on. */
  async fork(
    id: string,
    options: { count: number; ttlMs?: number; metadata?: Record<string, string>; env?: Record<string, string> },
    signal?: AbortSignal,
  ): Promise<{ sandboxes: SandboxRecord[]; stoppedMs: number }> {
    this.#assertOpen();
    const parent = this.get(id);
    const machine = parent.machineIn(["running"]);
    const { record } = parent;
    const ttlMs = options.ttlMs ?? this.limits.defaultTtlMs;
    if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive");
    const admission = this.#admit(ttlMs, record.ownerId, options.count);
    if (!admission.allowed) throw this.#refusal(admission);
    const resolved: ResolvedSpawn = {
      spec: { ...record, env: {}, setup: [] },
      provider: record.provider,
      ttlMs,
      idleTimeoutMs: record.idleTimeoutMs,
      idleAction: record.idleAction,
      metadata: { ...record.metadata, ...options.metadata },
    };
    const origin = record.ownerId === undefined ? { forkedFrom: id } : { forkedFrom: id, ownerId: record.ownerId };
    const children = Array.from({ length: options.count }, () => this.#reserve(resolved, record.provider, origin));
    const work = (async () => {
      try {
        await Promise.all(children.map((child) => this.#save(child)));
        const forking = parent.exclusive(() => {
          parent.machineIn(["running"]);
          return machine.fork(
            children.map((child) => child.id),
            { ...(options.env === undefined ? {} : { env: options.env }), ...(signal === undefined ? {} : { signal }) },
          );
        });
        const settled = forking.then(noop, noop);
        for (const child of children) this.#making.set(child.id, settled);
        const { machines, stoppedMs } = await forking;
        for (const child of children) {
          child.machine = machines.find((each) => each.id === child.id);
          this.#making.delete(child.id);
        }
        await Promise.all(children.map((child) => this.#bringUp(child)));
        this.events.emit("sandbox.forked", id, { children: children.map((child) => child.id), stopped_ms: stoppedMs });
        return { sandboxes: children.map((child) => child.record), stoppedMs };
      } catch (error) {
        for (const child of children) this.#making.delete(child.id);
        await Promise.all(children.map((child) => this.#end(child, "destroyed", "fork failed").catch(noop)));
        throw asStacyError(error).inPhase("fork");
      }
    })();
    return this.#track(work);
  }

  async #bringUp(child: Sandbox): Promise<void> {
    const { machine } = child;
    if (machine === undefined || child.state !== "creating") return;
    this.#begin(child, machine);
    this.#watch(child, machine);
    await this.#save(child);
    this.events.emit("sandbox.running", child.id, { path: machine.boot.path, total_ms: machine.boot.totalMs });
  }

  async checkpoint(id: string, name?: string): Promise<CheckpointRecord & { stoppedMs: number }> {
    const sandbox = this.get(id);
    return sandbox.exclusive(() =>
      this.checkpoints.create(sandbox.record, sandbox.machineIn(["running", "paused"]), name),
    );
  }

  /** Goes back to one of its own checkpoints in place; it runs afterwards, whatever it did before. */
  async restore(id: string, checkpointId: string): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    const checkpoint = this.checkpoints.get(checkpointId);
    if (checkpoint.sandboxId !== id) {
      throw new StacyError("invalid", `checkpoint ${checkpointId} is not one of sandbox ${id}`, {
        remedy: "spawn a new sandbox from it",
      });
    }
    return sandbox.exclusive(async () => {
      const machine = sandbox.machineIn(["running", "paused", "suspended"]);
      await machine.restore(checkpointId);
      if (!holdsMachine(sandbox.state)) throw new StacyError("not-found", `sandbox ${id} is gone`);
      sandbox.record.state = "running";
      delete sandbox.record.resumeOnUse;
      sandbox.lastUsedAt = this.#clock.now();
      await this.#save(sandbox);
      this.events.emit("sandbox.restored", id, { checkpoint: checkpointId });
      return sandbox.record;
    });
  }

  /** Idempotent, also for an id that was never known. */
  async destroy(id: string): Promise<void> {
    const sandbox = this.#all.get(id);
    // One that is gone may have an end that could not be recorded yet.
    if (sandbox === undefined) return this.store.sandboxWritten(id);
    const { provider } = sandbox.record;
    await observed(this.#observer, { name: "destroy", provider }, () => this.#end(sandbox, "destroyed", "requested"));
  }

  /** Ends what is over its time, now. @returns how many */
  async prune(): Promise<number> {
    const expired = this.#reaper.sweep();
    await Promise.all(expired.map((sandbox) => sandbox.gone?.catch(noop)));
    return expired.length;
  }

  // The end of one

  /** Marks it in the database, then ends its machine. Everyone who asks waits for the same end. */
  #end(sandbox: Sandbox, state: "destroyed" | "expired", reason: string): Promise<void> {
    sandbox.gone ??= this.#track(this.#endOnce(sandbox, state, reason));
    return withLimit(sandbox.gone, sandbox.id);
  }

  async #endOnce(sandbox: Sandbox, state: "destroyed" | "expired", reason: string): Promise<void> {
    const { id } = sandbox;
    if (mayBecome(sandbox.state, state)) sandbox.record.state = state;
    // A machine ends whether that can be recorded or not. The row is tried again until it is written, and `#buried` says so.
    await this.#save(sandbox).catch(noop);
    // A machine that is still being made has to be there before it can go.
    await this.#making.get(id);
    await Promise.resolve(); // let #start store the machine
    try {
      await sandbox.machine?.destroy();
    } catch (error) {
      this.#log.error({ sandbox: id, err: error }, "the machine did not end; trying again");
      this.events.emit("operation.failed", id, { operation: "destroy", message: asStacyError(error).message });
      this.#undead.add(sandbox);
      throw asStacyError(error).inPhase("destroy");
    }
    await this.#buried(sandbox, reason);
  }

  async #buried(sandbox: Sandbox, reason: string): Promise<void> {
    this.#undead.delete(sandbox);
    sandbox.record.state = "destroyed";
    this.#all.delete(sandbox.id);
    const saved = this.#save(sandbox);
    this.#log.info({ sandbox: sandbox.id, reason }, "sandbox destroyed");
    this.events.emit("sandbox.destroyed", sandbox.id, { reason });
    this.#queue.advance();
    await saved;
  }

  #expire(sandbox: Sandbox): void {
    if (sandbox.gone !== undefined) return;
    this.events.emit("sandbox.expired", sandbox.id);
    this.#end(sandbox, "expired", "ttl").catch(noop); // logged, and tried again
  }

  #idle(sandbox: Sandbox): void {
    const { id, record } = sandbox;
    if (record.idleAction === "destroy") {
      if (sandbox.gone === undefined) this.#end(sandbox, "destroyed", "idle").catch(noop);
      return;
    }
    // Counts as a use, so that a failing suspend is tried again after the same time and not every second.
    sandbox.lastUsedAt = this.#clock.now();
    const rest = record.idleAction === "pause" ? this.pause(id) : this.suspend(id);
    rest
      .then(() => {
        record.resumeOnUse = true;
        return this.#save(sandbox);
      })
      .catch((error: unknown) => {
        this.#log.warn({ sandbox: id, err: error }, `an idle sandbox: ${record.idleAction} failed`);
      });
  }

  #retryUndead(): void {
    for (const sandbox of [...this.#undead]) {
      this.#undead.delete(sandbox);
      this.#track(
        (sandbox.machine?.destroy() ?? Promise.resolve()).then(
          () => this.#buried(sandbox, "second attempt"),
          () => void this.#undead.add(sandbox),
        ),
      ).catch(noop);
    }
  }

  /** A machine that dies is noticed at once. */
  #watch(sandbox: Sandbox, machine: SandboxMachine): void {
    void machine.exited.then(async (report) => {
      if (this.#closing || sandbox.machine !== machine || !mayBecome(sandbox.state, "error")) return;
      const error = new StacyError("machine-exited", describeExit(report), { phase: "run" });
      await this.#fail(sandbox, error, report.console);
      // The record keeps the reason; the machine's files are of no more use.
      await machine.destroy().catch((cause: unknown) => {
        this.#log.error({ sandbox: sandbox.id, err: cause }, "a dead machine could not be removed");
      });
      this.#queue.advance();
    });
  }

  async #fail(sandbox: Sandbox, error: StacyError, console: string[]): Promise<void> {
    const failure: SandboxFailure = {
      code: error.code,
      message: error.message,
      at: this.#clock.now(),
      console,
      ...(error.phase === undefined ? {} : { phase: error.phase }),
    };
    sandbox.record.state = "error";
    sandbox.record.failure = failure;
    this.#log.warn({ sandbox: sandbox.id, phase: error.phase, console: console.slice(-5) }, error.message);
    this.events.emit("sandbox.error", sandbox.id, { code: error.code, message: error.message, console });
    await this.#save(sandbox).catch(noop);
  }

  #pin(template: Template): void {
    try {
      this.providers.pin(template.provider, templateSpec(template, this.limits), template.poolSize);
    } catch (error) {
      // Saved by an earlier version that did not look, or over a limit that came later: its spawns say so.
      this.#log.warn({ template: template.name, err: error }, "the template cannot be kept ready");
    }
  }

  #save(sandbox: Sandbox): Promise<void> {
    return this.store.putSandbox(sandbox.record, this.#clock.now());
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const tracked = work.then(noop, noop);
    this.#work.add(tracked);
    void tracked.then(() => this.#work.delete(tracked));
    return work;
  }

  /** Stops looking after them. Machines go on, unless `destroy`. What is under way is waited for. */
  async close(options: { destroy: boolean }): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#reaper.stop();
    this.#queue.close();
    if (options.destroy) {
      await Promise.all(
        [...this.#all.values()].map((sandbox) => this.#end(sandbox, "destroyed", "shutdown").catch(noop)),
      );
    }
    await Promise.all(this.#work);
    await this.providers.close();
    await this.store.committed().catch(noop); // closing the store says what it could not write
  }
}

function noop(): void {}

function setHosts(record: SandboxRecord, hosts: readonly string[]): void {
  if (hosts.length > 0) record.allowedHosts = [...hosts];
  else delete record.allowedHosts;
}

function describeExit(report: ExitReport): string {
  const how =
    report.signal !== undefined
      ? `signal ${report.signal}`
      : report.exitCode !== undefined
        ? `exit code ${report.exitCode}`
        : "unknown exit";
  return report.reason === "guest" ? `the guest powered off or panicked (${how})` : `the machine died (${how})`;
}

function withLimit(work: Promise<void>, id: string): Promise<void> {
  const late = (): StacyError =>
    new StacyError("timeout", `sandbox ${id} takes long to end; it goes on in the background`, { phase: "destroy" });
  return within(work, DESTROY_WAIT_MS, late);
}
