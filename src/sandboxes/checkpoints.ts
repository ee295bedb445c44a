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

  constructor(parts: { store: Store; clock: Clock; events: Events; providers: Providers }) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#providers = parts.providers;
    this.#byId = new Map(this.#store.checkpoints().map((record) => [record.id, record]));
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
  ): Promise<CheckpointRecord & { stoppedMs: number }> {
    const id = newCheckpointId();
    const { bytes, stoppedMs } = await machine.checkpoint(id);
    const record: CheckpointRecord = {
      id,
      sandboxId: sandbox.id,
      provider: sandbox.provider,
      image: sandbox.image,
      memoryMiB: sandbox.memoryMiB,
      vcpus: sandbox.vcpus,
      diskMiB: sandbox.diskMiB,
      bytes,
      createdAt: this.#clock.now(),
      ...(sandbox.ownerId === undefined ? {} : { ownerId: sandbox.ownerId }),
      ...(name === undefined ? {} : { name }),
    };
    try {
      await this.#store.putCheckpoint(record);
    } catch (error) {
      // Nobody is told of it, so nobody could remove it.
      await this.#discard(record);
      throw error;
    }
    this.#byId.set(id, record);
    this.#events.emit("checkpoint.created", sandbox.id, { checkpoint: id, bytes, stopped_ms: stoppedMs });
    return { ...record, stoppedMs };
  }

  /** Machines that came from it go on. @throws StacyError `not-found` */
  async remove(id: string): Promise<void> {
    const record = this.get(id);
    await this.#removeFiles(record);
    await this.#store.deleteCheckpoint(id);
    this.#byId.delete(id);
    this.#events.emit("checkpoint.deleted", record.sandboxId, { checkpoint: id });
  }

  async #removeFiles({ id, provider }: CheckpointRecord): Promise<void> {
    try {
      await this.#providers.pick(provider).removeSnapshot(checkpointKey(id));
    } catch (error) {
      // Its files are gone already: what is left to remove is the record.
      if (!(error instanceof StacyError && error.code === "not-found")) throw error;
    }
  }

  async #discard(record: CheckpointRecord): Promise<void> {
    await Promise.allSettled([this.#removeFiles(record), this.#store.deleteCheckpoint(record.id)]);
  }
}
