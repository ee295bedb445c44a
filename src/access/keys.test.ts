import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Store } from "../sandboxes/store.ts";
import { Keys } from "./keys.ts";
import { hashOf } from "./secret.ts";

test("a key that is revoked while it is changed stays revoked, here and after a restart", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const changes = [
    (id: string) => keys.rotate(id, 60_000),
    (id: string) => keys.change(id, { scopes: ["use"], role: "admin" }),
  ];
  // Before it has begun, and while it is being written.
  for (const [change, later] of changes.flatMap((each) => [0, 1, 2, 3].map((turns) => [each, turns] as const))) {
    const { record, secret } = await keys.create({ name: "k", owner: "acme", scopes: ["read"] }, "test");
    const changing = change(record.id);
    for (let i = 0; i < later; i++) await undefined;
    await keys.revoke(record.id);
    const [changed] = await Promise.allSettled([changing]);
    assert.equal(keys.state(keys.get(record.id)), "revoked");
    const secrets = [
      secret,
      ...(changed.status === "fulfilled" && "secret" in changed.value ? [changed.value.secret] : []),
    ];
    for (const each of secrets) assert.equal(keys.find(hashOf(each)), undefined);
    await store.committed();
    const next = new Keys(store);
    assert.equal(next.state(next.get(record.id)), "revoked");
  }
});

test("of two rotations at the same time both secrets work while the one before may; a use meanwhile brings nothing back", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const { record, secret } = await keys.create({ name: "k", owner: "acme", scopes: ["read"] }, "test");
  const rotating = [keys.rotate(record.id, 60_000), keys.rotate(record.id, 60_000)];
  assert.ok(keys.find(hashOf(secret)), "it is good until then, and its use is noted");
  const secrets = (await Promise.all(rotating)).map((each) => each.secret);
  await nextTurn();
  await store.committed();
  for (const each of [keys, new Keys(store)]) {
    assert.deepEqual(
      [secret, ...secrets].map((one) => each.find(hashOf(one)) !== undefined),
      [false, true, true],
    );
  }
});

test("a key ends at its time, a former secret when its grace is over, and what has ended long ago is forgotten", async () => {
  using store = new Store(":memory:");
  let now = 1_000_000;
  const keys = new Keys(store, () => now);
  const input = { name: "k", owner: "acme", scopes: ["read" as const] };
  const { record, secret } = await keys.create({ ...input, expiresInMs: 10_000 }, "test");
  const next = await keys.rotate(record.id, 5_000);
  const found = () => [secret, next.secret].map((each) => keys.find(hashOf(each)) !== undefined);
  now += 4_999;
  assert.deepEqual(found(), [true, true]);
  now += 1;
  assert.deepEqual(found(), [false, true]);
  now += 5_000;
  assert.deepEqual([...found(), keys.state(keys.get(record.id)), keys.any], [false, false, "expired", false]);
  await store.committed();
  assert.equal(new Keys(store, () => now).list().length, 1);
  now += 366 * 86_400_000;
  assert.equal(new Keys(store, () => now).list().length, 0);
  await assert.rejects(keys.create({ ...input, expiresInMs: 0 }, "test"), { code: "invalid" });
});
