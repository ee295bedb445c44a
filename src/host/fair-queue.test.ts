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

test("what waits for something lets others have its place, as many of a party as there are places, and works on at once", async () => {
  const queue = new FairQueue(2);
  const { signal } = new AbortController();
  const gates = Array.from({ length: 3 }, () => Promise.withResolvers<void>());
  const resting = gates.map(({ promise }) => queue.run("a", signal, (rest) => rest(() => promise)));
  assert.equal(queue.waiting("a"), 0, "the first two have no place, the third keeps its own");
  let done = false;
  const next = queue.run("a", signal, async () => {
    done = true;
  });
  assert.deepEqual([queue.waiting("a"), done], [1, false]);
  const held = Promise.withResolvers<void>();
  const other = queue.run("b", signal, () => held.promise);
  gates[0]?.resolve();
  await resting[0];
  assert.equal(done, false, "it had its place back while it ended, and the third has one");
  gates[2]?.resolve();
  await Promise.all([resting[2], next]);
  assert.equal(done, true);
  let idle = false;
  void queue.idle().then(() => {
    idle = true;
  });
  held.resolve();
  await other;
  await new Promise(setImmediate);
  assert.equal(idle, false, "one rests");
  gates[1]?.resolve();
  await resting[1];
  await queue.idle();
  const fails = queue.run("a", signal, (rest) => rest(() => Promise.reject(new Error("it failed"))));
  await assert.rejects(fails, /it failed/);
  await queue.idle();
});
