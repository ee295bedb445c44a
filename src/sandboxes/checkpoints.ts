/** Checkpoints: running sandboxes that a user saved, to spawn from later. */
import { asStacyError, StacyError } from "../host/error.ts";
import { checkpointKey, type Provider, type SandboxMachine } from "../providers/provider.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import type { Providers } from "./providers.ts";
import { type CheckpointRecord, newCheckpointId, type SandboxRecord, type SavedVolume } from "./record.ts";
import type { SnapshotOwner } from "./snapshot-collection.ts";
import type { Store } from "./store.ts";

export class Checkpoints {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #providers: Providers;
  readonly #byId: Map<string, CheckpointRecord>;
  readonly #halfMade: CheckpointRecord[];
  /** Ids of those that are being saved. */
  readonly #saving = new Set<string>();

  constructor(parts: { store: Store; clock: Clock; events: Events; providers: Providers }) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#providers = parts.providers;
    const stored = this.#store.checkpoints();
    this.#byId = new Map(stored.filter(({ saving }) => saving !== true).map((record) => [record.id, record]));
    this.#halfMade = stored.filter(({ saving }) => saving === true);
  }

  /** Removes what an earlier daemon was saving when it died, and rows of what is saved no more. */
  async sweep(): Promise<void> {
    for (const record of this.#halfMade.splice(0)) await this.#sweepOne(record, "it was being saved");
    for (const provider of this.#providers.all()) {
      // What cannot be seen is not gone.
      const keys = new Set(await provider.snapshotKeys().catch(() => []));
      // Nor is everything at once: then the disk with the saved machines is another one, or not there yet.
      if (keys.size === 0) continue;
      for (const record of [...this.#byId.values()]) {
        if (record.provider !== provider.name || keys.has(checkpointKey(record.id))) continue;
        if (await this.#sweepOne(record, "its saved machine is gone")) this.#byId.delete(record.id);
      }
    }
  }

  async #sweepOne(record: CheckpointRecord, reason: string): Promise<boolean> {
    const action = await this.#discard(record).then(
      () => "removed",
      () => "failed", // its row stays, and the next start tries again
    );
    this.#events.emit("reconcile.action", record.sandboxId, { action, name: record.id, reason });
    return action === "removed";
  }

  /** Newest first. */
  list(sandboxId?: string): CheckpointRecord[] {
    return [...this.#byId.values()]
      .filter((record) => sandboxId === undefined || record.sandboxId === sandboxId)
      .sort((a, b) => b.createdAt - a.createdAt);
  }

  /** @throws StacyError `not-found` */
  get(id: string): CheckpointRecord {
    const found = this.#byId.get(id);
    if (found === undefined)
      throw new StacyError("not-found", `there is no checkpoint ${JSON.stringify(id.slice(0, 64))}`);
    return found;
  }

  /** What is wrong with its files, if anything is known to be. */
  async damageOf({ id, provider }: CheckpointRecord): Promise<string | undefined> {
    try {
      return await this.#providers.pick(provider).checkpointDamage(id);
    } catch {
      return undefined; // what cannot be seen now is not damaged
    }
  }

  async create(
    sandbox: SandboxRecord,
    machine: SandboxMachine,
    { name, volumes }: { name?: string | undefined; volumes: SavedVolume[] },
    signal: AbortSignal,
  ): Promise<CheckpointRecord & { stoppedMs: number }> {
    const record: CheckpointRecord = {
      id: await this.#freshId(sandbox.provider),
      sandboxId: sandbox.id,
      provider: sandbox.provider,
      image: sandbox.image,
      memoryMiB: sandbox.memoryMiB,
      vcpus: sandbox.vcpus,
      diskMiB: sandbox.diskMiB,
      bytes: 0,
      createdAt: this.#clock.now(),
      owner: sandbox.owner,
      ...(sandbox.ownerId === undefined ? {} : { ownerId: sandbox.ownerId }),
      ...(name === undefined ? {} : { name }),
      ...(volumes.length === 0 ? {} : { volumes }),
      ...(sandbox.slots === undefined ? {} : { slots: sandbox.slots }),
    };
    const { id } = record;
    let stoppedMs: number;
    this.#saving.add(id);
    try {
      await this.#store.addCheckpoint({ ...record, saving: true }); // F1
      try {
        ({ bytes: record.bytes, stoppedMs } = await machine.checkpoint(id, { signal }));
        await this.#store.putCheckpoint(record); // F8
      } catch (error) {
        // What lies under a key that was taken is another one's.
        const published = !(error instanceof StacyError && error.code === "conflict");
        const undone = published ? this.#discard(record) : this.#store.deleteCheckpoint(id);
        await undone.catch(() => {}); // the first error says more, and the next start tries again
        throw error;
      }
    } finally {
      this.#saving.delete(id);
    }
    this.#byId.set(id, record);
    this.#events.emit("checkpoint.created", sandbox.id, { checkpoint: id, bytes: record.bytes, stopped_ms: stoppedMs });
    return { ...record, stoppedMs };
  }

  /** Machines that came from it go on. @throws StacyError `not-found` */
  async remove(id: string): Promise<void> {
    const record = this.get(id);
    await this.#discard(record);
    this.#byId.delete(id);
    this.#events.emit("checkpoint.deleted", record.sandboxId, { checkpoint: id }, record.owner);
  }

  /**
   * Work that starts a machine from one. Its errors name the checkpoint, and say what to do.
   * @throws StacyError `corrupt`; `not-found` when it was removed meanwhile
   */
  async using<T>(id: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      const error = asStacyError(thrown);
      const { name = id } = this.get(id);
      if (error.code !== "corrupt") throw error;
      const what = error.phase === "resolve" ? "is damaged" : "does not load";
      throw new StacyError("corrupt", `the checkpoint ${name} ${what}: ${error.message}`, {
        cause: error,
        ...(error.phase === undefined ? {} : { phase: error.phase }),
        remedy: `put its files back from a backup, or remove it: \`stacyvm checkpoint rm ${id}\``,
      });
    }
  }

  /** 32 bits: one that is taken, also by a saved machine whose row is gone, would start another one's memory. */
  async #freshId(provider: string): Promise<string> {
    const keys = new Set(await this.#providers.pick(provider).snapshotKeys());
    for (;;) {
      const id = newCheckpointId();
      if (!this.#saving.has(id) && !keys.has(checkpointKey(id)) && !this.#store.hasCheckpoint(id)) return id;
    }
  }

  /** The saved machines of each provider; what is removed of them is no checkpoint any more either. */
  snapshotOwners(): SnapshotOwner[] {
    return this.#providers.all().map((provider) => ({
      snapshots: () => provider.snapshots(),
      removeSnapshot: (key) => this.removeSnapshot(provider, key),
    }));
  }

  /** @throws StacyError `not-found`, `conflict` when machines run from it, or when it is being saved */
  async removeSnapshot(provider: Pick<Provider, "removeSnapshot">, key: string): Promise<void> {
    const isIt = (id: string): boolean => checkpointKey(id) === key;
    if ([...this.#saving].some(isIt)) throw new StacyError("conflict", "the checkpoint is being saved");
    const id = [...this.#byId.keys()].find(isIt);
    await (id === undefined ? provider.removeSnapshot(key) : this.remove(id));
  }

  /** Its files, then its row. */
  async #discard({ id, provider }: CheckpointRecord): Promise<void> {
    try {
      await this.#providers.pick(provider).removeSnapshot(checkpointKey(id));
    } catch (error) {
      // Its files are gone already: what is left to remove is the record.
      if (!(error instanceof StacyError && error.code === "not-found")) throw error;
    }
    await this.#store.deleteCheckpoint(id);
  }
}
