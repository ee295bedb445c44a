/**
 * Layers and documents by digest, shared by all images. Present means whole: a blob gets its name only after its digest
 * held. Collection may remove one at any time, so whoever reads one takes a link of his own first.
 */

import { createHash } from "node:crypto";
import { link, mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { syncPath } from "../../host/durable.ts";
import { errno, StacyError } from "../../host/error.ts";

export interface StoredBlob {
  digest: string;
  sizeBytes: number;
  /** ms since 1970 */
  usedAt: number;
}

export class Blobs {
  readonly #dir: string;

  /** @param dir on the same filesystem as the directories of those who `take` */
  constructor(dir: string) {
    this.#dir = dir;
  }

  #path(digest: string): string {
    return join(this.#dir, digest.slice("sha256:".length));
  }

  /** Links the blob to `path`. @returns false when it is not here */
  async take(digest: string, path: string): Promise<boolean> {
    const stored = this.#path(digest);
    try {
      await link(stored, path);
    } catch (error) {
      if (errno(error) === "ENOENT") return false;
      if (errno(error) === "EEXIST") return true; // the image has the same layer twice
      throw error;
    }
    const now = new Date();
    await utimes(stored, now, now).catch(() => {}); // only the order of collection
    return true;
  }

  /**
   * Writes a blob by `fill`, checks it, and leaves it both here and at `path`.
   * @throws StacyError `corrupt` when size or digest do not hold
   */
  async put(
    digest: string,
    size: number,
    path: string,
    fill: (write: (chunk: Uint8Array) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    await mkdir(this.#dir, { recursive: true });
    const hash = createHash("sha256");
    let written = 0;
    try {
      const file = await open(path, "wx", 0o600);
      try {
        await fill(async (chunk) => {
          hash.update(chunk);
          written += chunk.length;
          for (let done = 0; done < chunk.length; ) {
            done += (await file.write(chunk, done, chunk.length - done)).bytesWritten;
          }
        });
        const actual = `sha256:${hash.digest("hex")}`;
        if (written !== size || actual !== digest) {
          throw new StacyError("corrupt", `the blob ${digest} (${size} bytes) came as ${actual} (${written} bytes)`, {
            remedy: "try again; if it stays, the registry or a proxy before it is damaged",
          });
        }
        await file.sync();
      } finally {
        await file.close();
      }
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
    // A link and a rename: both names are whole at every moment.
    const shared = `${path}.shared`;
    await link(path, shared);
    await rename(shared, this.#path(digest));
    await rm(shared, { force: true }); // rename does nothing when both are the same file already
    await syncPath(this.#dir);
  }

  async all(): Promise<StoredBlob[]> {
    const names = await readdir(this.#dir).catch(() => []);
    const blobs = names
      .filter((name) => /^[0-9a-f]{64}$/.test(name))
      .map(async (name) => {
        const status = await stat(join(this.#dir, name)).catch(() => undefined);
        if (status === undefined) return [];
        return [{ digest: `sha256:${name}`, sizeBytes: status.blocks * 512, usedAt: status.mtimeMs }];
      });
    return (await Promise.all(blobs)).flat();
  }

  async delete(digest: string): Promise<void> {
    await rm(this.#path(digest), { force: true });
  }
}
