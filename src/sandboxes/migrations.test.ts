import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { MIGRATIONS } from "./migrations.ts";
import { silentLog } from "./observer.ts";
import { Store } from "./store.ts";

test("what was made before there were owners belongs to the default one; a damaged row stops nothing", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-migrations-"));
  t.after(() => rm(dir, { recursive: true }));
  const path = join(dir, "s.db");
  {
    using old = new DatabaseSync(path);
    old.exec(`${MIGRATIONS[0]}; PRAGMA user_version = 1;`);
    const add = (sql: string, ...values: (string | number)[]): void => void old.prepare(sql).run(...values);
    const size = { image: "i", memoryMiB: 1, vcpus: 1, diskMiB: 1, provider: "qemu" };
    const times = { createdAt: 1, expiresAt: 2, idleTimeoutMs: 0, idleAction: "destroy" };
    const sandbox = { id: "sb-1", state: "running", ownerId: "alice", metadata: {}, ...size, ...times };
    const template = { name: "t", setup: [], allowedHosts: [], ttlMs: 1, env: {}, poolSize: 0, ...size };
    add("INSERT INTO sandboxes VALUES (?,?,?,?,?)", "sb-1", "running", 1, 1, JSON.stringify(sandbox));
    add("INSERT INTO sandboxes VALUES (?,?,?,?,?)", "sb-2", "running", 2, 2, "{damaged");
    add("INSERT INTO templates VALUES (?,?)", "t", JSON.stringify(template));
    add("INSERT INTO templates VALUES (?,?)", "bad", "{damaged");
    add("INSERT INTO quotas VALUES (?,?)", "alice", JSON.stringify({ ownerId: "alice", maxSandboxes: 3, maxTtlMs: 0 }));
    add(
      "INSERT INTO checkpoints VALUES (?,?,?)",
      "cp-1",
      "sb-1",
      JSON.stringify({ id: "cp-1", sandboxId: "sb-1", ...size }),
    );
    add(
      "INSERT INTO events VALUES (?,?)",
      1,
      JSON.stringify({ number: 1, type: "sandbox.created", sandboxId: "sb-1" }),
    );
    add("INSERT INTO events VALUES (?,?)", 2, JSON.stringify({ number: 2, type: "template.saved" }));
    add("INSERT INTO events VALUES (?,?)", 3, JSON.stringify({ number: 3, type: "provider.failed" }));
    add("INSERT INTO events VALUES (?,?)", 4, "{damaged");
  }
  using store = new Store(path, silentLog);
  assert.deepEqual(
    store.liveSandboxes().map(({ id, owner, ownerId }) => [id, owner, ownerId]),
    [["sb-1", "default", "alice"]],
  );
  assert.equal(store.ownerOfSandbox("sb-1"), "default");
  assert.equal(store.ownerOfSandbox("sb-2"), undefined);
  assert.deepEqual(
    store.templates().map(({ name, owner }) => [name, owner]),
    [["t", "default"]],
  );
  assert.deepEqual(
    store.quotas().map(({ ownerId, owner }) => [ownerId, owner]),
    [["alice", "default"]],
  );
  assert.deepEqual(
    store.checkpoints().map(({ id, owner }) => [id, owner]),
    [["cp-1", "default"]],
  );
  assert.deepEqual(
    store.eventsAfter(0, 10, "default").map(({ id }) => id),
    [1, 2],
  );
  assert.deepEqual(
    store.eventsAfter(0, 10).map(({ id }) => id),
    [1, 2, 3, 4],
  );
});
