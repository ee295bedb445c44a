import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { test } from "node:test";
import { push } from "./push.ts";

/** A peer that takes a piece when it is told to. */
function stalled() {
  const takes: (() => void)[] = [];
  const stream = new Writable({ highWaterMark: 1, write: (_data, _encoding, done) => void takes.push(done) });
  const listeners = (): number => stream.listenerCount("drain") + stream.listenerCount("close");
  return { stream, take: () => takes.shift()?.(), listeners };
}

test("each write that waits leaves no listener behind, whether it was taken or its stream was closed", async () => {
  const { stream, take, listeners } = stalled();
  const before = listeners();
  for (let i = 0; i < 20; i++) {
    const written = push(stream, Buffer.from("x"));
    assert.ok(listeners() > before, "it waits");
    take();
    assert.equal(await written, true);
  }
  assert.equal(listeners(), before);
  const waiting = push(stream, Buffer.from("x"));
  stream.destroy();
  assert.equal(await waiting, false);
  assert.equal(listeners(), before);
});

test("a write after the end or the close settles at once", async () => {
  const [ended, closed] = [stalled().stream, stalled().stream];
  ended.end();
  closed.destroy();
  assert.deepEqual(await Promise.all([push(ended, Buffer.from("x")), push(closed, Buffer.from("x"))]), [false, false]);
});
