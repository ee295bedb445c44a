/**
 * The bodies of Connect calls, as the library can bear them: it counts all pieces of a message anew with every one that comes, so that
 * a message in pieces of a byte keeps everybody waiting, and it reads JSON of any number of values and protobuf of any number of fields.
 *
 * A stream is a row of messages, each behind five bytes: flags, and its length (big endian).
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { HeldInput } from "../../guest/held-input.ts";
import { assertClientJson } from "../../host/json-bounds.ts";
import { connectError } from "../error.ts";
import { assertFewFields } from "./message-fields.ts";

const HEAD = 5;

/** What a call takes. */
export interface Taken {
  message: DescMessage;
  /** Of one message. The library refuses a longer one, so it is passed on as it comes. */
  maxBytes: number;
  /** What waits here until it is whole takes of it. */
  memory: HeldInput;
}

/**
 * The same bytes: each message of a stream in one piece, at once when it is whole, and any other message in one piece.
 * @param type of the content. What is neither JSON nor protobuf the library refuses
 * @returns fails with a ConnectError for a message of too many values
 */
export function wholeMessages(
  body: AsyncIterable<Uint8Array>,
  type: string | null,
  { message, maxBytes, memory }: Taken,
): AsyncIterable<Uint8Array> {
  const [known, stream, json] = /^application\/(connect\+)?(?:(json)|proto)\b/i.exec(type ?? "") ?? [];
  if (known === undefined) return body;
  const check = json === undefined ? (bytes: Buffer) => assertFewFields(bytes, message) : assertFewValues;
  const ready = (bytes: Buffer): number => {
    if (stream !== undefined) return endOfMessages(bytes, maxBytes, check);
    return bytes.length > maxBytes ? bytes.length : 0;
  };
  return {
    [Symbol.asyncIterator]: () => {
      const pieces = body[Symbol.asyncIterator]();
      const held = new Held(memory);
      return {
        async next() {
          try {
            for (;;) {
              const piece = await pieces.next();
              if (piece.done === true) {
                const rest = held.take(held.bytes.length);
                if (rest.length === 0) return piece;
                // All of it; of a stream, what broke off.
                if (stream === undefined) check(rest);
                return { done: false, value: rest };
              }
              held.add(piece.value);
              const end = ready(held.bytes);
              if (end > 0) return { done: false, value: held.take(end) };
            }
          } catch (error) {
            memory[Symbol.dispose]();
            throw error;
          }
        },
        // At once: a generator's would wait for the piece that is being read.
        throw: async (error) => {
          memory[Symbol.dispose]();
          return (await pieces.throw?.(error)) ?? { done: true, value: undefined };
        },
      };
    },
  };
}

/** @returns where the last whole message ends; for one that is too long, where all ends */
function endOfMessages(bytes: Buffer, maxBytes: number, check: (message: Buffer) => void): number {
  let end = 0;
  while (bytes.length - end >= HEAD) {
    const length = bytes.readUInt32BE(end + 1);
    if (length > maxBytes) return bytes.length;
    const next = end + HEAD + length;
    if (next > bytes.length) break;
    check(bytes.subarray(end + HEAD, next));
    end = next;
  }
  return end;
}

/** What counts in JSON is ASCII, whatever else its bytes say. */
function assertFewValues(json: Buffer): void {
  try {
    assertClientJson(json.toString("latin1"));
  } catch (error) {
    throw new ConnectError((error as Error).message, Code.InvalidArgument);
  }
}

/** Bytes that wait for more. Room for them doubles, so that each is moved a few times at most. */
class Held {
  #room = Buffer.alloc(0);
  #length = 0;
  readonly #memory: HeldInput;

  constructor(memory: HeldInput) {
    this.#memory = memory;
  }

  get bytes(): Buffer {
    return this.#room.subarray(0, this.#length);
  }

  /** @throws ConnectError */
  add(piece: Uint8Array): void {
    try {
      this.#memory.add(piece.length);
    } catch (error) {
      throw connectError(error);
    }
    const length = this.#length + piece.length;
    if (length > this.#room.length) {
      const room = Buffer.allocUnsafe(Math.max(length, 2 * this.#room.length));
      room.set(this.bytes);
      this.#room = room;
    }
    this.#room.set(piece, this.#length);
    this.#length = length;
  }

  /** The first of them, which are the caller's from then on. */
  take(end: number): Buffer {
    const taken = this.#room.subarray(0, end);
    this.#room = Buffer.from(this.#room.subarray(end, this.#length));
    this.#length = this.#room.length;
    this.#memory[Symbol.dispose]();
    this.#memory.add(this.#length);
    return taken;
  }
}
