/**
 * Saved machines on disk, immutable once published:
 *
 *     <data>/snapshots/<key>/            vmstate.bin  memory.bin  rootfs.ext4  base.img  manifest.json
 *     <data>/snapshots/<key>.verified    which files (inode, size, times) were found good, so that a check happens once
 *     <data>/snapshots/<key>.bad-<time>/ set aside: it failed to load or to verify; kept for one day
 */
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { hostBootId } from "../host/process.ts";
import { allocatedBytes, copySparse, mapSparse, type SparseMap, SparseTemplate } from "../host/sparse.ts";
import { FILES, SNAPSHOT_FILES } from "../vmm/vmm.ts";
import { type Manifest, parseManifest } from "./manifest.ts";

const PARTS = [SNAPSHOT_FILES.state, SNAPSHOT_FILES.memory, FILES.rootfs];
const BAD_KEPT_MS = 24 * 3600 * 1000;

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
  readonly #open = new Map<string, Promise<Snapshot>>();
  readonly #users = new Map<string, number>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Where a snapshot is, or would be. */
  path(key: string): string {
    return join(this.#root, key);
  }

  /**
   * The snapshot, checked, or `undefined` when there is none. One that is damaged is set aside, and the error says so.
   * Files that were touched since they were checked are checked again.
   * @throws StacyError `corrupt`
   */
  async get(key: string): Promise<Snapshot | undefined> {
    const stamp = await this.#stamp(key);
    if (stamp === undefined) {
      this.#open.delete(key);
      return undefined;
    }
    const id = `${key} ${stamp}`;
    let opened = this.#open.get(id);
    if (opened === undefined) {
      for (const old of this.#open.keys()) if (old.startsWith(key)) this.#open.delete(old);
      opened = this.#check(key, stamp);
      this.#open.set(id, opened);
      opened.catch(() => this.#open.delete(id));
    }
    return opened;
  }

  /** Inode, size and modification time of all parts in one line. Not the change time: a jail's hard links touch that. */
  async #stamp(key: string): Promise<string | undefined> {
    try {
      const stats = await Promise.all(
        [...PARTS, "manifest.json"].map((name) => stat(join(this.path(key), name), { bigint: true })),
      );
      return stats.map((s) => `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}`).join(" ");
    } catch (error) {
      if (errno(error) !== "ENOENT") throw error;
      // A directory without all its parts is not a snapshot: somebody damaged it.
      if (await exists(this.path(key))) {
        await this.setAside(key);
        throw corrupt(key, "a part of it is missing", error);
      }
      return undefined;
    }
  }

  async #check(key: string, stamp: string): Promise<Snapshot> {
    const dir = this.path(key);
    try {
      const manifest = parseManifest(await readFile(join(dir, "manifest.json"), "utf8"));
      if (manifest.key !== key) throw corrupt(key, "its manifest names another key");
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
        for (const name of PARTS) {
          const expected = manifest.files[name];
          if (expected === undefined || !sameContent(expected, await mapSparse(join(dir, name)))) {
            throw corrupt(key, `${name} does not match its checksum`);
          }
        }
        await writeFile(this.#verified(key), await proofOf(stamp));
      }
      const diskMap = manifest.files[FILES.rootfs];
      if (diskMap === undefined) throw corrupt(key, "its manifest does not name the disk");
      return { key, dir, manifest, disk: await SparseTemplate.open(join(dir, FILES.rootfs), diskMap) };
    } catch (thrown) {
      await this.setAside(key);
      throw thrown instanceof StacyError ? thrown : corrupt(key, asStacyError(thrown).message, thrown);
    }
  }

  /**
   * Makes a finished directory the snapshot of its key: checksums, manifest, fsync, read-only, rename. When another
   * process was faster, its snapshot stays and ours is removed.
   */
  async publish(work: string, about: Omit<Manifest, "version" | "files" | "createdAt">): Promise<void> {
    const files: Record<string, SparseMap> = {};
    // A fork's snapshot dies with its machines and is used at once: neither a checksum nor a power cut concerns it.
    const lasting = about.kind !== "fork";
    for (const name of PARTS) {
      if (lasting) {
        files[name] = await mapSparse(join(work, name));
        await sync(join(work, name));
      }
      // The memory file's mode is the driver's: not every VMM can map a file that it may not write.
      if (name !== SNAPSHOT_FILES.memory) await chmod(join(work, name), 0o444);
    }
    const manifest: Manifest = { version: 1, ...about, createdAt: Date.now(), files };
    await writeFile(join(work, "manifest.json"), JSON.stringify(manifest), { mode: 0o444 });
    if (lasting) {
      await sync(join(work, "manifest.json"));
      await sync(work);
    }
    await mkdir(this.#root, { recursive: true });
    try {
      await rename(work, this.path(about.key));
      // Read again now, the files would come from the page cache: the first restore is spared that.
      const stamp = lasting ? await this.#stamp(about.key) : undefined;
      if (stamp !== undefined) await writeFile(this.#verified(about.key), await proofOf(stamp));
    } catch (error) {
      if (errno(error) !== "ENOTEMPTY" && errno(error) !== "EEXIST") throw error;
      await rm(work, { recursive: true, force: true });
    }
    if (lasting) await sync(this.#root);
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
  }

  /** Counts a user of the snapshot, so that it is not collected under a running machine. */
  use(key: string): () => void {
    this.#users.set(key, (this.#users.get(key) ?? 0) + 1);
    let released = false;
    return () => {
      if (released) return;
      released = true;
      const left = (this.#users.get(key) ?? 1) - 1;
      if (left === 0) this.#users.delete(key);
      else this.#users.set(key, left);
    };
  }

  users(key: string): number {
    return this.#users.get(key) ?? 0;
  }

  /** Remembers the use for the collector; never on the hot path's critical section. */
  async touch(key: string): Promise<void> {
    const now = new Date();
    await utimes(this.path(key), now, now).catch(() => {});
  }

  async list(): Promise<{ manifest: Manifest; bytes: number; lastUsedAt: number }[]> {
    const names = await readdir(this.#root).catch(() => []);
    const found = await Promise.all(
      names
        .filter((name) => /^[0-9a-f]{64}$/.test(name))
        .map(async (name) => {
          try {
            const dir = join(this.#root, name);
            const manifest = parseManifest(await readFile(join(dir, "manifest.json"), "utf8"));
            const sizes = await Promise.all([...PARTS, "manifest.json"].map((part) => allocatedBytes(join(dir, part))));
            return { manifest, bytes: sizes.reduce((a, b) => a + b, 0), lastUsedAt: (await stat(dir)).mtimeMs };
          } catch {
            return undefined;
          }
        }),
    );
    return found.filter((entry) => entry !== undefined).sort((a, b) => b.manifest.createdAt - a.manifest.createdAt);
  }

  /** @throws StacyError `conflict` when machines use it, `not-found` */
  async remove(key: string): Promise<void> {
    const users = this.users(key);
    if (users > 0) {
      throw new StacyError("conflict", `snapshot ${key.slice(0, 12)} is used by ${users} machines`, {
        remedy: "destroy its sandboxes first, or empty its pool",
      });
    }
    if (!(await exists(this.path(key)))) throw new StacyError("not-found", `there is no snapshot ${key}`);
    const doomed = join(this.#root, `${key}.bad-${Date.now()}`);
    for (const id of this.#open.keys()) if (id.startsWith(key)) this.#open.delete(id);
    await rename(this.path(key), doomed);
    await rm(this.#verified(key), { force: true });
    await rm(doomed, { recursive: true, force: true });
  }

  /** Takes one that is in use off the list: it goes with the last machine that came from it, as a fork's does. */
  async retire(key: string): Promise<void> {
    const path = join(this.path(key), "manifest.json");
    const manifest: Manifest = { ...parseManifest(await readFile(path, "utf8")), kind: "fork", files: {} };
    await writeFile(`${path}.new`, JSON.stringify(manifest), { mode: 0o444 });
    await rename(`${path}.new`, path);
  }

  /** Removes what was set aside more than a day ago. */
  async sweep(now = Date.now()): Promise<string[]> {
    const removed: string[] = [];
    for (const name of await readdir(this.#root).catch(() => [])) {
      const at = /\.bad-(\d+)$/.exec(name)?.[1];
      if (at === undefined || now - Number(at) < BAD_KEPT_MS) continue;
      await rm(join(this.#root, name), { recursive: true, force: true });
      removed.push(basename(name));
    }
    return removed;
  }
}

/** Good for these files, in this run of the host. */
async function proofOf(stamp: string): Promise<string> {
  return `${await hostBootId()} ${stamp}`;
}

function sameContent(a: SparseMap, b: SparseMap): boolean {
  return a.size === b.size && a.sha256 === b.sha256;
}

function corrupt(key: string, why: string, cause?: unknown): StacyError {
  return new StacyError("corrupt", `snapshot ${key.slice(0, 12)} is damaged: ${why}`, {
    cause,
    remedy: "it was set aside and is built again by the next spawn",
  });
}

async function sync(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
