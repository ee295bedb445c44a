/**
 * A request's body on its way to a node. Its first pieces are kept as long as they are few, so that another node can be asked when the
 * first one says that it is not the right one; what is longer than that goes through and is nobody's afterwards.
 */
import type { IncomingMessage } from "node:http";
import type { Writable } from "node:stream";

/** Bytes: any call that is no upload is smaller. */
const KEPT_BYTES = 65_536;
/** Pieces that wait for a slow writer: a client that sends single bytes would fill its queue with objects. */
const WAITING_PIECES = 16;

export class Upload {
  readonly #from: IncomingMessage;
  #kept: Buffer[] | undefined = [];
  #bytes = 0;
  #ended = false;
  #begun = false;
  #to: Writable | undefined;
  #waiting = 0;

  constructor(from: IncomingMessage) {
    this.#from = from;
    // None: there is nothing to wait for, and nothing that has to be said about its length.
    this.#ended = !hasBody(from);
  }

  /** One that was read already. */
  static of(from: IncomingMessage, body: Buffer): Upload {
    const upload = new Upload(from);
    upload.#kept = [body];
    upload.#ended = true;
    return upload;
  }

  /** Whether another node can still be sent all of it. */
  get repeatable(): boolean {
    return this.#kept !== undefined;
  }

  /** From its beginning, and in place of whoever got it before. Ends `to` with it. */
  sendTo(to: Writable): void {
    if (this.#kept === undefined) throw new Error("the beginning of this body is gone");
    this.#to = to;
    this.#waiting = 0;
    for (const piece of this.#kept) to.write(piece);
    if (this.#ended) {
      to.end();
      return;
    }
    if (!this.#begun) {
      this.#begun = true;
      this.#from.on("data", this.#data).once("end", this.#end);
    }
    this.#from.resume();
  }

  /** Whoever gets it no longer wants it, and it waits for another one; who says so late may have been followed already. */
  leave(to: Writable): void {
    if (this.#to !== to) return;
    this.#to = undefined;
    if (!this.#ended && this.#begun) this.#from.pause();
  }

  /** It has found its node: nothing is kept for another one. */
  settle(): void {
    this.#kept = undefined;
  }

  readonly #data = (piece: Buffer): void => {
    this.#bytes += piece.length;
    if (this.#bytes > KEPT_BYTES) this.#kept = undefined;
    this.#kept?.push(piece);
    const to = this.#to;
    if (to === undefined || to.destroyed || to.writableEnded) {
      this.#from.pause();
      return;
    }
    this.#waiting += 1;
    const more = to.write(piece, () => {
      if (this.#to !== to) return;
      this.#waiting -= 1;
      if (this.#waiting < WAITING_PIECES && !to.writableNeedDrain) this.#from.resume();
    });
    if (!more || this.#waiting >= WAITING_PIECES) this.#from.pause();
  };

  readonly #end = (): void => {
    this.#ended = true;
    this.#to?.end();
  };
}

export function hasBody({ headers }: Pick<IncomingMessage, "headers">): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}
