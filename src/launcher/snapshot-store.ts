/**
 * Saved machines on disk, immutable once published:
 *
 *     <data>/snapshots/<key>/            vmstate.bin  memory.bin  rootfs.ext4  base.img  manifest.json
 *                                        of a checkpoint with volumes also volume-0.ext4 and so on
 *     <data>/snapshots/<key>.verified    which files (inode, size, times) were found good, so that a check happens once
 *     <data>/snapshots/<key>.bad-<time>/ a golden one, set aside: it failed to load or to verify; the last three are kept, for one day
 *
 * A golden one can be built again. A checkpoint cannot: one that is damaged stays where it is, is refused as long as it is so, and
 * works again once its files are put back.
 */
import { chmod, mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { replaceFile, syncPath } from "../host/durable.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { allocatedBytes, copySparse, SparseTemplate } from "../host/sparse.ts";
import { FILES, isVolumeFile, SNAPSHOT_FILES, volumesOf } from "../vmm/vmm.ts";
import { type Manifest, parseManifest } from "./manifest.ts";
import { damagedPart, PARTS, proofOf, sealParts, stampOf } from "./parts.ts";

/** For whoever wants to know what was wrong with it. */
const BAD_KEPT_MS = 24 * 3600 * 1000;
const BAD_KEPT = 3;
export const FILES_GONE = "its files are gone";
const BAD = /\.bad-(\d+)$/;

type Kind = Manifest["kind"];

/** A snapshot that was checked, with its disk ready for copying. */
export interface Snapshot {
  readonly key: string;
  readonly dir: string;
  readonly manifest: Manifest;
  readonly disk: DiskTemplate;
}

/** A disk that is copied for each machine. */
export interface DiskTemplate {
  copyTo(destination: string): Promise<void>;
}

export class SnapshotStore {
  readonly #root: string;
  readonly #open = new Map<string, Promise<Snapshot | undefined>>();
  readonly #users = new Map<string, number>();
  #sweeping: NodeJS.Timeout | undefined;
  readonly #listed = new Map<string, { stamp: string; manifest: Manifest; bytes: number }>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Where a snapshot is, or would be. */
  path(key: string): string {
    return join(this.#root, key);
  }

  /**
   * The snapshot, checked, or `undefined` when there is none. One that is damaged is set aside unless it is a checkpoint, and the
   * error says so. Files that were touched since they were checked are checked again.
   * @param kind what it is to be: its manifest may be what is damaged
   * @throws StacyError `corrupt`; of a checkpoint the message is only what is wrong
   */
  async get(key: string, kind: Kind = "golden"): Promise<Snapshot | undefined> {
    const stamp = await this.#stamp(key, kind);
    if (stamp === undefined) {
      this.#open.delete(key);
      return undefined;
    }
    const id = `${key} ${stamp}`;
    let opened = this.#open.get(id);
    if (opened === undefined) {
      for (const old of this.#open.keys()) if (old.startsWith(key)) this.#open.delete(old);
      opened = this.#check(key, stamp, kind);
      this.#open.set(id, opened);
      void opened.then(
        (snapshot) => snapshot ?? this.#open.delete(id),
        (error) => {
          // A damaged checkpoint stays: its checksums are not computed again before somebody touches its files.
          if (kind !== "checkpoint" || !isDamage(error)) this.#open.delete(id);
        },
      );
    }
    return opened;
  }

  async #stamp(key: string, kind: Kind): Promise<string | undefined> {
    const dir = this.path(key);
    const volumes = kind === "checkpoint" ? (await readdir(dir).catch(() => [])).filter(isVolumeFile).sort() : [];
    const look = (): Promise<string> => stampOf(dir, [...PARTS, "manifest.json", ...volumes]);
    try {
      return await look();
    } catch (error) {
      if (errno(error) !== "ENOENT") throw error;
    }
    const { ino } = await stat(dir).catch(() => ({ ino: undefined }));
    if (ino === undefined) return undefined;
    try {
      // It may have been published between the two looks.
      return await look();
    } catch (error) {
      if (errno(error) !== "ENOENT") throw error;
      if ((await stat(dir).catch(() => undefined))?.ino !== ino) return undefined;
      // A directory without all its parts is not a snapshot: somebody damaged it.
      return this.#refuse(key, kind, error, "a part of it is missing");
    }
  }

  async #check(key: string, stamp: string, kind: Kind): Promise<Snapshot | undefined> {
    const dir = this.path(key);
    try {
      const manifest = parseManifest(await readFile(join(dir, "manifest.json"), "utf8"));
      if (manifest.key !== key) throw corrupt("its manifest names another key");
      if (manifest.kind === "fork") {
        return {
          key,
          dir,
          manifest,
          disk: { copyTo: (destination) => copySparse(join(dir, FILES.rootfs), destination) },
        };
      }
      const found = await readFile(this.#verified(key), "utf8").catch(() => "");
      if (found !== (await proofOf(stamp))) {
        const parts = new Set([...PARTS, ...Object.keys(manifest.files)]);
        const damaged = await damagedPart(dir, manifest.files, [...parts]);
        if (damaged !== undefined) throw corrupt(`${damaged} does not match its checksum`);
        // Only spares the next look: a disk that is full has no room for it.
        await writeFile(this.#verified(key), await proofOf(stamp)).catch(() => {});
      }
      const diskMap = manifest.files[FILES.rootfs];
      if (diskMap === undefined) throw corrupt("its manifest does not name the disk");
      return { key, dir, manifest, disk: await SparseTemplate.open(join(dir, FILES.rootfs), diskMap) };
    } catch (thrown) {
      if (!(await exists(dir))) return undefined; // removed while it was looked at
      // That it could not be read now (no file descriptor, a disk that does not answer) says nothing about what is in it.
      if (!isDamage(thrown)) throw asStacyError(thrown);
      return this.#refuse(key, kind, thrown, whatIsWrong(thrown));
    }
  }

  /** What is damaged goes out of the way if it can be built again. */
  async #refuse(key: string, kind: Kind, cause: unknown, why: string): Promise<never> {
    if (kind === "checkpoint") throw corrupt(why, cause);
    await this.setAside(key);
    throw new StacyError("corrupt", `snapshot ${key.slice(0, 12)} is damaged: ${why}`, {
      cause,
      remedy: "it was set aside and is built again by the next spawn",
    });
  }

  /**
   * What is wrong with a checkpoint, for lists. Only files that were touched since they were found good are read, also in an earlier
   * run of the host.
   * @throws when that cannot be seen
   */
  async damageOf(key: string): Promise<string | undefined> {
    try {
      const stamp = await this.#stamp(key, "checkpoint");
      if (stamp === undefined) return FILES_GONE;
      const found = await readFile(this.#verified(key), "utf8").catch(() => "");
      if (found.endsWith(` ${stamp}`)) return undefined;
      return (await this.get(key, "checkpoint")) === undefined ? FILES_GONE : undefined;
    } catch (error) {
      if (!isDamage(error)) throw error;
      return whatIsWrong(error);
    }
  }

  /**
   * Makes a finished directory the snapshot of its key: checksums, manifest, fsync, read-only, rename. When another
   * process was faster with a golden one, its snapshot stays and ours is removed.
   * @throws StacyError `conflict` when a fork's or a checkpoint's key is taken
   */
  async publish(work: string, about: Omit<Manifest, "version" | "files" | "createdAt">): Promise<void> {
    // A fork's snapshot dies with its machines and is used at once: neither a checksum nor a power cut concerns it.
    const lasting = about.kind !== "fork";
    const volumes = about.kind === "checkpoint" && about.config !== undefined ? volumesOf(about.config) : [];
    const files = lasting ? await sealParts(work, [...PARTS, ...volumes]) : {};
    // The memory file's mode is the driver's: not every VMM can map a file that it may not write.
    for (const name of [SNAPSHOT_FILES.state, FILES.rootfs]) await chmod(join(work, name), 0o444);
    const manifest: Manifest = { version: 1, ...about, createdAt: Date.now(), files };
    await writeFile(join(work, "manifest.json"), JSON.stringify(manifest), { mode: 0o444 });
    if (lasting) {
      await syncPath(join(work, "manifest.json"));
      await syncPath(work);
    }
    const made = await mkdir(this.#root, { recursive: true });
    if (made !== undefined && lasting) await syncPath(dirname(this.#root));
    try {
      await rename(work, this.path(about.key));
      // Read again now, the files would come from the page cache: the first restore is spared that.
      const stamp = lasting ? await this.#stamp(about.key, about.kind) : undefined;
      if (stamp !== undefined) await writeFile(this.#verified(about.key), await proofOf(stamp));
    } catch (error) {
      if (errno(error) !== "ENOTEMPTY" && errno(error) !== "EEXIST") throw error;
      // Not the same machine, as two golden ones of a key are.
      if (about.kind !== "golden") throw new StacyError("conflict", `there is a snapshot ${about.key} already`);
      await rm(work, { recursive: true, force: true });
    }
    if (lasting) await syncPath(this.#root);
  }

  #verified(key: string): string {
    return join(this.#root, `${key}.verified`);
  }

  /** Takes a bad snapshot out of the way. Machines that run from it keep their open files. */
  async setAside(key: string): Promise<void> {
    for (const id of this.#open.keys()) if (id.startsWith(key)) this.#open.delete(id);
    await rename(this.path(key), join(this.#root, `${key}.bad-${Date.now()}`)).catch((error) => {
      if (errno(error) !== "ENOENT") throw error;
    });
    await rm(this.#verified(key), { force: true });
    await this.sweep();
  }

  /** Whether what had this key was bad, not long ago. */
  async wasSetAside(key: string): Promise<boolean> {
    const names = await readdir(this.#root).catch(() => []);
    return names.some((name) => name.startsWith(key) && BAD.test(name));
  }

  /**
   * Counts a user of the snapshot, so that it is not collected under a running machine. A fork's goes with its last user: that is when
   * the returned function is called.
   */
  use(key: string): () => void {
    this.#users.set(key, this.users(key) + 1);
    let released = false;
    return () => {
      if (released) return;
      released = true;
      const left = this.users(key) - 1;
      if (left > 0) this.#users.set(key, left);
      else {
        this.#users.delete(key);
        void this.collectFork(key);
      }
    };
  }

  /** Removes a fork's snapshot that nothing runs from. Never rejects: what is left over the next start removes. */
  async collectFork(key: string): Promise<void> {
    try {
      const { kind } = parseManifest(await readFile(join(this.path(key), "manifest.json"), "utf8"));
      if (kind === "fork" && this.users(key) === 0) await this.remove(key);
    } catch {} // it is gone, or somebody has started from it in between
  }

  users(key: string): number {
    return this.#users.get(key) ?? 0;
  }

  /** Remembers the use for the collector; never on the hot path's critical section. */
  async touch(key: string): Promise<void> {
    const now = new Date();
    await utimes(this.path(key), now, now).catch(() => {});
  }

  /** Keys of all there are, whatever is in them. @throws when that cannot be seen */
  async keys(): Promise<string[]> {
    const names = await readdir(this.#root).catch((error: unknown) => {
      if (errno(error) !== "ENOENT") throw error;
      return [];
    });
    return names.filter((name) => /^[0-9a-f]{64}$/.test(name));
  }

  /**
   * Newest first; without those that are damaged or were removed meanwhile.
   * @throws when one cannot be seen, for example for want of descriptors: what is not in this list is taken for gone
   */
  async list(): Promise<{ manifest: Manifest; bytes: number; lastUsedAt: number }[]> {
    const keys = await this.keys();
    for (const known of this.#listed.keys()) if (!keys.includes(known)) this.#listed.delete(known);
    const unlessDamaged = (error: unknown): undefined => {
      if (!isDamage(error)) throw error;
    };
    const found = await Promise.all(keys.map((key) => this.#describe(key).catch(unlessDamaged)));
    return found.filter((entry) => entry !== undefined).sort((a, b) => b.manifest.createdAt - a.manifest.createdAt);
  }

  /** What was published does not change, so it is read once; of its directory only the time of the last use does. */
  async #describe(key: string): Promise<{ manifest: Manifest; bytes: number; lastUsedAt: number }> {
    const dir = this.path(key);
    const [{ mtimeMs: lastUsedAt }, { ino, mtimeMs }] = await Promise.all([
      stat(dir),
      stat(join(dir, "manifest.json")),
    ]);
    const stamp = `${ino} ${mtimeMs}`;
    let listed = this.#listed.get(key);
    if (listed?.stamp !== stamp) {
      const manifest = parseManifest(await readFile(join(dir, "manifest.json"), "utf8"));
      const names = [...PARTS, "manifest.json", ...savedVolumes(manifest)];
      const sizes = await Promise.all(names.map((name) => allocatedBytes(join(dir, name))));
      listed = { stamp, manifest, bytes: sizes.reduce((a, b) => a + b, 0) };
      this.#listed.set(key, listed);
    }
    return { manifest: listed.manifest, bytes: listed.bytes, lastUsedAt };
  }

  /**
   * With what was set aside of it earlier.
   * @throws StacyError `conflict` when machines use it, `not-found`
   */
  async remove(key: string): Promise<void> {
    const names = await readdir(this.#root).catch(() => []);
    for (const name of names) {
      if (name.startsWith(key) && BAD.test(name)) await rm(join(this.#root, name), { recursive: true, force: true });
    }
    if (!(await exists(this.path(key)))) throw new StacyError("not-found", `there is no snapshot ${key}`);
    const users = this.users(key);
    if (users > 0) {
      throw new StacyError("conflict", `snapshot ${key.slice(0, 12)} is used by ${users} machines`, {
        remedy: "destroy its sandboxes first, or empty its pool",
      });
    }
    const doomed = join(this.#root, `${key}.bad-${Date.now()}`);
    for (const id of this.#open.keys()) if (id.startsWith(key)) this.#open.delete(id);
    await rename(this.path(key), doomed);
    await rm(this.#verified(key), { force: true });
    await rm(doomed, { recursive: true, force: true });
  }

  /** What it says that it is, whatever is wrong with its files; `undefined` when it does not say. */
  async kindOf(key: string): Promise<Kind | undefined> {
    try {
      return parseManifest(await readFile(join(this.path(key), "manifest.json"), "utf8")).kind;
    } catch (error) {
      if (!isDamage(error)) throw error;
      return undefined;
    }
  }

  /** Takes one that is in use off the list: it goes with the last machine that came from it, as a fork's does. */
  async retire(key: string): Promise<void> {
    const path = join(this.path(key), "manifest.json");
    const manifest: Manifest = { ...parseManifest(await readFile(path, "utf8")), kind: "fork", files: {} };
    // On disk: nobody would look for a checkpoint whose row is gone.
    await replaceFile(path, JSON.stringify(manifest));
    // Its machines have their own.
    for (const name of volumesOf(manifest.config ?? {})) await rm(join(this.path(key), name), { force: true });
    await this.collectFork(key); // its last machine may have ended meanwhile
  }

  /** Removes what was set aside a day ago, or before others. What stays is looked at again when its day is over. */
  async sweep(now = Date.now()): Promise<string[]> {
    const names = (await readdir(this.#root).catch(() => [])).filter((name) => BAD.test(name));
    const since = (name: string): number => Number(BAD.exec(name)?.[1]);
    const newestFirst = names.sort((a, b) => since(b) - since(a));
    const removed = newestFirst.filter((name, at) => at >= BAD_KEPT || now - since(name) >= BAD_KEPT_MS);
    for (const name of removed) await rm(join(this.#root, name), { recursive: true, force: true });
    if (removed.length < names.length) this.#sweepLater();
    return removed;
  }

  #sweepLater(): void {
    clearTimeout(this.#sweeping);
    this.#sweeping = setTimeout(() => this.sweep().catch(() => {}), BAD_KEPT_MS);
    this.#sweeping.unref();
  }
}

function savedVolumes({ kind, config }: Manifest): string[] {
  return kind === "checkpoint" && config !== undefined ? volumesOf(config) : [];
}

/** What was read is not what was saved, or a part of it is not there. */
function isDamage(thrown: unknown): boolean {
  if (thrown instanceof StacyError) return thrown.code === "corrupt";
  const code = errno(thrown);
  return code === undefined || code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR";
}

function corrupt(why: string, cause?: unknown): StacyError {
  return new StacyError("corrupt", why, { cause });
}

/** For people. The words of an error of the system's name paths, and a schema's are many. */
function whatIsWrong(thrown: unknown): string {
  if (thrown instanceof StacyError) return thrown.message;
  return errno(thrown) === undefined ? "its manifest cannot be read" : "a part of it is missing";
}
