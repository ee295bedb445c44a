/**
 * A connection whose bytes are parsed here and come in large pieces: 64 KiB of one-byte chunks, or of heads of nothing, keep a parser busy for
 * ten milliseconds. It gets slices of them, and others have their turn between these.
 */
import { Duplex } from "node:stream";
import { Pace } from "./turns.ts";

const SLICE_BYTES = 4096;

/** Whoever reads this leaves the connection itself alone, which ends with it, until it is released. */
export class InSlices<T extends Duplex = Duplex> extends Duplex {
  readonly connection: T;
  readonly #pace = new Pace();
  /** What was read and is not passed on yet. */
  #piece: Buffer | undefined;
  #ended = false;
  /** Its reader waits. */
  #wanted = false;
  /** It is others' turn. */
  #resting = false;
  #released = false;

  constructor(connection: T) {
    super({ readableHighWaterMark: SLICE_BYTES });
    this.connection = connection;
    connection.on("readable", this.#more).on("end", this.#end).on("error", this.#fail).on("close", this.#close);
    this.on("error", () => {}); // its reader is told by its end
  }

  /** The connection itself from now on, with what has come of it: its bytes are no longer parsed. */
  release(): T {
    const { connection } = this;
    this.#released = true;
    connection.off("readable", this.#more).off("end", this.#end).off("error", this.#fail).off("close", this.#close);
    const read = this.read() as Buffer | null;
    const rest = Buffer.concat([read, this.#piece].filter((each) => each != null));
    // Behind its end there is nothing that could be read again.
    if (rest.length > 0 && !connection.readableEnded) connection.unshift(rest);
    return connection;
  }

  readonly #more = (): void => {
    while (this.#wanted && !this.#resting && !this.#released) {
      this.#piece ??= (this.connection.read() as Buffer | null) ?? undefined;
      if (this.#piece === undefined) {
        if (this.#ended) this.push(null);
        return;
      }
      const slice = this.#piece.subarray(0, SLICE_BYTES);
      this.#piece = slice.length < this.#piece.length ? this.#piece.subarray(SLICE_BYTES) : undefined;
      this.#wanted = false;
      this.push(slice);
      if (this.#pace.over) this.#rest();
    }
  };

  #rest(): void {
    this.#resting = true;
    void this.#pace.rest().then(() => {
      this.#resting = false;
      this.#more();
    });
  }

  readonly #end = (): void => {
    this.#ended = true;
    this.#more();
  };

  readonly #fail = (error: Error): void => void this.destroy(error);

  readonly #close = (): void => {
    if (!this.#ended) this.destroy(new Error("the connection was closed before its end"));
  };

  /** What Node's server does after its last answer: a socket goes then, any other connection is only ended. */
  destroySoon(): void {
    this.end();
    if (!("destroySoon" in this.connection)) return;
    if (this.writableFinished) this.destroy();
    else this.once("finish", () => this.destroy());
  }

  override _read(): void {
    this.#wanted = true;
    this.#more();
  }

  override _write(piece: Buffer, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.connection.write(piece, encoding, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.connection.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.#released) this.connection.destroy();
    done(error);
  }
}
