/** Carries a guest's questions for names to their answers: datagrams and connections to port 53. */
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { answerQuestion, type NameService } from "./dns.ts";
import { frames } from "./frames.ts";

/** Questions of one guest that are being answered at once; those beyond get no answer, and are asked again. */
const AT_ONCE = 64;
/** What an answer may have where the question says no more (RFC 1035). */
const SHORT = 512;

export class NameServer {
  readonly #service: NameService;
  #pending = 0;

  constructor(service: NameService) {
    this.#service = service;
  }

  /** Answers one that came as a datagram. @param send may be told of nothing: what is no question gets no answer */
  async question(question: Buffer, send: (answer: Buffer) => void): Promise<void> {
    if (this.#pending >= AT_ONCE) return;
    this.#pending += 1;
    try {
      const answer = await answerQuestion(question, this.#service);
      // Cut to its header, with the flag that says so: the program asks again by a connection.
      if (answer !== undefined) send(answer.length <= SHORT ? answer : truncated(answer));
    } finally {
      this.#pending -= 1;
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
      // After what was no question more may come; unread it would keep the connection's end from being seen.
      channel.resume();
    } catch {
      channel.destroy();
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
