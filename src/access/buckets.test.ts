import assert from "node:assert/strict";
import { test } from "node:test";
import { Buckets } from "./buckets.ts";

test("so many at once, then as they are refilled; who waits as long as told gets one, and nobody saves up more", () => {
  let now = 0;
  const buckets = new Buckets({ burst: 3, perMinute: 60 }, () => now);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => buckets.take("a").taken),
    [true, true, true, false],
  );
  assert.equal(buckets.take("b").taken, true, "another one's is full");
  const { waitMs } = buckets.take("a");
  assert.equal(waitMs, 1_000);
  now += waitMs - 1;
  assert.equal(buckets.take("a").taken, false);
  now += 1;
  assert.deepEqual(buckets.take("a"), { taken: true, left: 0, waitMs: 0 });
  now += 3_600_000;
  assert.equal(buckets.level("a"), 3);
});

test("names without end cost bounded memory: the one used longest ago gives way", () => {
  const buckets = new Buckets({ burst: 1, perMinute: 1 }, () => 0);
  for (let i = 0; i < 10_000; i++) buckets.take(`name ${i}`);
  buckets.take("name 0");
  buckets.take("one more");
  assert.deepEqual([buckets.size, buckets.forgotten], [10_000, 1]);
  assert.deepEqual([buckets.level("name 0"), buckets.level("name 1"), buckets.level("name 2")], [0, 1, 0]);
});
