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
  const state = { now: 0, freeShare: 0.5, attempts: 0, built: [] as string[], building: Promise.resolve() };
  const pool = new Pool(
    {
      vmm: { abilities: { blank: false } } as never,
      sandboxes,
      store: {
        get: async () => {
          state.attempts += 1;
          return undefined;
        },
        use: () => () => {},
      },
      memory: {
        freeShare: async () => {
          if (state.freeShare < 0) throw new Error("EMFILE");
          return state.freeShare;
        },
        privateBytes: async () => 0,
      },
      events: { emit: () => true },
      build: async ({ key }) => {
        state.built.push(key);
        await state.building;
      },
      relaxed: () => {},
      now: () => state.now,
    },
    {
      maxWarm: 4,
      maxIdle: 1,
      maxBlank: 0,
      adaptive: true,
      memoryBudget: 1 << 30,
      maxAgeMs: 1e9,
      parallel: 1,
      ...limits,
    },
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

test("refilling gives way to a spawn, and happens when the spawn has ended", async () => {
  await using w = await world({});
  const ended = w.pool.arrive(target);
  await w.tick(400);
  assert.equal(w.state.attempts, 0);
  ended();
  await w.tick(100);
  assert.ok(w.state.attempts > 0);
});

test("under a steady load, where there is always a spawn in progress, the pool is refilled all the same", async () => {
  await using w = await world({});
  let ended = w.pool.arrive(target);
  for (let i = 0; i < 30; i++) {
    const next = w.pool.arrive(target);
    ended();
    ended = next;
    await w.tick(300);
  }
  assert.ok(w.state.attempts >= 2, `${w.state.attempts} refills in nine seconds`);
  ended();
});

test("two templates of one shape are kept their promises both, and a changed one lets go of its former shape", async () => {
  await using w = await world({ adaptive: false });
  const other = { ...target, key: "b" } as Target;
  const wanted = (): Record<string, number> =>
    Object.fromEntries(w.pool.status().map(({ target: { key }, wanted }) => [key, wanted]));
  w.pool.pin("one", target, 2);
  w.pool.pin("two", target, 3);
  assert.deepEqual(wanted(), { a: 5 });
  w.pool.pin("one", other, 2);
  assert.deepEqual(wanted(), { a: 3, b: 2 });
  w.pool.unpin("two");
  assert.deepEqual(wanted(), { a: 0, b: 2 });
});

test("a pin outlives the removal of its snapshot, which is built again", async () => {
  await using w = await world({ adaptive: false });
  w.pool.pin("one", target, 1);
  await w.tick();
  w.state.built.length = 0;
  await w.pool.empty(target.key);
  assert.deepEqual(w.pool.status(), []);
  await w.tick();
  await w.tick();
  assert.deepEqual(
    w.pool.status().map(({ wanted }) => wanted),
    [1],
  );
  assert.ok(w.state.built.includes(target.key));
});

test("a snapshot that takes long to build holds up no refill of another shape, and is built once", async () => {
  await using w = await world({ adaptive: false });
  const { promise, resolve } = Promise.withResolvers<void>();
  w.state.building = promise;
  w.pool.pin("one", target, 1);
  await w.tick();
  w.pool.pin("two", { ...target, key: "b" } as Target, 1);
  await w.tick();
  await w.tick();
  const { attempts, built } = w.state;
  resolve();
  assert.deepEqual(built, ["a", "b"]);
  await w.tick();
  assert.ok(w.state.attempts > attempts, "what was built is looked for at once");
});

test("a host that does not say how much memory is free stops neither the pool nor the process", async () => {
  await using w = await world({});
  w.state.freeShare = -1;
  w.pool.arrive(target)();
  await w.tick();
  await w.tick();
  assert.ok(w.state.attempts > 0);
});

test("under memory pressure nothing is made until the host has relaxed", async () => {
  await using w = await world({});
  w.state.freeShare = 0.05;
  await w.tick();
  w.pool.pin(target.key, target, 1);
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
  w.pool.pin("one", { ...target, key: "b" } as Target, 1);
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
