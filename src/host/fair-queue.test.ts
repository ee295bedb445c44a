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

test("several at a time: one party has half of the places, and whoever leaves while it waits is not begun", async () => {
  const queue = new FairQueue(4);
  const ends: (() => void)[] = [];
  const begun: string[] = [];
  const gone = new AbortController();
  const run = (party: string, signal = new AbortController().signal): Promise<string> =>
    queue.run(party, signal, () => {
      begun.push(party);
      return new Promise((resolve) => ends.push(() => resolve(party)));
    });
  const all = [run("a"), run("a"), run("a"), run("b")];
  const left = run("a", gone.signal);
  assert.deepEqual(begun, ["a", "a", "b"]);
  gone.abort(new Error("it has gone"));
  await assert.rejects(left, /it has gone/);
  all.push(run("c"));
  assert.deepEqual(begun, ["a", "a", "b", "c"]);
  ends[0]?.();
  assert.equal(await all[0], "a");
  while (ends.length < 5) await new Promise(setImmediate);
  for (const end of ends) end();
  assert.deepEqual(await Promise.all(all), ["a", "a", "a", "b", "c"]);
  await queue.idle();
  assert.deepEqual(begun, ["a", "a", "b", "c", "a"]);
  const failing = (signal: AbortSignal) => queue.run("a", signal, () => Promise.reject(new Error("it failed")));
  await assert.rejects(failing(gone.signal), /it has gone/);
  await assert.rejects(failing(new AbortController().signal), /it failed/);
});
