/**
 * The life of all sandboxes: admission, spawn, states, time limits, adoption, end. Spawns run in parallel; nothing here holds a
 * lock over one.
 *
 * Order of writes. A sandbox's row is in the database (`creating`) before its machine exists, `running` before the client
 * hears of it, `destroyed` before its machine ends. So whatever moment the daemon dies at, the next one finds each machine
 * either wanted (a live row) or not, keeps the first kind and removes the second; and a row that was still `creating` names a
 * sandbox that no client knows of, which is removed too.
 */
import { HostRules } from "../egress/host-rules.ts";
import type { KeptSecret } from "../egress/secrets/secret.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { Phases } from "../host/phases.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { Provider, SandboxMachine, SandboxSpec, SnapshotInfo } from "../providers/provider.ts";
import type { ExitReport } from "../vmm/vmm.ts";
import { Checkpoints } from "./checkpoints.ts";
import type { Clock } from "./clock.ts";
import { Endings } from "./endings.ts";
import { Events } from "./events.ts";
import { Executions } from "./executions.ts";
import { type Admission, decideAdmission, explain, type Limits } from "./limits.ts";
import { type Log, type Observer, observed } from "./observer.ts";
import { checkUser, DEFAULT_OWNER } from "./owner.ts";
import { Policies } from "./policies.ts";
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
import type { Seal } from "./seal.ts";
import { type SecretInput, Secrets } from "./secrets.ts";
import { setHosts } from "./set-hosts.ts";
import { type QueueCounts, SpawnQueue } from "./spawn-queue.ts";
import { assertMayBecome, holdsMachine, mayBecome } from "./state.ts";
import type { Store } from "./store.ts";
import { type Takeover, takeOver } from "./takeover.ts";
import { Templates } from "./templates.ts";

export interface SandboxesOptions {
  store: Store;
  /** The first is the default. */
  providers: readonly Provider[];
  limits: Limits;
  clock: Clock;
  observer: Observer;
  log: Log;
  /** What values of secrets are kept with; absent: they are not kept. */
  seal?: Seal | undefined;
}

/** How long a stop waits for changes that were told to end; what is left undone then, the next daemon puts right. */
const STOP_WAIT_MS = 10_000;

export class Sandboxes {
  readonly events: Events;
  readonly templates: Templates;
  readonly quotas: Quotas;
  readonly policies: Policies;
  readonly checkpoints: Checkpoints;
  readonly secrets: Secrets;
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
  readonly #endings: Endings;
  /** Spawns and forks under way, which a stop waits for. */
  readonly #work = new Set<Promise<unknown>>();
  #closing = false;

  constructor(options: SandboxesOptions) {
    const { store, clock, observer, log, limits } = options;
    this.store = store;
    this.limits = limits;
    this.#clock = clock;
    this.#observer = observer;
    this.#log = log;
    this.events = new Events(
      store,
      () => clock.now(),
      (id) => this.ownerOf(id),
    );
    this.providers = new Providers(options.providers, {
      aliases: limits.providerAliases,
      events: this.events,
      log,
      clock,
    });
    this.quotas = new Quotas({ store, clock, events: this.events });
    this.policies = new Policies(store, limits.imageAliases);
    const groups = limits.hostGroups;
    this.templates = new Templates(
      { store, clock, events: this.events, ...(groups === undefined ? {} : { groups }) },
      (template) => this.#pin(template),
    );
    this.executions = new Executions({ store, events: this.events, observer, quotas: this.quotas, limits });
    this.checkpoints = new Checkpoints({ store, clock, events: this.events, providers: this.providers });
    this.secrets = new Secrets({
      ...{ store, clock, events: this.events, log, seal: options.seal },
      changed: (owner) => {
        for (const { record, machine } of this.#all.values()) if (record.owner === owner) machine?.secretsChanged();
      },
    });
    this.#queue = new SpawnQueue(clock);
    this.#reaper = new Reaper(clock, {
      all: () => this.#all.values(),
      expire: (sandbox) => this.#expire(sandbox),
      idle: (sandbox) => this.#idle(sandbox),
      retry: () => this.#endings.retry(),
    });
    this.#endings = new Endings({
      ...{ events: this.events, log },
      save: (sandbox) => this.#save(sandbox),
      ended: (sandbox) => {
        this.#all.delete(sandbox.id);
        void this.secrets.ended(sandbox.id);
        this.#queue.advance();
      },
    });
  }

  /**
   * Takes over what an earlier daemon left, removes what nobody owns, and begins to look after time limits.
   * @throws StacyError `conflict` when there are machines that the database does not know, unless they are to be removed
   */
  async open(options: { removeUnknown?: boolean } = {}): Promise<Takeover> {
    const done = await takeOver(
      {
        ...{ store: this.store, providers: this.providers, events: this.events, log: this.#log },
        now: () => this.#clock.now(),
        keep: (sandbox) => this.#all.set(sandbox.id, sandbox),
        save: (sandbox) => this.#save(sandbox),
        follow: (sandbox, machine) => this.#watch(sandbox, machine),
        fail: (sandbox, error, console) => this.#fail(sandbox, error, console),
      },
      options.removeUnknown === true,
    );
    await this.checkpoints.sweep();
    await this.secrets.sweep((id) => this.#all.has(id));
    for (const template of this.templates.list()) if (template.poolSize > 0) this.#pin(template);
    this.#reaper.start();
    return done;
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

  /** For the broker: `undefined` as long as the sandbox is not known here. */
  secretsOf(id: string): KeptSecret[] | undefined {
    const record = this.#all.get(id)?.record;
    return record === undefined ? undefined : this.secrets.of(record.owner, id, record.secrets ?? []);
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

  /** Whose a sandbox is, or was as long as its history is kept. */
  ownerOf(id: string): string | undefined {
    return this.#all.get(id)?.record.owner ?? this.store.ownerOfSandbox(id);
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

  /** What a spawn would meet now. @throws StacyError `invalid`, `not-found` */
  admission(input: SpawnInput): Admission {
    const whose = { owner: input.owner ?? DEFAULT_OWNER, ownerId: checkUser(input.ownerId) };
    return this.#admit(this.#resolve(input).ttlMs, whose, 1);
  }

  // Spawning

  /**
   * Resolves with a sandbox that runs.
   * @param signal the client is gone: the sandbox is destroyed as soon as its machine is there (what was pulled or built stays)
   */
  async spawn(input: SpawnInput, signal?: AbortSignal): Promise<Sandbox> {
    this.#assertOpen();
    const phases = new Phases();
    const owner = input.owner ?? DEFAULT_OWNER;
    const ownerId = checkUser(input.ownerId);
    const whose = { owner, ownerId };
    const resolved = this.#resolve(input);
    const provider = this.providers.pick(resolved.provider);
    if (resolved.idleTimeoutMs > 0 && resolved.idleAction === "pause") await assertPauses(provider);
    const reserve = (): Sandbox | undefined => {
      const admission = this.#admit(resolved.ttlMs, whose, 1);
      if (admission.allowed)
        return this.#reserve(resolved, provider.name, { ...input, owner, ...(ownerId ? { ownerId } : {}) });
      if (admission.queueable) return undefined;
      throw this.#refusal(admission, owner);
    };
    const sandbox = reserve() ?? (await phases.phase("queue", () => this.#enqueue(reserve, owner, signal)));
    return this.#track(this.#start(sandbox, provider, resolved.spec, ownSecrets(input), phases, signal));
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
    const owner = input.owner ?? DEFAULT_OWNER;
    const template = input.template ? this.templates.get(owner, input.template) : undefined;
    const checkpoint = input.checkpoint ? this.checkpoints.get(input.checkpoint) : undefined;
    const named = (input.secrets ?? []).filter((each) => typeof each === "string");
    const names = [...(template?.secrets ?? []).map(({ name }) => name), ...named];
    const own = ownSecrets(input).map((each) => this.secrets.check(owner, each));
    const granted = this.secrets.granted(owner, names).filter(({ name }) => !own.some((each) => each.name === name));
    const resolved = resolveSpawn(input, this.limits, template, checkpoint, [...granted, ...own]);
    this.assertWithin(resolved.spec.allowedHosts ?? [], input.within);
    if (input.imageChecked !== true) this.policies.checkImage(owner, resolved.spec.image);
    const { name } = this.providers.pick(resolved.provider);
    this.policies.checkProvider(owner, [resolved.provider ?? name, name]);
    return resolved;
  }

  #admit(ttlMs: number, { owner, ownerId }: Whose, count: number): Admission {
    const quota = this.quotas.effective(owner, ownerId);
    return decideAdmission({ limits: this.limits, quota, ttlMs, count, ...this.activeOf(owner, ownerId) });
  }

  #refusal(admission: Admission, owner: string): StacyError {
    const { message, remedy } = explain(admission);
    this.events.emit("resource.limit", undefined, { reason: admission.reason }, owner);
    return new StacyError("limit", message, { phase: "admission", remedy, data: { reason: admission.reason } });
  }

  async #enqueue(reserve: () => Sandbox | undefined, owner: string, signal: AbortSignal | undefined): Promise<Sandbox> {
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
    this.events.emit("spawn.queued", undefined, { waiting: this.#queue.length + 1 }, owner);
    try {
      await this.#queue.wait(attempt, {
        max: this.limits.maxQueue,
        timeoutMs: this.limits.queueTimeoutMs,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      if (asStacyError(error).code === "timeout") {
        this.events.emit("spawn.queue_timeout", undefined, undefined, owner);
      }
      throw error;
    }
    if (sandbox === undefined) throw refused;
    this.events.emit("spawn.dequeued", sandbox.id);
    return sandbox;
  }

  /** Takes the place at once (no await before the map knows it): admission counts what is in flight. */
  #reserve(
    resolved: ResolvedSpawn,
    provider: string,
    input: SpawnInput & { owner: string; forkedFrom?: string },
  ): Sandbox {
    const now = this.#clock.now();
    const record: SandboxRecord = {
      id: this.#freshId(),
      state: "creating",
      provider,
      image: resolved.spec.image,
      memoryMiB: resolved.spec.memoryMiB,
      vcpus: resolved.spec.vcpus,
      diskMiB: resolved.spec.diskMiB,
      owner: input.owner,
      createdAt: now,
      expiresAt: now + resolved.ttlMs,
      idleTimeoutMs: resolved.idleTimeoutMs,
      idleAction: resolved.idleAction,
      ...(resolved.idleCounts === undefined ? {} : { idleCounts: resolved.idleCounts }),
      metadata: resolved.metadata,
      ...(resolved.spec.allowedHosts?.length ? { allowedHosts: [...resolved.spec.allowedHosts] } : {}),
      ...(resolved.secrets === undefined ? {} : { secrets: resolved.secrets }),
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
    own: readonly SecretInput[],
    phases: Phases,
    signal: AbortSignal | undefined,
  ): Promise<Sandbox> {
    const { id } = sandbox;
    const leave = (): void => void this.#endings.end(sandbox, "destroyed", "the client went away").catch(noop);
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted === true) leave();
    try {
      await sandbox.changes.run(async (ended) => {
        await phases.phase("record", () => this.#save(sandbox));
        for (const secret of own) await this.secrets.put(sandbox.record.owner, secret, id);
        this.events.emit("sandbox.created", id, { image: spec.image, provider: provider.name });
        ended.throwIfAborted();
        const machine = await provider.spawn({ ...spec, id, signal: ended });
        sandbox.machine = machine;
        ended.throwIfAborted();
        this.#begin(sandbox, machine);
        await phases.phase("commit", () => this.#save(sandbox));
        this.#watch(sandbox, machine);
      });
    } catch (error) {
      throw await this.#unmake(sandbox, asStacyError(error));
    } finally {
      signal?.removeEventListener("abort", leave);
    }
    const { boot } = sandbox.record;
    if (boot !== undefined) {
      this.#observer.spawned(boot, phases.total);
      const ms = { ...boot.phases, ...phases.ms };
      this.#log.info({ sandbox: id, path: boot.path, ms: phases.total, phases: ms }, "sandbox runs");
      this.events.emit("sandbox.running", id, { path: boot.path, total_ms: boot.totalMs });
    }
    return sandbox;
  }

  /** After a spawn that came to nothing: nobody got this sandbox, the error is the answer, and nothing of it stays. */
  async #unmake(sandbox: Sandbox, failure: StacyError): Promise<StacyError> {
    const { id } = sandbox;
    const ended = !sandbox.visible;
    if (!ended) {
      this.#observer.spawnFailed(failure, sandbox.record.provider);
      this.#log.warn({ sandbox: id, phase: failure.phase, code: failure.code, err: failure }, "spawn failed");
      this.events.emit("sandbox.error", id, { code: failure.code, phase: failure.phase, message: failure.message });
    }
    await this.#endings.end(sandbox, "destroyed", "spawn failed").catch(noop); // logged, and tried again
    return ended ? new StacyError("cancelled", `sandbox ${id} was ended while it was being made`) : failure;
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

  // Changes

  /** @throws StacyError `invalid`, `limit`, `not-found` */
  async extend(id: string, ttlMs: number): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive");
    const whose = whoseIs(sandbox.record);
    const { maxTtlMs } = this.#admit(0, whose, 0);
    if (maxTtlMs !== undefined && ttlMs > maxTtlMs) {
      throw this.#refusal({ ...this.#admit(ttlMs, whose, 0), reason: "max_ttl" }, whose.owner);
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

  /** @param within what may be allowed at most; absent: anything @throws StacyError `permission` naming the rule, `invalid` */
  assertWithin(hosts: readonly string[], within: readonly string[] | undefined): void {
    if (within === undefined) return;
    const groups = this.limits.hostGroups;
    const beyond = new HostRules(hosts, groups).beyond(new HostRules(within, groups));
    if (beyond === undefined) return;
    throw new StacyError("permission", `this key's sandboxes may not connect to ${beyond}`, {
      remedy: within.length === 0 ? "its sandboxes have no network" : `it may allow ${within.join(", ")}`,
    });
  }

  /** Other hosts that it may connect to, from now on. @throws StacyError `invalid`, `permission`, `not-found` */
  async setNetwork(id: string, hosts: readonly string[]): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    return sandbox.changes.run(async (signal) => {
      await sandbox.machineIn(["running", "paused", "suspended"]).allow(hosts, { signal });
      setHosts(sandbox.record, hosts);
      await this.#save(sandbox);
      this.events.emit("sandbox.network", id, { allowed_hosts: hosts });
      return sandbox.record;
    });
  }

  /** A use of the running machine; one that idleness paused or suspended comes back first. */
  async lease(id: string): Promise<Lease> {
    const sandbox = this.get(id);
    await sandbox.resting;
    if (sandbox.record.resumeOnUse === true && sandbox.state !== "running") await this.resume(id);
    return sandbox.lease();
  }

  pause(id: string): Promise<SandboxRecord> {
    return this.#changeState(this.get(id), "paused");
  }

  suspend(id: string): Promise<SandboxRecord> {
    return this.#changeState(this.get(id), "suspended");
  }

  resume(id: string): Promise<SandboxRecord> {
    return this.#changeState(this.get(id), "running");
  }

  /** @param idleSince only if it was not used since then; its next use brings it back */
  #changeState(sandbox: Sandbox, to: keyof typeof STATE_CHANGES, idleSince?: number): Promise<SandboxRecord> {
    const { event, change } = STATE_CHANGES[to];
    const { id, record } = sandbox;
    return sandbox.changes.run(async (signal) => {
      if (sandbox.state === to) {
        // Asked twice, two uses woke it at once, or the change was made and could not be recorded.
        await this.store.sandboxWritten(id);
        return record;
      }
      if (idleSince !== undefined && (sandbox.inUse || sandbox.lastUsedAt > idleSince)) return record;
      const machine = sandbox.machineIn(["running", "paused", "suspended"]);
      assertMayBecome(id, sandbox.state, to);
      const { provider } = record;
      await observed(this.#observer, { name: event, provider }, () =>
        this.#onMachine(sandbox, machine, () => machine[change]({ signal })),
      );
      this.#assertThere(sandbox);
      if (idleSince === undefined) delete record.resumeOnUse;
      else record.resumeOnUse = true;
      if (to === "running") delete record.resumeOnUse;
      sandbox.lastUsedAt = this.#clock.now();
      await this.#save(sandbox);
      this.events.emit(event, id);
      return record;
    });
  }

  /** It may have ended, or failed, while a change was under way: that stands. */
  #assertThere(sandbox: Sandbox): void {
    if (!holdsMachine(sandbox.state)) throw new StacyError("not-found", `sandbox ${sandbox.id} is gone`);
  }

  /** A change of the machine. Whatever becomes of it: the record says what the machine is, unless that has ended meanwhile. */
  async #onMachine<T>(sandbox: Sandbox, machine: SandboxMachine, change: () => Promise<T>): Promise<T> {
    try {
      return await change();
    } finally {
      const { state } = machine;
      if (state !== "exited" && mayBecome(sandbox.state, state)) sandbox.record.state = state;
    }
  }

  /** Copies of a running sandbox, each its own from then on. */
  async fork(
    id: string,
    options: { count: number; ttlMs?: number; metadata?: Record<string, string>; env?: Record<string, string> },
    signal?: AbortSignal,
  ): Promise<{ sandboxes: SandboxRecord[]; stoppedMs: number }> {
    this.#assertOpen();
    const parent = this.get(id);
    parent.machineIn(["running"]); // says at once what would fail later
    const { record } = parent;
    const ttlMs = options.ttlMs ?? this.limits.defaultTtlMs;
    if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive");
    const admission = this.#admit(ttlMs, whoseIs(record), options.count);
    if (!admission.allowed) throw this.#refusal(admission, record.owner);
    const resolved: ResolvedSpawn = {
      spec: { ...record, env: {}, setup: [], secrets: {} },
      provider: record.provider,
      ...(record.secrets === undefined ? {} : { secrets: record.secrets }),
      ttlMs,
      idleTimeoutMs: record.idleTimeoutMs,
      idleAction: record.idleAction,
      ...(record.idleCounts === undefined ? {} : { idleCounts: record.idleCounts }),
      metadata: { ...record.metadata, ...options.metadata },
    };
    const { owner, ownerId } = record;
    const origin = { forkedFrom: id, owner, ...(ownerId === undefined ? {} : { ownerId }) };
    const children: Sandbox[] = [];
    try {
      while (children.length < options.count) children.push(this.#reserve(resolved, record.provider, origin));
    } catch (error) {
      // The database did not say whether an id is free. Nothing was begun for those before it.
      for (const { id } of children) this.#all.delete(id);
      throw error;
    }
    return this.#track(this.#fork(parent, children, options.env, signal));
  }

  async #fork(
    parent: Sandbox,
    children: readonly Sandbox[],
    env: Record<string, string> | undefined,
    signal: AbortSignal | undefined,
  ): Promise<{ sandboxes: SandboxRecord[]; stoppedMs: number }> {
    const ids = children.map(({ id }) => id);
    try {
      await Promise.all(children.map((child) => this.#save(child)));
      await Promise.all(ids.map((id) => this.secrets.copy(parent.record.owner, parent.id, id)));
      const forking = parent.changes.run((ended) => {
        const machine = parent.machineIn(["running"]);
        const either = signal === undefined ? ended : AbortSignal.any([ended, signal]);
        const options = { signal: either, ...(env === undefined ? {} : { env }) };
        return this.#onMachine(parent, machine, () => machine.fork(ids, options));
      });
      // To each child this is its making: an end that comes meanwhile waits for it.
      await Promise.all(
        children.map((child) =>
          child.changes
            .run(async (ended) => {
              const { machines } = await forking;
              const machine = machines.find(({ id }) => id === child.id);
              child.machine = machine;
              ended.throwIfAborted();
              if (machine !== undefined) await this.#bringUp(child, machine);
            })
            .catch(async (error: unknown) => {
              await forking; // if it failed, that is the error
              if (child.visible) throw error; // else it was ended already: so it goes
            }),
        ),
      );
      const { stoppedMs } = await forking;
      this.events.emit("sandbox.forked", parent.id, { children: ids, stopped_ms: stoppedMs });
      return { sandboxes: children.map((child) => child.record), stoppedMs };
    } catch (error) {
      await Promise.allSettled(children.map((child) => this.#endings.end(child, "destroyed", "fork failed")));
      throw asStacyError(error).inPhase("fork");
    }
  }

  async #bringUp(child: Sandbox, machine: SandboxMachine): Promise<void> {
    this.#begin(child, machine);
    await this.#save(child);
    this.#watch(child, machine);
    this.events.emit("sandbox.running", child.id, { path: machine.boot.path, total_ms: machine.boot.totalMs });
  }

  async checkpoint(id: string, name?: string): Promise<CheckpointRecord & { stoppedMs: number }> {
    const sandbox = this.get(id);
    return sandbox.changes.run((signal) => {
      const machine = sandbox.machineIn(["running", "paused"]);
      return this.#onMachine(sandbox, machine, () => this.checkpoints.create(sandbox.record, machine, name, signal));
    });
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
    return sandbox.changes.run(async (signal) => {
      const machine = sandbox.machineIn(["running", "paused", "suspended"]);
      await this.#onMachine(sandbox, machine, () => machine.restore(checkpointId, { signal }));
      this.#assertThere(sandbox);
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
    await observed(this.#observer, { name: "destroy", provider }, () =>
      this.#endings.end(sandbox, "destroyed", "requested"),
    );
  }

  /** Ends what is over its time, now, whose ever it is. @returns how many (of the owner, if one is given) */
  async prune(owner?: string): Promise<number> {
    const expired = this.#reaper.sweep().filter(({ record }) => owner === undefined || record.owner === owner);
    await this.#endings.settled(expired);
    return expired.length;
  }

  #expire(sandbox: Sandbox): void {
    this.events.emit("sandbox.expired", sandbox.id);
    this.#endings.end(sandbox, "expired", "ttl").catch(noop); // logged, and tried again
  }

  /** Nobody uses it from outside. What still runs in it, a server say, is use too. */
  #idle(sandbox: Sandbox): void {
    if (sandbox.unreachable !== undefined || this.#asked.has(sandbox)) return;
    this.#asked.add(sandbox);
    const asked = sandbox.lastUsedAt;
    void this.#runsSomething(sandbox).then((busy) => {
      this.#asked.delete(sandbox);
      if (sandbox.inUse || sandbox.lastUsedAt !== asked || sandbox.state !== "running") return;
      if (busy) sandbox.lastUsedAt = this.#clock.now();
      else this.#rest(sandbox);
    });
  }

  /** Idle ones that are being asked whether something runs in them. */
  readonly #asked = new WeakSet<Sandbox>();

  async #runsSomething({ machine, record }: Sandbox): Promise<boolean> {
    if (record.idleCounts === "calls") return false;
    try {
      return ((await machine?.agent.info())?.commands ?? 0) > 0;
    } catch {
      return false; // one that does not answer is of no use
    }
  }

  #rest(sandbox: Sandbox): void {
    const { id, record } = sandbox;
    if (record.idleAction === "destroy") {
      this.#endings.end(sandbox, "destroyed", "idle").catch(noop); // logged, and tried again
      return;
    }
    // Counts as a use, so that a failing suspend is tried again after the same time and not every second.
    const now = this.#clock.now();
    sandbox.lastUsedAt = now;
    const rest = this.#changeState(sandbox, record.idleAction === "pause" ? "paused" : "suspended", now).then(
      noop,
      (error: unknown) => this.#log.warn({ sandbox: id, err: error }, `an idle sandbox: ${record.idleAction} failed`),
    );
    sandbox.resting = rest;
    void rest.then(() => {
      if (sandbox.resting === rest) sandbox.resting = undefined;
    });
  }

  /** A machine that dies is noticed at once. */
  #watch(sandbox: Sandbox, machine: SandboxMachine): void {
    const noticed = machine.exited.then(async (report) => {
      if (this.#closing || sandbox.machine !== machine || !mayBecome(sandbox.state, "error")) return;
      const error = new StacyError("machine-exited", describeExit(report), { phase: "run" });
      await this.#fail(sandbox, error, report.console);
      // The record keeps the reason; the machine's files are of no more use.
      await machine.destroy();
      this.#queue.advance();
    });
    noticed.catch((error: unknown) => {
      this.#log.error({ sandbox: sandbox.id, err: error }, "a dead machine could not be removed");
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
      // Names are each owner's own.
      const name = `${template.owner}/${template.name}`;
      this.providers.pin(name, template.provider, templateSpec(template, this.limits), template.poolSize);
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

  /**
   * Stops looking after them. Machines go on, unless `destroy`. Changes that are under way are told to end, and what does not in
   * time the next daemon puts right.
   */
  async close(options: { destroy: boolean }): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#reaper.stop();
    this.#queue.close();
    const stopping = new StacyError("unavailable", "the server is stopping");
    const all = [...this.#all.values()].map((sandbox) =>
      // One that is still being made nobody will ever hear of.
      options.destroy || sandbox.state === "creating"
        ? this.#endings.end(sandbox, "destroyed", "shutdown").catch(noop)
        : sandbox.changes.close(stopping),
    );
    await soon(Promise.all([...all, ...this.#work]), options.destroy ? 2 * STOP_WAIT_MS : STOP_WAIT_MS);
    await soon(this.providers.close(), STOP_WAIT_MS);
    await this.store.committed().catch(noop); // closing the store says what it could not write
  }
}

/** How a state is reached: by which change of the machine, and what is told of it. */
const STATE_CHANGES = {
  paused: { event: "sandbox.paused", change: "pause" },
  suspended: { event: "sandbox.suspended", change: "suspend" },
  running: { event: "sandbox.resumed", change: "resume" },
} as const;

/** What would never work is said before anything is made. @throws StacyError `not-supported` */
async function assertPauses(provider: Provider): Promise<void> {
  const { healthy, canPause } = await provider.health();
  if (canPause || !healthy) return; // one that cannot be used at all says so itself
  throw new StacyError("not-supported", `${provider.name} cannot pause machines on this host, also not idle ones`, {
    remedy: "ask for `idle_action: suspend`",
  });
}

/** What a spawn brings along for its sandbox alone. */
function ownSecrets({ secrets = [] }: SpawnInput): SecretInput[] {
  return secrets.filter((each) => typeof each !== "string");
}

type Whose = Pick<SandboxRecord, "owner"> & { ownerId: string | undefined };

function whoseIs({ owner, ownerId }: SandboxRecord): Whose {
  return { owner, ownerId };
}

async function soon(work: Promise<unknown>, ms: number): Promise<void> {
  const late = (): StacyError => new StacyError("timeout", "it takes too long");
  await withTimeLimit(work, ms, late).catch(noop);
}

function noop(): void {}

function describeExit(report: ExitReport): string {
  const how =
    report.signal !== undefined
      ? `signal ${report.signal}`
      : report.exitCode !== undefined
        ? `exit code ${report.exitCode}`
        : "unknown exit";
  return report.reason === "guest" ? `the guest powered off or panicked (${how})` : `the machine died (${how})`;
}
