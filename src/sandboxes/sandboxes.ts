/**
 * All sandboxes of this daemon: what can be asked of them, and how the parts of their life fit together: places (admissions.ts),
 * making (making.ts), changes (state-changes.ts), idleness (idleness.ts), ends (endings.ts), and what an earlier daemon left
 * (takeover.ts). Spawns run in parallel; nothing here holds a lock over one.
 *
 * Order of writes. A sandbox's row is in the database (`creating`) before its machine exists, `running` before the client
 * hears of it, `destroyed` before its machine ends. So whatever moment the daemon dies at, the next one finds each machine
 * either wanted (a live row) or not, keeps the first kind and removes the second; and a row that was still `creating` names a
 * sandbox that no client knows of, which is removed too.
 */
import { type CopiedDirectories, copied } from "../directories/directory.ts";
import { HostRules, withRefusals } from "../egress/host-rules.ts";
import type { KeptSecret } from "../egress/secrets/secret.ts";
import { StacyError } from "../host/error.ts";
import { Phases } from "../host/phases.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { ImageUsers } from "../images/care.ts";
import type { ImageLibrary } from "../images/image.ts";
import { TemplateImages } from "../images/template-images.ts";
import type { Provider, SnapshotInfo } from "../providers/provider.ts";
import { Volumes } from "../volumes/volumes.ts";
import { Admissions, type Whose } from "./admissions.ts";
import { Attachments } from "./attachments.ts";
import { CheckpointVolumes } from "./checkpoint-volumes.ts";
import { Checkpoints } from "./checkpoints.ts";
import type { Clock } from "./clock.ts";
import { CodeRuns } from "./code.ts";
import { type DirectoryRules, resolveDirectories } from "./directories.ts";
import { type EndAnswer, Endings } from "./endings.ts";
import { type EventLog, Events } from "./events.ts";
import { Executions } from "./executions.ts";
import { Expiry } from "./expiry.ts";
import { ForkedVolumes, type ForkedVolumesMode } from "./forked-volumes.ts";
import { Idleness } from "./idleness.ts";
import { KeptReady } from "./kept-ready.ts";
import type { Admission, Limits } from "./limits.ts";
import { Making } from "./making.ts";
import { checkSandboxName } from "./name.ts";
import { type Log, type Observer, observed } from "./observer.ts";
import { checkUser, DEFAULT_OWNER } from "./owner.ts";
import { Policies } from "./policies.ts";
import { Providers } from "./providers.ts";
import { type QuotaStore, Quotas } from "./quotas.ts";
import { Reaper } from "./reaper.ts";
import { type CheckpointRecord, hasTime, type SandboxRecord, type VolumeInput, type VolumeMount } from "./record.ts";
import { isTaken, type Registry } from "./registry.ts";
import { boundedMetadata, type ResolvedSpawn, resolveSpawn, type SpawnInput } from "./resolve.ts";
import { inTransit, type Lease, type Sandbox } from "./sandbox.ts";
import type { Seal } from "./seal.ts";
import { type SecretInput, Secrets } from "./secrets.ts";
import type { QueueCounts } from "./spawn-queue.ts";
import { type ByItself, type CheckpointInput, StateChanges } from "./state-changes.ts";
import type { Store } from "./store.ts";
import { SandboxTable } from "./table.ts";
import { type Takeover, takeOver } from "./takeover.ts";
import { type TemplateStore, Templates } from "./templates.ts";
import { Transits } from "./transits.ts";
import { assertSettled, layOut, resolveVolumes, slotsOf, slotted, usersOf, withTemplate } from "./volume-mounts.ts";

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
  /** Where volumes are: `<data>/volumes`. */
  volumes: string;
  /** Absent: no directory of the host is given to anybody. */
  directories?: DirectoryRules;
  /** Absent: this server is alone. */
  registry?: Registry | undefined;
  /** Where what happens on several servers is read; absent: here. */
  eventLog?: EventLog | undefined;
  /** Where what several servers have alike is kept; absent: in the store. */
  shared?: (TemplateStore & QuotaStore) | undefined;
}

/** What is said of copies; absent: as with the source. */
export interface ForkInput {
  count: number;
  /** Of a single copy; absent: it has none. */
  name?: string;
  ttlMs?: number;
  metadata?: Record<string, string>;
  env?: Record<string, string>;
  /** What a copy gets of volumes that the source writes to; absent: a clone of each. */
  volumes?: ForkedVolumesMode;
  /** What a copy gets of directories of the host; absent: it reads them. */
  directories?: CopiedDirectories;
}

/** How long a stop waits for changes that were told to end; what is left undone then, the next daemon puts right. */
const STOP_WAIT_MS = 10_000;
/** For what ends still hold that were answered already: they take milliseconds. */
const FREED_WAIT_MS = 2_000;
/** More than any piece of work that borrows a sandbox may take: builds end after an hour. */
const WORK_MS = 2 * 3_600_000;

export class Sandboxes {
  readonly events: Events;
  readonly eventLog: EventLog;
  readonly templates: Templates;
  readonly quotas: Quotas;
  readonly policies: Policies;
  readonly checkpoints: Checkpoints;
  readonly secrets: Secrets;
  readonly volumes: Volumes;
  readonly executions: Executions;
  readonly code: CodeRuns;
  readonly providers: Providers;
  readonly limits: Limits;
  readonly store: Store;
  readonly transits: Transits;
  readonly #clock: Clock;
  readonly #directoryRules: DirectoryRules | undefined;
  readonly #observer: Observer;
  readonly #log: Log;
  readonly #registry: Registry | undefined;
  readonly #table: SandboxTable;
  readonly #admissions: Admissions;
  readonly #making: Making;
  readonly #changes: StateChanges;
  readonly #attachments: Attachments;
  readonly #endings: Endings;
  readonly #reaper: Reaper;
  readonly #keptReady: KeptReady;
  /** Spawns and forks under way, which a stop waits for. */
  readonly #work = new Set<Promise<unknown>>();
  #closing = false;

  constructor(options: SandboxesOptions) {
    const { store, clock, observer, log, limits } = options;
    this.store = store;
    this.limits = limits;
    this.#clock = clock;
    this.#directoryRules = options.directories;
    this.#observer = observer;
    this.#log = log;
    const now = (): number => clock.now();
    const { registry } = options;
    this.#registry = registry;
    const table = new SandboxTable(store, now, registry);
    this.#table = table;
    const events = new Events(store, now, (id) => table.ownerOf(id));
    this.events = events;
    this.eventLog = options.eventLog ?? events;
    this.providers = new Providers(options.providers, {
      ...{ aliases: limits.providerAliases, events, log, clock },
      volume: (id, slot) => slotted(table.find(id)?.record.volumes).find((each) => each.slot === slot)?.name,
    });
    this.quotas = new Quotas({ store: options.shared ?? store, clock, events }, () => this.#keptReady.update());
    this.policies = new Policies(store, limits.imageAliases);
    const groups = limits.hostGroups;
    this.templates = new Templates(
      { store: options.shared ?? store, clock, events, ...(groups === undefined ? {} : { groups }) },
      () => this.#keptReady.update(),
    );
    this.#keptReady = new KeptReady({
      ...{ providers: this.providers, quotas: this.quotas, limits, log },
      templates: () => this.templates.list(),
    });
    this.executions = new Executions({ store, events, observer, quotas: this.quotas, limits });
    this.code = new CodeRuns(this.executions);
    this.checkpoints = new Checkpoints({ store, clock, events, providers: this.providers });
    const secrets = new Secrets({
      ...{ store, clock, events, log, seal: options.seal },
      changed: (owner) => {
        for (const { record, machine } of table.all()) if (record.owner === owner) machine?.secretsChanged();
      },
    });
    this.secrets = secrets;
    const volumes = new Volumes({
      ...{ root: options.volumes, rows: store, now, log },
      limits: { maxVolumes: limits.maxVolumesPerOwner, maxVolumeMiB: limits.maxVolumeMiBPerOwner },
      users: (id) => usersOf(id, table.all()),
      hasMachine: async (sandbox) =>
        (await Promise.all(this.providers.all().map((provider) => provider.holds(sandbox)))).includes(true),
    });
    this.volumes = volumes;
    const admissions = new Admissions({ table, limits, quotas: this.quotas, events, clock, registry });
    this.#admissions = admissions;
    const endings = new Endings({
      ...{ events, log },
      save: (sandbox) => table.save(sandbox),
      ended: (sandbox) => {
        table.remove(sandbox);
        registry?.release(sandbox.id);
        void secrets.ended(sandbox.id);
        for (const mount of sandbox.record.volumes ?? [])
          volumes.release(mount, sandbox.id, mount.readOnly).catch(noop); // of no meaning without a machine
        admissions.advance();
      },
    });
    this.#endings = endings;
    const changes = new StateChanges({ table, checkpoints: this.checkpoints, volumes, events, observer, clock });
    this.#changes = changes;
    this.#attachments = new Attachments({ table, volumes, events, log });
    const advance = (): void => admissions.advance();
    this.#making = new Making({
      table,
      secrets,
      volumes,
      checkpoints: this.checkpoints,
      changes,
      endings,
      events,
      observer,
      log,
      clock,
      registry,
      mostOf: (record) => admissions.mostOf(record),
      advance,
    });
    const follow: Making["follow"] = (sandbox, machine) => this.#making.follow(sandbox, machine);
    this.transits = new Transits({ table, providers: this.providers, changes, endings, events, clock, follow });
    // What fails of these is logged, and tried again.
    const end = (sandbox: Sandbox): void => void endings.end(sandbox, "destroyed", "idle").catch(noop);
    const idleness = new Idleness({ clock, log, changes, end });
    const expired = (sandbox: Sandbox): void => {
      events.emit("sandbox.expired", sandbox.id);
      endings.end(sandbox, "expired", "ttl").catch(noop);
    };
    const expiry = new Expiry({ clock, log, changes, save: (sandbox) => table.save(sandbox), end: expired });
    this.#reaper = new Reaper(clock, {
      all: () => table.all(),
      expire: (sandbox) => expiry.expire(sandbox),
      idle: (sandbox) => idleness.consider(sandbox),
      retry: () => endings.retry(),
    });
  }

  /**
   * Takes over what an earlier daemon left, removes what nobody owns, and begins to look after time limits.
   * @throws StacyError `conflict` when there are machines that the database does not know, unless they are to be removed
   */
  async open(options: { removeUnknown?: boolean } = {}): Promise<Takeover> {
    await this.volumes.open();
    const done = await takeOver(
      {
        ...{ store: this.store, providers: this.providers, events: this.events, log: this.#log },
        now: () => this.#clock.now(),
        keep: (sandbox) => this.#table.add(sandbox),
        save: (sandbox) => this.#table.save(sandbox),
        follow: (sandbox, machine) => {
          this.#making.follow(sandbox, machine);
          void this.#attachments.settle(sandbox);
        },
        fail: (sandbox, error, console) => this.#making.fail(sandbox, error, console),
      },
      options.removeUnknown === true,
    );
    await this.volumes.settle((id) => this.#table.find(id) !== undefined);
    await this.checkpoints.sweep();
    await this.secrets.sweep((id) => this.#table.find(id) !== undefined);
    this.#keptReady.update();
    this.#reaper.start();
    return done;
  }

  // Reading

  /** Newest first. */
  list(): SandboxRecord[] {
    return this.#table.list();
  }

  /** @throws StacyError `not-found` */
  get(id: string): Sandbox {
    return this.#table.get(id);
  }

  /** What clients see of it, if there is one. */
  find(id: string): SandboxRecord | undefined {
    const sandbox = this.#table.find(id);
    return sandbox?.visible === true ? sandbox.record : undefined;
  }

  /** The id of the sandbox that this owner calls so. */
  idNamed(owner: string, name: string): string | undefined {
    return this.#table.findNamed(owner, name)?.id;
  }

  /** For the broker: `undefined` as long as the sandbox is not known here. */
  secretsOf(id: string): KeptSecret[] | undefined {
    const record = this.#table.find(id)?.record;
    return record === undefined ? undefined : this.secrets.of(record.owner, id, record.secrets ?? []);
  }

  countByState(): Record<string, number> {
    return this.#table.countByState();
  }

  /** Of a provider. */
  countOf(provider: string): number {
    return this.list().filter((record) => record.provider === provider).length;
  }

  get queue(): QueueCounts {
    return this.#admissions.queue;
  }

  /** Whose a sandbox is, or was as long as its history is kept. */
  ownerOf(id: string): string | undefined {
    return this.#table.ownerOf(id);
  }

  /** Sandboxes that hold or are getting a machine: all, those of the owner, and those of its user (if one is named). */
  activeOf(owner: string, user: string | undefined): ReturnType<SandboxTable["activeOf"]> {
    return this.#table.activeOf(owner, user);
  }

  /** The longest time that this user's sandboxes may be given, ms; absent: any. */
  maxTtlMs(owner: string, user: string | undefined): number | undefined {
    return this.#admissions.look(0, { owner, ownerId: checkUser(user) }, 0).maxTtlMs;
  }

  /** Whether there is a place for one that another server has. @throws StacyError `limit` */
  assertPlace({ owner, ownerId, provider }: SandboxRecord): void {
    this.#assertOpen();
    this.#registry?.assertOpen();
    this.policies.checkProvider(owner, [provider]);
    // The time that it has left it was given already.
    const admission = this.#admissions.look(1, { owner, ownerId }, 1);
    if (!admission.allowed) throw this.#admissions.refusal(admission, owner);
  }

  /** What a spawn would meet now. @throws StacyError `invalid`, `not-found`, `unavailable` */
  async admission(input: SpawnInput): Promise<Admission> {
    const whose = { owner: input.owner ?? DEFAULT_OWNER, ownerId: checkUser(input.ownerId) };
    return this.#admissions.lookEverywhere(this.#resolve(input).ttlMs, whose, 1);
  }

  /** How many sandboxes of this user hold a machine, or are getting one, on all servers. @throws StacyError `unavailable` */
  async countOfUser(owner: string, user: string | undefined): Promise<number> {
    if (user === undefined) return 0;
    if (this.#registry === undefined) return this.activeOf(owner, user).activeOwner ?? 0;
    return (await this.#registry.taken(owner, user)).user?.sandboxes ?? 0;
  }

  // Spawning

  /**
   * Resolves with a sandbox that runs.
   * @param signal the client is gone: the sandbox is destroyed as soon as its machine is there (what was pulled or built stays)
   */
  async spawn(input: SpawnInput, signal?: AbortSignal): Promise<Sandbox> {
    this.#assertOpen();
    this.#registry?.assertOpen();
    const phases = new Phases();
    const owner = input.owner ?? DEFAULT_OWNER;
    const ownerId = checkUser(input.ownerId);
    this.#table.assertFree(owner, checkSandboxName(input.name)); // before it waits for a place
    const resolved = this.#resolve(input);
    const placed = this.#volumesOf(input);
    const mounts = placed?.mounts ?? [];
    if (placed !== undefined && input.checkpoint) {
      throw new StacyError("invalid", "volumes: a checkpoint is a saved machine, which has no place for them", {
        remedy: "start from its image or from a template",
      });
    }
    // It would be refused at the end of its time, each minute again.
    const saved = input.checkpoint ? this.checkpoints.get(input.checkpoint) : undefined;
    if ((mounts.length > 0 || saved?.volumes !== undefined) && resolved.onExpiry?.keeps === "disk") {
      throw new StacyError("invalid", "volumes: a sandbox that has some cannot be kept without its memory at its end", {
        remedy: "keep its memory, too: clients of E2B leave autoPauseMemory out",
      });
    }
    const { directories: asked = [] } = input;
    if (asked.length > 0 && resolved.onExpiry?.keeps === "disk") {
      throw new StacyError("invalid", "mounts: a sandbox that has some cannot be kept without its memory at its end", {
        remedy: "keep its memory, too: clients of E2B leave autoPauseMemory out",
      });
    }
    const rules = this.#directoryRules ?? { allow: [], hidden: "/" };
    const directories = await resolveDirectories(rules, asked, mounts, input.directoriesFor);
    const provider = this.providers.pick(resolved.provider);
    if (resolved.idleTimeoutMs > 0 && resolved.idleAction === "pause") await assertPauses(provider);
    if (!this.#admissions.look(resolved.ttlMs, { owner, ownerId }, 1).allowed) await this.#freedOpen();
    let made: CheckpointVolumes | undefined;
    const reserve = (): Sandbox | undefined => {
      const admission = this.#admissions.look(resolved.ttlMs, { owner, ownerId }, 1);
      if (admission.allowed) {
        if (saved?.volumes !== undefined) {
          const file = (slot: number): string => provider.savedVolume(saved.id, slot);
          made = new CheckpointVolumes(this.volumes, owner, saved.volumes, file);
        }
        return this.#making.reserve(resolved, provider.name, {
          ...input,
          mounts,
          directories,
          slots: placed?.slots ?? saved?.slots,
          made,
          owner,
          ...(ownerId ? { ownerId } : {}),
        });
      }
      if (admission.queueable) return undefined;
      throw this.#admissions.refusal(admission, owner);
    };
    const make = async (): Promise<Sandbox> => {
      const sandbox = reserve() ?? (await phases.phase("queue", () => this.#admissions.wait(reserve, owner, signal)));
      const brings = { secrets: ownSecrets(input), made };
      return this.#track(this.#making.spawn(sandbox, provider, resolved.spec, brings, phases, signal));
    };
    try {
      return await make();
    } catch (error) {
      if (!isTaken(error)) throw error;
      return await make();
    }
  }

  /** A new one that is in use, and destroyed with its lease. */
  async lend(input: SpawnInput, signal?: AbortSignal): Promise<Lease & AsyncDisposable> {
    const sandbox = await this.spawn({ ...input, lent: true }, signal);
    try {
      const lease = sandbox.lease();
      const end = async (): Promise<void> => {
        lease[Symbol.dispose]();
        await this.destroy(sandbox.id);
      };
      return { ...lease, [Symbol.asyncDispose]: end };
    } catch (error) {
      // Its machine has ended already.
      await this.destroy(sandbox.id);
      throw error;
    }
  }

  /** The same without secrets, for a piece of work of our own. */
  async borrow(input: SpawnInput, signal?: AbortSignal): Promise<Lease & AsyncDisposable> {
    // Its end is that of the work, which has a limit of its own; the time is for one that is forgotten with its server.
    const most = this.maxTtlMs(input.owner ?? DEFAULT_OWNER, input.ownerId) ?? WORK_MS;
    const ttlMs = Math.min(most, Math.max(WORK_MS, this.limits.defaultTtlMs));
    return this.lend({ ttlMs, ...input, withoutSecrets: true }, signal);
  }

  /** Builds the golden snapshot of what a spawn would be, unless it is there. @param queued is told when its turn does not come at once */
  async buildSnapshot(
    input: SpawnInput,
    signal: AbortSignal,
    queued?: () => void,
  ): Promise<{ info: SnapshotInfo; image: string }> {
    if (input.checkpoint) throw new StacyError("invalid", "checkpoint: a checkpoint is a saved machine already");
    const { spec, provider } = this.#resolve(input);
    const slots = this.#volumesOf(input)?.slots;
    const whole = { ...spec, ...(slots === undefined ? {} : { slots }), signal };
    return { info: await this.providers.pick(provider).buildSnapshot(whole, queued), image: spec.image };
  }

  /** Copies of a running sandbox, each its own from then on. */
  async fork(
    id: string,
    options: ForkInput,
    signal?: AbortSignal,
  ): Promise<{ sandboxes: SandboxRecord[]; stoppedMs: number }> {
    this.#assertOpen();
    this.#registry?.assertOpen();
    const name = checkSandboxName(options.name);
    if (name !== undefined && options.count > 1) {
      throw new StacyError("invalid", "name: several copies cannot have the same name", {
        remedy: "make one copy at a time, or leave out the name",
      });
    }
    const ttlMs = options.ttlMs ?? this.limits.defaultTtlMs;
    if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive");
    const look = (): Admission => this.#admissions.look(ttlMs, whoseIs(this.get(id).record), options.count);
    // Before anything of the parent is looked at: it may be another thing after that.
    if (!look().allowed) await this.#freedOpen();
    const parent = this.get(id);
    parent.machineIn(["running"]); // says at once what would fail later
    const { record } = parent;
    assertSettled(record);
    const { volumes: mounts = [], directories: _, slots, ...shape } = record;
    // A sandbox may be older than a denial; its copies are not.
    this.#checkPolicies(record.owner, record.image, [record.provider]);
    const admission = look();
    if (!admission.allowed) throw this.#admissions.refusal(admission, record.owner);
    const resolved: ResolvedSpawn = {
      spec: { ...shape, env: { ...parent.env, ...options.env }, setup: [], secrets: {} },
      provider: record.provider,
      ...(record.secrets === undefined ? {} : { secrets: record.secrets }),
      ttlMs,
      idleTimeoutMs: record.idleTimeoutMs,
      idleAction: record.idleAction,
      ...(record.idleCounts === undefined ? {} : { idleCounts: record.idleCounts }),
      metadata: boundedMetadata({ ...record.metadata, ...options.metadata }),
    };
    const { owner, ownerId, ports, template } = record;
    const asked = options.directories ?? "read_only";
    const directories = copied(record.directories, asked, record.diskMiB * 2 ** 20);
    const forked =
      mounts.length === 0 ? undefined : new ForkedVolumes(this.volumes, owner, mounts, options.volumes ?? "clone");
    const origin = {
      ...{ forkedFrom: id, owner, made: forked, slots: forked?.slotsOf(slotsOf(record)) ?? slots },
      ...(directories === undefined ? {} : { directories }),
      ...(name ? { name } : {}),
      ...(ownerId === undefined ? {} : { ownerId }),
      ...(ports === undefined ? {} : { ports }),
      ...(template === undefined ? {} : { template }),
    };
    const children: Sandbox[] = [];
    try {
      while (children.length < options.count) {
        children.push(this.#making.reserve(resolved, record.provider, origin));
      }
    } catch (error) {
      // The database did not say whether an id is free. Nothing was begun for those before it.
      for (const child of children) this.#table.remove(child);
      await forked?.abandon(error);
      throw error;
    }
    return this.#track(
      this.#making.fork(parent, children, { env: options.env, volumes: forked, directories: asked }, signal),
    );
  }

  #assertOpen(): void {
    if (this.#closing) throw new StacyError("unavailable", "the server is stopping");
  }

  /** Who needs the images of this host: machines with their snapshots, and templates. */
  imageUsers(images: ImageLibrary): ImageUsers[] {
    return [...this.providers.all(), new TemplateImages(images, () => this.templates.list())];
  }

  /** Whoever is about to refuse something for what a sandbox holds waits a moment for ends that were answered already. */
  freed(): Promise<void> {
    return soon(this.#endings.freed(), FREED_WAIT_MS);
  }

  /** The same, for what is made after it. @throws StacyError `unavailable` when the server has begun to stop meanwhile */
  async #freedOpen(): Promise<void> {
    await this.freed();
    this.#assertOpen();
  }

  /** @throws StacyError `invalid`, `not-found` */
  #volumesOf({
    owner = DEFAULT_OWNER,
    template,
    volumes,
    spareSlots,
  }: SpawnInput): ReturnType<typeof layOut<VolumeMount>> {
    const from = template ? this.templates.get(owner, template) : undefined;
    return layOut(resolveVolumes(this.volumes, owner, withTemplate(from, volumes)), spareSlots ?? from?.spareSlots);
  }

  #resolve(input: SpawnInput): ResolvedSpawn {
    const owner = input.owner ?? DEFAULT_OWNER;
    const template = input.template ? this.templates.get(owner, input.template) : undefined;
    const checkpoint = input.checkpoint ? this.checkpoints.get(input.checkpoint) : undefined;
    const named = (input.secrets ?? []).filter((each) => typeof each === "string");
    const names = [...(template?.secrets ?? []).map(({ name }) => name), ...named];
    const own = ownSecrets(input).map((each) => this.secrets.check(owner, each));
    const found = input.withoutSecrets === true ? [] : this.secrets.granted(owner, names);
    const granted = found.filter(({ name }) => !own.some((each) => each.name === name));
    const resolved = resolveSpawn(input, this.limits, template, checkpoint, [...granted, ...own]);
    this.limitHosts(resolved.spec.allowedHosts ?? [], input.within);
    const { name } = this.providers.pick(resolved.provider);
    const image = input.imageChecked === true ? undefined : resolved.spec.image;
    this.#checkPolicies(owner, image, [resolved.provider ?? name, name]);
    return resolved;
  }

  /** @param image absent: the caller has checked it. @throws StacyError `permission` */
  #checkPolicies(owner: string, image: string | undefined, providers: readonly string[]): void {
    if (image !== undefined) this.policies.checkImage(owner, image);
    this.policies.checkProvider(owner, providers);
  }

  // Changes

  /** @throws StacyError `invalid`, `limit`, `not-found` */
  async extend(id: string, ttlMs: number): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    if (sandbox.record.transit !== undefined) throw inTransit(id);
    this.#checkTtl(sandbox, ttlMs);
    const before = sandbox.record.expiresAt;
    const expiresAt = this.#clock.now() + ttlMs;
    sandbox.record.expiresAt = expiresAt;
    hasTime(sandbox.record);
    try {
      await this.#table.save(sandbox);
    } catch (error) {
      if (sandbox.record.expiresAt === expiresAt) sandbox.record.expiresAt = before;
      this.#table.save(sandbox).catch(noop); // the row that is still tried must not be the refused one
      throw error;
    }
    this.events.emit("sandbox.extended", id, { expires_at: new Date(sandbox.record.expiresAt).toISOString() });
    return sandbox.record;
  }

  #checkTtl({ record }: Sandbox, ttlMs: number): void {
    if (ttlMs <= 0) throw new StacyError("invalid", "ttl must be positive");
    const whose = whoseIs(record);
    const maxTtlMs = this.maxTtlMs(whose.owner, whose.ownerId);
    if (maxTtlMs !== undefined && ttlMs > maxTtlMs) {
      const refused = { ...this.#admissions.look(ttlMs, whose, 0), reason: "max_ttl" as const };
      throw this.#admissions.refusal(refused, whose.owner);
    }
  }

  /**
   * @param within what may be allowed at most; absent: anything
   * @returns the hosts, with what `within` refuses
   * @throws StacyError `permission` naming the rule, `invalid`
   */
  limitHosts(hosts: readonly string[], within: readonly string[] | undefined): string[] {
    if (within === undefined) return [...hosts];
    const groups = this.limits.hostGroups;
    const beyond = new HostRules(hosts, groups).beyond(new HostRules(within, groups));
    if (beyond === undefined) return withRefusals(hosts, within);
    throw new StacyError("permission", `this key's sandboxes may not connect to ${beyond}`, {
      remedy: within.length === 0 ? "its sandboxes have no network" : `it may allow ${within.join(", ")}`,
    });
  }

  /** Other hosts that it may connect to, from now on. @throws StacyError `invalid`, `permission`, `not-found` */
  setNetwork(id: string, hosts: readonly string[]): Promise<SandboxRecord> {
    return this.#changes.setNetwork(id, hosts);
  }

  /** A use of the running machine; one that idleness paused or suspended comes back first. */
  async lease(id: string): Promise<Lease> {
    const sandbox = this.get(id);
    await sandbox.autoStop;
    const { record } = sandbox;
    if (record.resumeOnUse === true && sandbox.state !== "running") {
      await this.#changes.to(sandbox, "running", { reason: "used" });
      const { resumeMs } = record.onExpiry ?? {};
      if (resumeMs !== undefined) await this.extend(id, resumeMs);
    }
    return sandbox.lease();
  }

  async pause(id: string): Promise<SandboxRecord> {
    return this.#changes.to(this.get(id), "paused");
  }

  /** @param how.keepMs it is kept so long, whatever time it had; absent: its time runs on. @throws StacyError as `extend` */
  async suspend(id: string, how: Pick<ByItself, "keepMs" | "keeps"> = {}): Promise<SandboxRecord> {
    const sandbox = this.get(id);
    if (how.keepMs !== undefined) this.#checkTtl(sandbox, how.keepMs);
    return this.#changes.to(sandbox, "suspended", how);
  }

  /** @param how.anew as the machine's. @throws StacyError `conflict` for that with volumes or directories of the host */
  async resume(id: string, how: Pick<ByItself, "anew"> = {}): Promise<SandboxRecord> {
    return this.#changes.to(this.get(id), "running", how);
  }

  /** A volume of its owner in a free place of its machine, from now on. @throws StacyError `conflict`, `invalid`, `not-found`, `corrupt` */
  async attachVolume(id: string, volume: VolumeInput): Promise<SandboxRecord> {
    using use = await this.lease(id);
    return await this.#attachments.attach(use.sandbox, volume);
  }

  /** @param force also from programs that hold it. @throws StacyError `conflict` naming them, `not-found` */
  async detachVolume(id: string, name: string, force: boolean): Promise<SandboxRecord> {
    using use = await this.lease(id);
    return await this.#attachments.detach(use.sandbox, name, force);
  }

  checkpoint(id: string, input?: CheckpointInput): Promise<CheckpointRecord & { stoppedMs: number }> {
    return this.#changes.checkpoint(id, input);
  }

  /** Goes back to one of its own checkpoints in place; it runs afterwards, whatever it did before. */
  restore(id: string, checkpointId: string): Promise<SandboxRecord> {
    return this.#changes.restore(id, checkpointId);
  }

  /** Idempotent, also for an id that was never known. */
  async destroy(id: string, answer: EndAnswer = "gone"): Promise<void> {
    const sandbox = this.#table.find(id);
    // One that is gone may have an end that could not be recorded yet.
    if (sandbox === undefined) return this.store.sandboxWritten(id);
    if (sandbox.record.transit !== undefined) throw inTransit(id);
    const { provider } = sandbox.record;
    await observed(this.#observer, { name: "destroy", provider }, () =>
      this.#endings.end(sandbox, "destroyed", "requested", answer),
    );
  }

  /** Ends what is over its time, now, whose ever it is. @returns how many (of the owner, if one is given) */
  async prune(owner?: string): Promise<number> {
    const expired = this.#reaper.sweep().filter(({ record }) => owner === undefined || record.owner === owner);
    await this.#endings.settled(expired);
    return expired.length;
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
    this.#making.stop();
    this.#reaper.stop();
    this.#admissions.close();
    const stopping = new StacyError("unavailable", "the server is stopping");
    const all = [...this.#table.all()].map((sandbox) =>
      // One that is still being made nobody will ever hear of, and one that is lent goes with the call that has it.
      options.destroy || sandbox.state === "creating" || sandbox.record.lent === true
        ? this.#endings.end(sandbox, "destroyed", "shutdown").catch(noop)
        : sandbox.changes.close(stopping),
    );
    await soon(
      Promise.all([...all, ...this.#work, this.#endings.freed()]),
      options.destroy ? 2 * STOP_WAIT_MS : STOP_WAIT_MS,
    );
    await soon(this.providers.close(), STOP_WAIT_MS);
    await this.store.committed().catch(noop); // closing the store says what it could not write
  }
}

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

function whoseIs({ owner, ownerId }: SandboxRecord): Whose {
  return { owner, ownerId };
}

async function soon(work: Promise<unknown>, ms: number): Promise<void> {
  const late = (): StacyError => new StacyError("timeout", "it takes too long");
  await withTimeLimit(work, ms, late).catch(noop);
}

function noop(): void {}
