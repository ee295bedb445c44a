/**
 * Frames out of the bytes that come from a guest, which is hostile input. Out of step it hunts for a HELLO_ACK; in step
 * and `strict`, any violation is the end of the connection (protocol.ts, "RESYNCHRONISING").
 */
import { crc32 } from "node:zlib";
import { StacyError } from "../host/error.ts";
import { FLAG_FIN, type Frame, FrameType, HEADER_BYTES, MAGIC, MAX_PAYLOAD, TRAILER_BYTES } from "./protocol.ts";

interface Header {
  type: number;
  channel: number;
  flags: number;
  stream: number;
  length: number;
  sequence: number;
  check: number;
}

/** What is looked at for a hello before others have their turn: well below a millisecond. */
const HEADERS_A_TURN = 256;
const EMPTY = Buffer.alloc(0);

export class FrameDecoder {
  /** The frame type that opens a session in this direction. */
  readonly #hello: number;
  #rest: Buffer = EMPTY;
  /** Chunks after `rest`, joined only when there are enough bytes for the next step. */
  #more: Buffer[] = [];
  #have = 0;
  #need = HEADER_BYTES;
  /** The next sequence; `undefined`: hunting. */
  #expect: number | undefined;
  #strict = false;
  #unfinished = false;

  constructor(hello: number = FrameType.HELLO_ACK) {
    this.#hello = hello;
  }

  /** From now on a violation throws, and a hello is one. */
  strict(): void {
    this.#strict = true;
  }

  /** Back to hunting: the last hello was not the one that was waited for. */
  hunt(): void {
    this.#expect = undefined;
    this.#strict = false;
  }

  /** @internal As if the frames before this one had come. */
  expectForTests(sequence: number): void {
    this.#expect = sequence;
  }

  /** Bytes that wait for the rest of their frame; bounded by one frame and one chunk. */
  get buffered(): number {
    return this.#have;
  }

  /** `take` found nothing yet in what was fed, and has more of it to search. */
  get unfinished(): boolean {
    return this.#unfinished;
  }

  feed(chunk: Buffer): void {
    this.#more.push(chunk);
    this.#have += chunk.length;
  }

  /** The next frame of what was fed, if it is whole. @throws StacyError `protocol` */
  take(): Frame | undefined {
    this.#unfinished = false;
    while (this.#have >= this.#need) {
      this.#join();
      if (this.#expect === undefined && !this.#findHello()) return undefined;
      const frame = this.#next();
      if (frame !== undefined) return frame;
    }
    return undefined;
  }

  /** Takes a chunk and calls `onFrame` for each frame in it. @throws StacyError `protocol` */
  push(chunk: Buffer, onFrame: (frame: Frame) => void): void {
    this.feed(chunk);
    for (let frame = this.take(); frame !== undefined || this.#unfinished; frame = this.take()) {
      if (frame !== undefined) onFrame(frame);
    }
  }

  #join(): void {
    if (this.#more.length === 0) return;
    this.#rest =
      this.#rest.length === 0 && this.#more.length === 1
        ? (this.#more[0] ?? EMPTY)
        : Buffer.concat([this.#rest, ...this.#more]);
    this.#more = [];
  }

  #drop(bytes: number): void {
    this.#rest = this.#rest.subarray(bytes);
    this.#have = this.#rest.length;
    this.#need = HEADER_BYTES;
  }

  /** Drops bytes until a hello's header is first. @returns false when more bytes, or another turn, are needed */
  #findHello(): boolean {
    let at = 0;
    for (let looked = 0; ; looked++) {
      at = this.#rest.indexOf(MAGIC, at);
      if (at < 0 || this.#rest.length - at < HEADER_BYTES) {
        this.#drop(at < 0 ? this.#rest.length : at);
        return false;
      }
      if (looked === HEADERS_A_TURN) {
        this.#drop(at);
        this.#unfinished = true;
        return false;
      }
      const header = parseHeader(this.#rest, at);
      if (header !== undefined && header.type === this.#hello && header.sequence === 0) {
        this.#drop(at);
        this.#expect = 0;
        return true;
      }
      at++;
    }
  }

  #next(): Frame | undefined {
    const header = parseHeader(this.#rest, 0);
    if (header === undefined) return this.#lost(0, "a bad frame header");
    const hello = header.type === this.#hello && header.sequence === 0;
    if (this.#strict && hello) return this.#lost(0, "a second hello");
    if (header.sequence !== this.#expect && !hello) return this.#lost(0, "a gap in the frame sequence");
    const total = HEADER_BYTES + header.length + TRAILER_BYTES;
    if (this.#rest.length < total) {
      this.#need = total;
      return undefined;
    }
    if (this.#rest.readUInt32LE(total - TRAILER_BYTES) !== ~header.check >>> 0)
      return this.#lost(total, "a bad frame trailer");
    const payload = this.#rest.subarray(HEADER_BYTES, HEADER_BYTES + header.length);
    this.#drop(total);
    this.#expect = (header.sequence + 1) >>> 0;
    const { type, channel, flags, stream } = header;
    return { type, channel, flags, stream, payload };
  }

  #lost(skip: number, why: string): undefined {
    if (this.#strict) throw new StacyError("protocol", `the guest sent ${why}`);
    this.#expect = undefined;
    this.#drop(skip);
    return undefined;
  }
}

function parseHeader(bytes: Buffer, at: number): Header | undefined {
  if (bytes[at] !== MAGIC) return undefined;
  const type = bytes.readUInt8(at + 1);
  const channel = bytes.readUInt8(at + 2);
  const flags = bytes.readUInt8(at + 3);
  const length = bytes.readUInt32LE(at + 8);
  const check = bytes.readUInt32LE(at + 16);
  if (length > MAX_PAYLOAD || channel > 2 || (flags & ~FLAG_FIN) !== 0) return undefined;
  if (type !== FrameType.DATA && (channel !== 0 || flags !== 0)) return undefined;
  if (crc32(bytes.subarray(at, at + 16)) !== check) return undefined;
  return {
    type,
    channel,
    flags,
    stream: bytes.readUInt32LE(at + 4),
    length,
    sequence: bytes.readUInt32LE(at + 12),
    check,
  };
}
