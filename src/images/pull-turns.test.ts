import assert from "node:assert/strict";
import { test } from "node:test";
import { PullTurns } from "./pull-turns.ts";

test("a pull that takes longer than an hour ends, and its place is free", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const turns = new PullTurns();
  const hangs = (signal: AbortSignal): Promise<string> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("it hung"))));
  const first = [1, 2].map(() => turns.run("a", undefined, () => {}, hangs));
  const waited: number[] = [];
  const third = turns.run(
    "a",
    undefined,
    (count) => waited.push(count),
    async () => "third",
  );
  t.mock.timers.tick(3_599_999);
  t.mock.timers.tick(1);
  for (const each of first) await assert.rejects(each, { code: "timeout", remedy: /layers that have come are kept/ });
  assert.equal(await third, "third");
  assert.deepEqual(waited, [1]);
});
