import assert from "node:assert/strict";
import { test } from "node:test";
import { MOST_WATCHES, WatchBudget } from "./watch-budget.ts";

test("helpers of one user have half of the host's inotify together, each its own user's, and what is given back goes to the next", async () => {
  const budget = new WatchBudget(async () => ({ instances: 5, watches: 3 * MOST_WATCHES }));
  const first = await budget.take(1000);
  const second = await budget.take(1000);
  // Half of the watches is one and a half of what a helper takes; half of five instances is two.
  assert.deepEqual([first.watches, second.watches], [MOST_WATCHES, MOST_WATCHES / 2]);
  assert.equal((await budget.take(1000)).watches, 0);
  const other = await budget.take(0);
  assert.equal(other.watches, MOST_WATCHES);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.equal((await budget.take(1000)).watches, MOST_WATCHES);
  assert.equal((await budget.take(1000)).watches, 0);
});
