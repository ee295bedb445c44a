/** Layers out of files: plain, gzip or zstd, recognised by their first bytes, since media types are often wrong. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { type Duplex, pipeline } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { StacyError } from "../host/error.ts";
import type { Layer } from "./base.ts";

const CHUNK = 1 << 20;

export type Compression = "none" | "gzip" | "zstd";

export async function compressionOf(path: string): Promise<Compression> {
  const file = await open(path, "r");
  try {
    const head = Buffer.alloc(6);
    await file.read(head, 0, 6, 0);
    if (head[0] === 0x1f && head[1] === 0x8b) return "gzip";
    // Skippable frames may come first.
    if (head.readUInt32LE(0) === 0xfd2fb528 || (head.readUInt32LE(0) & 0xfffffff0) >>> 0 === 0x184d2a50) return "zstd";
    const other = head.toString("latin1").startsWith("BZh")
      ? "bzip2"
      : head.equals(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]))
        ? "xz"
        : undefined;
    if (other !== undefined) {
      throw new StacyError("not-supported", `the archive is compressed with ${other}`, {
        remedy: "compress it with gzip or zstd, or not at all",
      });
    }
    return "none";
  } finally {
    await file.close();
  }
}

/** The uncompressed content of a file. @throws StacyError `corrupt` within when the compressed data is damaged */
export async function* decompressed(path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const compression = await compressionOf(path);
  const source = createReadStream(path, { highWaterMark: CHUNK });
  if (compression === "none") {
    if (signal !== undefined) signal.addEventListener("abort", () => source.destroy(signal.reason), { once: true });
    yield* source;
    return;
  }
  const decompress: Duplex =
    compression === "gzip" ? createGunzip({ chunkSize: CHUNK }) : createZstdDecompress({ chunkSize: CHUNK });
  // The reader gets the error; the pipeline's own callback has nothing to add.
  const stream = pipeline(source, decompress, () => {});
  const abort = (): void => void source.destroy(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    yield* stream as AsyncIterable<Buffer>;
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof StacyError || (error as NodeJS.ErrnoException).syscall !== undefined) throw error;
    throw new StacyError("corrupt", `a layer's ${compression} data is damaged: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    signal?.removeEventListener("abort", abort);
    source.destroy();
  }
}

/**
 * A layer in a file. @param diffId sha256 of the uncompressed archive, as the image's configuration says it
 */
export function layerFile(path: string, options: { whiteouts: boolean; diffId?: string | undefined }): Layer {
  return {
    whiteouts: options.whiteouts,
    async *open(signal) {
      const { diffId } = options;
      if (diffId === undefined) {
        yield* decompressed(path, signal);
        return;
      }
      const hash = createHash("sha256");
      for await (const chunk of decompressed(path, signal)) {
        hash.update(chunk);
        yield chunk;
      }
      const actual = `sha256:${hash.digest("hex")}`;
      if (actual === diffId) return;
      throw new StacyError("corrupt", `a layer's content is ${actual}, the image's configuration says ${diffId}`);
    },
  };
}
