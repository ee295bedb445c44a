/**
 * The files behind volumes. One is there whole or not at all, whatever happens to this process or the host:
 *
 *     <data>/volumes/<id>/disk.ext4       sparse; mode 0600 (0644 while a root's machines of other users read it), in directories of 0700
 *     <data>/volumes/<id>/uses/<sandbox>  empty; there before the sandbox's machine, and of no meaning once that has no directory any more
 *     <data>/volumes/<id>.new/            being made; nobody was told of it, though there may be a row
 *     <data>/volumes/<id>.removed/        being removed
 */
import { chmod, mkdir, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { syncPath } from "../host/durable.ts";
import { errno } from "../host/error.ts";
import { removeTree } from "../host/remove-tree.ts";

const DISK = "disk.ext4";
const USES = "uses";
const NEW = ".new";
const REMOVED = ".removed";

export class VolumeDisks {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  path(id: string): string {
    return join(this.#root, id, DISK);
  }

  /**
   * A failure leaves nothing of it here.
   * @param write fills the file, which is there and empty
   * @param note writes its row: before it has its name, so that a server that dies in between leaves no disk that nobody knows, and once the
   *   host would find what is half made again, so that there is no row without one
   */
  async make(
    id: string,
    bytes: number,
    { write, note }: { write(path: string): Promise<void>; note(): Promise<void> },
  ): Promise<void> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    const work = join(this.#root, `${id}${NEW}`);
    await mkdir(work, { mode: 0o700 });
    try {
      const path = join(work, DISK);
      const file = await open(path, "wx", 0o600);
      try {
        await file.truncate(bytes);
      } finally {
        await file.close();
      }
      await write(path);
      await chmod(path, 0o600);
      await mkdir(join(work, USES), { mode: 0o700 });
      await syncPath(path);
      await syncPath(work);
      await syncPath(this.#root);
      await note();
      await rename(work, join(this.#root, id));
      await syncPath(this.#root);
    } catch (error) {
      await rm(work, { recursive: true, force: true });
      throw error;
    }
  }

  /** The name is gone for good when this resolves. */
  async setAside(id: string): Promise<void> {
    await rename(join(this.#root, id), join(this.#root, `${id}${REMOVED}`)).catch((error: unknown) => {
      if (errno(error) !== "ENOENT") throw error;
    });
    await syncPath(this.#root).catch((error: unknown) => {
      if (errno(error) !== "ENOENT") throw error;
    });
  }

  /** Nobody may have its name any more: no row either, else that names a volume without a disk. */
  async removeUnfinished(id: string): Promise<void> {
    for (const how of [NEW, REMOVED]) await removeTree(join(this.#root, `${id}${how}`));
  }

  /** Makes it larger, for good. What is in it learns of that when it is mounted to be written. */
  async grow(id: string, bytes: number): Promise<void> {
    const file = await open(this.path(id), "r+");
    try {
      await file.truncate(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** What it is, and what it occupies, bytes; `undefined`: its file is not there. */
  async sizes(id: string): Promise<{ bytes: number; used: number } | undefined> {
    try {
      const { size, blocks } = await stat(this.path(id));
      return { bytes: size, used: blocks * 512 };
    } catch (error) {
      if (errno(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  // Who has it

  /** Ids of sandboxes whose machines were given it, whatever has become of them. */
  async uses(id: string): Promise<{ sandbox: string; write: boolean }[]> {
    const names = await readdir(join(this.#root, id, USES)).catch((error: unknown) => {
      if (errno(error) === "ENOENT") return [];
      throw error;
    });
    return names.flatMap((name) => {
      const [, sandbox, how] = /^(.+)\.(write|read)$/.exec(name) ?? [];
      return sandbox === undefined ? [] : [{ sandbox, write: how === "write" }];
    });
  }

  async addUse(id: string, sandbox: string, write: boolean): Promise<void> {
    await mkdir(join(this.#root, id, USES), { recursive: true, mode: 0o700 });
    await writeFile(join(this.#root, id, USES, useName(sandbox, write)), "", { mode: 0o600 });
  }

  async removeUse(id: string, sandbox: string, write: boolean): Promise<void> {
    await rm(join(this.#root, id, USES, useName(sandbox, write)), { force: true });
  }

  /**
   * After a start: what was half made, or half removed, and what is there. A directory that no row knows is left: the database may be the one
   * that lost it.
   */
  async found(): Promise<{ unfinished: string[]; present: string[] }> {
    const names = await readdir(this.#root).catch((error: unknown) => {
      if (errno(error) === "ENOENT") return [];
      throw error;
    });
    return {
      unfinished: names.flatMap((name) => /^(.+)\.(?:new|removed)$/.exec(name)?.[1] ?? []),
      present: names.filter((name) => !name.includes(".")),
    };
  }
}

function useName(sandbox: string, write: boolean): string {
  return `${sandbox}.${write ? "write" : "read"}`;
}
