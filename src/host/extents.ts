/** Where the data of a sparse file lies. */
import type { FileHandle } from "node:fs/promises";
import { DISK_BOUNDS } from "./bounds.ts";

/** Filesystems and guests give files room in blocks of this size, bytes. */
export const BLOCK = 4096;

/** Bytes `start` .. `start + length` hold data; everything between extents is zero. */
export interface Extent {
  start: number;
  length: number;
}

/**
 * Extents in ascending order, never more than a stated number: of more, neighbours become one that holds the zeros between them, those
 * nearest to one another first. What is data stays in an extent.
 */
export class BoundedExtents {
  readonly list: Extent[] = [];
  readonly #most: number;
  #gap = 0;

  constructor(most: number = DISK_BOUNDS.extents) {
    this.#most = most;
  }

  /** @param start not before the end of the last one */
  add(start: number, length: number): void {
    append(this.list, start, length, this.#gap);
    // Each round takes wider gaps in, so there are few rounds, however many extents come.
    while (this.list.length > this.#most) {
      this.#gap = Math.max(BLOCK, 2 * this.#gap);
      for (const extent of this.list.splice(0)) append(this.list, extent.start, extent.length, this.#gap);
    }
  }
}

/** @param gap what lies at most between two that become one, bytes */
export function append(list: Extent[], start: number, length: number, gap: number): void {
  const last = list.at(-1);
  if (last !== undefined && start - (last.start + last.length) <= gap) last.length = start + length - last.start;
  else list.push({ start, length });
}

/** A list that somebody else made, within the bound. */
export function boundExtents(extents: readonly Extent[]): Extent[] {
  const bounded = new BoundedExtents();
  for (const { start, length } of extents) bounded.add(start, length);
  return bounded.list;
}

/** What is read at a time, where nothing but reading and writing is done with it, bytes. */
const PIECE = 1 << 20;
const zeros = Buffer.alloc(PIECE);

/**
 * Runs of blocks that are not all zeros.
 * @param data at most 1 MiB, from the start of a block on
 * @param gap zeros that may be within a run, bytes
 */
export function dataRuns(data: Buffer, gap: number): Extent[] {
  const runs: Extent[] = [];
  // Most of a sparse file is empty: one comparison instead of hundreds.
  if (isZero(data, 0, data.length)) return runs;
  for (let at = 0; at < data.length; at += BLOCK) {
    const length = Math.min(BLOCK, data.length - at);
    if (!isZero(data, at, length)) append(runs, at, length, gap);
  }
  return runs;
}

function isZero(data: Buffer, start: number, length: number): boolean {
  return data.compare(zeros, 0, length, start, start + length) === 0;
}

/**
 * What the file holds there, in pieces; a piece is good until the next one is asked for. Of a file that has become shorter, an extent
 * ends early.
 * @param most of a piece, bytes, at most 1 MiB
 */
export async function* readExtents(
  file: FileHandle,
  extents: readonly Extent[],
  most = PIECE,
): AsyncGenerator<{ at: number; data: Buffer }> {
  const buffer = Buffer.allocUnsafe(most);
  for (const { start, length } of extents) {
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, length - done), start + done);
      if (bytesRead === 0) break;
      yield { at: start + done, data: buffer.subarray(0, bytesRead) };
      done += bytesRead;
    }
  }
}
