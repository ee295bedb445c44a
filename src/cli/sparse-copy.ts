/** What a guest sends, into files of this host: blocks of zeros become holes, and the disk here is not filled to its end. */
import { type FileHandle, statfs } from "node:fs/promises";
import { StacyError } from "../host/error.ts";

const BLOCK = 4096;
const ZEROS = Buffer.alloc(BLOCK);
/** What stays free for other programs: a share of the disk, and never more than so many bytes. */
const FREE_SHARE = 0.05;
const FREE_BYTES = 1 << 30;
/** After so much the disk is looked at again. */
const LOOK_BYTES = 64 << 20;

/** Room for files. */
export class Room {
  readonly #free: () => Promise<number>;
  #left = 0;

  /** @param free bytes that may be written from now on */
  constructor(free: () => Promise<number>) {
    this.#free = free;
  }

  /** On the disk of a directory. */
  static on(dir: Buffer): Room {
    return new Room(async () => {
      const { bavail, blocks, bsize } = await statfs(dir);
      return bavail * bsize - Math.min(FREE_BYTES, blocks * bsize * FREE_SHARE);
    });
  }

  /** @param bytes that are about to be written @throws StacyError `limit` */
  async take(bytes: number): Promise<void> {
    this.#left -= bytes;
    if (this.#left >= 0) return;
    const free = await this.#free();
    if (free < bytes) {
      throw new StacyError("limit", "the copy would fill the disk here", {
        remedy: "copy less, or to another disk: a sandbox decides how much it sends",
      });
    }
    this.#left = Math.min(free, LOOK_BYTES) - bytes;
  }
}

/** Writes an empty file. @throws StacyError `limit` */
export async function writeSparse(file: FileHandle, body: AsyncIterable<Uint8Array>, room: Room): Promise<void> {
  let at = 0;
  for await (const piece of body) {
    const chunk = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    let from = 0;
    const write = async (to: number): Promise<void> => {
      if (to > from) await room.take(to - from);
      while (from < to) from += (await file.write(chunk, from, to - from, at + from)).bytesWritten;
    };
    for (let done = 0; done < chunk.length; ) {
      const end = Math.min(chunk.length, done + BLOCK - ((at + done) % BLOCK));
      if (chunk.compare(ZEROS, 0, end - done, done, end) === 0) {
        await write(done);
        from = end;
      }
      done = end;
    }
    await write(chunk.length);
    at += chunk.length;
  }
  await file.truncate(at);
}
