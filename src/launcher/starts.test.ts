import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { HELD_MS, Starts } from "./starts.ts";

/** Two places. Who has one, by name, in the order in which they got it. */
function bench() {
  const starts = new Starts(2);
  const begun: string[] = [];
  const places = new Map<string, Disposable>();
  const enter = async (name: string, signal?: AbortSignal): Promise<void> => {
    const place = await starts.enter(name.slice(0, 1), signal);
    begun.push(name);
    places.set(name, place);
  };
  const leave = async (name: string): Promise<void> => {
    places.get(name)?.[Symbol.dispose]();
    await settled();
  };
  return { begun, enter, leave };
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

test("one owner has all places while nobody else asks, and its next turn comes after everybody's", async () => {
  const { begun, enter, leave } = bench();
  const all = ["a1", "a2", "a3", "a4", "b1", "c1"].map((name) => enter(name));
  await settled();
  assert.deepEqual(begun, ["a1", "a2"]);
  for (const name of ["a2", "a1", "a3", "b1"]) await leave(name);
  await Promise.all(all);
  assert.deepEqual(begun, ["a1", "a2", "a3", "b1", "c1", "a4"]);
});

test("a place that is given back twice is one place", async () => {
  const { begun, enter, leave } = bench();
  void ["a1", "a2", "a3", "a4"].map((name) => enter(name));
  await settled();
  await leave("a1");
  await leave("a1");
  assert.deepEqual(begun, ["a1", "a2", "a3"]);
});

test("who goes away while it waits is not begun, and says why", async () => {
  const { begun, enter, leave } = bench();
  const gone = new AbortController();
  void enter("a1");
  void enter("a2");
  const waiting = enter("b1", gone.signal);
  void enter("c1");
  gone.abort(new Error("it has gone"));
  await assert.rejects(waiting, /it has gone/);
  await assert.rejects(enter("b2", gone.signal), /it has gone/);
  await leave("a1");
  assert.deepEqual(begun, ["a1", "a2", "c1"]);
});

test("a silent one holds its place for a while only", async (t: TestContext) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { begun, enter } = bench();
  void ["a1", "a2", "b1", "b2"].map((name) => enter(name));
  await settled();
  t.mock.timers.tick(HELD_MS - 1);
  await settled();
  assert.deepEqual(begun, ["a1", "a2"]);
  t.mock.timers.tick(1);
  await settled();
  assert.deepEqual(begun, ["a1", "a2", "b1", "b2"]);
});
