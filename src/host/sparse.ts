/**
 * Copies of sparse files that stay sparse. `fs.copyFile` fills holes (1 GiB sparse: seconds, and 1 GiB on disk), so data is
 * copied by its extents, or shared by reflink where the filesystem can.
 */
import { createHash } from "node:crypto";
import { constants, copyFile, type FileHandle, open, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { StacyError } from "./error.ts";
import { runTool } from "./run.ts";
import { unlessShort } from "./shortage.ts";

const BLOCK = 4096;
const WINDOW = 1 << 20;

/** Bytes `start` .. `start + length` hold data; everything between extents is zero. */
export interface Extent {
  start: number;
  length: number;
}

export interface SparseMap {
  /** Nominal size in bytes. */
  size: number;
  extents: Extent[];
  /** sha256 (hex) over each extent's position, length and bytes: it covers the whole content without reading holes. */
  sha256: string;
}

/**
 * Finds the data of a file: the filesystem says where data can be, and of that, 4 KiB blocks of zeros count as holes. Where the
 * filesystem cannot say, all of it is read. This runs when a snapshot is built or checked, never on a spawn.
 */
export async function mapSparse(path: string): Promise<SparseMap> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const extents: Extent[] = [];
    const buffer = Buffer.allocUnsafe(WINDOW);
    for (const range of (await allocatedRanges(path, size)) ?? [{ start: 0, length: size }]) {
      await findData(file, range, buffer, extents);
    }
    return { size, extents, sha256: await hashExtents(file, extents) };
  } finally {
    await file.close();
  }
}

async function findData(file: FileHandle, range: Extent, buffer: Buffer, extents: Extent[]): Promise<void> {
  const end = range.start + range.length;
  for (let at = range.start; at < end; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(WINDOW, end - at), at);
    if (bytesRead === 0) return;
    // Most windows of a sparse file are empty: one comparison instead of 256.
    const empty = isZero(buffer, 0, bytesRead);
    for (let offset = 0; !empty && offset < bytesRead; offset += BLOCK) {
      const length = Math.min(BLOCK, bytesRead - offset);
      if (isZero(buffer, offset, length)) continue;
      const start = at + offset;
      const last = extents.at(-1);
      if (last !== undefined && last.start + last.length === start) last.length += length;
      else extents.push({ start, length });
    }
    at += bytesRead;
  }
}

/**
 * Where the filesystem has given the file room, by `filefrag` (of e2fsprogs, which makes our disks); Node cannot ask it.
 * `undefined` where it cannot say, for example on tmpfs.
 */
async function allocatedRanges(path: string, size: number): Promise<Extent[] | undefined> {
  // -s writes delayed data out first: until then it has no place.
  const text = await runTool("filefrag", ["-s", "-v", path], { timeoutMs: 60_000 }).then(
    (out) => out.toString("latin1"),
    () => "",
  );
  const unit = Number(/blocks? of (\d+) bytes/.exec(text)?.[1] ?? 0);
  if (unit === 0 || unit % BLOCK !== 0) return undefined;
  const ranges: Extent[] = [];
  for (const match of text.matchAll(/^\s*\d+:\s*(\d+)\.\.\s*(\d+):/gm)) {
    const start = Number(match[1]) * unit;
    const end = Math.min(size, (Number(match[2]) + 1) * unit);
    if (end > start) ranges.push({ start, length: end - start });
  }
  return ranges;
}

const zeros = Buffer.alloc(WINDOW);
function isZero(buffer: Buffer, offset: number, length: number): boolean {
  return buffer.compare(zeros, 0, length, offset, offset + length) === 0;
}

/**
 * What the file holds there, in pieces of at most 1 MiB; a piece is good until the next one is asked for. Of a file that has become
 * shorter, an extent ends early.
 */
export async function* readExtents(
  file: FileHandle,
  extents: readonly Extent[],
): AsyncGenerator<{ extent: Extent; at: number; data: Buffer }> {
  const buffer = Buffer.allocUnsafe(WINDOW);
  for (const extent of extents) {
    for (let done = 0; done < extent.length; ) {
      const at = extent.start + done;
      const { bytesRead } = await file.read(buffer, 0, Math.min(WINDOW, extent.length - done), at);
      if (bytesRead === 0) break;
      yield { extent, at, data: buffer.subarray(0, bytesRead) };
      done += bytesRead;
    }
  }
}

async function hashExtents(file: FileHandle, extents: readonly Extent[]): Promise<string> {
  const hash = createHash("sha256");
  for await (const { extent, at, data } of readExtents(file, extents)) {
    if (at === extent.start) hash.update(`${extent.start}:${extent.length}\n`);
    hash.update(data);
  }
  return hash.digest("hex");
}

/** A file held ready for being copied many times: its data in memory when small, else read from the open file. */
export class SparseTemplate implements AsyncDisposable {
  readonly #path: string;
  readonly #map: SparseMap;
  readonly #data: Buffer[] | undefined;
  readonly #reflink: boolean;

  private constructor(path: string, map: SparseMap, data: Buffer[] | undefined, reflink: boolean) {
    this.#path = path;
    this.#map = map;
    this.#data = data;
    this.#reflink = reflink;
  }

  /** @param keepBytes data up to this size is kept in memory */
  static async open(path: string, map: SparseMap, keepBytes = 8 << 20): Promise<SparseTemplate> {
    const total = map.extents.reduce((sum, extent) => sum + extent.length, 0);
    const reflink = await canReflink(dirname(path));
    if (reflink || total > keepBytes) return new SparseTemplate(path, map, undefined, reflink);
    const file = await open(path, "r");
    try {
      const data: Buffer[] = [];
      for (const extent of map.extents) {
        const buffer = Buffer.allocUnsafeSlow(extent.length);
        const { bytesRead } = await file.read(buffer, 0, extent.length, extent.start);
        if (bytesRead !== extent.length) throw new StacyError("corrupt", `${path} is shorter than its manifest says`);
        data.push(buffer);
      }
      return new SparseTemplate(path, map, data, false);
    } finally {
      await file.close();
    }
  }

  /** Writes a new private copy. @param size grows the copy beyond the template's size, in bytes */
  async copyTo(destination: string, size = this.#map.size): Promise<void> {
    if (this.#reflink) {
      await copyFile(this.#path, destination, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
      const file = await open(destination, "r+");
      try {
        // The template is read-only; its copy is not.
        await file.chmod(0o600);
        if (size > this.#map.size) await file.truncate(size);
      } finally {
        await file.close();
      }
      return;
    }
    const target = await open(destination, "wx", 0o600);
    try {
      await target.truncate(Math.max(size, this.#map.size));
      if (this.#data !== undefined) {
        await Promise.all(
          this.#map.extents.map((extent, i) => writeAll(target, this.#data?.[i] as Buffer, extent.start)),
        );
      } else {
        await copyExtents(this.#path, target, this.#map.extents);
      }
    } finally {
      await target.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#data?.splice(0);
  }
}

async function writeAll(file: FileHandle, data: Buffer, position: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await file.write(data, done, data.length - done, position + done);
    done += bytesWritten;
  }
}

async function copyExtents(from: string, target: FileHandle, extents: readonly Extent[]): Promise<void> {
  const source = await open(from, "r");
  let missing = extents.reduce((sum, { length }) => sum + length, 0);
  try {
    for await (const { at, data } of readExtents(source, extents)) {
      await writeAll(target, data, at);
      missing -= data.length;
    }
    if (missing > 0) throw new StacyError("corrupt", `${from} is shorter than its manifest says`);
  } finally {
    await source.close();
  }
}

/** One-off sparse copy. `cp` asks the filesystem where the data lies, which Node cannot, so holes are not even read. */
export async function copySparse(source: string, destination: string): Promise<void> {
  await runTool("cp", ["--reflink=auto", "--sparse=auto", "--no-preserve=mode", "--no-clobber", source, destination]);
}

const reflinkByDevice = new Map<number, Promise<boolean>>();

/** Whether the filesystem of `dir` shares extents between files; tried once per device, and again where the disk was full. */
export async function canReflink(dir: string): Promise<boolean> {
  const { dev } = await stat(dir);
  let known = reflinkByDevice.get(dev);
  if (known === undefined) {
    known = tryReflink(dir);
    reflinkByDevice.set(dev, known);
    known.catch(() => reflinkByDevice.delete(dev));
  }
  return known.catch(() => false);
}

async function tryReflink(dir: string): Promise<boolean> {
  const probe = join(dir, `.reflink-${process.pid}-${Date.now()}`);
  try {
    const file = await open(probe, "wx");
    await file.write(Buffer.alloc(BLOCK, 1));
    await file.close();
    await copyFile(probe, `${probe}.copy`, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    return unlessShort(false)(error);
  } finally {
    await rm(probe, { force: true });
    await rm(`${probe}.copy`, { force: true });
  }
}

/** Bytes that a file occupies on disk. */
export async function allocatedBytes(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}
