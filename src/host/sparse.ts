/**
 * Copies of sparse files that stay sparse. `fs.copyFile` fills holes (1 GiB sparse: seconds, and 1 GiB on disk), so data is
 * copied by its extents, or shared by reflink where the filesystem can.
 */
import { constants, copyFile, type FileHandle, open, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DISK_BOUNDS } from "./bounds.ts";
import { StacyError } from "./error.ts";
import { BLOCK, dataRuns, type Extent, readExtents } from "./extents.ts";
import { runTool } from "./run.ts";
import { unlessShort } from "./shortage.ts";
import type { SparseMap } from "./sparse-map.ts";

/** A file held ready for being copied many times: its data in memory when small, else read from the open file. */
export class SparseTemplate implements AsyncDisposable {
  readonly #path: string;
  readonly #size: number;
  readonly #extents: Extent[];
  readonly #data: Buffer[] | undefined;
  readonly #reflink: boolean;

  private constructor(path: string, size: number, extents: Extent[], data: Buffer[] | undefined, reflink: boolean) {
    this.#path = path;
    this.#size = size;
    this.#extents = extents;
    this.#data = data;
    this.#reflink = reflink;
  }

  /** @param keepBytes data up to this size is kept in memory */
  static async open(path: string, map: Omit<SparseMap, "sha256">, keepBytes = 8 << 20): Promise<SparseTemplate> {
    const { size, extents } = map;
    const total = extents.reduce((sum, extent) => sum + extent.length, 0);
    const reflink = await canReflink(dirname(path));
    if (reflink || total > keepBytes) return new SparseTemplate(path, size, extents, undefined, reflink);
    const file = await open(path, "r");
    try {
      const data: Buffer[] = [];
      for (const extent of extents) {
        const buffer = Buffer.allocUnsafeSlow(extent.length);
        const { bytesRead } = await file.read(buffer, 0, extent.length, extent.start);
        if (bytesRead !== extent.length) throw new StacyError("corrupt", `${path} is shorter than its manifest says`);
        data.push(buffer);
      }
      return new SparseTemplate(path, size, extents, data, false);
    } finally {
      await file.close();
    }
  }

  /** Writes a new private copy. @param size grows the copy beyond the template's size, in bytes */
  async copyTo(destination: string, size = this.#size): Promise<void> {
    if (this.#reflink) {
      await copyFile(this.#path, destination, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
      const file = await open(destination, "r+");
      try {
        // The template is read-only; its copy is not.
        await file.chmod(0o600);
        if (size > this.#size) await file.truncate(size);
      } finally {
        await file.close();
      }
      return;
    }
    const target = await open(destination, "wx", 0o600);
    try {
      await target.truncate(Math.max(size, this.#size));
      if (this.#data !== undefined) await this.#write(this.#data, target);
      else await copyExtents(this.#path, target, this.#extents);
    } finally {
      await target.close();
    }
  }

  async #write(data: readonly Buffer[], target: FileHandle): Promise<void> {
    for (let from = 0; from < data.length; from += DISK_BOUNDS.writes) {
      const some = data.slice(from, from + DISK_BOUNDS.writes);
      await Promise.all(some.map((bytes, i) => writeAll(target, bytes, this.#extents[from + i]?.start as number)));
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
      // An extent may hold zeros: what costs room, and is more than a call costs, stays a hole.
      for (const { start, length } of dataRuns(data, DISK_BOUNDS.holeBytes)) {
        await writeAll(target, data.subarray(start, start + length), at + start);
      }
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
