/**
 * A volume as one stream, to keep it elsewhere: its disk, compressed with gzip. Any program that knows gzip unpacks it to the disk itself.
 * Holes cost neither reading nor compressing: the format may consist of many members, and that of a piece of nothing is always the same.
 */
import { type FileHandle, open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { createGunzip, gzip } from "node:zlib";
import { allocatedRanges } from "../host/allocated-ranges.ts";
import { StacyError } from "../host/error.ts";
import { dataRuns } from "../host/extents.ts";
import { MIB, VOLUME_MIN_MIB } from "./record.ts";

const PIECE = 1 << 20;
const MIN_BYTES = VOLUME_MIN_MIB * MIB;
const compress = promisify(gzip);
/** What is written is read once; smaller is not worth the time. What is nothing is packed once, a thousandth of itself, which is the most that gzip can do. */
const LEVEL = { data: 1, nothing: 9 };
/** Of ext4, in its superblock. */
const MAGIC = { at: 1024 + 0x38, value: 0xef53 };

/** @throws when the file cannot be read */
export async function* exportDisk(path: string): AsyncGenerator<Buffer, void, void> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const ranges = allocatedRanges(path, size);
    try {
      const zeros = Buffer.alloc(PIECE);
      const nothing = await compress(zeros, { level: LEVEL.nothing });
      let range = (await ranges.next()).value ?? undefined;
      for (let at = 0; at < size; at += PIECE) {
        while (range !== undefined && range.start + range.length <= at)
          range = (await ranges.next()).value ?? undefined;
        const length = Math.min(PIECE, size - at);
        const isHole = range === undefined || range.start >= at + length;
        const data = isHole ? zeros.subarray(0, length) : Buffer.alloc(length);
        if (!isHole) await file.read(data, 0, length, at);
        yield data.equals(zeros) ? nothing : await compress(data, { level: LEVEL.data });
      }
    } finally {
      await ranges.return(undefined);
    }
  } finally {
    await file.close();
  }
}

/**
 * Writes such a stream into a file, which is there and empty, leaving out what is nothing.
 * @param most bytes that it may become
 * @returns its size
 * @throws StacyError `invalid`, `limit`
 */
export async function importDisk(path: string, stream: AsyncIterable<Uint8Array>, most: number): Promise<number> {
  await using file = await open(path, "r+");
  let size = 0;
  const write = async (source: AsyncIterable<Buffer>): Promise<void> => {
    for await (const data of source) {
      if (size + data.length > most) {
        throw new StacyError("limit", `the volume would be larger than ${Math.floor(most / 2 ** 20)} MiB`);
      }
      await writeData(file, data, size);
      size += data.length;
    }
  };
  try {
    await pipeline(stream, createGunzip(), write);
  } catch (cause) {
    if ((cause as { code?: string }).code?.startsWith("Z_") !== true) throw cause;
    throw new StacyError("invalid", "what was sent is no volume: it cannot be unpacked with gzip", { cause });
  }
  const magic = Buffer.alloc(2);
  if (size % PIECE !== 0 || size < MIN_BYTES) {
    throw new StacyError("invalid", `what was sent is no volume: ${size} bytes are not whole MiB, or too few`);
  }
  await file.truncate(size);
  await file.read(magic, 0, 2, MAGIC.at);
  if (magic.readUInt16LE() !== MAGIC.value)
    throw new StacyError("invalid", "what was sent is no volume: it holds no ext4");
  return size;
}

async function writeData(file: FileHandle, data: Buffer, position: number): Promise<void> {
  for (const { start, length } of dataRuns(data, 0)) {
    for (let done = 0; done < length; ) {
      const { bytesWritten } = await file.write(data, start + done, length - done, position + start + done);
      done += bytesWritten;
    }
  }
}
