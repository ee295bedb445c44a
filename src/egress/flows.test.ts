import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { test } from "node:test";
import { errno } from "../host/error.ts";
import { type FlowOptions, Flows } from "./flows.ts";
import { Meter, NO_LIMITS, type TrafficLimits } from "./meter.ts";

const TARGET = { host: "a.example", port: 9 };
const SILENT = { answer: () => {}, refuse: () => {} };

type Send = (payload: Buffer, done: (failure: Error | null) => void) => void;

/** A server on loopback, and sockets that are connected to it. */
class World implements AsyncDisposable {
  readonly dialled: Socket[] = [];
  readonly server = createSocket("udp4");

  static async make(): Promise<World> {
    const world = new World();
    world.server.bind(0, "127.0.0.1");
    await once(world.server, "listening");
    return world;
  }

  readonly dial = async (): Promise<Socket> => {
    const socket = createSocket("udp4");
    this.dialled.push(socket);
    socket.connect(this.server.address().port, "127.0.0.1");
    await once(socket, "connect");
    return socket;
  };

  flows(
    dial: () => Promise<Socket>,
    more: Partial<Pick<FlowOptions, "most" | "idleMs" | "tell">> & { limits?: TrafficLimits } = {},
  ): Flows {
    const { most = 4, limits = NO_LIMITS, ...rest } = more;
    return new Flows({ meter: new Meter(limits), most, dial, tell: () => {}, ...rest });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Also when the test has failed: an open one would keep the process.
    for (const socket of this.dialled) socket.unref();
    this.server.close();
    await once(this.server, "close");
  }
}

test("a flow over which nothing goes is over, and its socket is closed", async () => {
  await using world = await World.make();
  const flows = world.flows(world.dial, { idleMs: 50 });
  const came = once(world.server, "message");
  flows.send("one", TARGET, Buffer.from("x"), SILENT);
  await came;
  const [socket] = world.dialled;
  assert.ok(socket !== undefined);
  // Its own timer keeps nobody's process alive: this one does, for as long as the test waits.
  const alive = setInterval(() => {}, 1_000);
  if (flows.open > 0) await once(socket, "close");
  clearInterval(alive);
  assert.equal(flows.open, 0);
});

test("names that are slow to be found hold neither more sockets than may be, nor more bytes", async () => {
  await using world = await World.make();
  const found = Promise.withResolvers<void>();
  const sent = Promise.withResolvers<void>();
  let asked = 0;
  let bytes = 0;
  const flows = world.flows(async () => {
    asked += 1;
    await found.promise;
    const socket = await world.dial();
    socket.send = (payload: unknown) => {
      bytes += (payload as Buffer).length;
      sent.resolve();
    };
    return socket;
  });
  for (let key = 0; key < 50; key++) flows.send(`${key}`, TARGET, Buffer.from("first"), SILENT);
  assert.deepEqual([asked, flows.open], [4, 4]);
  for (let i = 0; i < 100; i++) flows.send("0", TARGET, Buffer.alloc(16_384, "x"), SILENT);
  found.resolve();
  await sent.promise;
  // All of a flow's wait together; those of the others are five bytes each.
  await new Promise((next) => setImmediate(next));
  assert.ok(bytes > 0 && bytes <= 262_144, `${bytes} bytes`);
  flows.close();
  assert.equal(flows.open, 0);
});

test("what is more than the limit of bytes in a second is lost", async () => {
  await using world = await World.make();
  const first = Promise.withResolvers<void>();
  let sent = 0;
  const flows = world.flows(
    async () => {
      const socket = await world.dial();
      socket.send = () => {
        sent += 1;
        first.resolve();
      };
      return socket;
    },
    { limits: { ...NO_LIMITS, bytesPerSecond: 1_000 } },
  );
  flows.send("one", TARGET, Buffer.alloc(400), SILENT);
  await first.promise;
  // However long that took, there is room for two at most, for as much again that is owed, and one more.
  for (let i = 0; i < 20; i++) flows.send("one", TARGET, Buffer.alloc(400), SILENT);
  assert.ok(sent >= 2 && sent <= 7, `${sent} went out`);
  flows.close();
});

test("empty datagrams that wait have a bound too, and what has gone out makes room for others", async () => {
  await using world = await World.make();
  let found = Promise.withResolvers<void>();
  let sent = 0;
  const flows = world.flows(async () => {
    await found.promise;
    const socket = await world.dial();
    socket.send = () => {
      sent += 1;
    };
    return socket;
  });
  for (const key of ["one", "two"]) {
    found = Promise.withResolvers();
    sent = 0;
    for (let i = 0; i < 5_000; i++) flows.send(key, TARGET, Buffer.alloc(0), SILENT);
    found.resolve();
    // All that wait go out together.
    while (sent === 0) await new Promise((next) => setImmediate(next));
    assert.equal(sent, 1_024, key);
  }
  flows.close();
});

test("a flow that ends with the first of the datagrams that waited says why once, and the others are lost", async () => {
  await using world = await World.make();
  const told: (string | undefined)[] = [];
  const refused = Promise.withResolvers<void>();
  const flows = world.flows(world.dial, {
    limits: { ...NO_LIMITS, maxBytes: 100 },
    tell: (_target, failure) => told.push(failure?.message),
  });
  for (let i = 0; i < 3; i++) {
    flows.send("one", TARGET, Buffer.alloc(101), { ...SILENT, refuse: () => refused.resolve() });
  }
  await refused.promise;
  await new Promise((next) => setImmediate(next));
  assert.deepEqual(told, [undefined, "this sandbox has sent and received more than 100 bytes"]);
  assert.equal(flows.open, 0);
});

test("a flow whose host refuses what is sent is refused, also when it is the sender who is told", async () => {
  await using world = await World.make();
  const closed = createSocket("udp4").bind(0, "127.0.0.1");
  await once(closed, "listening");
  const { port } = closed.address();
  await new Promise<void>((done) => closed.close(done));
  const codes: (string | undefined)[] = [];
  const flows = world.flows(async () => {
    const socket = createSocket("udp4");
    world.dialled.push(socket);
    socket.connect(port, "127.0.0.1");
    await once(socket, "connect");
    const send = socket.send.bind(socket) as Send;
    const watched: Send = (payload, done) =>
      send(payload, (failure) => {
        codes.push(errno(failure));
        done(failure);
      });
    return Object.assign(socket, { send: watched });
  });
  const refused = Promise.withResolvers<void>();
  // The first is answered by the kernel before the second is sent; it tells that once, and not by an event of the socket.
  for (let i = 0; i < 2; i++) {
    flows.send("one", TARGET, Buffer.from("x"), { ...SILENT, refuse: () => refused.resolve() });
  }
  await refused.promise;
  assert.deepEqual(codes, [undefined, "ECONNREFUSED"]);
  assert.equal(flows.open, 0);
});
