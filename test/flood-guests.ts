/**
 * Guests whose agent was replaced, each hostile in its own way, behind UNIX sockets as a monitor's: a process of its own, so that only what it
 * does to the host's side is measured. `node test/flood-guests.ts DIR NUMBER` listens on DIR/0, DIR/1, ... and says `ready`.
 */
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { FrameDecoder } from "../src/guest/frame-decoder.ts";
import {
  encodeFrame,
  FieldReader,
  FieldWriter,
  type Frame,
  FrameType,
  INITIAL_CREDIT,
  MAX_PAYLOAD,
  Method,
  Status,
  Tag,
} from "../src/guest/protocol.ts";

const fields = (): FieldWriter => new FieldWriter();
const OK = fields().u8(Tag.STATUS, Status.OK).finish();
const NONE = new Uint8Array(0);

/** One connection. */
class Channel {
  readonly socket: Socket;
  #sequence = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    // Each of its calls may have a flood, which waits for its turn.
    socket.setMaxListeners(0);
  }

  frame(type: number, stream: number, payload: Uint8Array = NONE, channel = 0): Buffer {
    return encodeFrame({ type, channel, flags: 0, stream, payload }, this.#sequence++);
  }

  /** @returns whether the host keeps up */
  send(type: number, stream: number, payload?: Uint8Array, channel?: number): boolean {
    return this.socket.write(this.frame(type, stream, payload, channel));
  }

  ack(nonce: Buffer): void {
    this.#sequence = 0;
    this.send(FrameType.HELLO_ACK, 0, fields().bytes(Tag.NONCE, nonce).u8(Tag.STATUS, 0).u16(Tag.VERSION, 1).finish());
  }

  /** As fast as the host takes them, until the connection is gone. @param make many frames at a time */
  flood(make: () => Buffer): void {
    const more = (): void => {
      while (!this.socket.destroyed && this.socket.write(make()));
      if (!this.socket.destroyed) this.socket.once("drain", () => setImmediate(more));
    };
    more();
  }
}

type Form = (frame: Frame, channel: Channel, method: number | undefined) => void;

const many = (count: number, one: () => Buffer) => (): Buffer => Buffer.concat(Array.from({ length: count }, one));

/** Floods once a call is open, within its credit where there is one. */
const onCall =
  (act: (channel: Channel, call: number, method: number) => void): Form =>
  (frame, channel, method) => {
    if (method !== undefined) act(channel, frame.stream, method);
  };

/** Body bytes as fast as the credit permits. */
function greedy(body: (channel: Channel) => { payload: Uint8Array; channel?: number }): Form {
  const credit = new Map<number, number>();
  return (frame, channel, method) => {
    if (method !== undefined) {
      credit.set(frame.stream, INITIAL_CREDIT);
      const begun = fields()
        .u64(Tag.PROCESS_ID, 1)
        .u32(Tag.PID, 1)
        .u8(Tag.KIND, 1)
        .u64(Tag.SIZE, 2n ** 64n - 1n)
        .finish();
      if (method === Method.EXEC || method === Method.READ) channel.send(FrameType.EVENT, frame.stream, begun);
    } else if (frame.type === FrameType.CREDIT && credit.has(frame.stream)) {
      credit.set(frame.stream, (credit.get(frame.stream) ?? 0) + Buffer.from(frame.payload).readUInt32LE());
    } else if (frame.type === FrameType.CANCEL) {
      credit.delete(frame.stream);
      channel.send(FrameType.END, frame.stream, fields().u8(Tag.STATUS, Status.CANCELLED).finish());
      return;
    }
    const frames: Buffer[] = [];
    for (let left = credit.get(frame.stream) ?? 0; ; ) {
      const { payload, channel: to } = body(channel);
      if (payload.length > left) break;
      left -= payload.length;
      credit.set(frame.stream, left);
      frames.push(channel.frame(FrameType.DATA, frame.stream, payload, to));
    }
    if (frames.length > 0) channel.socket.write(Buffer.concat(frames));
  };
}

const repeated = (one: Uint8Array): Uint8Array =>
  Buffer.concat(Array.from({ length: Math.floor(MAX_PAYLOAD / one.length) }, () => one));
const ENTRIES = repeated(fields().fields(Tag.ENTRY, fields().u8(Tag.KIND, 1).u8(Tag.SIZE, 0)).finish());
const PATHS = repeated(fields().text(Tag.PATH, "x").finish());
const MANY_FIELDS = repeated(fields().bytes(200, NONE).finish());
const CHANGE = fields().u8(Tag.CHANGE, 1).bytes(Tag.PATH, Buffer.alloc(60_000, "x")).finish();
const LONG_ERROR = fields().u8(Tag.STATUS, Status.IO).bytes(Tag.MESSAGE, Buffer.alloc(60_000, "\x1b[2J")).finish();
const ONE = Buffer.from("x");
let turn = 0;

/** In the order of the brief form's importance: a short run takes the first ones. */
export const FORMS: [string, () => Form][] = [
  ["lists without end", () => greedy(() => ({ payload: ENTRIES }))],
  [
    "output in single bytes, on two channels in turn",
    () => greedy(() => ({ payload: ONE, channel: 1 + (turn++ % 2) })),
  ],
  [
    "changes of 60 kB without end",
    () => onCall((channel, call) => channel.flood(() => channel.frame(FrameType.EVENT, call, CHANGE))),
  ],
  [
    "empty events without end",
    () => onCall((channel, call) => channel.flood(many(500, () => channel.frame(FrameType.EVENT, call)))),
  ],
  ["calls that never end", () => () => {}],
  [
    "pings without end",
    () => onCall((channel) => channel.flood(many(500, () => channel.frame(FrameType.PING, 0, ONE)))),
  ],
  ["searches without end", () => greedy(() => ({ payload: PATHS }))],
  ["output in single bytes", () => greedy(() => ({ payload: ONE, channel: 1 }))],
  ["files without end", () => greedy(() => ({ payload: Buffer.alloc(MAX_PAYLOAD) }))],
  [
    "events of thousands of fields",
    () => onCall((channel, call) => channel.flood(() => channel.frame(FrameType.EVENT, call, MANY_FIELDS))),
  ],
  [
    "pings, and it reads nothing",
    () =>
      onCall((channel) => {
        channel.socket.pause();
        channel.flood(many(500, () => channel.frame(FrameType.PING, 0, Buffer.alloc(64))));
      }),
  ],
  ["errors of 60 kB", () => onCall((channel, call) => void channel.send(FrameType.END, call, LONG_ERROR))],
  [
    "results twice",
    () =>
      onCall((channel, call) => {
        channel.send(FrameType.END, call, OK);
        channel.send(FrameType.END, call, OK);
      }),
  ],
  [
    "numbers beyond arithmetic",
    () =>
      onCall((channel, call) => {
        const most = 2n ** 64n - 1n;
        channel.send(
          FrameType.END,
          call,
          fields().u8(Tag.STATUS, 0).u8(Tag.KIND, 1).u64(Tag.SIZE, most).u64(Tag.MTIME, most).finish(),
        );
      }),
  ],
  ["a connection that closes at once", () => (_frame, channel) => void channel.socket.destroy()],
  [
    "more than its credit",
    () =>
      onCall((channel, call) => channel.flood(() => channel.frame(FrameType.DATA, call, Buffer.alloc(MAX_PAYLOAD)))),
  ],
  [
    "credit without end",
    () =>
      onCall((channel, call) =>
        channel.flood(many(500, () => channel.frame(FrameType.CREDIT, call, Buffer.alloc(4, 0xff)))),
      ),
  ],
  [
    "commands without end",
    () =>
      onCall((channel, call) =>
        channel.flood(() =>
          channel.frame(
            FrameType.EVENT,
            call,
            repeated(fields().fields(Tag.PROCESS, fields().u32(Tag.PID, 1).u8(Tag.RUNNING, 1)).finish()),
          ),
        ),
      ),
  ],
  ["noise instead of an answer to the greeting", () => () => {}],
  ["headers of greetings without their end", () => () => {}],
];

function serve(path: string, index: number): Promise<void> {
  const [name, make] = FORMS[index % FORMS.length] as [string, () => Form];
  const server = createServer((socket) => {
    const channel = new Channel(socket);
    const form = make();
    const decoder = new FrameDecoder(FrameType.HELLO);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      decoder.push(chunk, (frame) => {
        if (frame.type === FrameType.HELLO) {
          if (name.startsWith("noise")) channel.flood(() => Buffer.alloc(65_536, 0xa7));
          else if (name.startsWith("headers")) {
            const head = encodeFrame(
              { type: FrameType.HELLO_ACK, channel: 0, flags: 0, stream: 0, payload: NONE },
              0,
            ).subarray(0, 20);
            channel.flood(many(1000, () => head));
          } else channel.ack(new FieldReader(frame.payload).bytes(Tag.NONCE) as Buffer);
          return;
        }
        if (frame.type === FrameType.PING && !name.startsWith("pings")) channel.send(FrameType.PONG, 0, frame.payload);
        form(frame, channel, frame.type === FrameType.OPEN ? Buffer.from(frame.payload).readUInt16LE() : undefined);
      });
    });
  });
  return new Promise((resolve) => server.listen(path, resolve));
}

const [dir, number] = process.argv.slice(2);
if (dir !== undefined) {
  await Promise.all(Array.from({ length: Number(number) }, (_, i) => serve(join(dir, String(i)), i)));
  process.stdout.write("ready\n");
}
