import assert from "node:assert/strict";
import { test } from "node:test";
import { MOST_WATCHES, WatchBudget } from "./watch-budget.ts";

test("helpers of one user have half of the host's inotify together, each its own user's, and what is given back goes to the next", async () => {
  const budget = new WatchBudget(async () => ({ instances: 5, watches: 20 * MOST_WATCHES }));
  const first = await budget.take(1000);
  const second = await budget.take(1000);
  // An eighth of what is left, at most what one helper needs; half of five instances is two.
  assert.deepEqual([first.watches, second.watches], [MOST_WATCHES, MOST_WATCHES]);
  assert.equal((await budget.take(1000)).watches, 0);
  const other = await budget.take(0);
  assert.equal(other.watches, MOST_WATCHES);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.equal((await budget.take(1000)).watches, MOST_WATCHES);
  assert.equal((await budget.take(1000)).watches, 0);
});

test("where a user has few watches there are some for many helpers", async () => {
  const budget = new WatchBudget(async () => ({ instances: 1_000, watches: 8_192 }));
  const grants: number[] = [];
  for (let i = 0; i < 50; i++) grants.push((await budget.take(0)).watches);
  assert.ok(
    grants.slice(0, 20).every((watches) => watches >= 64),
    grants.join(" "),
  );
  assert.ok(grants.reduce((sum, each) => sum + each, 0) <= 4_096);
});
