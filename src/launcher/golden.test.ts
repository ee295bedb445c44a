/** Builds with real machines: test/launcher.test.ts. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataPaths } from "../host/paths.ts";
import { GoldenBuilder } from "./golden.ts";
import type { SnapshotStore } from "./snapshot-store.ts";
import type { Target } from "./target.ts";

test("few are built at a time, whoever asks for however many, and nobody's many keep another owner's waiting", async () => {
  const dir = await mkdtemp(join(tmpdir(), "golden-"));
  try {
    const paths = dataPaths(dir);
    await mkdir(paths.snapshots, { recursive: true });
    const places = Math.max(2, Math.floor(availableParallelism() / 2));
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
    const many = Array.from({ length: 3 * places }, (_, i) => ask("many", i));
    const one = ask("one", 0);
    while (!looked.includes("one-0")) await new Promise((wake) => setTimeout(wake, 5));
    assert.ok(looked.length <= Math.ceil(places / 2) + 1, looked.join());
    assert.ok(builder.waiting(target("next", "many")) >= 2 * places);
    assert.equal(await builder.ensure(target("there", "many")), undefined);
    gate.resolve();
    await Promise.all([...many, one]);
    assert.equal(looked.length, 3 * places + 1);
  } finally {
    await rm(dir, { recursive: true });
  }
});
