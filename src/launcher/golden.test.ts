/** Builds with real machines: test/launcher.test.ts. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { lock } from "../host/lock.ts";
import { dataPaths } from "../host/paths.ts";
import { GoldenBuilder } from "./golden.ts";
import type { SnapshotStore } from "./snapshot-store.ts";
import type { Target } from "./target.ts";

const PLACES = Math.max(2, Math.floor(availableParallelism() / 2));

test("few are built at a time, whoever asks for however many, and nobody's many keep another owner's waiting", async () => {
  const dir = await mkdtemp(join(tmpdir(), "golden-"));
  try {
    const paths = dataPaths(dir);
    await mkdir(paths.snapshots, { recursive: true });
    const looked: string[] = [];
    const gate = Promise.withResolvers<void>();
    const asked = new Set<string>();
    // It is not there at first; another process has built it, is what each finds out at last.
    const get = async (key: string): Promise<object | undefined> => {
      if (key === "there") return {};
      if (!asked.has(key)) return void asked.add(key);
      looked.push(key);
      await gate.promise;
      return {};
    };
    const none = {} as never;
    const builder = new GoldenBuilder(none, paths, { get } as unknown as SnapshotStore, none, none);
    // All of one shared template.
    const target = (key: string, owner: string) => ({ key, spec: { imageOwner: "its owner", owner } }) as Target;
    const ask = (owner: string, i: number): Promise<unknown> => builder.ensure(target(`${owner}-${i}`, owner));
    const many = Array.from({ length: 3 * PLACES }, (_, i) => ask("many", i));
    const one = ask("one", 0);
    while (!looked.includes("one-0")) await new Promise((wake) => setTimeout(wake, 5));
    assert.ok(looked.length <= Math.ceil(PLACES / 2) + 1, looked.join());
    assert.ok(builder.waiting(target("next", "many")) >= 2 * PLACES);
    assert.equal(await builder.ensure(target("there", "many")), undefined);
    gate.resolve();
    await Promise.all([...many, one]);
    assert.equal(looked.length, 3 * PLACES + 1);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("a build that hangs gives its place back within an hour, which begins with its turn", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "golden-"));
  t.after(() => rm(dir, { recursive: true }));
  const paths = dataPaths(dir);
  await mkdir(paths.snapshots, { recursive: true });
  const target = (key: string) => ({ key, spec: { owner: "one" }, image: { reference: "some/image" } }) as Target;
  const asked = new Set<string>();
  // The last one is there when its turn has come.
  const get = async (key: string): Promise<object | undefined> => {
    if (key === "next" && asked.has(key)) return {};
    return void asked.add(key);
  };
  const none = {} as never;
  const builder = new GoldenBuilder(none, paths, { get } as unknown as SnapshotStore, none, none);
  // As many as one owner has places.
  const hanging = Array.from({ length: Math.ceil(PLACES / 2) }, (_, i) => `held ${i}`);
  await using others = new AsyncDisposableStack();
  for (const key of hanging) others.use(await lock(paths.snapshots, `golden ${key}`));
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let ended = 0;
  const unasked = (): void => assert.fail("it has its turn at once");
  const held = hanging.map((key) =>
    assert.rejects(builder.ensure(target(key), undefined, unasked), (error: Error) => {
      ended += 1;
      assert.equal(error.message, "the golden snapshot of some/image was not built within an hour");
      return Reflect.get(error, "code") === "timeout";
    }),
  );
  while (!hanging.every((key) => asked.has(key))) await setImmediate();
  let queued = 0;
  const next = builder.ensure(target("next"), undefined, () => {
    queued += 1;
  });
  while (builder.waiting(target("next")) === 0) await setImmediate();
  t.mock.timers.tick(59 * 60_000);
  for (let i = 0; i < 20; i += 1) await setImmediate();
  assert.deepEqual([ended, builder.waiting(target("next")), queued], [0, 1, 1], "who waits is told so");
  t.mock.timers.tick(60_000);
  await Promise.all(held);
  assert.equal(await next, undefined);
});
