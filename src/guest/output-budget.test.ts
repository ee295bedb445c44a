import assert from "node:assert/strict";
import { test } from "node:test";
import { OutputBudget } from "./output-budget.ts";

test("a call has its limit, all together have one, and what was taken is given back", () => {
  const budget = new OutputBudget(60, 100);
  const [one, two] = [budget.open(), budget.open()];
  assert.deepEqual([one.take(50), one.take(50), two.take(50)], [50, 10, 40]);
  one[Symbol.dispose]();
  assert.deepEqual([two.take(50), one.take(100)], [20, 40]);
});

test("one party's calls leave as much to the others as they have", () => {
  const budget = new OutputBudget(60, 100);
  const calls = ["a", "a", "b", "c"].map((party) => budget.open(party));
  assert.deepEqual(
    calls.map((call) => call.take(60)),
    [50, 0, 25, 12],
  );
  calls[0]?.[Symbol.dispose]();
  assert.equal(calls[1]?.take(60), 31, "of 63 that are free");
});
