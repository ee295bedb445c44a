/**
 * GNU's sparse members of tar archives: a file with holes, stored as a map and the data between the holes. Four forms are in
 * use (GNU tar manual, "Storing Sparse Files"): the old header with flag `S`, and pax 0.0, 0.1 and 1.0.
 */
import { StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";

export interface SparseMap {
  /** Bytes of the file with its holes. */
  size: number;
  /** The data, in order. */
  pieces: SparsePiece[];
}

export interface SparsePiece {
  offset: number;
  length: number;
}

/** Far more than any file that tar has met; each costs the reader some 50 bytes. */
export const MAX_PIECES = 1 << 20;
/** Holes are read as this. Nobody may write into it. */
const ZEROS = Buffer.alloc(1 << 20);

/**
 * @param numbers offset and length in turn
 * @param stored bytes of data in the archive, which the pieces must add up to
 * @throws StacyError `corrupt`
 */
export function* sparseMap(size: number, numbers: readonly number[], stored: number): Generator<undefined, SparseMap> {
  if (numbers.length % 2 !== 0 || numbers.length > 2 * MAX_PIECES) throw unsound("its map has no sensible length");
  const pieces: SparsePiece[] = [];
  let end = 0;
  let data = 0;
  for (let i = 0; i < numbers.length; i += 2) {
    const offset = numbers[i] ?? 0;
    const length = numbers[i + 1] ?? 0;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < end || offset + length > size) {
      throw unsound("its map leaves the file or goes backwards");
    }
    end = offset + length;
    data += length;
    if (length > 0) pieces.push({ offset, length });
    yield;
  }
  if (data !== stored) throw unsound(`its map names ${data} bytes and the archive has ${stored}`);
  return { size, pieces };
}

/** The file's bytes, holes as zeros. @param take the next bytes of the archive */
export async function* expanded(
  { size, pieces }: SparseMap,
  take: (length: number) => AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  let at = 0;
  const pace = new Pace();
  for (const { offset, length } of pieces) {
    // What is at hand may be very many of them.
    if (pace.over) await pace.rest();
    yield* zeros(offset - at);
    yield* take(length);
    at = offset + length;
  }
  yield* zeros(size - at);
}

function* zeros(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= ZEROS.length) yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}

function unsound(why: string): StacyError {
  return new StacyError("corrupt", `not a sound tar archive: a sparse member: ${why}`);
}
