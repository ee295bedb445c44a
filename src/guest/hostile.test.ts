/**
 * A guest whose agent was replaced, against the host's side: memory, time and the event loop stay within bounds (host/bounds.ts).
 * `STACYVM_FUZZ` is the number of inputs for the decoders.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { CollectBudget } from "./collect.ts";
import { FakeGuest, type Script } from "./fake-guest.ts";
import { FrameDecoder } from "./frame-decoder.ts";
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
} from "./protocol.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;
const MIB = 1024 * 1024;

const ok = new FieldWriter().u8(Tag.STATUS, Status.OK).finish();
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Bytes that are kept now. */
async function kept(): Promise<number> {
  // Buffers are let go of a moment after their objects.
  for (let i = 0; i < 3; i++) {
    gc();
    await turn();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function method(frame: Frame): number | undefined {
  return frame.type === FrameType.OPEN ? Buffer.from(frame.payload).readUInt16LE() : undefined;
}

/** Answers one method by `act`, and everything else with OK. */
function answering(wanted: number, act: (guest: FakeGuest, call: number) => void): Script {
  return (frame, guest) => {
    if (frame.type === FrameType.PING) guest.send(FrameType.PONG, 0, frame.payload);
    const called = method(frame);
    if (called === wanted) act(guest, frame.stream);
    else if (called !== undefined) guest.send(FrameType.END, frame.stream, ok);
  };
}

/** Sends `body` for one method again and again, as fast as it may. @param sent told of each */
function endless(wanted: number, body: Buffer, sent: () => void = () => {}): Script {
  const credit = new Map<number, number>();
  return (frame, guest) => {
    const { stream } = frame;
    if (method(frame) === wanted) credit.set(stream, INITIAL_CREDIT);
    const had = credit.get(stream);
    if (had === undefined) return;
    if (frame.type === FrameType.CREDIT) credit.set(stream, had + Buffer.from(frame.payload).readUInt32LE());
    if (frame.type === FrameType.CANCEL) {
      credit.delete(stream);
      guest.send(FrameType.END, stream, new FieldWriter().u8(Tag.STATUS, Status.CANCELLED).finish());
      return;
    }
    for (let left = credit.get(stream) ?? 0; left >= body.length; left -= body.length) {
      credit.set(stream, left - body.length);
      guest.send(FrameType.DATA, stream, body);
      sent();
    }
  };
}

async function rejection(work: Promise<unknown>): Promise<StacyError> {
  const error = await work.then(
    () => assert.fail("it must fail"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof StacyError, String(error));
  return error;
}

const tinyEntry = new FieldWriter().fields(Tag.ENTRY, new FieldWriter().u8(Tag.KIND, 1).u8(Tag.SIZE, 0)).finish();

test("a listing of millions of tiny entries is refused at the bound, without the rest being kept", async () => {
  const body = Buffer.concat(Array.from({ length: Math.floor(MAX_PAYLOAD / tinyEntry.length) }, () => tinyEntry));
  let sent = 0;
  const guest = new FakeGuest(
    endless(Method.LIST, body, () => {
      sent += body.length;
    }),
  );
  const agent = await guest.connect();
  const before = await kept();
  assert.equal((await rejection(agent.list("/"))).code, "limit");
  assert.ok(sent < 4 * MIB, `${sent} bytes were taken`);
  assert.ok((await kept()) - before < 16 * MIB);
  await agent.close();
});

test("the first bad entry of a listing is its end", async () => {
  const bad = new FieldWriter().fields(Tag.ENTRY, new FieldWriter().text(Tag.KIND, "no number")).finish();
  let cancelled = false;
  const guest = new FakeGuest((frame, self) => {
    if (method(frame) === Method.LIST)
      self.send(FrameType.DATA, frame.stream, Buffer.concat([tinyEntry, bad, tinyEntry]));
    cancelled ||= frame.type === FrameType.CANCEL;
  });
  const agent = await guest.connect();
  assert.equal((await rejection(agent.list("/"))).code, "protocol");
  assert.ok(cancelled);
  await agent.close();
});

test("what is collected for one guest at a time has a bound too, and is free again afterwards", async () => {
  const budget = new CollectBudget();
  budget.take(GUEST_BOUNDS.collectedBytes);
  assert.throws(() => budget.take(1), { code: "limit" });
  budget.give(GUEST_BOUNDS.collectedBytes + 1);
  assert.equal(budget.room, GUEST_BOUNDS.collectedBytes);
  const agent = await new FakeGuest(endless(Method.READ, Buffer.alloc(MAX_PAYLOAD))).connect();
  for (let i = 0; i < 2; i++)
    assert.equal((await rejection(agent.readFile("/x", { limitBytes: 8 * MIB }))).code, "limit");
  await agent.close();
});

test("a watch keeps changes by their bytes, and says that some were missed", async () => {
  const change = new FieldWriter().u8(Tag.CHANGE, 1).bytes(Tag.PATH, Buffer.alloc(60_000, "x")).finish();
  const guest = new FakeGuest(
    answering(Method.WATCH, (self, call) => {
      for (let i = 0; i < 2_000; i++) self.send(FrameType.EVENT, call, change);
      self.send(FrameType.END, call, ok);
    }),
  );
  const agent = await guest.connect();
  const before = await kept();
  const watch = agent.watch("/x")[Symbol.asyncIterator]();
  const first = await watch.next();
  for (let i = 0; i < 3_000 && !guest.host.destroyed; i++) await turn();
  const grown = (await kept()) - before;
  assert.ok(grown < 3 * GUEST_BOUNDS.watchBytes + 8 * MIB, `${grown} bytes`);
  const changes = [first.value?.change];
  for (let next = await watch.next(); next.done !== true; next = await watch.next()) changes.push(next.value.change);
  assert.ok(changes.length < 100, `${changes.length} changes`);
  assert.equal(changes.at(-1), "overflow");
  await agent.close();
});

test("output in frames of one byte costs what it is long, whether somebody reads it or not", async () => {
  const bytes = 200_000;
  const guest = new FakeGuest(
    answering(Method.EXEC, (self, call) => {
      self.send(FrameType.EVENT, call, new FieldWriter().u64(Tag.PROCESS_ID, 1).u32(Tag.PID, 1).finish());
      const frames: Buffer[] = [];
      for (let i = 0; i < bytes; i++) frames.push(self.frame(FrameType.DATA, call, Buffer.from("x"), 1 + (i % 2)));
      self.raw(Buffer.concat(frames));
    }),
  );
  const agent = await guest.connect();
  const before = await kept();
  const command = await agent.start({ argv: ["x"] });
  for (let i = 0; i < 400; i++) await turn();
  const grown = (await kept()) - before;
  assert.ok(grown < 16 * MIB, `${grown} bytes for ${bytes}`);
  await agent.close();
  command.exited.catch(() => {});
});

test("a guest that floods holds nobody up: others are answered while its frames wait their turn", async () => {
  const floods = [1, 2, 3, 4].map(
    () =>
      new FakeGuest(
        answering(Method.INFO, (self, call) => {
          const frames: Buffer[] = [];
          for (let i = 0; i < 20_000; i++) frames.push(self.frame(FrameType.EVENT, call, new Uint8Array(0)));
          self.raw(Buffer.concat([...frames, self.frame(FrameType.END, call, ok)]));
        }),
      ),
  );
  const hostile = await Promise.all(floods.map((guest) => guest.connect()));
  const good = await new FakeGuest(answering(-1, () => {})).connect();
  let over = 0;
  const flooding = hostile.map((agent) => agent.info().finally(() => over++));
  await turn();
  let pings = 0;
  while (over === 0) {
    await good.ping();
    pings += 1;
  }
  // Each of them has some hundred turns' work; a ping needs a few passes of the event loop.
  assert.ok(pings > 5, `${pings} answers in that time`);
  await Promise.all(flooding);
  await Promise.all([...hostile, good].map((agent) => agent.close()));
});

/** Time that passes until a limit: the guest is asked shortly before. */
async function pass(t: TestContext, ms: number): Promise<void> {
  t.mock.timers.tick(ms - GUEST_BOUNDS.answerMs);
  await turn();
  t.mock.timers.tick(GUEST_BOUNDS.answerMs);
  await turn();
}

test("a call that never ends is given up: when its client goes away, and at its limit", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const cancelled: number[] = [];
  const guest = new FakeGuest(
    FakeGuest.alive((frame, self) => {
      if (frame.type === FrameType.CANCEL) cancelled.push(frame.stream);
      if (method(frame) === Method.SYNC) self.send(FrameType.END, frame.stream, ok);
    }),
  );
  const agent = await guest.connect();
  const gone = new AbortController();
  const left = rejection(agent.stat("/x", { signal: gone.signal }));
  gone.abort();
  await turn();
  assert.deepEqual(cancelled, [1]);
  t.mock.timers.tick(GUEST_BOUNDS.cancelMs);
  assert.equal((await left).code, "cancelled");
  const late = rejection(agent.stat("/x"));
  await pass(t, GUEST_BOUNDS.fileMs);
  assert.equal((await late).code, "timeout");
  await turn();
  assert.deepEqual(cancelled, [1, 2]);
  // One whose answer has no end of its own too: each part of it is waited for.
  const file = rejection(agent.readFile("/x"));
  await pass(t, GUEST_BOUNDS.fileMs);
  assert.equal((await file).code, "timeout");
  // What still comes of them is nobody's, and the session goes on.
  for (const call of [1, 2]) {
    guest.send(FrameType.DATA, call, Buffer.from("x"));
    guest.send(FrameType.END, call, ok);
  }
  await agent.sync();
  const started = rejection(agent.start({ argv: ["x"], timeoutMs: 1000 }));
  await pass(t, 1000 + 2000 + GUEST_BOUNDS.cancelMs);
  assert.equal((await started).code, "timeout");
  await agent.close();
});

test("a guest that ends none of its calls loses its session", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const agent = await new FakeGuest(FakeGuest.alive()).connect();
  const calls = Array.from({ length: GUEST_BOUNDS.lostCalls + 1 }, () => rejection(agent.stat("/x")));
  await pass(t, GUEST_BOUNDS.fileMs);
  await Promise.all(calls);
  assert.equal(((await agent.closed) as StacyError).code, "protocol");
});

test("numbers beyond what arithmetic holds are the largest that it does", async () => {
  const stat = new FieldWriter().u8(Tag.STATUS, 0).text(Tag.PATH, "/x").u8(Tag.KIND, 1);
  const most = 2n ** 64n - 1n;
  const guest = new FakeGuest(
    answering(Method.STAT, (self, call) =>
      self.send(FrameType.END, call, stat.u64(Tag.SIZE, most).u64(Tag.MTIME, most).finish()),
    ),
  );
  const agent = await guest.connect();
  const found = await agent.stat("/x");
  assert.equal(found.size, Number.MAX_SAFE_INTEGER);
  assert.doesNotThrow(() => new Date(found.mtimeMs).toISOString());
  await agent.close();
});

test("the words of a guest's error are cut, and are words only", async () => {
  const words = `\x1b]0;title\x07\nsecond\u202e${"x".repeat(60_000)}`;
  const end = new FieldWriter().u8(Tag.STATUS, Status.IO).text(Tag.MESSAGE, words).finish();
  const agent = await new FakeGuest(
    answering(Method.STAT, (self, call) => self.send(FrameType.END, call, end)),
  ).connect();
  const { message } = await rejection(agent.stat("/x"));
  assert.ok(message.startsWith("\\x1b]0;title\\x07\\x0asecond\\u{202e}xxx"), message.slice(0, 80));
  assert.ok(message.length < 2 * GUEST_BOUNDS.errorBytes);
  await agent.close();
});

const FUZZ = Number(process.env.STACYVM_FUZZ ?? 2_000);
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
/** Mostly well-formed, else nothing but the first check would be tried. */
const field = fc.record({ tag: fc.constantFrom(...Object.values(Tag)), value: fc.uint8Array({ maxLength: 12 }) });
const fields = fc
  .array(field, { maxLength: 12 })
  .map((list) => list.reduce((writer, { tag, value }) => writer.bytes(tag, value), new FieldWriter()).finish());
const frame = fc.record({
  type: fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 4, max: 12 }) }, { weight: 1, arbitrary: fc.nat(255) }),
  channel: fc.oneof({ weight: 9, arbitrary: fc.nat(2) }, { weight: 1, arbitrary: fc.nat(255) }),
  flags: fc.constantFrom(0, 0, 0, 1, 2),
  stream: fc.nat(8),
  payload: fc.oneof(fields, bytes),
});

test("any bytes at all are a field, a frame or the error `protocol`", () => {
  fc.assert(
    fc.property(bytes, fc.nat(300), (input, cut) => {
      for (const act of [
        () => {
          const reader = new FieldReader(input);
          for (let tag = 0; tag < 130; tag++) {
            for (const value of reader.all(tag)) value.toString();
            reader.number(tag);
          }
        },
        () => {
          const decoder = new FrameDecoder();
          for (const piece of [input.subarray(0, cut), input.subarray(cut)]) decoder.push(piece, () => {});
          assert.ok(decoder.buffered <= MAX_PAYLOAD + 24);
        },
      ]) {
        try {
          act();
        } catch (error) {
          if (!(error instanceof StacyError && error.code === "protocol")) throw error;
        }
      }
    }),
    { numRuns: FUZZ },
  );
});

test("whatever frames come in answer to calls, each call settles and the session ends with `protocol` or goes on", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 30 }), async (frames) => {
      const guest = new FakeGuest(() => {});
      const agent = await guest.connect();
      const calls: Promise<unknown>[] = [
        agent.exec({ argv: ["x"] }),
        agent.processes(),
        agent.list("/"),
        agent.glob("*"),
        agent.stat("/x"),
        agent.readFile("/x"),
        agent.info(),
        (async () => {
          for await (const change of agent.watch("/")) void change;
        })(),
      ];
      const settled = Promise.allSettled(calls);
      frames.forEach((each) => {
        const { type, channel, flags, stream, payload } = each;
        guest.raw(encodeFrame({ type, channel, flags, stream, payload }, guest.sequence++));
      });
      await turn();
      await agent.close();
      for (const each of await settled) {
        if (each.status === "rejected") assert.ok(each.reason instanceof StacyError, String(each.reason?.stack));
      }
      const reason = (await agent.closed) as StacyError;
      assert.ok(reason.code === "protocol" || reason.code === "disconnected", String(reason.stack));
    }),
    { numRuns: Math.ceil(FUZZ / 10) },
  );
});
