import assert from "node:assert/strict";
import { test } from "node:test";
import { Demand } from "./demand.ts";

const MINUTE = 60_000;

test("steady arrivals keep what arrives during one refill", () => {
  const demand = new Demand({ windowMs: 5_000 });
  for (let now = 0; now < 10 * MINUTE; now += 1_000) demand.arrive(now);
  assert.equal(demand.target(10 * MINUTE), 5);
});

test("a burst raises the target at once, and silence forgets it", () => {
  const demand = new Demand({ windowMs: 5_000 });
  for (let i = 0; i < 10; i++) demand.arrive(1_000);
  assert.equal(demand.target(1_000), 10);
  assert.equal(demand.target(1_000 + 5 * MINUTE), 5);
  assert.equal(demand.target(1_000 + 10 * MINUTE), 3);
  assert.equal(demand.target(1_000 + 30 * MINUTE), 0);
});

test("a smaller burst does not lower the memory of a larger one that is still fresh", () => {
  const demand = new Demand({ windowMs: 5_000 });
  for (let i = 0; i < 20; i++) demand.arrive(0);
  for (let i = 0; i < 4; i++) demand.arrive(MINUTE);
  assert.equal(demand.target(MINUTE), 17);
});

test("a daily wave is followed up and down", () => {
  const demand = new Demand({ windowMs: 5_000 });
  const targets: number[] = [];
  let next = 0;
  // One arrival every 0.5 s at noon, one a minute at midnight.
  for (let now = 0; now < 24 * 60 * MINUTE; now += 500) {
    const day = (1 - Math.cos((2 * Math.PI * now) / (24 * 60 * MINUTE))) / 2;
    if (now >= next) {
      demand.arrive(now);
      next = now + MINUTE * (1 - day) + 500 * day;
    }
    if (now % (6 * 60 * MINUTE) === 0) targets.push(demand.target(now));
  }
  const [midnight = 99, morning = 0, noon = 0, evening = 0] = targets;
  assert.ok(midnight <= 1, `midnight ${midnight}`);
  assert.ok(noon >= 5, `noon ${noon}`);
  assert.ok(morning < noon && evening < noon, `morning ${morning}, evening ${evening}`);
});

test("a slow refill asks for more stock", () => {
  const slow = new Demand({ windowMs: 1_000 });
  for (let i = 0; i < 50; i++) slow.refillTook(20_000);
  for (let now = 0; now < MINUTE; now += 1_000) slow.arrive(now);
  assert.ok(slow.target(MINUTE) >= 19);
});
