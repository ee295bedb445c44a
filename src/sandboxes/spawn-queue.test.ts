import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settle } from "../../test/fake-provider.ts";
import { SpawnQueue } from "./spawn-queue.ts";

function queueOf() {
  const clock = new FakeClock();
  const queue = new SpawnQueue(clock);
  let room = 0;
  const came: string[] = [];
  const wait = (
    name: string,
    { owner = "one", ...options }: { owner?: string; timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<void> =>
    queue.wait(
      owner,
      () => {
        if (room === 0) return false;
        room -= 1;
        came.push(name);
        return true;
      },
      { max: 3, timeoutMs: 10_000, ...options },
    );
  return { clock, queue, wait, came, make: (places: number) => (room += places) };
}

test("first come, first served, as many as there is room for", async () => {
  const { queue, wait, came, make } = queueOf();
  const all = ["a", "b", "c"].map((name) => wait(name));
  queue.advance();
  assert.deepEqual(came, []);
  make(2);
  queue.advance();
  await Promise.all(all.slice(0, 2));
  assert.deepEqual([came, queue.length], [["a", "b"], 1]);
  make(1);
  queue.advance();
  await all[2];
  assert.deepEqual(queue.counts.left, 3);
});

test("it is bounded in number and in time; who leaves holds nobody up", async () => {
  const { clock, queue, wait, came, make } = queueOf();
  const abort = new AbortController();
  const leaves = assert.rejects(wait("leaves", { signal: abort.signal }), { code: "cancelled" });
  const late = assert.rejects(wait("late", { timeoutMs: 5_000 }), { code: "timeout", phase: "queue" });
  const last = wait("last");
  await assert.rejects(wait("too many"), { code: "limit" });
  abort.abort();
  await leaves;
  await clock.pass(6_000);
  await late;
  make(1);
  queue.advance();
  await last;
  assert.deepEqual([came, queue.length], [["last"], 0]);
  assert.deepEqual([queue.counts.entered, queue.counts.left, queue.counts.timedOut], [3, 1, 1]);
  await assert.rejects(wait("gone already", { signal: AbortSignal.abort() }), { code: "cancelled" });
  assert.equal(queue.length, 0);
});

test("a stop ends all waiting, and no timer of theirs is left", async () => {
  const { clock, queue, wait } = queueOf();
  const all = ["a", "b"].map((name) => assert.rejects(wait(name), { code: "unavailable" }));
  queue.close();
  await Promise.all(all);
  await clock.pass(20_000);
  await settle();
  assert.equal(queue.counts.timedOut, 0);
});

test("owners take turns, and who has most in a full queue makes room for who has less", async () => {
  const { queue, wait, came, make } = queueOf();
  const all = ["a1", "a2"].map((name) => wait(name, { owner: "a" }));
  const last = wait("a3", { owner: "a" });
  const refused = assert.rejects(last, { code: "limit" });
  all.push(wait("b1", { owner: "b" }));
  await refused;
  // What is theirs already is not taken from them for an equal.
  await assert.rejects(wait("b2", { owner: "b" }), { code: "limit" });
  await assert.rejects(wait("a4", { owner: "a" }), { code: "limit" });
  make(3);
  queue.advance();
  await Promise.all(all);
  assert.deepEqual([came, queue.length], [["a1", "b1", "a2"], 0]);
});
