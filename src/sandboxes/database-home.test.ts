import assert from "node:assert/strict";
import { mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { assertAtHome } from "./database-home.ts";
import type { SandboxRecord } from "./record.ts";
import { Store } from "./store.ts";

test("a database is not opened with another data directory than its machines', by whichever name", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "home-"));
  t.after(() => rm(root, { recursive: true }));
  const dirs = [await mkdtemp(join(root, "a-")), await mkdtemp(join(root, "b-"))] as const;
  using store = new Store(":memory:");
  using other = new Store(":memory:");
  await assertAtHome(store, dirs[0], false);
  // With nothing to lose it may move.
  await assertAtHome(store, dirs[1], false);
  await assertAtHome(store, dirs[0], false);

  const row = { id: "sb-00000001", state: "running", owner: "default", createdAt: 1, expiresAt: 1 } as SandboxRecord;
  const more = { provider: "qemu", image: "i", memoryMiB: 1, vcpus: 1, diskMiB: 1, idleTimeoutMs: 0, metadata: {} };
  await store.putSandbox({ ...row, ...more, idleAction: "destroy" }, 1);
  const moved = join(root, "moved");
  await rename(dirs[0], moved);
  await assertAtHome(store, moved, false);
  for (const wrong of [dirs[1], await mkdtemp(join(root, "new-"))]) {
    await assert.rejects(assertAtHome(store, wrong, false), { code: "conflict", remedy: /--data-dir/ });
  }
  // One from before there were ids, with machines of its own.
  using older = new Store(":memory:");
  await older.putSandbox({ ...row, ...more, idleAction: "destroy" }, 1);
  await assert.rejects(assertAtHome(older, moved, false), { code: "conflict" });
  await assertAtHome(older, await mkdtemp(join(root, "own-")), false);
  // Another database of the same directory: what that does not know, the machines themselves say.
  await assertAtHome(other, moved, false);
  await assertAtHome(store, moved, false);

  await assertAtHome(store, dirs[1], true);
  await assert.rejects(assertAtHome(store, moved, false), { code: "conflict" });
});
