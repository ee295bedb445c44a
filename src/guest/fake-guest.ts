/** For tests: the guest's end of a channel without a guest behind it, so that it can say what no real agent would. */
import { Duplex } from "node:stream";
import type { Agent } from "./agent.ts";
import { connectAgent } from "./client.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import { encodeFrame, FieldReader, FieldWriter, type Frame, FrameType, Tag } from "./protocol.ts";

/** What the guest of a test does with each frame after the handshake. */
export type Script = (frame: Frame, guest: FakeGuest) => void;

/** The guest's end of a channel, without a guest behind it. `reads` false: it takes nothing after the handshake. */
export class FakeGuest {
  readonly host: Duplex;
  readonly #script: Script;
  readonly #decoder = new FrameDecoder(FrameType.HELLO);
  /** Of the next frame. */
  sequence = 0;
  reads = true;

  constructor(script: Script, answer: (guest: FakeGuest, nonce: Buffer) => void = (guest, nonce) => guest.ack(nonce)) {
    this.#script = script;
    this.host = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, done) => {
        this.#decoder.push(chunk, (frame) => {
          if (frame.type === FrameType.HELLO) answer(this, new FieldReader(frame.payload).bytes(Tag.NONCE) as Buffer);
          else this.#script(frame, this);
        });
        if (this.reads) done();
      },
    });
  }

  /** A script of a guest that is there: it answers whoever asks for that. */
  static alive(script: Script = () => {}): Script {
    return (frame, guest) => {
      if (frame.type === FrameType.PING) guest.send(FrameType.PONG, 0, frame.payload);
      else script(frame, guest);
    };
  }

  ack(nonce: Buffer): void {
    const fields = new FieldWriter().bytes(Tag.NONCE, nonce).u8(Tag.STATUS, 0).u16(Tag.VERSION, 1);
    this.sequence = 0;
    this.send(FrameType.HELLO_ACK, 0, fields.finish());
  }

  send(type: number, stream: number, payload: Uint8Array = new Uint8Array(0), channel = 0): void {
    this.raw(this.frame(type, stream, payload, channel));
  }

  /** The next frame's bytes, for many at once. */
  frame(type: number, stream: number, payload: Uint8Array, channel = 0): Buffer {
    return encodeFrame({ type, channel, flags: 0, stream, payload }, this.sequence++);
  }

  raw(bytes: Buffer): void {
    this.host.push(bytes);
  }

  connect(timeoutMs = 5000, stream: { tookMs?: number } = {}): Promise<Agent> {
    return connectAgent({ stream: this.host, clean: true, ...stream }, { timeoutMs });
  }
}
