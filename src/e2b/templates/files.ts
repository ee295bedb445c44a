/**
 * Files of templates, as clients send them before a build: an archive for each copy, by the hash of what is in it. An owner's are in a directory
 * of its own. What it has, also what is still on its way, is counted here, since the data directory has one server: so the bound
 * holds however many are sent at once.
 */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { FolderArchive } from "../../builder/context.ts";
import { BUILD_BOUNDS, E2B_BOUNDS } from "../../host/bounds.ts";
import { errno, StacyError } from "../../host/error.ts";
import { SerialQueue } from "../../host/serial-queue.ts";
import { decompressed } from "../../images/layer.ts";

/** They are needed from one build to the next of the same program; a later one sends them again. */
const KEPT_MS = 24 * 3_600_000;
const LOOK_MS = 3_600_000;
const NAME = /^[0-9a-f]+\.tar$/;

interface Kept {
  dir: string;
  /** By hash. */
  files: Map<string, { bytes: number; usedAt: number }>;
  /** Of all of them, and of what is still on its way. */
  bytes: number;
  sending: number;
  /** What becomes another file, or none, one after another: the last on the disk is the last that is counted. */
  changes: SerialQueue;
}

export interface TemplateFilesOptions {
  now?: () => number;
  /** What nobody uses goes by itself until then. */
  stopping?: AbortSignal;
  /** Of an owner, of all its templates. */
  maxBytes?: number;
  maxFiles?: number;
}

export class TemplateFiles {
  readonly #dir: string;
  readonly #now: () => number;
  readonly #maxBytes: number;
  readonly #maxFiles: number;
  readonly #owners = new Map<string, Kept>();
  #found: Promise<void> | undefined;
  #parts = 0;

  /** By default an owner's files take what one build may copy from (builder/context.ts). */
  constructor(dataDir: string, options: TemplateFilesOptions = {}) {
    this.#dir = join(dataDir, "e2b-files");
    this.#now = options.now ?? Date.now;
    this.#maxBytes = options.maxBytes ?? BUILD_BOUNDS.contentBytes;
    this.#maxFiles = options.maxFiles ?? E2B_BOUNDS.templateFiles;
    const { stopping } = options;
    if (stopping === undefined) return;
    const timer = setInterval(() => void this.sweep().catch(() => {}), LOOK_MS).unref(); // the next one tries again
    stopping.addEventListener("abort", () => clearInterval(timer), { once: true });
    void this.sweep().catch(() => {}); // who sends or asks next is told
  }

  async has(owner: string, hash: string): Promise<boolean> {
    await this.#look();
    const kept = this.#of(owner);
    return await kept.changes.run(async () => {
      const file = kept.files.get(hash);
      if (file === undefined) return false;
      const now = this.#now();
      const there = await utimes(pathOf(kept, hash), now / 1000, now / 1000).then(
        () => true,
        (error) => {
          if (errno(error) === "ENOENT") return false;
          throw error;
        },
      );
      if (there) file.usedAt = now;
      else forget(kept, hash); // somebody has removed it
      return there;
    });
  }

  /** @throws StacyError `limit`, and what the body throws */
  async put(owner: string, hash: string, body: AsyncIterable<Uint8Array>): Promise<void> {
    await this.#look();
    const kept = this.#of(owner);
    await this.#sweep(kept);
    if (kept.files.size + kept.sending >= this.#maxFiles && !kept.files.has(hash)) throw tooMuch("are too many");
    const part = join(kept.dir, `${hash}.${this.#parts++}.part`);
    let bytes = 0;
    const counted = async function* (maxBytes: number): AsyncGenerator<Uint8Array> {
      for await (const piece of body) {
        if (kept.bytes + piece.length > maxBytes) throw tooMuch("take too much room");
        kept.bytes += piece.length;
        bytes += piece.length;
        yield piece;
      }
    };
    kept.sending += 1;
    try {
      await mkdir(kept.dir, { recursive: true, mode: 0o700 });
      // Made before anything can fail: a stream that is ended while it opens its file makes that afterwards.
      const file = await open(part, "wx", 0o600);
      // On the disk before it has its name: a host that fails leaves no half of one that seems to be there.
      await pipeline(counted(this.#maxBytes), file.createWriteStream({ flush: true }));
      await kept.changes.run(async () => {
        await rename(part, pathOf(kept, hash));
        forget(kept, hash); // the one before
        kept.files.set(hash, { bytes, usedAt: this.#now() });
      });
    } catch (error) {
      kept.bytes -= bytes;
      await rm(part, { force: true });
      throw error;
    } finally {
      kept.sending -= 1;
    }
  }

  /** Each of them, in a folder of its hash. @throws StacyError `invalid` for one that nobody sent */
  async *archives(owner: string, hashes: readonly string[], signal: AbortSignal): AsyncGenerator<FolderArchive> {
    for (const hash of new Set(hashes)) {
      if (!(await this.has(owner, hash))) {
        throw new StacyError("invalid", `the files ${hash.slice(0, 12)} of this template were not sent`, {
          remedy: "build the template again",
        });
      }
      yield { folder: hash, tar: decompressed(pathOf(this.#of(owner), hash), signal) };
    }
  }

  /** Removes what nobody has used for a day, of all owners. */
  async sweep(): Promise<void> {
    await this.#look();
    for (const kept of this.#owners.values()) await this.#sweep(kept);
  }

  async #sweep(kept: Kept): Promise<void> {
    const old = this.#now() - KEPT_MS;
    for (const [hash, { usedAt }] of kept.files) {
      if (usedAt >= old) continue;
      await kept.changes.run(async () => {
        if ((kept.files.get(hash)?.usedAt ?? old) >= old) return; // it was sent or used meanwhile
        await rm(pathOf(kept, hash), { force: true });
        forget(kept, hash);
      });
    }
  }

  /** Once: what is there of the server before, without what it had not received whole. A failure is nobody's answer but its caller's. */
  #look(): Promise<void> {
    this.#found ??= this.#find().catch((error: unknown) => {
      this.#found = undefined;
      throw error;
    });
    return this.#found;
  }

  async #find(): Promise<void> {
    for (const name of await names(this.#dir)) {
      const dir = join(this.#dir, name);
      const files = new Map<string, { bytes: number; usedAt: number }>();
      let bytes = 0;
      const found = await stat(dir);
      for (const each of found.isDirectory() ? await names(dir) : []) {
        if (!NAME.test(each)) {
          await rm(join(dir, each), { recursive: true });
          continue;
        }
        const { size, mtimeMs } = await stat(join(dir, each));
        files.set(each.slice(0, -".tar".length), { bytes: size, usedAt: mtimeMs });
        bytes += size;
      }
      if (files.size === 0) await rm(dir, { recursive: true });
      else this.#owners.set(name, { dir, files, bytes, sending: 0, changes: new SerialQueue() });
    }
  }

  /** Owners see nothing of each other's: not even that somebody has the same file. */
  #of(owner: string): Kept {
    const name = createHash("sha256").update(owner).digest("hex").slice(0, 16);
    let kept = this.#owners.get(name);
    if (kept === undefined) {
      kept = { dir: join(this.#dir, name), files: new Map(), bytes: 0, sending: 0, changes: new SerialQueue() };
      this.#owners.set(name, kept);
    }
    return kept;
  }
}

function pathOf({ dir }: Kept, hash: string): string {
  return join(dir, `${hash}.tar`);
}

function forget(kept: Kept, hash: string): void {
  kept.bytes -= kept.files.get(hash)?.bytes ?? 0;
  kept.files.delete(hash);
}

async function names(dir: string): Promise<string[]> {
  return await readdir(dir).catch((error) => {
    if (errno(error) === "ENOENT") return [];
    throw error;
  });
}

function tooMuch(what: string): StacyError {
  return new StacyError("limit", `the files of this owner's templates ${what}`, {
    remedy: "files are kept for a day; leave out what no template needs",
  });
}
