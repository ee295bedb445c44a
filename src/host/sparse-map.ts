/** What a sparse file holds: where its data lies, and a checksum. The work is by the bytes of data, however a guest has scattered them. */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { allocatedRanges } from "./allocated-ranges.ts";
import { DISK_BOUNDS } from "./bounds.ts";
import { BoundedExtents, dataRuns, type Extent, readExtents } from "./extents.ts";

export interface SparseMap {
  /** Nominal size in bytes. */
  size: number;
  /** All data lies in these; where there are too many runs of it, zeros between them do too (`BoundedExtents`). */
  extents: Extent[];
  /** sha256 (hex) over each run of blocks with data, its position, length and bytes: it covers the whole content without reading holes. */
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
    const content = new Content(file);
    for await (const range of allocatedRanges(path, size)) {
      for await (const { at, data } of readExtents(file, [range], DISK_BOUNDS.turnBytes)) await content.add(at, data);
    }
    return { size, ...(await content.end()) };
  } finally {
    await file.close();
  }
}

/** Takes what is read of a file, in ascending order. */
class Content {
  readonly #file: FileHandle;
  readonly #extents = new BoundedExtents();
  readonly #hash = createHash("sha256");
  /** A run that reached the end of what was read: how long it is, is not known yet. */
  #open: Extent | undefined;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  async add(at: number, data: Buffer): Promise<void> {
    for (const run of dataRuns(data, 0)) {
      const start = at + run.start;
      const { length } = run;
      if (this.#open !== undefined && this.#open.start + this.#open.length === start) this.#open.length += length;
      else {
        await this.#close();
        this.#open = { start, length };
      }
      if (run.start + length < data.length) await this.#close(at, data);
    }
  }

  async end(): Promise<{ extents: Extent[]; sha256: string }> {
    await this.#close();
    return { extents: this.#extents.list, sha256: this.#hash.digest("hex") };
  }

  /** @param data from `at` on; a run that is not in it is read again */
  async #close(at = Number.POSITIVE_INFINITY, data?: Buffer): Promise<void> {
    const run = this.#open;
    if (run === undefined) return;
    this.#open = undefined;
    this.#extents.add(run.start, run.length);
    this.#hash.update(`${run.start}:${run.length}\n`);
    if (data !== undefined && run.start >= at) {
      this.#hash.update(data.subarray(run.start - at, run.start - at + run.length));
    } else {
      for await (const again of readExtents(this.#file, [run], DISK_BOUNDS.turnBytes)) this.#hash.update(again.data);
    }
  }
}
