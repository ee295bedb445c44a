import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Shape } from "./shape.ts";
import { SnapshotStore } from "./snapshot-store.ts";

const KEY = "a".repeat(64);
const ABOUT = { key: KEY, image: "i", shape: { vmmIdentity: {} } as unknown as Shape };

async function storeOf(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), "snapshots-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const store = new SnapshotStore(join(root, "snapshots"));
  const work = async (name = "work"): Promise<string> => {
    const dir = join(root, name);
    await mkdir(dir);
    for (const part of ["vmstate.bin", "memory.bin", "rootfs.ext4"]) await writeFile(join(dir, part), part);
    return dir;
  };
  return { store, root: join(root, "snapshots"), work };
}

test("a publication between two looks is no damage", async (t) => {
  const { store, root, work } = await storeOf(t);
  await store.publish(await work(), { ...ABOUT, kind: "golden" });
  const away = join(root, "away");
  for (let i = 0; i < 300; i++) {
    await rename(store.path(KEY), away);
    const look = store.get(KEY);
    for (let turn = 0; turn < i % 10; turn++) await new Promise((wake) => setImmediate(wake));
    await rename(away, store.path(KEY));
    await look;
  }
  assert.ok((await store.get(KEY)) !== undefined);
  assert.deepEqual(
    (await readdir(root)).filter((name) => name.includes(".bad-")),
    [],
  );
});

test("a snapshot without one of its parts is damaged, and set aside", async (t) => {
  const { store, root, work } = await storeOf(t);
  await store.publish(await work(), { ...ABOUT, kind: "golden" });
  await rm(join(store.path(KEY), "memory.bin"));
  await assert.rejects(store.get(KEY), { code: "corrupt" });
  assert.equal((await readdir(root)).filter((name) => name.includes(".bad-")).length, 1);
  assert.equal(await store.get(KEY), undefined);
});

test("a fork's snapshot goes with its last user, a checkpoint's does not, and a removed one's does", async (t) => {
  const { store, root, work } = await storeOf(t);
  const there = async (): Promise<boolean> => (await readdir(root)).includes(KEY);
  const settled = async (): Promise<void> => {
    for (let i = 0; i < 50 && (await there()); i++) await new Promise((wake) => setTimeout(wake, 2));
  };
  await store.publish(await work(), { ...ABOUT, kind: "fork" });
  const [one, two] = [store.use(KEY), store.use(KEY)];
  one();
  one();
  await settled();
  assert.ok(await there());
  two();
  await settled();
  assert.ok(!(await there()));

  await store.publish(await work("again"), { ...ABOUT, kind: "checkpoint" });
  store.use(KEY)();
  await settled();
  assert.ok(await there());
  const last = store.use(KEY);
  await store.retire(KEY);
  last();
  await settled();
  assert.ok(!(await there()));
});

test("of what was set aside the last three stay, for a day", async (t) => {
  const { store, root } = await storeOf(t);
  const now = 10 * 24 * 3600_000;
  for (const age of [1, 2, 3, 4]) await mkdir(join(root, `${KEY}.bad-${now - age * 3600_000}`), { recursive: true });
  assert.deepEqual(await store.sweep(now), [`${KEY}.bad-${now - 4 * 3600_000}`]);
  assert.equal((await store.sweep(now + 22 * 3600_000 + 1)).length, 2);
  assert.deepEqual(await readdir(root), [`${KEY}.bad-${now - 3600_000}`]);
});
