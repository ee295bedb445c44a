import assert from "node:assert/strict";
import { Duplex, duplexPair } from "node:stream";
import { test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import { InSlices } from "./in-slices.ts";

/** A connection on which this comes in one piece. */
function connectionWith(bytes: Buffer): Duplex {
  return new Duplex({
    read() {
      this.push(bytes);
      this.push(null);
    },
    write: (_piece, _encoding, done) => done(),
  });
}

test("a large piece comes in slices, whole, and others have their turn between them", async () => {
  const bytes = Buffer.from(Array.from({ length: 400_000 }, (_, at) => at % 251));
  const turns = countTurns();
  const slices: Buffer[] = [];
  for await (const slice of new InSlices(connectionWith(bytes))) {
    slices.push(slice);
    // A parser that is kept busy.
    for (const until = performance.now() + 0.5; performance.now() < until; );
  }
  assert.ok(turns() > 20);
  assert.ok(slices.every((slice) => slice.length <= 4096));
  assert.ok(Buffer.concat(slices).equals(bytes));
});

test("a released connection has what was not read of it yet, in order, and is no longer ended by its slices", async () => {
  const [near, far] = duplexPair();
  const bytes = Buffer.from(Array.from({ length: 20_000 }, (_, at) => at % 251));
  far.write(bytes);
  const slices = new InSlices(near);
  const first = await new Promise<Buffer>((resolve) => {
    slices.once("data", (slice) => {
      slices.pause();
      resolve(slice);
    });
  });
  const released = slices.release();
  assert.equal(released, near);
  slices.destroy();
  far.end("the end");
  const rest = Buffer.concat(await Array.fromAsync(near as AsyncIterable<Buffer>));
  assert.ok(Buffer.concat([first, rest]).equals(Buffer.concat([bytes, Buffer.from("the end")])));
});

test("what ends the connection ends it, an end too early is an error, and its own end is the connection's", async () => {
  const [near, far] = duplexPair();
  const slices = new InSlices(near);
  const failed = new Promise<Error>((resolve) => slices.once("error", resolve));
  near.destroy();
  assert.match((await failed).message, /closed before its end/);
  far.destroy();
  const [other, peer] = duplexPair();
  const whole = new InSlices(other);
  peer.end("bye");
  whole.end("too");
  assert.equal(String(Buffer.concat(await Array.fromAsync(peer as AsyncIterable<Buffer>))), "too");
  assert.equal(String(Buffer.concat(await Array.fromAsync(whole as AsyncIterable<Buffer>))), "bye");
  whole.destroy();
  assert.ok(other.destroyed);
});
