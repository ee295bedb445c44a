/**
 * What builds (builder/) have made, by what it was made from, so that the same is not done twice.
 *
 *     <data>/images/builds/<key>.layer   what was changed above the base image: a layer, zstd
 *     <data>/images/builds/<key>.json    what `Built` says, written last: without it there is nothing
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { link, mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../host/durable.ts";
import { type Lock, lock } from "../host/lock.ts";
import { readJson } from "./read-json.ts";

const DIGEST = z.string().regex(/^sha256:[0-9a-f]{64}$/);
const RECORD = z.object({
  /** Digest of the image that it began with; absent when that was nothing. */
  base: DIGEST.exactOptional(),
  /** sha256 of the layer's file; absent when no file was changed. */
  layer: DIGEST.exactOptional(),
  /** Digest of the finished image; absent for a step on the way. */
  image: DIGEST.exactOptional(),
  /** The image has no name of its own and is made again from the layer when it is needed: a stage of a build. */
  stage: z.boolean().exactOptional(),
});
export type Built = z.infer<typeof RECORD>;

export interface StoredBuild extends Built {
  key: string;
  sizeBytes: number;
  /** ms since 1970 */
  usedAt: number;
}

export class Builds {
  readonly #dir: string;

  /** @param dir on the same filesystem as the files that are put in and taken */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Who holds it is the only one to build a key, in all processes. */
  only(key: string, signal?: AbortSignal): Promise<Lock> {
    return lock(dirname(this.#dir), `build ${key}`, signal);
  }

  /** `undefined` when it is not here, or not whole. */
  async get(key: string): Promise<Built | undefined> {
    const parsed = RECORD.safeParse(await readJson(this.#path(key, "json")).catch(() => undefined));
    if (!parsed.success) return undefined;
    const now = new Date();
    await utimes(this.#path(key, "json"), now, now).catch(() => {}); // only the order of collection
    return parsed.data;
  }

  /** Links the layer to `path`, for a reader that collection must not disturb. @returns false when it is gone or damaged */
  async take(key: string, path: string): Promise<boolean> {
    const built = await this.get(key);
    if (built?.layer === undefined) return false;
    const linked = await link(this.#path(key, "layer"), path).then(
      () => true,
      () => false,
    );
    if (!linked) return false;
    if ((await digestOfFile(path)) === built.layer) return true;
    await rm(path, { force: true });
    await this.delete(key);
    return false;
  }

  /** @param layer a file, which is linked */
  async put(key: string, built: Omit<Built, "layer">, layer?: string): Promise<void> {
    await mkdir(this.#dir, { recursive: true });
    if (layer !== undefined) {
      const next = `${this.#path(key, "layer")}.${process.pid}.new`;
      await rm(next, { force: true });
      await link(layer, next);
      await rename(next, this.#path(key, "layer"));
      await rm(next, { force: true }); // rename does nothing when both are the same file already
    }
    const record: Built = layer === undefined ? built : { ...built, layer: await digestOfFile(layer) };
    await replaceFile(this.#path(key, "json"), `${JSON.stringify(record, null, 2)}\n`);
  }

  async isStage(digest: string): Promise<boolean> {
    return (await this.all()).some(({ image, stage }) => stage === true && image === digest);
  }

  async all(): Promise<StoredBuild[]> {
    const names = await readdir(this.#dir).catch(() => []);
    const keys = new Set(names.map((name) => /^([0-9a-f]{64})\./.exec(name)?.[1]).filter((key) => key !== undefined));
    const found = await Promise.all(
      [...keys].map(async (key) => {
        const parsed = RECORD.safeParse(await readJson(this.#path(key, "json")).catch(() => undefined));
        const [record, layer] = await Promise.all(
          (["json", "layer"] as const).map((kind) => stat(this.#path(key, kind)).catch(() => undefined)),
        );
        if (!parsed.success || record === undefined) return [];
        return [{ key, ...parsed.data, sizeBytes: (layer?.blocks ?? 0) * 512, usedAt: record.mtimeMs }];
      }),
    );
    return found.flat();
  }

  async delete(key: string): Promise<void> {
    await rm(this.#path(key, "json"), { force: true });
    await rm(this.#path(key, "layer"), { force: true });
  }

  #path(key: string, kind: "json" | "layer"): string {
    return join(this.#dir, `${key}.${kind}`);
  }
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return `sha256:${hash.digest("hex")}`;
}
