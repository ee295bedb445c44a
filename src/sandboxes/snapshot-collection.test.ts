import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import type { SnapshotInfo } from "../providers/provider.ts";
import { collectSnapshots } from "./snapshot-collection.ts";

const HOUR = 3_600_000;
const NOW = 1_000 * HOUR;

/** @param unused hours since it was used last */
function snapshot(key: string, unused: number, bytes: number, more: Partial<SnapshotInfo> = {}): SnapshotInfo {
  return {
    key,
    kind: "golden",
    image: "some/image",
    imageDigest: "sha256:0",
    vmm: "qemu",
    vcpus: 1,
    memoryMiB: 256,
    diskMiB: 256,
    createdAt: 0,
    lastUsedAt: NOW - unused * HOUR,
    bytes,
    inUse: 0,
    ...more,
  };
}

/** Removes what it is told to, but never `taken`: somebody has just started from that one. */
function owner(snapshots: SnapshotInfo[], taken?: string) {
  const gone: string[] = [];
  return {
    gone,
    snapshots: async () => snapshots,
    removeSnapshot: async (key: string) => {
      if (key === taken) throw new StacyError("conflict", "it is in use");
      gone.push(key);
    },
  };
}

test("least recently used first, over all providers, until the rest fits", async () => {
  const one = owner([snapshot("newest", 1, 100), snapshot("oldest", 9, 100)]);
  const two = owner([snapshot("middle", 5, 100), snapshot("in use", 20, 100, { inUse: 2 })]);
  const done = await collectSnapshots([one, two], NOW, { maxBytes: 250 });
  assert.deepEqual([one.gone, two.gone], [["oldest"], ["middle"]]);
  assert.deepEqual(
    done.kept.map(({ key, reason }) => [key, reason]),
    [
      ["in use", "2 machines run from it"],
      ["newest", "there is room for it"],
    ],
  );
});

test("what was used last stays, however small the limit; with a limit of nothing it goes as well", async () => {
  const list = [snapshot("old", 9, 100), snapshot("last", 1, 100)];
  const small = owner(list);
  await collectSnapshots([small], NOW, { maxBytes: 1 });
  assert.deepEqual(small.gone, ["old"]);
  const none = owner(list);
  await collectSnapshots([none], NOW, { maxBytes: 0 });
  assert.deepEqual(none.gone, ["old", "last"]);
});

test("what nobody started from for long goes, also where there is room; a checkpoint only when asked for", async () => {
  const list = [snapshot("old", 100, 1), snapshot("mine", 99, 1, { kind: "checkpoint" }), snapshot("new", 1, 1)];
  const careful = owner(list);
  await collectSnapshots([careful], NOW, { maxUnusedMs: 50 * HOUR });
  assert.deepEqual(careful.gone, ["old"]);
  const asked = owner(list);
  await collectSnapshots([asked], NOW, { maxUnusedMs: 50 * HOUR, checkpoints: true });
  assert.deepEqual(asked.gone, ["old", "mine"]);
});

test("a dry run removes nothing and says the same; one that was taken in between stays, and the next goes instead", async () => {
  const list = [snapshot("a", 9, 100), snapshot("b", 8, 100), snapshot("c", 7, 100)];
  const dry = owner(list);
  const said = await collectSnapshots([dry], NOW, { maxBytes: 200, dryRun: true });
  assert.deepEqual([dry.gone, said.removed.map(({ key }) => key)], [[], ["a"]]);
  assert.match(said.removed[0]?.reason ?? "", /300 B in all, the limit is 200 B/);
  const real = owner(list, "a");
  const done = await collectSnapshots([real], NOW, { maxBytes: 200 });
  assert.deepEqual(
    [real.gone, done.kept[0]],
    [["b"], { key: "a", image: "some/image", bytes: 100, reason: "it is in use" }],
  );
});
