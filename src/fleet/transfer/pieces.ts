/**
 * A sparse file in pieces, each known by its content: what travels between nodes. Between pieces there are zeros, which nobody sends, and
 * of a piece nobody writes them: holes stay holes.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { allocatedRanges } from "../../host/allocated-ranges.ts";
import { DISK_BOUNDS } from "../../host/bounds.ts";
import { dataRuns } from "../../host/extents.ts";

/** Pieces begin at multiples of this, bytes. */
export const PIECE_BYTES = 256 * 1024;
/** What an offer of one file may say: 4 TiB in data. */
const MOST_PIECES = 2 ** 24;

export const pieceSchema = z.strictObject({
  at: z.int().nonnegative().multipleOf(PIECE_BYTES),
  length: z.int().positive().max(PIECE_BYTES),
  /** hex */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

export type Piece = z.infer<typeof pieceSchema>;

export const contentSchema = z
  .strictObject({
    /** Nominal, bytes. */
    size: z.int().nonnegative(),
    pieces: z.array(pieceSchema).max(MOST_PIECES),
  })
  .refine(
    ({ size, pieces }) =>
      pieces.every(({ at, length }, i) => at + length <= size && (i === 0 || at > (pieces[i - 1] as Piece).at)),
    "pieces must be in order, and within the file",
  );

/** All that a file holds. */
export type Content = z.infer<typeof contentSchema>;

/** Reads what is not a hole. @param signal looked at between pieces */
export async function contentOf(path: string, signal?: AbortSignal): Promise<Content> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const pieces: Piece[] = [];
    let next = 0;
    for await (const { start, length } of allocatedRanges(path, size)) {
      let at = Math.max(next, start - (start % PIECE_BYTES));
      for (; at < start + length; at += PIECE_BYTES) {
        signal?.throwIfAborted();
        const data = await readPiece(file, { at, length: Math.min(PIECE_BYTES, size - at) });
        if (dataRuns(data, 0).length > 0) pieces.push({ at, length: data.length, sha256: digestOf(data) });
      }
      next = at;
    }
    return { size, pieces };
  } finally {
    await file.close();
  }
}

/** @throws Error when the file has become shorter */
export async function readPiece(file: FileHandle, { at, length }: Pick<Piece, "at" | "length">): Promise<Buffer> {
  const data = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(data, done, length - done, at + done);
    if (bytesRead === 0) throw new Error("the file is shorter than it was");
    done += bytesRead;
  }
  return data;
}

export function digestOf(data: Buffer): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Into a file that holds zeros there. */
export async function writePiece(file: FileHandle, at: number, data: Buffer): Promise<void> {
  for (const { start, length } of dataRuns(data, DISK_BOUNDS.holeBytes)) {
    for (let done = 0; done < length; ) {
      const { bytesWritten } = await file.write(data, start + done, length - done, at + start + done);
      done += bytesWritten;
    }
  }
}
