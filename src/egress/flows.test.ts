import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { test } from "node:test";
import { Flows } from "./flows.ts";
import { Meter, NO_LIMITS, type TrafficLimits } from "./meter.ts";

const TARGET = { host: "a.example", port: 9 };
const SILENT = { answer: () => {}, refuse: () => {} };

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

  flows(dial: () => Promise<Socket>, more: { most?: number; idleMs?: number; limits?: TrafficLimits } = {}): Flows {
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
  // However long that took, there is room for two at most, and one more is owed for.
  for (let i = 0; i < 20; i++) flows.send("one", TARGET, Buffer.alloc(400), SILENT);
  assert.ok(sent >= 2 && sent <= 4, `${sent} went out`);
  flows.close();
});
