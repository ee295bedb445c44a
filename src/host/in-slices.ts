/**
 * A connection whose bytes are parsed here and come in large pieces: 64 KiB of one-byte chunks, or of heads of nothing, keep a parser busy for
 * ten milliseconds. It gets slices of them, and others have their turn between these.
 */
import { Duplex } from "node:stream";
import { Pace } from "./turns.ts";

const SLICE_BYTES = 4096;

/** Whoever reads this leaves the connection itself alone, which ends with it. */
export class InSlices extends Duplex {
  readonly #connection: Duplex;
  readonly #slices: AsyncGenerator<Buffer>;

  constructor(connection: Duplex) {
    super({ readableHighWaterMark: SLICE_BYTES });
    this.#connection = connection;
    this.#slices = slices(connection);
    this.on("error", () => {}); // its reader is told by its end
  }

  override _read(): void {
    this.#slices.next().then(
      ({ done, value }) => this.push(done === true ? null : value),
      (error: Error) => this.destroy(error),
    );
  }

  override _write(piece: Buffer, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#connection.write(piece, encoding, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#connection.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#connection.destroy();
    done(error);
  }
}

async function* slices(connection: Duplex): AsyncGenerator<Buffer> {
  const pace = new Pace();
  for await (const piece of connection.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    for (let at = 0; at < piece.length; at += SLICE_BYTES) {
      yield piece.subarray(at, at + SLICE_BYTES);
      if (pace.over) await pace.rest();
    }
  }
}
