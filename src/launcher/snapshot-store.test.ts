import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { arm, disarm, KINDS } from "../../test/faults/points.ts";
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

test("a damaged checkpoint stays where it is, is refused each time, and works once its file is put back", async (t) => {
  const { store, root, work } = await storeOf(t);
  const dir = await work();
  await writeFile(join(dir, "volume-0.ext4"), "volume");
  const config = { vcpus: 1, memoryMiB: 128, kernel: "k", volumes: ["write" as const] };
  await store.publish(dir, { ...ABOUT, config, kind: "checkpoint" });
  const before = await readdir(root);
  const get = () => store.get(KEY, "checkpoint");
  for (const part of ["memory.bin", "vmstate.bin", "rootfs.ext4", "volume-0.ext4", "manifest.json"]) {
    const path = join(store.path(KEY), part);
    const good = await readFile(path);
    for (const damage of [
      async () => {
        await rm(path);
        await writeFile(path, "other");
      },
      () => rm(path),
    ]) {
      await damage();
      assert.ok((await store.damageOf(KEY)) !== undefined, part);
      for (const again of [1, 2]) await assert.rejects(get, { code: "corrupt" }, `${part}, look ${again}`);
      await rm(path, { force: true });
      await writeFile(path, good);
      assert.equal(await store.damageOf(KEY), undefined, part);
      assert.equal((await get())?.key, KEY, part);
    }
  }
  assert.deepEqual(await readdir(root), before);
  await writeFile(join(store.path(KEY), "memory.bin"), "other");
  await assert.rejects(get, { code: "corrupt", message: "memory.bin does not match its checksum" });
  // What an earlier version set aside of it goes too.
  await mkdir(join(root, `${KEY}.bad-${Date.now()}`));
  await store.remove(KEY);
  assert.deepEqual(await readdir(root), []);
  assert.equal(await store.damageOf(KEY), "its files are gone");
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

  await store.publish(await work("once more"), { ...ABOUT, kind: "checkpoint" });
  await store.retire(KEY);
  assert.ok(!(await there()), "its last machine ended while it was taken off the list");
});

test("a machine that starts while its snapshot is about to be removed keeps it", async (t) => {
  const { store, work } = await storeOf(t);
  await store.publish(await work(), { ...ABOUT, kind: "golden" });
  const removing = store.remove(KEY);
  const release = store.use(KEY);
  await assert.rejects(removing, { code: "conflict" });
  assert.equal((await store.get(KEY))?.key, KEY);
  release();
  await store.remove(KEY);
  assert.equal(await store.get(KEY), undefined);
});

test("of what was set aside the last three stay, for a day", async (t) => {
  const { store, root } = await storeOf(t);
  const now = 10 * 24 * 3600_000;
  for (const age of [1, 2, 3, 4]) await mkdir(join(root, `${KEY}.bad-${now - age * 3600_000}`), { recursive: true });
  assert.deepEqual(await store.sweep(now), [`${KEY}.bad-${now - 4 * 3600_000}`]);
  assert.equal((await store.sweep(now + 22 * 3600_000 + 1)).length, 2);
  assert.deepEqual(await readdir(root), [`${KEY}.bad-${now - 3600_000}`]);
});

const FILE_KINDS = KINDS.filter((kind) => kind.startsWith("fs.") || kind === "process");

/** Calls `work` with each call of each kind failing once. */
async function atEachPoint(
  work: (where: string, run: (part: () => Promise<unknown>) => Promise<unknown>) => Promise<void>,
) {
  let points = 0;
  for (const kind of FILE_KINDS) {
    for (let at = 1, reached = true; reached; at++) {
      await work(`${kind} ${at}`, async (part) => {
        arm(kind, at);
        const failed = await part().then(
          () => undefined,
          (error: unknown) => error ?? new Error("nothing"),
        );
        ({ reached } = disarm());
        if (reached) points += 1;
        return failed;
      });
    }
  }
  return points;
}

test("whatever call fails while a snapshot is looked at: it is not set aside, and the next look finds it", async (t) => {
  const { store, root, work } = await storeOf(t);
  await store.publish(await work(), { ...ABOUT, kind: "checkpoint" });
  const points = await atEachPoint(async (where, run) => {
    // Of another daemon, which has to compute the checksums.
    await rm(join(root, `${KEY}.verified`), { force: true });
    const other = new SnapshotStore(root);
    await run(() => other.get(KEY));
    assert.deepEqual(
      (await readdir(root)).filter((name) => name.includes(".bad-")),
      [],
      where,
    );
    assert.ok((await other.get(KEY)) !== undefined, where);
  });
  t.diagnostic(`${points} points`);
  assert.ok(points >= 5);
});

test("whatever call fails while a snapshot is published: it is there whole, or not at all", async (t) => {
  const { store, root, work } = await storeOf(t);
  const points = await atEachPoint(async (where, run) => {
    const dir = await work();
    const failed = await run(() => store.publish(dir, { ...ABOUT, kind: "checkpoint" }));
    const found = await new SnapshotStore(root).get(KEY);
    if (failed === undefined) assert.ok(found !== undefined, where);
    if (found === undefined) await store.publish(dir, { ...ABOUT, kind: "checkpoint" });
    assert.ok((await new SnapshotStore(root).get(KEY)) !== undefined, `${where}: again`);
    await store.remove(KEY);
    await rm(dir, { recursive: true, force: true });
  });
  t.diagnostic(`${points} points`);
  assert.ok(points >= 10);
});

test("a key that is taken stays whose it is: a checkpoint is no other one's memory, a golden machine is the same", async (t) => {
  const { store, work } = await storeOf(t);
  await store.publish(await work(), { ...ABOUT, kind: "checkpoint", image: "first" });
  for (const kind of ["checkpoint", "fork"] as const)
    await assert.rejects(store.publish(await work(kind), { ...ABOUT, kind }), { code: "conflict" });
  assert.equal((await store.get(KEY))?.manifest.image, "first");
  await store.publish(await work("golden"), { ...ABOUT, kind: "golden" });
  assert.equal((await store.get(KEY))?.manifest.image, "first");
});
