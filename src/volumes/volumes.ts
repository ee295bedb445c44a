/**
 * Named volumes of owners: disks that outlive sandboxes. A change of one is on disk before it is answered, its row last when it comes to be
 * and first when it goes, so that a crash leaves it whole or not at all.
 *
 * Who may have it: one sandbox that writes, or any number that read. Whether a sandbox has it is not noted anywhere that could be left behind
 * by a crash: it has it as long as it wants a machine, or its machine's directory is there (`lease`).
 */
import { rm } from "node:fs/promises";
import type { z } from "zod";
import { errno, StacyError } from "../host/error.ts";
import { copySparse } from "../host/sparse.ts";
import { exportDisk, importDisk } from "./archive.ts";
import { VolumeDisks } from "./disks.ts";
import { formatVolume, wasClosed } from "./format.ts";
import {
  checkVolumeName,
  checkVolumeSize,
  MIB,
  newVolumeId,
  VOLUME_MAX_MIB,
  type VolumeRecord,
  volumeRecord,
} from "./record.ts";

const KIND = "volume";

/** Where rows are kept (sandboxes/store.ts): on disk when the promise is fulfilled. */
export interface VolumeRows {
  documents<T>(kind: string, schema: z.ZodType<T>): T[];
  putDocument(kind: string, record: { id: string }): Promise<void>;
  deleteDocument(kind: string, id: string): Promise<void>;
}

/** A sandbox that has a volume, or is about to. */
export interface VolumeUser {
  sandbox: string;
  path: string;
  readOnly: boolean;
}

export interface NewVolume {
  name: string;
  sizeMiB: number;
  /** Id of the user and group in guests who may write to it first; without: root. */
  rootOwner?: number;
}

export interface VolumeLimits {
  /** Of one owner; 0: none. */
  maxVolumes: number;
  /** Sizes of one owner's together, MiB; 0: none. */
  maxVolumeMiB: number;
}

export interface VolumesParts {
  /** `<data>/volumes` */
  root: string;
  rows: VolumeRows;
  limits: VolumeLimits;
  now(): number;
  /** Of sandboxes that are not gone. */
  users(id: string): VolumeUser[];
  /** Whether there is anything left of a sandbox's machine. */
  hasMachine(sandbox: string): Promise<boolean>;
  log: { warn(data: object, message: string): void };
}

export interface VolumeInfo extends VolumeRecord {
  /** What it occupies; absent: its file is not there. */
  usedBytes?: number;
  users: VolumeUser[];
}

/** What an owner has, and may have; 0: no limit. */
export interface VolumeUsage extends VolumeLimits {
  owner: string;
  volumes: number;
  /** Sizes of their disks together. */
  bytes: number;
  /** What they occupy; what clones share on the host's disk counts with each. */
  usedBytes: number;
}

export class Volumes {
  readonly #parts: VolumesParts;
  readonly #disks: VolumeDisks;
  readonly #records = new Map<string, VolumeRecord>();
  /** What is being done with a volume that nobody may have meanwhile. */
  readonly #busy = new Map<string, string>();

  constructor(parts: VolumesParts) {
    this.#parts = parts;
    this.#disks = new VolumeDisks(parts.root);
    for (const record of parts.rows.documents(KIND, volumeRecord)) this.#records.set(record.id, record);
  }

  /** Finishes what an earlier server did not. */
  async open(): Promise<void> {
    const { unfinished, present } = await this.#disks.found();
    for (const id of unfinished) {
      if (this.#records.delete(id)) await this.#parts.rows.deleteDocument(KIND, id);
      await this.#disks.removeUnfinished(id);
    }
    const unknown = present.filter((id) => !this.#records.has(id));
    if (unknown.length > 0)
      this.#parts.log.warn(
        { volumes: unknown },
        "there are files of volumes that the database does not know; they are left alone",
      );
  }

  /** By name. */
  async list(owner?: string): Promise<VolumeInfo[]> {
    const all = [...this.#records.values()].filter((record) => owner === undefined || record.owner === owner);
    all.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.owner < b.owner ? -1 : 1));
    return Promise.all(all.map((record) => this.#info(record)));
  }

  /** By owner; of one owner also if it has none. */
  async usage(owner?: string): Promise<VolumeUsage[]> {
    const found = new Map<string, VolumeUsage>();
    const of = (name: string): VolumeUsage => {
      const known = found.get(name) ?? { ...this.#parts.limits, owner: name, volumes: 0, bytes: 0, usedBytes: 0 };
      found.set(name, known);
      return known;
    };
    if (owner !== undefined) of(owner);
    for (const { owner: name, bytes, usedBytes = 0 } of await this.list(owner)) {
      const usage = of(name);
      usage.volumes += 1;
      usage.bytes += bytes;
      usage.usedBytes += usedBytes;
    }
    return [...found.values()].sort((a, b) => (a.owner < b.owner ? -1 : 1));
  }

  /** @throws StacyError `not-found` */
  async get(owner: string, name: string): Promise<VolumeInfo> {
    return this.#info(this.find(owner, name));
  }

  /** @throws StacyError `not-found` */
  find(owner: string, name: string): VolumeRecord {
    for (const record of this.#records.values()) if (record.owner === owner && record.name === name) return record;
    throw new StacyError("not-found", `there is no volume ${JSON.stringify(name.slice(0, 80))}`, {
      remedy: "`stacyvm volume ls` shows those that are there; `stacyvm volume create NAME` makes one",
    });
  }

  /** @throws StacyError `invalid`, `conflict`, `limit`, `no-space` */
  async create(owner: string, input: NewVolume): Promise<VolumeInfo> {
    const bytes = checkVolumeSize(input.sizeMiB);
    return this.#make(owner, input.name, bytes, {}, async (path) => {
      await formatVolume(path, input.rootOwner);
      return bytes;
    });
  }

  /**
   * One of an export's stream (archive.ts).
   * @throws StacyError `invalid`, `conflict`, `limit`, `no-space`
   */
  async import(owner: string, name: string, stream: AsyncIterable<Uint8Array>): Promise<VolumeInfo> {
    const { maxVolumeMiB } = this.#parts.limits;
    const most = (maxVolumeMiB > 0 ? Math.min(maxVolumeMiB, VOLUME_MAX_MIB) : VOLUME_MAX_MIB) * MIB;
    return this.#make(owner, name, MIB, {}, (path) => importDisk(path, stream, most - this.#ownersBytes(owner) + MIB));
  }

  /** All that is in it, while nobody may write to it; nobody may begin to until the stream has ended. @throws StacyError `conflict` */
  async export(owner: string, name: string): Promise<ReadableStream<Uint8Array>> {
    const record = this.find(owner, name);
    const release = this.#take(record, "being exported");
    try {
      await this.#assertStill(record);
    } catch (error) {
      release();
      throw error;
    }
    return released(exportDisk(this.#disks.path(record.id)), release);
  }

  /**
   * A copy, which shares what is on disk where the host's filesystem can do that. Nobody may be writing to the original.
   * @param frozen a snapshot: the copy never changes
   * @throws StacyError `conflict`, also for a snapshot of one that was not closed in order
   */
  async clone(owner: string, name: string, to: { name: string; frozen: boolean }): Promise<VolumeInfo> {
    const source = this.find(owner, name);
    return this.#exclusively(source, "being copied", async () => {
      await this.#assertStill(source);
      // What nobody may write to, nobody could replay the journal of.
      if (to.frozen && !(await wasClosed(this.#disks.path(source.id)))) {
        throw new StacyError(
          "conflict",
          `volume ${name} was not closed in order, and a snapshot of it could not be read`,
          {
            remedy: "start a sandbox that may write to it once, or clone it",
          },
        );
      }
      const about = { from: source.name, ...(to.frozen ? { frozen: true as const } : {}) };
      return this.#make(owner, to.name, source.bytes, about, async (path) => {
        await rm(path);
        await copySparse(this.#disks.path(source.id), path);
        return source.bytes;
      });
    });
  }

  /** It can only grow; its filesystem does when it is next mounted to be written. @throws StacyError `invalid`, `conflict` */
  async resize(owner: string, name: string, sizeMiB: number): Promise<VolumeInfo> {
    const record = this.find(owner, name);
    const bytes = checkVolumeSize(sizeMiB);
    if (record.frozen === true) throw frozenError(record);
    if (bytes < record.bytes) {
      throw new StacyError("invalid", `volume ${name} has ${record.bytes / MIB} MiB, and cannot become smaller`, {
        remedy: "make a smaller one and copy its files",
      });
    }
    return this.#exclusively(record, "being resized", async () => {
      await this.#assertFree(record);
      this.#assertRoom(owner, bytes - record.bytes, 0);
      await this.#disks.grow(record.id, bytes);
      const grown = { ...record, bytes };
      await this.#parts.rows.putDocument(KIND, grown);
      this.#records.set(record.id, grown);
      return this.#info(grown);
    });
  }

  /** With all that is in it. @throws StacyError `conflict` while a sandbox has it */
  async remove(owner: string, name: string): Promise<void> {
    const record = this.find(owner, name);
    await this.#exclusively(record, "being removed", async () => {
      await this.#assertFree(record);
      await this.#remove(record);
    });
  }

  async #remove({ id }: VolumeRecord): Promise<void> {
    await this.#disks.setAside(id);
    await this.#parts.rows.deleteDocument(KIND, id);
    this.#records.delete(id);
    await this.#disks.removeUnfinished(id);
  }

  // For sandboxes

  /**
   * A copy of one that another sandbox has or had, for this sandbox. It has its name and its room at once; until
   * `keepFor` it goes with a server that dies.
   * @param write makes the file
   */
  copyFor(
    sandbox: string,
    owner: string,
    source: Pick<VolumeRecord, "name" | "bytes">,
    name: string,
    write: (path: string) => Promise<void>,
  ): { id: string; made: Promise<VolumeInfo> } {
    const id = newVolumeId();
    const { bytes } = source;
    const about = { id, from: source.name, madeFor: sandbox };
    const made = this.#make(owner, name, bytes, about, async (path) => {
      await rm(path);
      await write(path);
      return bytes;
    });
    return { id, made };
  }

  /** Size of its disk. @throws StacyError `not-found` */
  bytesOf({ id, name }: Pick<VolumeRecord, "id" | "name">): number {
    const record = this.#records.get(id);
    if (record === undefined) throw new StacyError("not-found", `volume ${name} is gone`);
    return record.bytes;
  }

  /** Its file on the host. */
  file(id: string): string {
    return this.#disks.path(id);
  }

  /** What was made for the sandbox is its owner's from now on. */
  async keepFor(sandbox: string): Promise<void> {
    for (const record of this.#madeFor(sandbox)) {
      const { madeFor: _, ...kept } = record;
      await this.#parts.rows.putDocument(KIND, kept);
      this.#records.set(kept.id, kept);
    }
  }

  /** What was made for a sandbox that came to nothing goes. @throws StacyError `conflict` while something of its machine is there */
  async dropFor(sandbox: string): Promise<void> {
    for (const record of this.#madeFor(sandbox)) {
      await this.#exclusively(record, "being removed", async () => {
        await this.#clearUses(record.id, record.name, () => false);
        await this.#remove(record);
      });
    }
  }

  /** After a start: @param runs whether a sandbox came to be */
  async settle(runs: (sandbox: string) => boolean): Promise<void> {
    const sandboxes = [...this.#records.values()].flatMap(({ madeFor }) => (madeFor === undefined ? [] : [madeFor]));
    for (const sandbox of new Set(sandboxes)) {
      if (runs(sandbox)) await this.keepFor(sandbox);
      else {
        await this.dropFor(sandbox).catch((err: unknown) =>
          this.#parts.log.warn({ sandbox, err }, "a volume of a sandbox that came to nothing could not be removed"),
        );
      }
    }
  }

  #madeFor(sandbox: string): VolumeRecord[] {
    return [...this.#records.values()].filter(({ madeFor }) => madeFor === sandbox);
  }

  /**
   * Whether a sandbox that is being made may have it. Without any wait: whoever asks notes the sandbox as a user before it waits for anything.
   * @throws StacyError `conflict`
   */
  assertAvailable({ id, name }: Pick<VolumeRecord, "id" | "name">, readOnly: boolean): void {
    const record = this.#records.get(id);
    if (record === undefined) throw new StacyError("not-found", `volume ${name} is gone`);
    if (record.frozen === true && !readOnly) throw frozenError(record);
    const busy = this.#busy.get(id);
    if (busy !== undefined) throw new StacyError("conflict", `volume ${name} is ${busy}`, { remedy: "try again" });
    const users = this.#parts.users(id);
    const other = readOnly ? users.find((user) => !user.readOnly) : users[0];
    if (other !== undefined) throw heldError(name, other.sandbox, !other.readOnly);
  }

  /**
   * Takes it for a sandbox that was noted as its user, once nothing of a machine is left that could use it against that.
   * @returns its file and size
   * @throws StacyError `conflict`, `corrupt`, `unavailable` when the host's disk fails
   */
  async lease(
    volume: Pick<VolumeRecord, "id" | "name">,
    sandbox: string,
    readOnly: boolean,
  ): Promise<{ file: string; bytes: number }> {
    try {
      return await this.#lease(volume, sandbox, readOnly);
    } catch (cause) {
      if (cause instanceof StacyError) throw cause;
      throw new StacyError("unavailable", `volume ${volume.name}: the host's disk fails (${errno(cause)})`, {
        cause,
        remedy: "look after the disk that the server's data is on",
      });
    }
  }

  async #lease(
    { id, name }: Pick<VolumeRecord, "id" | "name">,
    sandbox: string,
    readOnly: boolean,
  ): Promise<{ file: string; bytes: number }> {
    const known = new Set(this.#parts.users(id).map((user) => user.sandbox));
    await this.#clearUses(
      id,
      name,
      (use) => use.sandbox === sandbox || known.has(use.sandbox) || (readOnly && !use.write),
    );
    await this.#disks.addUse(id, sandbox, !readOnly);
    const sizes = await this.#disks.sizes(id);
    const { bytes } = this.#records.get(id) ?? {};
    if (sizes === undefined || bytes === undefined || sizes.bytes < bytes) {
      throw new StacyError(
        "corrupt",
        `the file of volume ${name} is ${sizes === undefined ? "not there" : "too short"}`,
        {
          remedy: "restore it from a backup of the data directory, or remove the volume",
        },
      );
    }
    // One that was being made larger when its server died has the size that its row says to begin with.
    return { file: this.#disks.path(id), bytes: sizes.bytes };
  }

  /** After a sandbox's end. A start that failed may have left a monitor that resists: as long as its directory is there, so is its use. */
  async release({ id }: Pick<VolumeRecord, "id">, sandbox: string, readOnly: boolean): Promise<void> {
    if (!(await this.#parts.hasMachine(sandbox))) await this.#disks.removeUse(id, sandbox, !readOnly);
  }

  /** It was taken from a sandbox that goes on: nothing of that one's machine has it any more. */
  async detached({ id }: Pick<VolumeRecord, "id">, sandbox: string, readOnly: boolean): Promise<void> {
    await this.#disks.removeUse(id, sandbox, !readOnly);
  }

  async #make(
    owner: string,
    name: string,
    bytes: number,
    about: Partial<VolumeRecord>,
    write: (path: string) => Promise<number>,
  ): Promise<VolumeInfo> {
    checkVolumeName(name);
    const record: VolumeRecord = { id: newVolumeId(), owner, name, bytes, ...about, createdAt: this.#parts.now() };
    this.#assertRoom(owner, bytes, 1);
    for (const other of this.#records.values()) {
      if (other.owner === owner && other.name === name)
        throw new StacyError("conflict", `there is a volume ${name}`, { remedy: "choose another name" });
    }
    // Its name and its room are taken from here on; nobody may have it before it is there.
    this.#records.set(record.id, record);
    this.#busy.set(record.id, "being made");
    try {
      await this.#disks.make(record.id, bytes, {
        write: async (path) => {
          // What is imported says its size last; others may have made more meanwhile.
          record.bytes = await write(path);
          this.#assertRoom(owner, 0, 0);
        },
        note: () => this.#parts.rows.putDocument(KIND, record),
      });
    } catch (error) {
      this.#records.delete(record.id);
      // The first error says more. A row that is there all the same names a volume of which nobody was told.
      await this.#parts.rows.deleteDocument(KIND, record.id).catch(() => {});
      await this.#disks.setAside(record.id).catch(() => {});
      await this.#disks.removeUnfinished(record.id).catch(() => {});
      throw error;
    } finally {
      this.#busy.delete(record.id);
    }
    return this.#info(record);
  }

  async #info(record: VolumeRecord): Promise<VolumeInfo> {
    const sizes = await this.#disks.sizes(record.id);
    return {
      ...record,
      ...(sizes === undefined ? {} : { usedBytes: sizes.used }),
      users: this.#parts.users(record.id),
    };
  }

  /** @throws StacyError `limit` */
  #assertRoom(owner: string, bytes: number, count: number): void {
    const { maxVolumes, maxVolumeMiB } = this.#parts.limits;
    const own = [...this.#records.values()].filter((record) => record.owner === owner);
    if (count > 0 && maxVolumes > 0 && own.length + count > maxVolumes) {
      throw new StacyError("limit", `the owner has ${own.length} of at most ${maxVolumes} volumes`, {
        remedy: "remove one of them, or raise defaults.max_volumes_per_owner",
      });
    }
    const total = this.#ownersBytes(owner) + bytes;
    if (maxVolumeMiB > 0 && total > maxVolumeMiB * MIB) {
      throw new StacyError("limit", `the owner's volumes would have ${total / MIB} of at most ${maxVolumeMiB} MiB`, {
        remedy: "remove one of them, or raise defaults.max_volume_mb_per_owner",
      });
    }
  }

  #ownersBytes(owner: string): number {
    return [...this.#records.values()].reduce((sum, each) => sum + (each.owner === owner ? each.bytes : 0), 0);
  }

  async #exclusively<T>(record: VolumeRecord, doing: string, work: () => Promise<T>): Promise<T> {
    const release = this.#take(record, doing);
    try {
      return await work();
    } finally {
      release();
    }
  }

  /** @returns gives it back. @throws StacyError `conflict` */
  #take({ id, name }: VolumeRecord, doing: string): () => void {
    const busy = this.#busy.get(id);
    if (busy !== undefined) throw new StacyError("conflict", `volume ${name} is ${busy}`, { remedy: "try again" });
    this.#busy.set(id, doing);
    return () => this.#busy.delete(id);
  }

  /** Nobody has it. */
  async #assertFree({ id, name }: VolumeRecord): Promise<void> {
    const [user] = this.#parts.users(id);
    if (user !== undefined) throw heldError(name, user.sandbox, !user.readOnly);
    await this.#clearUses(id, name, () => false);
  }

  /** Nobody writes to it. */
  async #assertStill({ id, name }: VolumeRecord): Promise<void> {
    const writer = this.#parts.users(id).find((user) => !user.readOnly);
    if (writer !== undefined) throw heldError(name, writer.sandbox, true);
    await this.#clearUses(id, name, (use) => !use.write);
  }

  /** @param harmless uses that are no reason against it. @throws StacyError `conflict` while there is something left of a machine that is one */
  async #clearUses(
    id: string,
    name: string,
    harmless: (use: { sandbox: string; write: boolean }) => boolean,
  ): Promise<void> {
    for (const use of await this.#disks.uses(id)) {
      if (harmless(use)) continue;
      if (await this.#parts.hasMachine(use.sandbox)) {
        throw new StacyError("conflict", `volume ${name} is still with what is left of sandbox ${use.sandbox}`, {
          remedy: "try again: what is left of it is being removed",
        });
      }
      await this.#disks.removeUse(id, use.sandbox, use.write);
    }
  }
}

/** @param release called once, when the stream has ended, whoever ended it and whether or not it was read */
function released(source: AsyncGenerator<Uint8Array>, release: () => void): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      try {
        const next = await source.next();
        if (next.done !== true) return controller.enqueue(next.value);
        release();
        controller.close();
      } catch (error) {
        release();
        throw error;
      }
    },
    async cancel() {
      await source.return(undefined).catch(() => {}); // nobody wants it
      release();
    },
  });
}

function heldError(name: string, sandbox: string, writes: boolean): StacyError {
  return new StacyError(
    "conflict",
    `volume ${name} is with sandbox ${sandbox}${writes ? ", which may write to it" : ""}`,
    {
      remedy: writes
        ? "one that writes has a volume for itself: `stacyvm volume detach` takes it from that sandbox, or remove the sandbox"
        : "ask for it read-only, or take it from that sandbox first: `stacyvm volume detach`, or remove the sandbox",
    },
  );
}

function frozenError({ name }: VolumeRecord): StacyError {
  return new StacyError("conflict", `volume ${name} is a snapshot, and never changes`, {
    remedy: `read it (${name}:/PATH:ro), or clone it`,
  });
}
