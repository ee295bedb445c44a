import assert from "node:assert/strict";
import { test } from "node:test";
import { FairQueue } from "./fair-queue.ts";

test("one piece at a time, and each party's next piece comes after one of every other's", async () => {
  const queue = new FairQueue();
  const done: string[] = [];
  let under = 0;
  const add = (name: string): void =>
    queue.add(name.slice(0, 1), async () => {
      assert.equal(++under, 1);
      await new Promise(setImmediate);
      under -= 1;
      done.push(name);
    });
  for (const name of ["a1", "a2", "a3", "a4", "b1", "b2", "c1"]) add(name);
  assert.equal(queue.waiting("a"), 3, "the first has begun");
  await queue.idle();
  assert.deepEqual(done, ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]);
  add("a5");
  await queue.idle();
  assert.deepEqual([done.at(-1), queue.waiting("a")], ["a5", 0]);
});
