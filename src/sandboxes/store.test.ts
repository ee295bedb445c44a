import assert from "node:assert/strict";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { SandboxRecord } from "./record.ts";
import { Store } from "./store.ts";

function record(id: string, state: SandboxRecord["state"] = "running"): SandboxRecord {
  return {
    ...{
      id,
      state,
      owner: "default",
      provider: "qemu",
      image: "i",
      memoryMiB: 64,
      vcpus: 1,
      diskMiB: 64,
      metadata: {},
    },
    ...{ createdAt: 1, expiresAt: 2, idleTimeoutMs: 0, idleAction: "destroy" },
  };
}

/** A store in a file of its own, and the same file seen by another program. */
async function storeOf(t: TestContext): Promise<{ store: Store; path: string; rows: (sql: string) => unknown[] }> {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-store-"));
  const path = join(dir, "s.db");
  const store = new Store(path);
  t.after(() => rm(dir, { recursive: true }));
  t.after(() => store.close());
  const rows = (sql: string): unknown[] => {
    using other = new DatabaseSync(path, { readOnly: true });
    return other.prepare(sql).all();
  };
  return { store, path, rows };
}

/** From now on each statement that begins with `verb` fails as SQLite says it, until disposed. */
function failing(t: TestContext, verb: string, errcode: number): Disposable {
  const error = (): Error => Object.assign(new Error("as injected"), { code: "ERR_SQLITE_ERROR", errcode });
  const { exec, prepare } = DatabaseSync.prototype;
  const mocks = [
    t.mock.method(DatabaseSync.prototype, "exec", function (this: DatabaseSync, sql: string) {
      if (sql.startsWith(verb)) throw error();
      return exec.call(this, sql);
    }),
    t.mock.method(DatabaseSync.prototype, "prepare", function (this: DatabaseSync, sql: string) {
      if (sql.startsWith(verb)) throw error();
      return prepare.call(this, sql);
    }),
  ];
  return { [Symbol.dispose]: () => mocks.forEach((each) => void each.mock.restore()) };
}

const FULL = 13;

for (const verb of ["BEGIN", "INSERT", "COMMIT"]) {
  test(`a full disk at ${verb}: every writer is told, and what stays true is written when there is room again`, async (t) => {
    const { store, rows } = await storeOf(t);
    {
      using _broken = failing(t, verb, FULL);
      store.addEvent({ id: 7, data: '{"number":7}' });
      store.addExec({ sandboxId: "a", command: "c", startedAt: 1, durationMs: 1, outcome: "completed" });
      const writes = [store.putSandbox(record("a"), 1), store.putMeta("k", "v"), store.committed()];
      // Readers in between must not make writers believe anything.
      assert.deepEqual([store.execs("a", 9).length, store.eventsAfter(0, 9).length], [1, 1]);
      for (const written of await Promise.allSettled(writes)) {
        assert.equal(written.status, "rejected");
        assert.equal(written.reason.code, "no-space");
        assert.match(written.reason.remedy, /free disk space/);
      }
      assert.equal(store.failure?.unwritten, 3);
      assert.ok(store.hasSandbox("a"), "its id is taken");
      assert.deepEqual([store.execs("a", 9).length, store.eventsAfter(6, 9).length], [1, 1], "history is still read");
    }
    await store.sandboxWritten("a");
    assert.equal(store.failure, undefined);
    assert.equal(rows("SELECT id FROM sandboxes").length, 1);
    assert.deepEqual([rows("SELECT id FROM execs").length, rows("SELECT id FROM events").length], [1, 1]);
    assert.equal(store.meta("k"), undefined, "a call that was refused is not done later");
    assert.deepEqual(
      [store.execs("a", 9).length, store.eventsAfter(6, 9).length],
      [1, 1],
      "and nothing is there twice",
    );
  });
}

test("what is tried again is the newest state, also when nobody asks", async (t) => {
  const { store, rows } = await storeOf(t);
  {
    using _broken = failing(t, "COMMIT", FULL);
    await assert.rejects(store.putSandbox(record("a", "creating"), 1));
    await assert.rejects(store.putSandbox(record("a", "destroyed"), 2));
  }
  const until = performance.now() + 10_000;
  while (store.failure !== undefined && performance.now() < until) await sleep(10);
  assert.deepEqual(
    rows("SELECT state FROM sandboxes").map((row) => ({ ...(row as object) })),
    [{ state: "destroyed" }],
  );
});

test("a lock of another program is waited for, and holds up nothing else", async (t) => {
  const { store, path } = await storeOf(t);
  using other = new DatabaseSync(path);
  other.exec("BEGIN IMMEDIATE");
  let written = false;
  const writing = store.putSandbox(record("a"), 1).then(() => (written = true));
  let slowest = 0;
  for (let i = 0; i < 20; i++) {
    const begun = performance.now();
    await sleep(10);
    slowest = Math.max(slowest, performance.now() - begun);
  }
  assert.ok(!written);
  assert.ok(slowest < 2_000, `the loop stood still for ${slowest} ms`);
  const later = store.putSandbox(record("b"), 1);
  other.exec("COMMIT");
  await Promise.all([writing, later]);
  assert.deepEqual(
    store
      .liveSandboxes()
      .map(({ id }) => id)
      .sort(),
    ["a", "b"],
  );
});

test("a sandbox whose row is damaged is known, and named: its machine must not be taken for a stranger's or a leftover", async (t) => {
  const { store, path } = await storeOf(t);
  for (const id of ["a", "b", "c"]) await store.putSandbox(record(id), 1);
  using other = new DatabaseSync(path);
  other.exec("UPDATE sandboxes SET data = '{' WHERE id = 'a'; UPDATE sandboxes SET data = '{}' WHERE id = 'b'");
  assert.deepEqual(
    store.liveSandboxes().map(({ id }) => id),
    ["c"],
  );
  assert.deepEqual(store.damagedSandboxes().sort(), ["a", "b"]);
  assert.ok(store.hasSandbox("a") && store.hasSandbox("b"));
});

test("a damaged row costs that row, and a damaged file is found and named", async (t) => {
  const { store, path } = await storeOf(t);
  await store.putTemplate({
    ...{
      owner: "default",
      name: "good",
      version: 1,
      image: "i",
      description: "",
      setup: [],
      allowedHosts: [],
      memoryMiB: 1,
      vcpus: 1,
    },
    ...{ ttlMs: 1, env: {}, secrets: [], poolSize: 0, metadata: {}, createdAt: 1, updatedAt: 1 },
  });
  using other = new DatabaseSync(path);
  other.exec("INSERT INTO templates VALUES ('default', 'bad', '{')");
  assert.deepEqual(
    store.templates().map(({ name }) => name),
    ["good"],
  );
  assert.equal(await store.check(), "ok");
  for (let i = 0; i < 200; i++) store.addEvent({ id: i, data: "x".repeat(500) });
  await store.putMeta("a", "b");
  store.close();
  other.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  other.close();
  await using file = await open(path, "r+");
  const { size } = await file.stat();
  await file.write(Buffer.alloc(size / 2, 0x5a), 0, size / 2, size / 2);
  using damaged = new Store(path);
  assert.notEqual(await damaged.check(), "ok");
});

test("a database that cannot be opened says why and what to do", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-store-"));
  t.after(() => rm(dir, { recursive: true }));
  await writeFile(join(dir, "other"), "no database at all, but longer than a header of a hundred bytes ".repeat(9));
  assert.throws(() => new Store(join(dir, "other")), { code: "corrupt", remedy: /backup/ });
  assert.throws(() => new Store(join(dir, "absent", "s.db")), { code: "unavailable", remedy: /written/ });
});

test("closing writes what is outstanding, and after it nothing is taken", async (t) => {
  const { store, rows } = await storeOf(t);
  store.addEvent({ id: 1, data: "{}" });
  const written = store.putSandbox(record("a"), 1);
  store.close();
  await written;
  assert.deepEqual([rows("SELECT id FROM sandboxes").length, rows("SELECT id FROM events").length], [1, 1]);
  await assert.rejects(store.putSandbox(record("b"), 1), { code: "unavailable" });
});
