/**
 * What copies of a sandbox get of its volumes. One that it only reads its copies read, too; of one that it writes to each copy gets a volume of
 * its own, with what was in the original at that moment, or nothing.
 *
 * The new volumes have their names and their room before the sandbox is stopped, and are on disk before a copy starts. Until the copy runs they
 * are marked as made for it: a server that dies before that leaves none.
 */
import { copySparse } from "../host/sparse.ts";
import type { CopiedSlot, CopiedVolumes } from "../providers/provider.ts";
import { volumeNameWith } from "../volumes/record.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { VolumeMount, VolumeSlot } from "./record.ts";
import { leaseFiles, type SlottedMount, slotted } from "./volume-mounts.ts";

/** `clone`: a volume of its own; `read_only`: the same, mounted to read only; `none`: the copy loses it. */
export const FORKED_VOLUMES = ["clone", "read_only", "none"] as const;
export type ForkedVolumesMode = (typeof FORKED_VOLUMES)[number];

export class ForkedVolumes implements CopiedVolumes {
  readonly #volumes: Volumes;
  readonly #owner: string;
  readonly #mounts: readonly SlottedMount[];
  readonly #mode: ForkedVolumesMode;
  readonly #originals = new Map<string, Original>();
  /** By copy. */
  readonly #given = new Map<string, VolumeMount[]>();

  constructor(volumes: Volumes, owner: string, mounts: readonly VolumeMount[], mode: ForkedVolumesMode) {
    this.#volumes = volumes;
    this.#owner = owner;
    this.#mounts = slotted(mounts);
    this.#mode = mode;
  }

  /** Of a copy that is to be; volumes of its own have their names from now on. @throws StacyError `conflict` */
  mountsOf(sandbox: string): VolumeMount[] {
    const given = this.#mode === "none" ? [] : this.#mounts.map((mount) => this.#mountOf(sandbox, mount));
    this.#given.set(sandbox, given);
    return given;
  }

  #mountOf(sandbox: string, mount: SlottedMount): VolumeMount {
    if (mount.readOnly) {
      this.#volumes.assertAvailable(mount, true);
      return mount;
    }
    const original = this.#originals.get(mount.id) ?? new Original(this.#volumes, this.#owner, mount);
    this.#originals.set(mount.id, original);
    const name = volumeNameWith(mount.name, sandbox);
    const onlyRead = this.#mode === "read_only" || mount.onlyRead === true;
    const id = original.add(name, sandbox);
    return { id, name, path: mount.path, slot: mount.slot, readOnly: false, ...(onlyRead ? { onlyRead } : {}) };
  }

  /** Of a copy's machine: what it has lost no other volume takes the place of. */
  slotsOf(slots: readonly VolumeSlot[]): VolumeSlot[] {
    const lost = new Set(this.#mode === "none" ? this.#mounts.map(({ slot }) => slot) : []);
    return slots.map((each, slot) => (lost.has(slot) ? "spent" : each));
  }

  /** Whether they can be made, before anything is stopped for them. @throws StacyError `limit`, `conflict`, `no-space` */
  async begin(): Promise<void> {
    await Promise.all([...this.#originals.values()].map((original) => original.begun()));
  }

  async copy(): Promise<void> {
    await Promise.all([...this.#originals.values()].map((original) => original.copy()));
  }

  async slots(sandbox: string): Promise<CopiedSlot[]> {
    await Promise.all([...this.#originals.values()].map((original) => original.made()));
    const given = this.#given.get(sandbox) ?? [];
    const files = await leaseFiles(this.#volumes, sandbox, given);
    return this.#mounts.map(({ name, path, slot }) => {
      const file = files.find((each) => each.slot === slot)?.file;
      const onlyRead = given.find((each) => each.slot === slot)?.onlyRead;
      return {
        slot,
        name,
        path,
        ...(file === undefined ? {} : { file }),
        ...(onlyRead ? { onlyRead } : {}),
      };
    });
  }

  /** The copies run. */
  async keep(): Promise<void> {
    for (const sandbox of this.#given.keys()) await this.#volumes.keepFor(sandbox);
  }

  /** It came to nothing; copies that had begun have ended. Never rejects: what resists goes at the next start. */
  async abandon(why: unknown): Promise<void> {
    for (const original of this.#originals.values()) await original.abandon(why);
    for (const sandbox of this.#given.keys()) await this.#volumes.dropFor(sandbox).catch(noop);
  }
}

/** A volume that copies are made of: the first from itself while its sandbox stands still, the others from the first. */
class Original {
  readonly #volumes: Volumes;
  readonly #owner: string;
  readonly #mount: VolumeMount;
  readonly #bytes: number;
  readonly #still = Promise.withResolvers<void>();
  readonly #copied = Promise.withResolvers<void>();
  readonly #begun: Promise<unknown>[] = [];
  readonly #made: Promise<unknown>[] = [];
  #first: { id: string; made: Promise<unknown> } | undefined;

  constructor(volumes: Volumes, owner: string, mount: VolumeMount) {
    this.#volumes = volumes;
    this.#owner = owner;
    this.#mount = mount;
    this.#bytes = volumes.bytesOf(mount);
    for (const { promise } of [this.#still, this.#copied]) promise.catch(noop); // whoever waits hears of it
  }

  /** @returns the new volume's id */
  add(name: string, sandbox: string): string {
    const begun = Promise.withResolvers<void>();
    const first = this.#first;
    const source = { name: this.#mount.name, bytes: this.#bytes };
    const { id, made } = this.#volumes.copyFor(sandbox, this.#owner, source, name, async (path) => {
      begun.resolve();
      await this.#still.promise;
      await first?.made;
      await copySparse(this.#volumes.file(first?.id ?? this.#mount.id), path);
      this.#copied.resolve();
    });
    made.catch((error: unknown) => this.#copied.reject(error));
    this.#first ??= { id, made };
    this.#begun.push(Promise.race([begun.promise, made]));
    this.#made.push(made);
    for (const each of this.#begun) each.catch(noop);
    return id;
  }

  async begun(): Promise<void> {
    await Promise.all(this.#begun);
  }

  /** What the sandbox has to stand still for. */
  copy(): Promise<void> {
    this.#still.resolve();
    return this.#copied.promise;
  }

  async made(): Promise<void> {
    await Promise.all(this.#made);
  }

  async abandon(why: unknown): Promise<void> {
    this.#still.reject(why);
    await Promise.allSettled(this.#made);
  }
}

function noop(): void {}
