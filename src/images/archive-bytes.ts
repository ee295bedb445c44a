/**
 * The bytes of an image's archives, decompressed: bounded by what an image may hold, also those that its tree never sees (members of
 * unknown kinds, what follows the end), and before they are fetched.
 */
import { StacyError } from "../host/error.ts";
import type { TreeLimits } from "./tree.ts";

/** What an archive has for each of its entries beside its content: a header, an extended one, and what fills them up. */
const ENTRY_BYTES = 2_048;
/** Its documents, and the end of an archive. */
const OTHER_BYTES = 64 << 20;

export class ArchiveBytes {
  readonly #most: number;
  #bytes = 0;

  constructor({ bytes, entries }: TreeLimits) {
    this.#most = bytes + Math.min(bytes, entries * ENTRY_BYTES) + OTHER_BYTES;
  }

  /** @throws StacyError `limit` */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes <= this.#most) return;
    throw new StacyError("limit", "the image's archives are longer than what it may hold", {
      data: { mostBytes: this.#most },
      remedy: "raise `images.max_image_bytes` and `images.max_image_entries` if you trust this image",
    });
  }

  /** The same bytes, counted. */
  async *through(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of source) {
      this.add(piece.length);
      yield piece;
    }
  }
}
