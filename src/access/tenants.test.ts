import assert from "node:assert/strict";
import { test } from "node:test";
import { Store } from "../sandboxes/store.ts";
import { Keys } from "./keys.ts";
import { hashOf } from "./secret.ts";
import { Tenants } from "./tenants.ts";

/** Of an administrator, who acts as no owner. */
const ALL = undefined;

test("a tenant is there when it was made or a key names it, over a restart too, until it is removed with its keys", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const tenants = new Tenants(store, keys, 1_000);
  const ids = (all: Tenants): string[] => all.list(ALL).map(({ id }) => id);
  assert.deepEqual(ids(tenants), ["default"]);
  await keys.create({ name: "k", owner: "by-key", scopes: ["use"] }, "test");
  const made = await tenants.create(undefined, { name: "Acme Corp" });
  assert.match(made.id, /^tenant-[0-9a-f]{8}$/);
  await tenants.create("acme", { name: "Acme", settings: '{"a":1}' });
  assert.deepEqual(ids(tenants), ["acme", "by-key", "default", made.id]);
  await assert.rejects(tenants.create("by-key", { name: "again" }), /exists already/);
  await assert.rejects(tenants.create("a b", { name: "x" }), /is not an owner's name/);
  await tenants.change("by-key", { name: "By key" }, ALL);
  await store.committed();

  const next = new Tenants(store, new Keys(store), 2_000);
  assert.deepEqual(ids(next), ids(tenants));
  assert.deepEqual([next.get("by-key", ALL).name, next.get("acme", ALL).settings], ["By key", '{"a":1}']);
  assert.deepEqual(
    next.list("acme").map(({ id }) => id),
    ["acme"],
    "who acts as one owner knows of no other",
  );
  assert.throws(() => next.get("by-key", "acme"), /there is no tenant "by-key"/);

  await tenants.remove("by-key", ALL);
  assert.ok(keys.list("by-key").every((key) => keys.state(key) === "revoked"));
  await tenants.remove(made.id, ALL);
  assert.deepEqual(ids(tenants), ["acme", "default"]);
  await assert.rejects(tenants.remove("default", ALL), /cannot be deleted/);
  await assert.rejects(tenants.remove("none", ALL), /there is no tenant/);
});

test("a member is a key: its role is what it may do, and never more than the tenant's own things", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const tenants = new Tenants(store, keys, 0);
  await tenants.create("acme", { name: "Acme" });
  const by = { name: "root", only: ALL };
  const { member, secret = "" } = await tenants.putMember("acme", "alice@example.com", "viewer", by);
  assert.deepEqual([member.user, member.role], ["alice@example.com", "viewer"]);
  const of = (): unknown[] => {
    const key = keys.find(hashOf(secret));
    return [key?.owner, key?.scopes, key?.createdBy];
  };
  assert.deepEqual(of(), ["acme", ["read"], "root"]);
  // The same key does something else from now on; nobody gets another secret.
  const changed = await tenants.putMember("acme", "alice@example.com", "admin", by);
  assert.deepEqual([changed.member.role, changed.secret], ["admin", undefined]);
  assert.deepEqual(of(), ["acme", ["use"], "root"]);
  assert.deepEqual(
    tenants.members("acme", ALL).map(({ user, role }) => [user, role]),
    [["alice@example.com", "admin"]],
  );
  // One that administers the server is not made less by being named what it is.
  await keys.create({ name: "ops", owner: "acme", scopes: ["admin"] }, "test");
  await tenants.putMember("acme", "ops", "admin", by);
  assert.deepEqual(keys.get("ops").scopes, ["admin"]);
  await tenants.removeMember("acme", "alice@example.com", ALL);
  assert.equal(keys.find(hashOf(secret)), undefined);
  await assert.rejects(tenants.removeMember("acme", "alice@example.com", ALL), /there is no member/);
  await assert.rejects(tenants.putMember("none", "bob", "viewer", by), /there is no tenant/);
});

test("a member who may do less may do so with each of its keys, and none of them more than before", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const tenants = new Tenants(store, keys, 0);
  const by = { name: "root", only: ALL };
  for (const scope of ["read", "use", "use"] as const)
    await keys.create({ name: "bob", owner: "acme", scopes: [scope] }, "test");
  const scopes = (): string[] => keys.list("acme").map((key) => key.scopes.join());
  await tenants.putMember("acme", "bob", "viewer", by);
  assert.deepEqual(scopes(), ["read", "read", "read"]);
  await tenants.putMember("acme", "bob", "operator", by);
  assert.deepEqual(scopes(), ["use", "read", "read"]);
});

test("of changes at the same time each sees what the one before has done: one tenant, one key for a member", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const tenants = new Tenants(store, keys, 0);
  const twice = <T>(work: () => Promise<T>): Promise<PromiseSettledResult<T>[]> =>
    Promise.allSettled([work(), work(), work()]);
  const made = await twice(() => tenants.create("acme", { name: "Acme" }));
  assert.deepEqual(
    made.map(({ status }) => status),
    ["fulfilled", "rejected", "rejected"],
  );
  await twice(() => tenants.putMember("acme", "alice", "viewer", { name: "root", only: ALL }));
  assert.equal(keys.list("acme").length, 1);
  // A member that comes while its tenant goes has no key left.
  await Promise.allSettled([
    tenants.remove("acme", ALL),
    tenants.putMember("acme", "bob", "viewer", { name: "root", only: ALL }),
  ]);
  assert.deepEqual(
    keys.list("acme").map((key) => keys.state(key)),
    ["revoked"],
  );
});
