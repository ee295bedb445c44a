/**
 * Volumes of a sandbox that starts from a checkpoint: new ones, with what was in those of the saved sandbox. As with a fork's
 * (forked-volumes.ts) they are on disk before the machine starts, and marked as made for it until it runs.
 */
import { copySparse } from "../host/sparse.ts";
import { volumeNameWith } from "../volumes/record.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { SavedVolume, VolumeMount } from "./record.ts";
import { slotted } from "./volume-mounts.ts";

export class CheckpointVolumes {
  readonly #volumes: Volumes;
  readonly #owner: string;
  readonly #saved: readonly SavedVolume[];
  readonly #file: (slot: number) => string;
  readonly #made: Promise<unknown>[] = [];
  #sandbox: string | undefined;

  /** @param file what is saved of the volume in a slot */
  constructor(volumes: Volumes, owner: string, saved: readonly SavedVolume[], file: (slot: number) => string) {
    this.#volumes = volumes;
    this.#owner = owner;
    this.#saved = saved;
    this.#file = file;
  }

  /** Of the sandbox that is to be; its volumes have their names from now on. */
  mountsOf(sandbox: string): VolumeMount[] {
    this.#sandbox = sandbox;
    return slotted(this.#saved).map(({ bytes, ...mount }) => {
      const name = volumeNameWith(mount.name, sandbox);
      const source = { name: mount.name, bytes };
      const write = (path: string): Promise<void> => copySparse(this.#file(mount.slot), path);
      const { id, made } = this.#volumes.copyFor(sandbox, this.#owner, source, name, write);
      made.catch(noop); // whoever waits hears of it
      this.#made.push(made);
      return { ...mount, id, name };
    });
  }

  /** @throws StacyError `limit`, `no-space` */
  async ready(): Promise<void> {
    await Promise.all(this.#made);
  }

  /** The sandbox runs. */
  async keep(): Promise<void> {
    if (this.#sandbox !== undefined) await this.#volumes.keepFor(this.#sandbox);
  }

  /** It came to nothing, and has ended. Never rejects: what resists goes at the next start. */
  async abandon(): Promise<void> {
    await Promise.allSettled(this.#made);
    if (this.#sandbox !== undefined) await this.#volumes.dropFor(this.#sandbox).catch(noop);
  }
}

function noop(): void {}
