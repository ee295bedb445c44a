import assert from "node:assert/strict";
import { test } from "node:test";
import { SerialQueue } from "./serial-queue.ts";

test("pieces run one after another, in order, also after one that failed", async () => {
  const queue = new SerialQueue();
  const seen: string[] = [];
  const piece = (name: string) => async (): Promise<void> => {
    seen.push(`${name} begins`);
    await new Promise((wake) => setImmediate(wake));
    seen.push(`${name} ends`);
    if (name === "a") throw new Error("a failed");
  };
  const a = queue.run(piece("a"));
  const b = queue.run(piece("b"));
  await assert.rejects(a, /a failed/);
  assert.equal(queue.busy, true);
  await b;
  assert.deepEqual(seen, ["a begins", "a ends", "b begins", "b ends"]);
  await new Promise((wake) => setImmediate(wake));
  assert.equal(queue.busy, false);
});

test("an end tells what is under way, refuses what waits, and settles when nothing runs any more", async () => {
  const queue = new SerialQueue();
  const order: string[] = [];
  const running = queue.run(async (signal) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    await new Promise((wake) => setImmediate(wake));
    order.push("the piece has cleaned up");
    signal.throwIfAborted();
  });
  const waiting = queue.run(async () => order.push("never"));
  const failures = Promise.allSettled([running, waiting]);
  await new Promise((wake) => setImmediate(wake));
  await queue.close(new Error("over"));
  order.push("closed");
  assert.deepEqual(order, ["the piece has cleaned up", "closed"]);
  for (const result of await failures) assert.match(String((result as PromiseRejectedResult).reason), /over/);
  await assert.rejects(
    queue.run(async () => {}),
    /over/,
  );
});
