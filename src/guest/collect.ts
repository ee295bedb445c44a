/** Answers of a guest that are collected, within bounds, and decoded while they come. */
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { sortedInTurns } from "../host/sorted.ts";
import { Pace } from "../host/turns.ts";
import { FIELD_HEAD_BYTES, MAX_PAYLOAD } from "./protocol.ts";
import type { Call } from "./session.ts";

/** What all calls to one guest may collect together. */
export class CollectBudget {
  #used = 0;

  get room(): number {
    return Math.max(0, GUEST_BOUNDS.collectedBytes - this.#used);
  }

  /** @throws StacyError `limit` */
  take(bytes: number): void {
    this.#used += bytes;
    if (this.#used > GUEST_BOUNDS.collectedBytes)
      throw new StacyError("limit", "this sandbox's answers that are being collected are too many", {
        remedy: "ask for less at a time, or read as a stream",
      });
  }

  give(bytes: number): void {
    this.#used -= bytes;
  }
}

const FIRST_BYTES = 4096;

/** Bytes that are put together. Pieces are copied, so that many small ones cost no more than they are long. */
export class ByteCollector {
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;

  push(data: Uint8Array): void {
    const needed = this.#length + data.length;
    if (needed > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(
        Math.max(needed, Math.min(2 * this.#bytes.length, this.#bytes.length + GROWTH), FIRST_BYTES),
      );
      this.#bytes.copy(grown, 0, 0, this.#length);
      this.#bytes = grown;
    }
    this.#bytes.set(data, this.#length);
    this.#length = needed;
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** All of a body, each part of which the guest must send within a minute. @throws StacyError `limit`, `timeout` */
export async function collectBytes(call: Call, limitBytes: number, budget: CollectBudget): Promise<Buffer> {
  const collected = new ByteCollector();
  let size = 0;
  const parts = call.chunks()[Symbol.asyncIterator]();
  try {
    for (;;) {
      const part = await call.inTime(parts.next(), GUEST_BOUNDS.fileMs);
      if (part.done === true) break;
      const { data } = part.value;
      size += data.length;
      if (size > limitBytes) throw new StacyError("limit", `the answer passes ${limitBytes} bytes`, { final: true });
      budget.take(data.length);
      collected.push(data);
    }
    return collected.finish();
  } finally {
    call.cancel();
    budget.give(size);
  }
}

/**
 * A body of fields, each decoded as soon as it is whole; the first bad one is the end. @throws StacyError `protocol`, `limit`
 * @param tag of the fields that count; others are skipped
 */
export async function collectFields<T>(
  call: Call,
  tag: number,
  decode: (value: Buffer) => T,
  budget: CollectBudget,
): Promise<T[]> {
  const found: T[] = [];
  const pace = new Pace();
  let rest: Buffer = Buffer.alloc(0);
  let size = 0;
  let taken = 0;
  const take = (bytes: number): void => {
    taken += bytes;
    budget.take(bytes);
  };
  try {
    for await (const { data } of call.chunks()) {
      size += data.length;
      if (size > GUEST_BOUNDS.listBytes) throw tooMuch(`${GUEST_BOUNDS.listBytes} bytes`);
      take(data.length);
      const bytes = rest.length === 0 ? data : Buffer.concat([rest, data]);
      let at = 0;
      while (bytes.length - at >= FIELD_HEAD_BYTES) {
        const length = bytes.readUInt32LE(at + 1);
        if (length > MAX_PAYLOAD) throw new StacyError("protocol", `a field of ${length} bytes in a list`);
        const end = at + FIELD_HEAD_BYTES + length;
        if (end > bytes.length) break;
        if (found.length === GUEST_BOUNDS.listEntries) throw tooMuch(`${GUEST_BOUNDS.listEntries} entries`);
        if (bytes[at] === tag) {
          take(GUEST_BOUNDS.entryOverheadBytes);
          found.push(decode(bytes.subarray(at + FIELD_HEAD_BYTES, end)));
        }
        at = end;
        if (pace.over) await pace.rest();
      }
      // Copied: the next round's concatenation would else grow with every piece.
      rest = Buffer.from(bytes.subarray(at));
    }
    if (rest.length > 0) throw new StacyError("protocol", "a list that is cut off");
    return found;
  } finally {
    call.cancel();
    budget.give(taken);
  }
}

function tooMuch(what: string): StacyError {
  return new StacyError("limit", `the answer has more than ${what}`, {
    remedy: "ask for a smaller part of the tree",
    final: true,
  });
}

/** Sorted, each once. */
export async function sortedUnique(texts: readonly string[]): Promise<string[]> {
  return (await sortedInTurns(texts)).filter((text, i, all) => i === 0 || text !== all[i - 1]);
}

const GROWTH = 16 * 1024 * 1024;
