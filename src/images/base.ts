/** From layers to one read-only base disk: the layers' entries are applied to a tree, their files stream into the image. */
import { rename, rm } from "node:fs/promises";
import { ARCHIVE_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { FairQueue } from "../host/fair-queue.ts";
import { withoutEnd } from "../host/trim.ts";
import { Pace } from "../host/turns.ts";
import { ArchiveBytes } from "./archive-bytes.ts";
import { ErofsImage, type ErofsStats } from "./erofs.ts";
import { ErofsBase } from "./erofs-reader.ts";
import type { Progress } from "./image.ts";
import { readTar, type TarEntry } from "./tar.ts";
import { type FileData, FileTree, type TreeLimits, type TreeNode } from "./tree.ts";

/** A tar archive, uncompressed, that is read once, from its beginning. */
export interface Layer {
  open(signal: AbortSignal | undefined): AsyncIterable<Uint8Array>;
  /** Whether `.wh.` names delete; only in layers of container images. */
  whiteouts: boolean;
  /** False leaves an entry out. The path has no leading `./` or `/`. */
  keep?(path: string): boolean;
  /** Replaces the content of a small file. */
  rewrite?(path: string): ((content: Buffer) => Buffer | Promise<Buffer>) | undefined;
}

export interface BaseOptions {
  /** Path of a finished base that lies below the layers. */
  below?: string;
  limits?: Partial<TreeLimits>;
  /** Last changes to the tree before it is written. */
  edit?(tree: FileTree): void;
  progress?: (progress: Progress) => void;
  signal?: AbortSignal | undefined;
  /** Whose turn it is. */
  party?: string | undefined;
}

/** Generous for real images (the largest public ones have some 500,000 names and 30 GiB), deadly for no host. */
export const DEFAULT_LIMITS: TreeLimits = { entries: 1_000_000, bytes: 64 * 2 ** 30 };

/** Of this process: each takes memory by what an image holds. */
const turns = new FairQueue(ARCHIVE_BOUNDS.disksAtOnce);

const REWRITE_MAX = 16 << 20;
const PROGRESS_EVERY_MS = 100;
/** Overwritten and deleted files are left behind by a second copy when they would waste more than this share, and this many blocks. */
const WASTE_SHARE = 0.1;
const WASTE_BLOCKS = 4096;

/**
 * Writes the base to `path`, which must not exist; on failure it does not exist again. Few are written at a time, parties in turn.
 * @throws StacyError `corrupt`, `limit`, `not-supported`; what a layer's source throws
 */
export async function buildBase(
  path: string,
  layers: readonly Layer[],
  options: BaseOptions = {},
): Promise<ErofsStats> {
  const { party = "", signal = new AbortController().signal } = options;
  return await turns.run(party, signal, () => writeBase(path, layers, options));
}

async function writeBase(path: string, layers: readonly Layer[], options: BaseOptions): Promise<ErofsStats> {
  const pace = new Pace();
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  await using below = options.below === undefined ? undefined : await ErofsBase.open(options.below);
  const tree = below === undefined ? new FileTree(limits) : await below.tree(limits);
  await using image = await ErofsImage.create(path);
  const report = reporter(options);
  const bytes = new ArchiveBytes(limits);
  for (const layer of layers) {
    tree.beginLayer();
    const { signal } = options;
    await readTar(bytes.through(layer.open(signal)), async (entry, body) => {
      signal?.throwIfAborted();
      tree.admit(entry);
      if (layer.keep?.(relative(entry.path)) === false) return;
      const data = entry.type === "file" ? await addFile(image, layer, entry, body) : undefined;
      await pace.through(tree.apply(entry, data, layer));
      report(entry.size);
    });
  }
  options.edit?.(tree);
  if (below !== undefined) {
    for (const [, node, again] of tree.names()) {
      if (pace.over) await pace.rest();
      if (again || node.type !== "file" || node.data.below !== true) continue;
      options.signal?.throwIfAborted();
      node.data = await image.copyFile(below, node.data);
      report(node.data.size);
    }
  }
  const live = await liveBlocks(tree, pace);
  const waste = image.dataBlocks - live;
  if (waste <= WASTE_BLOCKS || waste <= live * WASTE_SHARE) return await image.finish(tree);
  return await compact(path, image, tree, pace);
}

async function addFile(
  image: ErofsImage,
  layer: Layer,
  entry: TarEntry,
  body: AsyncIterable<Buffer>,
): Promise<FileData> {
  const rewrite = layer.rewrite?.(relative(entry.path));
  if (rewrite === undefined) return image.addFile(entry.size, body);
  if (entry.size > REWRITE_MAX) throw new StacyError("limit", `${entry.path} is too large to be rewritten`);
  const content = await rewrite(Buffer.concat(await Array.fromAsync(body)));
  return image.addFile(content.length, once(content));
}

async function* once(content: Buffer): AsyncGenerator<Buffer> {
  if (content.length > 0) yield content;
}

async function compact(path: string, image: ErofsImage, tree: FileTree, pace: Pace): Promise<ErofsStats> {
  const compactPath = `${path}.compact`;
  let stats: ErofsStats;
  {
    await using smaller = await ErofsImage.create(compactPath);
    for (const [, node, again] of tree.names()) {
      if (pace.over) await pace.rest();
      if (!again && node.type === "file") node.data = await smaller.copyFile(image, node.data);
    }
    stats = await smaller.finish(tree);
  }
  await rename(compactPath, path).catch(async (error) => {
    await rm(compactPath, { force: true });
    throw error;
  });
  image.keep();
  return stats;
}

async function liveBlocks(tree: FileTree, pace: Pace): Promise<number> {
  let blocks = 0;
  for (const [, node, again] of tree.names()) {
    if (pace.over) await pace.rest();
    if (!again) blocks += blocksOf(node);
  }
  return blocks;
}

function blocksOf(node: TreeNode): number {
  return node.type === "file" ? Math.ceil((node.data.size - (node.data.tail?.length ?? 0)) / 4096) : 0;
}

function relative(path: string): string {
  return withoutEnd(path.replace(/^(?:\.?\/)+/, ""), "/");
}

function reporter(options: BaseOptions): (bytes: number) => void {
  let bytes = 0;
  let last = 0;
  return (more) => {
    bytes += more;
    const now = performance.now();
    if (options.progress === undefined || now - last < PROGRESS_EVERY_MS) return;
    last = now;
    options.progress({ step: "writing the base disk", done: bytes, unit: "bytes" });
  };
}
