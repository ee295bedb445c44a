import { DATAGRAM_BOUNDS } from "../host/bounds.ts";

/** Datagrams that wait, bounded in bytes. Each costs something beside its payload, so that empty ones have a bound too. */
export class Held {
  #bytes = 0;

  /** @returns a copy of its own, for a payload is a piece of whatever came with it; `undefined` where there is no room */
  take(payload: Buffer): Buffer | undefined {
    const bytes = cost(payload);
    if (this.#bytes + bytes > DATAGRAM_BOUNDS.heldBytes) return undefined;
    this.#bytes += bytes;
    const copy = Buffer.allocUnsafeSlow(payload.length);
    payload.copy(copy);
    return copy;
  }

  /** What was taken waits no more. */
  giveBack(payload: Buffer): void {
    this.#bytes -= cost(payload);
  }
}

function cost({ length }: Buffer): number {
  return length + DATAGRAM_BOUNDS.overheadBytes;
}
