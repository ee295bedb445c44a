/**
 * The sandboxes layer as one caller may see it. Whatever belongs to another owner does not exist here: the same errors, the same
 * empty answers as for a thing that never was. What is made through a view belongs to its owner. A view of everything is for
 * administrators and for the daemon itself; what it makes belongs to its owner all the same.
 *
 * A view is made for each request, costs nothing, and is all that routes get: so none can forget to ask whose a thing is.
 */
import { StacyError } from "../host/error.ts";
import { checkpointKey, type PoolStatus, type SnapshotInfo } from "../providers/provider.ts";
import type { NewVolume, VolumeInfo, VolumeUsage } from "../volumes/volumes.ts";
import type { CodeRuns } from "./code.ts";
import type { EventType, SandboxEvent } from "./events.ts";
import type { ExecRequest, RunningCommand } from "./executions.ts";
import type { Admission } from "./limits.ts";
import type { CheckpointRecord, ExecRecord, OwnerQuota, SandboxRecord, Template, VolumeInput } from "./record.ts";
import type { SpawnInput } from "./resolve.ts";
import type { Lease, Sandbox } from "./sandbox.ts";
import type { Sandboxes } from "./sandboxes.ts";
import type { SecretInfo, SecretInput } from "./secrets.ts";
import { type CollectedSnapshots, type CollectSnapshotsOptions, collectSnapshots } from "./snapshot-collection.ts";
import type { CheckpointInput } from "./state-changes.ts";
import type { TemplateInput } from "./templates.ts";

export interface Caller {
  owner: string;
  /** Sees what other owners have, too. */
  everything: boolean;
  /** Its sandboxes may connect to no others; absent: no limit of its own. */
  hosts?: readonly string[];
}

export class View {
  readonly caller: Caller;
  /** Other owners whose things were used through this view, for the audit log. */
  readonly foreign = new Set<string>();
  readonly #all: Sandboxes;

  constructor(all: Sandboxes, caller: Caller) {
    this.#all = all;
    this.caller = caller;
  }

  get owner(): string {
    return this.caller.owner;
  }

  /** Of lists and counts: only this owner's, or all. */
  get only(): string | undefined {
    return this.caller.everything ? undefined : this.caller.owner;
  }

  /** Of one thing that somebody asks for. */
  #may(owner: string | undefined): boolean {
    if (owner === this.caller.owner) return true;
    if (this.caller.everything && owner !== undefined) this.foreign.add(owner);
    return this.caller.everything;
  }

  /** For the audit log: a thing of this owner was used that no layer below a view has. */
  about(owner: string): void {
    if (owner !== this.owner) this.foreign.add(owner);
  }

  // Sandboxes

  /** Newest first. */
  list(): SandboxRecord[] {
    const only = this.only;
    return this.#all.list().filter(({ owner }) => only === undefined || owner === only);
  }

  /** The same with their machines, to look at all: which is no use of another owner's thing. */
  everyOne(): Sandbox[] {
    return this.list().map(({ id }) => this.#all.get(id));
  }

  /** Of a provider. */
  countOf(provider: string): number {
    return this.list().filter((record) => record.provider === provider).length;
  }

  /**
   * The id of the sandbox that this owner calls so; anything else is taken as it is. By name an administrator finds its own, too:
   * another owner's by acting for that owner.
   */
  idOf(idOrName: string): string {
    return this.#all.idNamed(this.owner, idOrName) ?? idOrName;
  }

  /** By id or name, as wherever a sandbox is asked for here. @throws StacyError `not-found` */
  get(idOrName: string): Sandbox {
    const sandbox = this.#all.get(this.idOf(idOrName));
    if (!this.#may(sandbox.record.owner)) throw unknownSandbox(idOrName);
    return sandbox;
  }

  async lease(idOrName: string): Promise<Lease> {
    return this.#all.lease(this.get(idOrName).id);
  }

  /** The longest time that this user's sandboxes may be given, ms; absent: any. */
  maxTtlMs(user: string | undefined): number | undefined {
    return this.#all.maxTtlMs(this.owner, user);
  }

  admission(input: SpawnInput): Promise<Admission> {
    return this.#all.admission(this.#own(input));
  }

  spawn(input: SpawnInput, signal?: AbortSignal): Promise<Sandbox> {
    return this.#all.spawn(this.#own(input), signal);
  }

  lend(input: SpawnInput, signal?: AbortSignal): ReturnType<Sandboxes["lend"]> {
    return this.#all.lend(this.#own(input), signal);
  }

  borrow(input: SpawnInput, signal?: AbortSignal): ReturnType<Sandboxes["borrow"]> {
    return this.#all.borrow(this.#own(input), signal);
  }

  async buildSnapshot(input: SpawnInput, signal: AbortSignal, queued?: () => void): Promise<SnapshotInfo> {
    const { info, image } = await this.#all.buildSnapshot(this.#own(input), signal, queued);
    if (this.caller.everything) return info;
    return ofOwn(info, this.#uses().get(info.key) ?? { image, createdAt: info.createdAt, count: 0 });
  }

  async extend(idOrName: string, ttlMs: number): Promise<SandboxRecord> {
    return this.#all.extend(this.get(idOrName).id, ttlMs);
  }

  setNetwork(idOrName: string, hosts: readonly string[]): Promise<SandboxRecord> {
    const { id } = this.get(idOrName);
    return this.#all.setNetwork(id, this.#all.limitHosts(hosts, this.caller.hosts));
  }

  async pause(idOrName: string): Promise<SandboxRecord> {
    return this.#all.pause(this.get(idOrName).id);
  }

  async suspend(idOrName: string, how: Parameters<Sandboxes["suspend"]>[1] = {}): Promise<SandboxRecord> {
    return this.#all.suspend(this.get(idOrName).id, how);
  }

  async resume(idOrName: string, how: Parameters<Sandboxes["resume"]>[1] = {}): Promise<SandboxRecord> {
    return this.#all.resume(this.get(idOrName).id, how);
  }

  fork(idOrName: string, ...rest: Tail<Sandboxes["fork"]>): ReturnType<Sandboxes["fork"]> {
    const { id, allowedHosts = [] } = this.get(idOrName).record;
    // A copy keeps its parent's rules, which another key may have made.
    if (this.#all.limitHosts(allowedHosts, this.caller.hosts).length > allowedHosts.length) {
      throw new StacyError("permission", "this sandbox may connect to hosts that this key refuses its own", {
        remedy: "fork it with the key that it was made with, or set its network first",
      });
    }
    return this.#all.fork(id, ...rest);
  }

  attachVolume(idOrName: string, volume: VolumeInput): Promise<SandboxRecord> {
    return this.#all.attachVolume(this.get(idOrName).id, volume);
  }

  detachVolume(idOrName: string, name: string, force: boolean): Promise<SandboxRecord> {
    return this.#all.detachVolume(this.get(idOrName).id, name, force);
  }

  checkpoint(idOrName: string, input?: CheckpointInput): ReturnType<Sandboxes["checkpoint"]> {
    return this.#all.checkpoint(this.get(idOrName).id, input);
  }

  restore(idOrName: string, checkpoint: string): Promise<SandboxRecord> {
    const { id } = this.get(idOrName);
    this.checkpoints.get(checkpoint);
    return this.#all.restore(id, checkpoint);
  }

  /**
   * Nobody knows it any more, and its machine cannot run; what is left of it is removed beside. Idempotent, also for an id that was never
   * known: which another owner's is not.
   */
  async destroy(idOrName: string): Promise<void> {
    const id = this.idOf(idOrName);
    const owner = this.#all.ownerOf(id);
    if (owner !== undefined && this.#may(owner)) await this.#all.destroy(id, "stopped");
  }

  /** As `Sandboxes.freed`, for what routes refuse by themselves. */
  freed(): Promise<void> {
    return this.#all.freed();
  }

  /** @returns how many that the caller may see were over their time */
  prune(): Promise<number> {
    return this.#all.prune(this.only);
  }

  /** How many sandboxes of this user hold a machine, or are getting one. */
  countOfUser(user: string | undefined): Promise<number> {
    return this.#all.countOfUser(this.owner, user);
  }

  /** Commands that ran in it, newest first; also of one that is gone. */
  history(idOrName: string, limit: number): ExecRecord[] {
    const id = this.idOf(idOrName);
    const owner = this.#all.ownerOf(id);
    return owner !== undefined && this.#may(owner) ? this.#all.executions.history(id, limit) : [];
  }

  /** The lease is the proof that the caller may. */
  run(lease: Lease, request: ExecRequest, signal: AbortSignal): ReturnType<Sandboxes["executions"]["run"]> {
    return this.#all.executions.run(lease, request, signal);
  }

  start(lease: Lease, request: ExecRequest, signal?: AbortSignal): Promise<RunningCommand> {
    return this.#all.executions.start(lease, request, signal);
  }

  /** The code interpreter: the lease is the proof here, too. */
  get code(): CodeRuns {
    return this.#all.code;
  }

  // What sandboxes are made of

  readonly checkpoints = {
    /** Newest first. */
    list: (sandbox?: string): CheckpointRecord[] =>
      this.#all.checkpoints
        .list(sandbox === undefined ? undefined : this.idOf(sandbox))
        .filter(({ owner }) => this.caller.everything || owner === this.owner),
    /** @throws StacyError `not-found` */
    get: (id: string): CheckpointRecord => {
      const found = this.#all.checkpoints.get(id);
      if (!this.#may(found.owner)) throw unknownCheckpoint(id);
      return found;
    },
    /** Of one that was found here. */
    damageOf: (record: CheckpointRecord): Promise<string | undefined> => this.#all.checkpoints.damageOf(record),
    remove: async (id: string): Promise<void> => {
      this.checkpoints.get(id);
      await this.#all.checkpoints.remove(id);
    },
  };

  /** By name, within the owner: an administrator names another one's by acting for that owner. */
  readonly templates = {
    list: (): Template[] => this.#all.templates.list(this.only),
    get: (name: string): Template => this.#all.templates.get(this.owner, name),
    create: async (input: TemplateInput): Promise<Template> => {
      // Its set-up commands run for whoever spawns from it, and for its pool.
      const allowedHosts = this.#all.limitHosts(input.allowedHosts, this.caller.hosts);
      return this.#all.templates.create(this.owner, { ...input, allowedHosts });
    },
    replace: async (name: string, input: TemplateInput): Promise<Template> => {
      const allowedHosts = this.#all.limitHosts(input.allowedHosts, this.caller.hosts);
      return this.#all.templates.replace(this.owner, name, { ...input, allowedHosts });
    },
    remove: (name: string): Promise<void> => this.#all.templates.remove(this.owner, name),
  };

  /** By name, within the owner. Values go in and never come out. */
  readonly secrets = {
    list: (): SecretInfo[] => this.#all.secrets.list(this.only),
    get: (name: string): SecretInfo => this.#all.secrets.get(this.owner, name),
    put: (input: SecretInput): Promise<SecretInfo> => this.#all.secrets.put(this.owner, input),
    remove: (name: string): Promise<void> => this.#all.secrets.remove(this.owner, name),
  };

  /** By name, within the owner. */
  readonly volumes = {
    list: (): Promise<VolumeInfo[]> => this.#all.volumes.list(this.only),
    get: (name: string): Promise<VolumeInfo> => this.#all.volumes.get(this.owner, name),
    usage: (): Promise<VolumeUsage[]> => this.#all.volumes.usage(this.only),
    create: (input: NewVolume): Promise<VolumeInfo> => this.#all.volumes.create(this.owner, input),
    clone: (name: string, to: { name: string; frozen: boolean }): Promise<VolumeInfo> =>
      this.#all.volumes.clone(this.owner, name, to),
    resize: (name: string, sizeMiB: number): Promise<VolumeInfo> => this.#all.volumes.resize(this.owner, name, sizeMiB),
    remove: (name: string): Promise<void> => this.#all.volumes.remove(this.owner, name),
    import: (name: string, stream: AsyncIterable<Uint8Array>): Promise<VolumeInfo> =>
      this.#all.volumes.import(this.owner, name, stream),
    export: (name: string): Promise<ReadableStream<Uint8Array>> => this.#all.volumes.export(this.owner, name),
  };

  /** By user, within the owner. */
  readonly quotas = {
    list: (): OwnerQuota[] => this.#all.quotas.list(this.only),
    summary: (): ReturnType<Sandboxes["quotas"]["summary"]> => this.#all.quotas.summary(this.only),
    find: (user: string | undefined): OwnerQuota | undefined => this.#all.quotas.find(this.owner, user),
    effective: (user: string | undefined): ReturnType<Sandboxes["quotas"]["effective"]> =>
      this.#all.quotas.effective(this.owner, user),
    get: (user: string): OwnerQuota => this.#all.quotas.get(this.owner, user),
    put: (user: string, limits: Parameters<Sandboxes["quotas"]["put"]>[2]): Promise<OwnerQuota> =>
      this.#all.quotas.put(this.owner, user, limits),
    remove: (user: string): Promise<void> => this.#all.quotas.remove(this.owner, user),
  };

  /** Saved machines: an owner's checkpoints, and the golden snapshots that its own sandboxes came from. */
  async snapshots(): Promise<SnapshotInfo[]> {
    const all = (await Promise.all(this.#all.providers.all().map((provider) => provider.snapshots()))).flat();
    all.sort((a, b) => b.createdAt - a.createdAt);
    if (this.caller.everything) return all;
    const checkpoints = new Set(this.checkpoints.list().map(({ id }) => checkpointKey(id)));
    const uses = this.#uses();
    return all.flatMap((info) => {
      const own = uses.get(info.key);
      if (checkpoints.has(info.key)) return [info];
      return own === undefined ? [] : [ofOwn(info, own)];
    });
  }

  /** @throws StacyError `not-found`, `conflict` */
  async removeSnapshot(key: string): Promise<void> {
    const found = (await this.snapshots()).find((info) => info.key === key);
    if (found === undefined) throw new StacyError("not-found", `there is no snapshot ${key}`);
    await this.#all.freed();
    await this.#all.checkpoints.removeSnapshot(this.#all.providers.pick(found.vmm), key);
  }

  /** Of all owners: for administrators, as the route says. */
  async collectSnapshots(options: CollectSnapshotsOptions): Promise<CollectedSnapshots> {
    await this.#all.freed();
    return collectSnapshots(this.#all.checkpoints.snapshotOwners(), Date.now(), options);
  }

  /** Machines kept ready; an owner sees those that its own sandboxes came from, by the image that those have. */
  pools(): PoolStatus[] {
    const all = this.#all.providers.pools();
    if (this.caller.everything) return all;
    const uses = this.#uses();
    return all.flatMap((pool) => {
      const own = uses.get(pool.key);
      return own === undefined ? [] : [{ ...pool, image: own.image }];
    });
  }

  /** Own sandboxes by the snapshot that they came from: how many, and of the newest its image and when it was made. */
  #uses(): Map<string, Uses> {
    const uses = new Map<string, Uses>();
    for (const { boot, image, createdAt } of this.list()) {
      if (boot?.key === undefined) continue;
      const newer = uses.get(boot.key);
      uses.set(boot.key, { ...(newer ?? { image, createdAt }), count: (newer?.count ?? 0) + 1 });
    }
    return uses;
  }

  // What happens

  readonly events = {
    /** The number of the newest event of all. @throws StacyError `unavailable` */
    newest: async (): Promise<number> => this.#all.eventLog.newest(),
    /** The newest of this server's, oldest first. */
    recent: (count: number): SandboxEvent[] =>
      this.#all.events.after(Math.max(0, this.#all.events.last - count), this.only),
    /** Of this server, and all owners: open streams, events that are kept, and events since the start. */
    counts: (): { followers: number; kept: number; published: number } => {
      const { followers, kept, published } = this.#all.events;
      return { followers, kept, published };
    },
    after: async (number: number): Promise<SandboxEvent[]> => this.#all.eventLog.after(number, this.only),
    /** Newest first. */
    before: async (number: number): Promise<SandboxEvent[]> => this.#all.eventLog.before(number, this.only),
    wait: (ms: number, signal: AbortSignal): Promise<boolean> => this.#all.eventLog.wait(ms, signal),
    /** About a sandbox that the caller has found here. */
    emit: (type: EventType, sandboxId: string, data?: Record<string, unknown>): void =>
      this.#all.events.emit(type, sandboxId, data),
  };

  /** Spawns that wait for room, of all owners. */
  get queue(): Sandboxes["queue"] {
    return this.#all.queue;
  }

  #own(input: SpawnInput): SpawnInput {
    if (input.checkpoint) this.checkpoints.get(input.checkpoint);
    return { ...input, owner: this.owner, ...(this.caller.hosts === undefined ? {} : { within: this.caller.hosts }) };
  }
}

/** An owner's sandboxes of one snapshot. */
interface Uses {
  count: number;
  /** Of the newest. */
  image: string;
  createdAt: number;
}

/** What a shared one is called, when it was last used and how often it is in use, as far as that is this owner's to know. */
function ofOwn(info: SnapshotInfo, { image, createdAt, count }: Uses): SnapshotInfo {
  return { ...info, image, lastUsedAt: createdAt, inUse: count };
}

type Tail<F> = F extends (id: string, ...rest: infer R) => unknown ? R : never;

/** To the letter what `Sandboxes` says of an id that it does not know. */
function unknownSandbox(id: string): StacyError {
  return new StacyError("not-found", `there is no sandbox ${JSON.stringify(id.slice(0, 64))}`);
}

function unknownCheckpoint(id: string): StacyError {
  return new StacyError("not-found", `there is no checkpoint ${JSON.stringify(id.slice(0, 64))}`);
}
