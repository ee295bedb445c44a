/** Files of templates, as clients send them before a build: an archive for each copy, by the hash of what is in it. */
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { FolderArchive } from "../../builder/context.ts";
import { errno, StacyError } from "../../host/error.ts";
import { exists } from "../../host/exists.ts";
import { decompressed } from "../../images/layer.ts";

/** They are needed from one build to the next of the same program; a later one sends them again. */
const KEPT_MS = 24 * 3_600_000;
/** Of an owner, of all its templates: what one build may copy from is no more (builder/context.ts). */
const MAX_BYTES = 16 * 2 ** 30;
/** After so much of one the others are looked at again: many may be on their way at once. */
const LOOK_BYTES = 256 * 2 ** 20;

export class TemplateFiles {
  readonly #dir: string;

  constructor(dataDir: string) {
    this.#dir = join(dataDir, "e2b-files");
  }

  /** Owners see nothing of each other's: not even that somebody has the same file. */
  #path(owner: string, hash: string): string {
    return join(this.#dir, `${whose(owner)}-${hash}.tar`);
  }

  async has(owner: string, hash: string): Promise<boolean> {
    const path = this.#path(owner, hash);
    const now = new Date();
    return await utimes(path, now, now).then(
      () => true,
      (error) => {
        if (errno(error) === "ENOENT") return false;
        throw error;
      },
    );
  }

  /** @throws StacyError `limit`, and what the body throws */
  async put(
    owner: string,
    hash: string,
    body: AsyncIterable<Uint8Array>,
    { maxBytes = MAX_BYTES, lookBytes = LOOK_BYTES } = {},
  ): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const left = async (): Promise<number> => maxBytes - (await this.#sweep(owner));
    const path = this.#path(owner, hash);
    const part = `${path}.${process.pid}.${performance.now()}`;
    try {
      await pipeline(atMost(left, lookBytes, body), createWriteStream(part, { flags: "wx", mode: 0o600 }));
      await rename(part, path);
    } finally {
      await rm(part, { force: true });
    }
  }

  /** Each of them, in a folder of its hash. @throws StacyError `invalid` for one that nobody sent */
  async *archives(owner: string, hashes: readonly string[], signal: AbortSignal): AsyncGenerator<FolderArchive> {
    for (const hash of new Set(hashes)) {
      const path = this.#path(owner, hash);
      if (!(await exists(path))) {
        throw new StacyError("invalid", `the files ${hash.slice(0, 12)} of this template were not sent`, {
          remedy: "build the template again",
        });
      }
      yield { folder: hash, tar: decompressed(path, signal) };
    }
  }

  /** @returns bytes of what the owner has, also of what is still on its way */
  async #sweep(owner: string): Promise<number> {
    const old = Date.now() - KEPT_MS;
    let size = 0;
    for (const name of await readdir(this.#dir)) {
      const path = join(this.#dir, name);
      const found = await stat(path).catch(() => undefined); // somebody else sweeps, too
      if (found !== undefined && found.mtimeMs < old) await rm(path, { force: true });
      else if (name.startsWith(`${whose(owner)}-`)) size += found?.size ?? 0;
    }
    return size;
  }
}

function whose(owner: string): string {
  return createHash("sha256").update(owner).digest("hex").slice(0, 16);
}

/** @param room of the owner, what is written of this one included */
async function* atMost(
  room: () => Promise<number>,
  lookBytes: number,
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let left = await room();
  let unseen = 0;
  for await (const piece of body) {
    left -= piece.length;
    unseen += piece.length;
    if (unseen >= lookBytes) {
      left = (await room()) - piece.length;
      unseen = 0;
    }
    if (left < 0) {
      throw new StacyError("limit", "the files of this owner's templates take too much room", {
        remedy: `files are kept for a day; leave out what no template needs`,
      });
    }
    yield piece;
  }
}
