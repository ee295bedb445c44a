import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { relay } from "../host/relay.ts";
import { Meter, NO_LIMITS } from "./meter.ts";

test("bytes are counted in each direction, for the sandbox and for all together", () => {
  const all = { sent: 0, received: 0 };
  const one = new Meter(NO_LIMITS, all);
  const other = new Meter(NO_LIMITS, all);
  assert.equal(one.sent(10), 0);
  one.received(5);
  other.received(7);
  assert.deepEqual(one.traffic, { sent: 10, received: 5 });
  assert.deepEqual(all, { sent: 10, received: 12 });
});

test("over its bytes a sandbox gets no further, in connections that are open and in new ones", () => {
  const meter = new Meter({ ...NO_LIMITS, maxBytes: 100 });
  meter.connection();
  meter.sent(60);
  assert.throws(() => meter.received(60), /more than 100 bytes/);
  assert.throws(() => meter.connection(), /more than 100 bytes/);
});

test("new connections are limited by the minute, and are possible again as it passes", () => {
  let now = 0;
  const meter = new Meter({ ...NO_LIMITS, connectionsPerMinute: 3 }, undefined, () => now);
  for (let i = 0; i < 3; i++) meter.connection();
  assert.throws(() => meter.connection(), /more than 3 connections a minute/);
  now += 20_000;
  meter.connection();
  assert.throws(() => meter.connection());
});

test("what is over the rate is waited for, as long as it takes at that rate", () => {
  let now = 0;
  const meter = new Meter({ ...NO_LIMITS, bytesPerSecond: 1_000 }, undefined, () => now);
  assert.equal(meter.sent(1_000), 0);
  assert.equal(meter.sent(500), 500);
  assert.equal(meter.received(500), 1_000);
  now += 1_000;
  assert.equal(meter.sent(100), 100);
});

test("what is behind already holds the first piece of another connection, too", async () => {
  const meter = new Meter({ ...NO_LIMITS, bytesPerSecond: 10_000 });
  const begun = performance.now();
  for (let i = 0; i < 4; i++) {
    const [from, to] = [new PassThrough(), new PassThrough()];
    relay(from, to, undefined, meter.received);
    from.end(Buffer.alloc(3_000));
    assert.equal(Buffer.concat(await to.toArray()).length, 3_000);
  }
  assert.ok(performance.now() - begun >= 195, "12,000 bytes, and a second's worth of them at once");
});

test("what may be lost is, where the sandbox is further behind than a second's worth, and counts where not", () => {
  let now = 0;
  const meter = new Meter({ ...NO_LIMITS, bytesPerSecond: 1_000 }, undefined, () => now);
  const gone = Array.from({ length: 10 }, () => meter.lets("sent", 500));
  assert.equal(gone.filter(Boolean).length, 5);
  assert.equal(meter.traffic.sent, 2_500);
  now += 10_000;
  assert.ok(meter.lets("received", 500));
});

test("a relay keeps to the rate, loses nothing, and ends with the limit", async () => {
  const paced = new Meter({ ...NO_LIMITS, bytesPerSecond: 10_000 });
  const [from, to] = [new PassThrough(), new PassThrough()];
  const begun = performance.now();
  relay(from, to, undefined, paced.sent);
  for (let i = 0; i < 12; i++) from.write(Buffer.alloc(1_000, i));
  from.end();
  const got = Buffer.concat(await to.toArray());
  assert.equal(got.length, 12_000);
  assert.deepEqual([got[0], got.at(-1)], [0, 11]);
  assert.ok(performance.now() - begun >= 195, "2,000 bytes over a second's worth take 200 ms");
  const spent = new Meter({ ...NO_LIMITS, maxBytes: 1_500 });
  const [more, gone] = [new PassThrough(), new PassThrough()];
  const over = Promise.withResolvers<Error | undefined>();
  relay(more, gone, over.resolve, spent.sent);
  more.write(Buffer.alloc(1_000));
  more.write(Buffer.alloc(1_000));
  assert.match(String(await over.promise), /more than 1500 bytes/);
  assert.ok(more.destroyed && gone.destroyed);
});
