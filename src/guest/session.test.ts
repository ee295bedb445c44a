/** The host's side against guests that misbehave: each loses its own connection, at bounded memory, with a typed error. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import type { Agent, Identity } from "./agent.ts";
import { connectAgent, openAgent } from "./client.ts";
import { FakeGuest } from "./fake-guest.ts";
import { FieldReader, FieldWriter, FrameType, INITIAL_CREDIT, Method, Tag } from "./protocol.ts";
import { reconnectingAgent } from "./reconnecting-agent.ts";

function code(expected: string) {
  return (error: unknown) => {
    assert.ok(error instanceof StacyError, String(error));
    assert.equal(error.code, expected, error.message);
    return true;
  };
}

const IDENTITY: Identity = {
  ...{ sandboxId: "sb-1", hostname: "h", machineId: "0".repeat(32), bootId: "0", entropy: new Uint8Array(32), env: {} },
};
const ok = new FieldWriter().u8(Tag.STATUS, 0).finish();

test("noise, stale frames and a foreign hello before the answer are passed by", async () => {
  const guest = new FakeGuest(
    () => {},
    (self, nonce) => {
      self.raw(Buffer.from([0xa7, 2, 0, 0, 9, 9]));
      self.ack(Buffer.alloc(16, 1));
      self.send(FrameType.END, 3, ok);
      self.ack(nonce);
    },
  );
  const agent = await guest.connect();
  assert.equal(agent.hello.protocol, 1);
  await agent.close();
});

test("a guest that takes its greeting late is told the time again, one that answers at once is not", async () => {
  const told = async (afterMs: number): Promise<number[]> => {
    const clocks: number[] = [];
    const guest = new FakeGuest(
      FakeGuest.alive((frame, self) => {
        if (frame.type !== FrameType.OPEN) return;
        const identity = new FieldReader(new FieldReader(frame.payload.subarray(2)).bytes(Tag.IDENTITY) as Buffer);
        clocks.push(Number((identity.bigint(Tag.CLOCK) ?? 0n) / 1_000_000n));
        self.send(FrameType.END, frame.stream, new FieldWriter().u8(Tag.STATUS, 0).u16(Tag.VERSION, 1).finish());
      }),
      (self, nonce) => void setTimeout(() => self.ack(nonce), afterMs),
    );
    const agent = await connectAgent({ stream: guest.host, clean: true }, { identity: IDENTITY });
    await agent.close();
    return clocks;
  };
  assert.deepEqual(await told(0), []);
  const begun = Date.now();
  const [clock = 0, ...more] = await told(400);
  assert.ok(clock >= begun + 399, `${clock - begun} ms after the greeting was made`);
  assert.deepEqual(more, []);
});

test("a guest that sends and sends and never answers the greeting loses its connection, and others have their turns meanwhile", async () => {
  // Looks like headers all along.
  const noise = Buffer.alloc(64 * 1024, Buffer.from([0xa7, FrameType.HELLO_ACK, 0, 0]));
  let sent = 0;
  const guest = new FakeGuest(
    () => {},
    (self) => {
      const more = (): void => {
        if (self.host.destroyed) return;
        // As fast as it is read.
        if (self.host.readableLength === 0) {
          self.raw(noise);
          sent += noise.length;
        }
        setImmediate(more);
      };
      more();
    },
  );
  const turns = countTurns();
  await assert.rejects(guest.connect(), code("protocol"));
  assert.ok(sent < GUEST_BOUNDS.huntBytes + 4 * noise.length, `${sent} bytes were read`);
  assert.ok(turns() > sent / noise.length, "others had a turn for each piece of it");
});

test("a channel that breaks before the greeting is answered is opened again, a few times within a second, but not for ever", async () => {
  const broken = () =>
    new FakeGuest(
      () => {},
      (self) => self.host.push(null),
    );
  let opened = 0;
  const opening = (breaks: number) => async () => {
    const guest = opened++ < breaks ? broken() : new FakeGuest(() => {});
    return { stream: guest.host, clean: true };
  };
  const agent = await openAgent(opening(2));
  assert.equal(opened, 3);
  await agent.close();
  opened = 0;
  const late = await openAgent(opening(5)); // as after a save, when the machine goes on slowly
  assert.equal(opened, 6);
  await late.close();
  opened = 0;
  await assert.rejects(openAgent(opening(9)), code("disconnected"));
  assert.equal(opened, 6);
  opened = 0;
  const signal = AbortSignal.timeout(20);
  await assert.rejects(openAgent(opening(9), { signal }), code("disconnected"));
  assert.ok(opened < 6, "nobody waits for it any longer");
});

test("input that a program does not take is given up, and what waits behind it; the command and later input go on", async () => {
  let taken = 0;
  let stream = 0;
  const guest = new FakeGuest(
    FakeGuest.alive((frame, self) => {
      if (frame.type === FrameType.DATA) taken += frame.payload.length;
      if (frame.type !== FrameType.OPEN) return;
      stream = frame.stream;
      self.send(FrameType.EVENT, stream, new FieldWriter().u64(Tag.PROCESS_ID, 1).u32(Tag.PID, 2).finish());
    }),
  );
  const agent = await guest.connect();
  const command = await agent.attach("1");
  const input = new Uint8Array(4 << 20);
  const writes = [command.write(input, { withinMs: 20 }), command.write(input, { withinMs: 20 })];
  for (const write of await Promise.allSettled(writes)) {
    assert.equal(write.status === "rejected" && write.reason.code, "timeout");
  }
  assert.ok(taken < input.length);
  const later = command.write(Buffer.from("later"));
  const before = taken;
  const credit = Buffer.alloc(4);
  credit.writeUInt32LE(5);
  guest.send(FrameType.CREDIT, stream, credit);
  await later;
  assert.equal(taken, before + 5);
  await agent.close();
});

test("who waits for standard input to be taken is told when all of it is, and when the command ends without", async () => {
  const streams: number[] = [];
  const guest = new FakeGuest(
    FakeGuest.alive((frame, self) => {
      if (frame.type !== FrameType.OPEN) return;
      streams.push(frame.stream);
      self.send(FrameType.EVENT, frame.stream, new FieldWriter().u64(Tag.PROCESS_ID, 1).u32(Tag.PID, 2).finish());
    }),
  );
  const agent = await guest.connect();
  const taken = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  let told = 0;
  for (const { resolve } of taken) {
    const stdinTaken = (): void => {
      told += 1;
      resolve("told");
    };
    await agent.start({ argv: ["cat"], stdin: new Uint8Array(2 << 20), stdinTaken });
  }
  await new Promise((wake) => setImmediate(wake));
  assert.equal(told, 0, "the guest has taken a part of it");
  const credit = Buffer.alloc(4);
  credit.writeUInt32LE(4 << 20);
  guest.send(FrameType.CREDIT, streams[0] ?? 0, credit);
  assert.equal(await taken[0]?.promise, "told");
  assert.equal(told, 1);
  const exit = new FieldWriter().u8(Tag.STATUS, 0).u8(Tag.EXIT_CODE, 0).u8(Tag.REASON, 3);
  guest.send(FrameType.END, streams[1] ?? 0, exit.finish());
  assert.equal(await taken[1]?.promise, "told");
  await agent.close();
});

test("fields that do not fit into a frame follow it, before standard input; what no Linux would take is too large at once", async () => {
  let opened: FieldReader | undefined;
  const data: Buffer[] = [];
  let ended = false;
  const guest = new FakeGuest((frame, self) => {
    if (frame.type === FrameType.OPEN) opened = new FieldReader(frame.payload.subarray(2));
    if (frame.type !== FrameType.DATA) return;
    data.push(Buffer.from(frame.payload));
    const credit = Buffer.alloc(4);
    credit.writeUInt32LE(frame.payload.length);
    self.send(FrameType.CREDIT, frame.stream, credit);
    if (frame.flags === 0) return;
    ended = true;
    self.send(FrameType.EVENT, frame.stream, new FieldWriter().u64(Tag.PROCESS_ID, 1).u32(Tag.PID, 2).finish());
    const exit = new FieldWriter().u8(Tag.STATUS, 0).u8(Tag.EXIT_CODE, 0).u8(Tag.REASON, 3);
    self.send(FrameType.END, frame.stream, exit.finish());
  });
  const agent = await guest.connect();
  const argv = ["true", ...Array.from({ length: 12 }, () => "x".repeat(100_000))];
  const result = await agent.exec({ argv, stdin: Buffer.from("input") });
  assert.equal(result.reason, "out-of-memory");
  const length = opened?.number(Tag.FIELDS_LENGTH) ?? 0;
  const all = Buffer.concat(data);
  assert.deepEqual(new FieldReader(all.subarray(0, length)).all(Tag.ARGV).map(String), argv);
  assert.equal(all.subarray(length).toString(), "input");
  assert.ok(ended);
  await assert.rejects(agent.exec({ argv: ["true", "x".repeat(5 << 20)] }), code("too-large"));
  await agent.close(new StacyError("not-found", "ended", { data: { ended: "ttl" } }));
  await assert.rejects(agent.exec({ argv: ["true"] }), code("not-found"));
});

test("a limit that has passed is no cancellation", async () => {
  const silent = new FakeGuest(
    () => {},
    () => {},
  );
  const signal = AbortSignal.timeout(10);
  await assert.rejects(
    openAgent(async () => ({ stream: silent.host, clean: true }), { signal }),
    code("timeout"),
  );
});

test("a guest that never answers is a timeout in the phase `agent`", async () => {
  const guest = new FakeGuest(
    () => {},
    () => {},
  );
  await assert.rejects(guest.connect(20), (error) => code("timeout")(error) && (error as StacyError).phase === "agent");
  assert.ok(guest.host.destroyed);
});

const NONSENSE: Record<string, (guest: FakeGuest, call: number) => void> = {
  "garbage bytes": (guest) => guest.raw(Buffer.alloc(64, 0x55)),
  "a second hello": (guest) => guest.ack(Buffer.alloc(16)),
  "a frame for a call that was never opened": (guest) => guest.send(FrameType.EVENT, 77),
  "a frame type that only the host sends": (guest, call) => guest.send(FrameType.OPEN, call),
  "more data than the credit": (guest, call) => {
    for (let sent = 0; sent <= INITIAL_CREDIT; sent += 65_536) guest.send(FrameType.DATA, call, Buffer.alloc(65_536));
  },
  "fields that pass their frame": (guest, call) => guest.send(FrameType.EVENT, call, Buffer.from([1, 255, 0, 0, 0])),
  "a result without a status": (guest, call) => guest.send(FrameType.END, call),
  "a credit that is no number": (guest, call) => guest.send(FrameType.CREDIT, call, Buffer.alloc(3)),
  "a ping that is too long": (guest) => guest.send(FrameType.PING, 0, Buffer.alloc(65)),
  "a frame after the end of its call": (guest, call) => {
    guest.send(FrameType.END, call, ok);
    guest.send(FrameType.EVENT, call);
  },
  "a fault": (guest) => guest.send(FrameType.FAULT, 0, new FieldWriter().u8(Tag.STATUS, 17).finish()),
  "an endless list of commands": (guest, call) => {
    const one = new FieldWriter().fields(Tag.PROCESS, new FieldWriter().u32(Tag.PID, 1).u8(Tag.RUNNING, 1)).finish();
    for (let i = 0; i < 5000; i++) guest.send(FrameType.EVENT, call, one);
  },
};

for (const [what, act] of Object.entries(NONSENSE)) {
  test(`the connection ends with \`protocol\`: ${what}`, async () => {
    const guest = new FakeGuest((frame, self) => {
      if (frame.type === FrameType.OPEN) act(self, frame.stream);
    });
    const agent = await guest.connect();
    const call = agent.processes();
    call.catch(() => {});
    assert.equal(code("protocol")(await agent.closed), true);
    await assert.rejects(agent.ping(), code("protocol"));
    assert.ok(guest.host.destroyed);
  });
}

test("calls in flight fail at once when the channel breaks", async () => {
  const guest = new FakeGuest(() => {});
  const agent = await guest.connect();
  const calls = [agent.info(), agent.exec({ argv: ["x"] }), agent.readFile("/x"), agent.ping()];
  guest.host.destroy(new Error("gone"));
  for (const call of calls) await assert.rejects(call, code("disconnected"));
});

test("an upload waits for a guest that gives endless credit and reads nothing", async () => {
  const guest = new FakeGuest((frame, self) => {
    if (frame.type !== FrameType.OPEN) return;
    self.reads = false;
    self.send(FrameType.CREDIT, frame.stream, Buffer.alloc(4, 0xff));
  });
  const agent = await guest.connect();
  let taken = 0;
  const credited = Promise.withResolvers<void>();
  async function* source() {
    for (let i = 0; i < 10_000; i++) {
      taken += 65_536;
      if (taken > 8 * 65_536) credited.resolve();
      yield Buffer.alloc(65_536);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const upload = agent.writeFile("/x", source());
  upload.catch(() => {});
  await credited.promise;
  for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(taken < 4 * 1024 * 1024, `${taken} bytes were taken from the source`);
  guest.host.destroy();
  await assert.rejects(upload, code("disconnected"));
});

test("a flood of pings from a guest that reads no answers ends its connection", async () => {
  const guest = new FakeGuest((frame, self) => {
    if (frame.type === FrameType.OPEN) self.reads = false;
  });
  const agent = await guest.connect();
  agent.info().catch(() => {});
  await new Promise((resolve) => setImmediate(resolve));
  let over = false;
  void agent.closed.then(() => {
    over = true;
  });
  for (let i = 0; i < 1_500_000 && !over; i++) {
    guest.send(FrameType.PING, 0, Buffer.alloc(64));
    if (i % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(code("protocol")(await agent.closed), true);
});

test("a hung guest loses its calls after a silence, and an idle one is left alone", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const guest = new FakeGuest(() => {});
  const agent = await guest.connect();
  t.mock.timers.tick(300_000);
  const call = agent.exec({ argv: ["x"] });
  call.catch(() => {});
  await new Promise((resolve) => setImmediate(resolve));
  for (let i = 0; i < 3; i++) t.mock.timers.tick(30_000);
  await assert.rejects(call, code("disconnected"));
});

for (const [tookMs, firstMs] of [
  [undefined, 5],
  [50, 200],
  [5_000, 500],
] as const) {
  test(`a guest that took a connection in ${tookMs ?? "no"} ms is asked after ${firstMs} ms whether it has lost it, then half as often each time`, async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const asked: number[] = [];
    let now = 0;
    let nonce: Buffer = Buffer.alloc(0);
    const guest = new FakeGuest(
      (frame) => void (frame.type === FrameType.PING && asked.push(now)),
      (_, told) => {
        nonce = told;
      },
    );
    const agent = guest.connect(60_000, tookMs === undefined ? {} : { tookMs });
    for (now = 1; now <= 4 * firstMs; now++) t.mock.timers.tick(1);
    assert.equal(asked[0], firstMs);
    assert.equal(asked[1], firstMs + Math.min(2 * firstMs, 500));
    guest.ack(nonce);
    await (await agent).close();
  });
}

test("a wait for a connection lets the guest be silent, the connection does not", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let pings = 0;
  let waiting = 0;
  const guest = new FakeGuest((frame) => {
    if (frame.type === FrameType.PING) pings += 1;
    if (frame.type === FrameType.OPEN) waiting = frame.stream;
  });
  const delivered = () => new Promise((resolve) => setImmediate(resolve));
  const silence = async (times: number) => {
    for (let i = 0; i < times; i++) t.mock.timers.tick(30_000);
    await delivered();
  };
  const agent = await guest.connect();
  const abort = new AbortController();
  const accepted = agent.accept(3128, { signal: abort.signal });
  await silence(20);
  assert.equal(pings, 0);
  guest.send(FrameType.EVENT, waiting);
  const socket = await accepted;
  abort.abort();
  await silence(2);
  assert.equal(pings, 1);
  guest.send(FrameType.END, waiting, ok);
  await delivered();
  socket.destroy();
  await silence(20);
  assert.equal(pings, 1);
  await agent.close();
});

test("a connection that crosses the end of the wait for it is nobody's", async () => {
  const guest = new FakeGuest((frame, self) => {
    if (frame.type !== FrameType.CANCEL) return;
    self.send(FrameType.EVENT, frame.stream);
    self.send(FrameType.END, frame.stream, new FieldWriter().u8(Tag.STATUS, 9).finish());
  });
  const agent = await guest.connect();
  const abort = new AbortController();
  const accepted = agent.accept(3128, { signal: abort.signal });
  abort.abort();
  await assert.rejects(accepted, code("cancelled"));
  await agent.close();
});

const LIMIT = { limitMs: () => 10_000 };

test("a call after a break connects again, once for all of them, and a watch does too", async () => {
  let opened = 0;
  let guest: FakeGuest | undefined;
  const agent = reconnectingAgent(() => {
    opened += 1;
    guest = new FakeGuest((frame, self) => {
      if (frame.type === FrameType.OPEN) self.send(FrameType.END, frame.stream, ok);
      if (frame.type === FrameType.PING) self.send(FrameType.PONG, 0, frame.payload);
    });
    return guest.connect();
  }, LIMIT);
  await Promise.all([agent.ping(), agent.sync(), agent.thaw()]);
  assert.equal(opened, 1);
  guest?.host.destroy();
  await new Promise((resolve) => setImmediate(resolve));
  for await (const change of agent.watch("/x")) assert.fail(String(change));
  assert.equal(opened, 2);
  await agent.close();
  await assert.rejects(agent.ping(), code("disconnected"));
});

test("a connection that comes when its agent was closed meanwhile is closed too", async () => {
  const guest = new FakeGuest((frame, self) => {
    if (frame.type === FrameType.PING) self.send(FrameType.PONG, 0, frame.payload);
  });
  const open = Promise.withResolvers<void>();
  const agent = reconnectingAgent(async () => {
    await open.promise;
    return guest.connect();
  }, LIMIT);
  const failed = assert.rejects(agent.ping(), code("disconnected"));
  await agent.close();
  open.resolve();
  await failed;
  assert.equal(guest.host.destroyed, true);
});

const exit = new FieldWriter().u8(Tag.STATUS, 0).u8(Tag.EXIT_CODE, 0).u8(Tag.REASON, 0).finish();
const known = new FieldWriter().u8(Tag.STATUS, 0).u16(Tag.VERSION, 1).finish();
const started = new FieldWriter().u64(Tag.PROCESS_ID, 1).u32(Tag.PID, 2).finish();

/** An agent over channels of guests that are there, and how many were opened. The guest of the channel that is open may fall silent. */
function channels() {
  const state = { opened: 0, silent: false, guest: undefined as FakeGuest | undefined };
  const script = FakeGuest.alive((frame, self) => {
    if (frame.type !== FrameType.OPEN) return;
    const method = Buffer.from(frame.payload).readUInt16LE();
    if (method === Method.EXEC) self.send(FrameType.EVENT, frame.stream, started);
    if (method === Method.EXEC && Buffer.from(frame.payload).includes("long")) return;
    self.send(FrameType.END, frame.stream, method === Method.EXEC ? exit : method === Method.IDENTITY ? known : ok);
  });
  const agent = reconnectingAgent(() => {
    state.opened += 1;
    state.silent = false;
    const guest = new FakeGuest((frame, self) => {
      if (guest === state.guest && !state.silent) script(frame, self);
    });
    state.guest = guest;
    return guest.connect();
  }, LIMIT);
  return { agent, state };
}

const delivered = () => new Promise((resolve) => setImmediate(resolve));

/** Time passes, second by second, and what is due is done. */
async function seconds(t: TestContext, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    t.mock.timers.tick(1_000);
    await delivered();
  }
}

const GIVEN_UP: Record<string, (agent: Agent, signal: AbortSignal) => Promise<unknown>> = {
  "a command": (agent, signal) => agent.exec({ argv: ["x"], signal }),
  "a file that is written": (agent, signal) => agent.writeFile("/x", Buffer.from("x"), { signal }),
  "a machine that comes back": (agent) => agent.identify(IDENTITY, { limitMs: 15_000 }),
};
for (const [what, call] of Object.entries(GIVEN_UP)) {
  test(`over a channel that has fallen silent it fails once, and the next attempt has another: ${what}`, async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
    const { agent, state } = channels();
    await agent.ping();
    state.silent = true;
    const gone = new AbortController();
    const failed = call(agent, gone.signal).then(
      () => assert.fail("nobody answered it"),
      // As a client does that tries again at once.
      () => call(agent, new AbortController().signal),
    );
    failed.catch(() => {});
    await delivered();
    gone.abort();
    await seconds(t, 15);
    await failed;
    assert.equal(state.opened, 2);
    await agent.close();
  });
}

test("a guest that is slow and says so keeps its channel, and so do the others on it", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  let opened = 0;
  const guest = new FakeGuest(FakeGuest.alive());
  const agent = reconnectingAgent(() => {
    opened += 1;
    return guest.connect();
  }, LIMIT);
  const other = agent.exec({ argv: ["long"] });
  other.catch(() => {});
  for (let i = 0; i < 3; i++) {
    const slow = assert.rejects(agent.identify(IDENTITY, { limitMs: 15_000 }), code("timeout"));
    await delivered();
    await seconds(t, 15);
    await slow;
  }
  guest.send(FrameType.EVENT, 1, started);
  guest.send(FrameType.END, 1, exit);
  assert.equal((await other).exitCode, 0);
  assert.equal(opened, 1);
  await agent.close();
});

test("a guest whose machine stands still may be silent for as long as that lasts, and is asked again afterwards", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const { agent, state } = channels();
  const { exited } = await agent.start({ argv: ["long"] });
  const { guest } = state;
  state.silent = true;
  const given = new AbortController();
  const up = assert.rejects(agent.exec({ argv: ["x"], signal: given.signal }), code("cancelled"));
  await delivered();
  agent.standsStill(true);
  given.abort();
  await seconds(t, 600);
  await up;
  assert.equal(guest?.host.destroyed, false);
  agent.standsStill(false);
  await seconds(t, 100);
  await assert.rejects(exited, code("disconnected"));
  assert.equal(guest?.host.destroyed, true);
  await agent.close();
});
