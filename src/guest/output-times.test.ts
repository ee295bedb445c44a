import assert from "node:assert/strict";
import { test } from "node:test";
import { OutputTimes } from "./output-times.ts";

test("each position has the time that was last said before it, and a flood of times is not kept", () => {
  const times = new OutputTimes();
  assert.equal(times.at(0), undefined);
  times.add(10, 1_000);
  times.add(20, 2_000);
  assert.deepEqual(
    [5, 10, 15].map((at) => times.at(at)),
    [undefined, 1_000, 1_000],
  );
  times.add(30, 500);
  assert.deepEqual(
    [29, 30].map((at) => times.at(at)),
    [2_000, 500],
  );
  for (let i = 0; i < 100_000; i++) times.add(40 + i, i);
  assert.equal(times.at(1_000_000), 65_535);
});
