/** Carries a guest's questions for names to their answers: the datagrams of its agent, and connections to port 53. */
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { answerQuestion, type NameService } from "./dns.ts";

/** Questions of one guest that are being answered at once; those beyond get no answer, and are asked again. */
const AT_ONCE = 64;
/** Length of the payload, the guest's address and port, the other address and port (guest/protocol.ts). */
const HEADER = 14;
const MOST_DATAGRAM = 4_096;
/** What an answer may have where the question says no more (RFC 1035). */
const SHORT = 512;

export class NameServer {
  readonly #service: NameService;
  #pending = 0;

  constructor(service: NameService) {
    this.#service = service;
  }

  /** Answers datagrams until the channel ends. */
  async datagrams(channel: Duplex): Promise<void> {
    for await (const datagram of frames(channel, HEADER, (header) => header.readUInt16LE())) {
      const payload = datagram.subarray(HEADER);
      void this.#answer(payload, (answer) => {
        // Nobody takes them: as on a network, what finds no room is lost.
        if (channel.destroyed || channel.writableNeedDrain || answer.length > MOST_DATAGRAM) return;
        // Cut to its header, with the flag that says so: the program asks again by a connection.
        const told = answer.length <= SHORT ? answer : truncated(answer);
        const header = Buffer.from(datagram.subarray(0, HEADER));
        header.writeUInt16LE(told.length);
        channel.write(Buffer.concat([header, told]));
      });
    }
  }

  /** Answers the questions of one connection, in order, until it ends. */
  async connection(channel: Duplex): Promise<void> {
    try {
      // Its end is the program's own; what was answered has to go out still.
      for await (const message of frames(channel.iterator({ destroyOnReturn: false }), 2, (header) =>
        header.readUInt16BE(),
      )) {
        const answer = await answerQuestion(message.subarray(2), this.#service);
        if (answer === undefined) break;
        const length = Buffer.alloc(2);
        length.writeUInt16BE(answer.length);
        // A program that asks without reading gets no further: its answers must not pile up here.
        if (!channel.write(Buffer.concat([length, answer]))) await drained(channel);
      }
      channel.end();
    } catch {
      channel.destroy();
    }
  }

  async #answer(question: Buffer, send: (answer: Buffer) => void): Promise<void> {
    if (this.#pending >= AT_ONCE) return;
    this.#pending += 1;
    try {
      const answer = await answerQuestion(question, this.#service);
      if (answer !== undefined) send(answer);
    } finally {
      this.#pending -= 1;
    }
  }
}

/** Rejects when the channel is gone first. */
async function drained(channel: Duplex): Promise<void> {
  const gone = new AbortController();
  const closed = (): void => gone.abort();
  channel.once("close", closed);
  try {
    if (channel.destroyed) closed();
    await once(channel, "drain", { signal: gone.signal });
  } finally {
    channel.off("close", closed);
  }
}

function truncated(answer: Buffer): Buffer {
  const cut = Buffer.from(answer.subarray(0, 12));
  cut.writeUInt16BE(cut.readUInt16BE(2) | 0x0200, 2);
  // No records of any section, and no question either: what is cut off must not be announced.
  cut.fill(0, 4);
  return cut;
}

/** Pieces of a byte stream that each begin with a header which tells the length of what follows it. */
async function* frames(
  channel: AsyncIterable<Buffer>,
  headerBytes: number,
  lengthOf: (header: Buffer) => number,
): AsyncGenerator<Buffer> {
  let held: Buffer = Buffer.alloc(0);
  for await (const part of channel) {
    held = held.length === 0 ? part : Buffer.concat([held, part]);
    while (held.length >= headerBytes) {
      const end = headerBytes + lengthOf(held);
      if (held.length < end) break;
      yield held.subarray(0, end);
      held = held.subarray(end);
    }
  }
}
