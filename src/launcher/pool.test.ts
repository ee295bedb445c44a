/** The pool's policy on an injected clock, with stand-ins for machines: real ones are in test/pool.test.ts. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mock, test } from "node:test";
import { Pool, type PoolLimits } from "./pool.ts";
import type { Target } from "./target.ts";

const TICK_MS = 2_000;

/** A pool whose every attempt to refill is counted, and finds no snapshot. */
async function world(limits: Partial<PoolLimits>) {
  const sandboxes = await mkdtemp(join(tmpdir(), "pool-"));
  mock.timers.enable({ apis: ["setInterval"] });
  const state = { now: 0, freeShare: 0.5, attempts: 0 };
  const pool = new Pool(
    {
      vmm: {} as never,
      sandboxes,
      snapshot: async () => {
        state.attempts += 1;
        return undefined;
      },
      use: () => () => {},
      privateBytes: async () => 0,
      now: () => state.now,
      freeShare: async () => state.freeShare,
      emit: () => {},
    },
    { maxWarm: 4, maxIdle: 1, adaptive: true, memoryBudget: 1 << 30, maxAgeMs: 1e9, parallel: 1, ...limits },
  );
  return {
    pool,
    state,
    /** One turn of the pool's own clock. */
    async tick(ms = TICK_MS): Promise<void> {
      state.now += ms;
      mock.timers.tick(TICK_MS);
      for (let i = 0; i < 5; i++) await new Promise((wake) => setImmediate(wake));
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await pool.close();
      mock.timers.reset();
      await rm(sandboxes, { recursive: true, force: true });
    },
  };
}

const target = { key: "a", image: { reference: "image" } } as Target;

test("nothing is made while a spawn is in progress, and it is made when the spawn has ended", async () => {
  await using w = await world({});
  const ended = w.pool.arrive(target);
  await w.tick();
  assert.equal(w.state.attempts, 0);
  ended();
  await w.tick();
  assert.ok(w.state.attempts > 0);
});

test("under memory pressure nothing is made until the host has relaxed", async () => {
  await using w = await world({});
  w.state.freeShare = 0.05;
  await w.tick();
  w.pool.pin(target, 1);
  for (const share of [0.05, 0.09, 0.14]) {
    w.state.freeShare = share;
    await w.tick();
  }
  assert.equal(w.state.attempts, 0, "0.14 is above the mark of pressure, not above that of relief");
  w.state.freeShare = 0.2;
  await w.tick();
  assert.ok(w.state.attempts > 0);
});

test("a shape that nobody asks for any more is forgotten, a pinned one is not", async () => {
  await using w = await world({});
  w.pool.arrive(target)();
  w.pool.pin({ ...target, key: "b" } as Target, 1);
  await w.tick();
  assert.deepEqual(
    w.pool.status().map(({ target: { key } }) => key),
    ["a", "b"],
  );
  await w.tick(2 * 60 * 60_000);
  assert.deepEqual(
    w.pool.status().map(({ target: { key } }) => key),
    ["b"],
  );
});
