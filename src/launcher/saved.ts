/** A running machine that is saved beside itself, for machines that start from it: a fork's or a checkpoint's snapshot in the making. */
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ownedName } from "../host/owned-name.ts";
import { allocatedBytes, copySparse } from "../host/sparse.ts";
import { FILES, type PausedMachine, type SavedState, volumesOf } from "../vmm/vmm.ts";
import { makeMachineDir, removeMachineDir } from "./machine-dir.ts";
import type { SnapshotStore } from "./snapshot-store.ts";
import type { Target } from "./target.ts";

export class SavedWork implements AsyncDisposable {
  readonly #dir: string;
  readonly #target: Target;
  readonly #kind: "checkpoint" | "fork";
  #saved: SavedState | undefined;

  private constructor(dir: string, kind: "checkpoint" | "fork", target: Target) {
    this.#dir = dir;
    this.#kind = kind;
    this.#target = target;
  }

  /** Its name says whose it is, so that the next start can clear it away when we die. */
  static async begin(tmp: string, kind: "checkpoint" | "fork", target: Target): Promise<SavedWork> {
    await mkdir(tmp, { recursive: true });
    const dir = join(tmp, await ownedName(kind));
    await makeMachineDir(dir, target.image.base);
    return new SavedWork(dir, kind, target);
  }

  /** What the machine must stand still for. */
  async save(machine: PausedMachine): Promise<void> {
    this.#saved = await machine.save(this.#dir);
    await copySparse(join(machine.dir, FILES.rootfs), join(this.#dir, FILES.rootfs));
    for (const name of this.#volumes) await copySparse(join(machine.dir, name), join(this.#dir, name));
  }

  /** A fork's volumes go on as its copies' own. */
  get #volumes(): string[] {
    return this.#kind === "fork" ? [] : volumesOf(this.#target.config);
  }

  /** The rest, and its publication under a key. @returns bytes that the saved state occupies */
  async publish(
    store: SnapshotStore,
    about: { key: string; kind: "checkpoint" | "fork"; origin: string },
  ): Promise<number> {
    const { image, config, shape } = this.#target;
    await this.#saved?.finish();
    let volumeBytes = 0;
    for (const name of this.#volumes) {
      const path = join(this.#dir, name);
      await chmod(path, 0o444);
      volumeBytes += await allocatedBytes(path);
    }
    await store.publish(this.#dir, {
      ...about,
      image: image.reference,
      imageConfig: image.config,
      config,
      shape,
      frozen: true,
    });
    return (this.#saved?.stateBytes ?? 0) + (this.#saved?.memoryBytes ?? 0) + volumeBytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeMachineDir(this.#dir);
  }
}
