import assert from "node:assert/strict";
import { test } from "node:test";
import { NameBudget } from "./name-budget.ts";

test("builds that run at once keep so much of names together; what one had is free when it has ended", () => {
  const budget = new NameBudget(100);
  const [one, other] = [budget.share(), budget.share()];
  one.take(60);
  other.take(40);
  assert.throws(() => other.take(1), { code: "limit" });
  other[Symbol.dispose]();
  one.take(40);
  assert.throws(() => budget.share().take(1), { code: "limit" });
  one[Symbol.dispose]();
  one[Symbol.dispose]();
  budget.share().take(100);
});

test("one owner's builds leave room for others", () => {
  const budget = new NameBudget(100);
  const mine = [budget.share("a"), budget.share("a")];
  mine[0]?.take(40);
  assert.throws(() => mine[1]?.take(30), { code: "limit" });
  budget.share("b").take(20);
});
