import assert from "node:assert/strict";
import { test } from "node:test";
import { NameBudget } from "./name-budget.ts";

test("builds that run at once keep so many names together; what one had is free when it has ended", () => {
  const budget = new NameBudget(100);
  const [one, other] = [budget.share(), budget.share()];
  one.set(60);
  other.set(40);
  assert.throws(() => other.set(41), { code: "limit" });
  other.set(0);
  one.set(100);
  assert.throws(() => budget.share().set(1), { code: "limit" });
  one.set(0);
  one.set(0);
  budget.share().set(99);
});
