/** Checkpoints: running sandboxes that a user saved, to spawn from later. */
import { StacyError } from "../host/error.ts";
import { checkpointKey, type SandboxMachine } from "../providers/provider.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import type { Providers } from "./providers.ts";
import { type CheckpointRecord, newCheckpointId, type SandboxRecord } from "./record.ts";
import type { Store } from "./store.ts";

export class Checkpoints {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #providers: Providers;
  readonly #byId: Map<string, CheckpointRecord>;
  readonly #halfMade: CheckpointRecord[];

  constructor(parts: { store: Store; clock: Clock; events: Events; providers: Providers }) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#providers = parts.providers;
    const stored = this.#store.checkpoints();
    this.#byId = new Map(stored.filter(({ saving }) => saving !== true).map((record) => [record.id, record]));
    this.#halfMade = stored.filter(({ saving }) => saving === true);
  }

  /** Removes what an earlier daemon was saving when it died. */
  async sweep(): Promise<void> {
    for (const record of this.#halfMade.splice(0)) {
      const action = await this.#discard(record).then(
        () => "removed",
        () => "failed", // its row stays, and the next start tries again
      );
      this.#events.emit("reconcile.action", record.sandboxId, { action, name: record.id });
    }
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

  async create(
    sandbox: SandboxRecord,
    machine: SandboxMachine,
    name: string | undefined,
    signal: AbortSignal,
  ): Promise<CheckpointRecord & { stoppedMs: number }> {
    const record: CheckpointRecord = {
      id: newCheckpointId(),
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
    };
    const { id } = record;
    let stoppedMs: number;
    try {
      await this.#store.putCheckpoint({ ...record, saving: true }); // F1
      ({ bytes: record.bytes, stoppedMs } = await machine.checkpoint(id, { signal }));
      await this.#store.putCheckpoint(record); // F8
    } catch (error) {
      await this.#discard(record).catch(() => {}); // the first error says more, and the next start tries again
      throw error;
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
