/**
 * The bases on disk, one directory per digest, and the table of references. A directory appears complete by a rename, so
 * whoever sees it can use it; the table is replaced as a whole under a lock between processes.
 */
import { chmod, mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { replaceFile, syncPath } from "../host/durable.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { lock } from "../host/lock.ts";
import type { DataPaths } from "../host/paths.ts";
import type { Image, ImageConfig } from "./image.ts";
import { readJson } from "./read-json.ts";

/** `ImageConfig`, as it is written down and sent. */
export const imageConfigSchema = z.object({
  env: z.array(z.string()),
  cwd: z.string().exactOptional(),
  user: z.string().exactOptional(),
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()),
  labels: z.record(z.string(), z.string()),
  stopSignal: z.string().exactOptional(),
  exposedPorts: z.array(z.string()),
  volumes: z.array(z.string()).exactOptional(),
  onBuild: z.array(z.string()).exactOptional(),
});

const RECORD = z.object({
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  filesystem: z.enum(["ext4", "erofs"]),
  sizeBytes: z.number(),
  createdAt: z.number(),
  config: imageConfigSchema,
  /** Digests of the blobs that it was built from, so that collection keeps what a present image may share. */
  blobs: z.array(z.string()),
});
type Record_ = z.infer<typeof RECORD>;

const REFS = z.record(
  z.string(),
  z.object({
    digest: z.string(),
    /** ms since 1970, when the reference was last looked up at its source */
    at: z.number(),
  }),
);
export type Refs = z.infer<typeof REFS>;

export interface Base extends Omit<Image, "reference"> {
  blobs: string[];
  /** ms since 1970 */
  usedAt: number;
}

export class Bases {
  readonly #paths: DataPaths;
  readonly #refs: string;

  constructor(paths: DataPaths) {
    this.#paths = paths;
    this.#refs = join(paths.images, "refs.json");
  }

  path(digest: string): string {
    return join(this.#paths.images, digest.slice("sha256:".length));
  }

  /** `undefined` when it is not here, or not whole. @throws when that could not be seen: whoever collects must not take it for gone */
  async get(digest: string): Promise<Base | undefined> {
    const dir = this.path(digest);
    const file = join(dir, "image.json");
    const parsed = RECORD.safeParse(await readJson(file).catch(damaged));
    if (!parsed.success || parsed.data.digest !== digest) return undefined;
    const base = join(dir, "base.img");
    try {
      const [disk, record] = await Promise.all([stat(base), stat(file)]);
      if (disk.size !== parsed.data.sizeBytes) return undefined;
      return { ...parsed.data, base, usedAt: record.mtimeMs };
    } catch (error) {
      if (errno(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** For the order in which unused images go. */
  async touch(digest: string): Promise<void> {
    const now = new Date();
    // A read-only store cannot be collected either.
    await utimes(join(this.path(digest), "image.json"), now, now).catch(() => {});
  }

  /**
   * Publishes a finished directory that holds `base.img`. One that is there already wins: the digest says they are equal.
   * @param dir on the same filesystem
   */
  async publish(dir: string, digest: string, config: ImageConfig, blobs: string[]): Promise<Base> {
    const base = join(dir, "base.img");
    await chmod(base, 0o444);
    const record: Record_ = {
      digest,
      filesystem: "erofs",
      sizeBytes: (await stat(base)).size,
      createdAt: Date.now(),
      config,
      blobs,
    };
    const file = await open(join(dir, "image.json"), "wx", 0o644);
    try {
      await file.writeFile(`${JSON.stringify(record, null, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await chmod(dir, 0o755);
    await syncPath(dir);
    await mkdir(this.#paths.images, { recursive: true });
    const target = this.path(digest);
    if ((await this.get(digest)) === undefined) {
      await rm(target, { recursive: true, force: true });
      await rename(dir, target);
      await syncPath(this.#paths.images);
    }
    const published = await this.get(digest);
    if (published === undefined)
      throw new StacyError("internal", `the image ${digest} vanished while it was published`);
    return published;
  }

  async all(): Promise<Base[]> {
    const names = await readdir(this.#paths.images).catch((error) => {
      if (errno(error) === "ENOENT") return [];
      throw error;
    });
    const found = await Promise.all(
      names.filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => this.get(`sha256:${name}`)),
    );
    return found.filter((base) => base !== undefined);
  }

  /** Machines that have the disk open keep it until they end. */
  async delete(digest: string): Promise<void> {
    const dir = this.path(digest);
    // Without its record it is no image: a crash in the middle leaves something that the next build replaces.
    await rm(join(dir, "image.json"), { force: true });
    await rm(dir, { recursive: true, force: true });
  }

  async refs(): Promise<Refs> {
    const stored = await readJson(this.#refs);
    const parsed = REFS.safeParse(stored ?? {});
    if (parsed.success) return parsed.data;
    throw new StacyError("corrupt", `${this.#refs} is damaged`, { cause: parsed.error, remedy: "remove the file" });
  }

  /** Changes the table, alone among all processes. */
  async changeRefs<T>(change: (refs: Refs) => T | Promise<T>): Promise<T> {
    await mkdir(this.#paths.images, { recursive: true });
    await using _held = await lock(this.#paths.images, "refs");
    const refs = await this.refs();
    const before = JSON.stringify(refs);
    const result = await change(refs);
    if (JSON.stringify(refs) !== before) await replaceFile(this.#refs, `${JSON.stringify(refs, null, 2)}\n`);
    return result;
  }
}

function damaged(thrown: unknown): undefined {
  if (asStacyError(thrown).code !== "corrupt") throw thrown;
}
