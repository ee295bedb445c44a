/** Keys in a fleet, with a real PostgreSQL: made on one server, good on all; revoked on one, good on none; and while the database is away. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Keys } from "../src/access/keys.ts";
import { hashOf } from "../src/access/secret.ts";
import { Store } from "../src/sandboxes/store.ts";
import { fakeWorld } from "./fake-provider.ts";
import { fleetTests, until } from "./fleet-support.ts";
import { PgBouncer } from "./postgres.ts";

const INPUT = { name: "ci", owner: "ada", scopes: ["use" as const] };

const tests = fleetTests();

async function server(name: string, options: { store?: Store; url?: string } = {}) {
  const { fleet } = await tests.open(name, options);
  const store = options.store ?? new Store(":memory:");
  const keys = fleet.keys(store);
  const { sandboxes } = fakeWorld({ registry: fleet.registry, store });
  await fleet.join(sandboxes);
  return { fleet, keys, store, [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose]() };
}

for (const way of ["with notices", "by polling alone, through PgBouncer"] as const) {
  test(`a key that is made on one server lets in on all, and one that is revoked on another lets in on none: ${way}`, async () => {
    await using bouncer = way === "with notices" ? undefined : await PgBouncer.create(tests.postgres);
    const options = bouncer === undefined ? {} : { url: bouncer.url };
    await using a = await server("a", options);
    await using b = await server("b", options);
    const { record, secret } = await a.keys.create(INPUT, "admin");
    assert.ok(a.keys.holds(hashOf(secret)));
    await until(() => b.keys.holds(hashOf(secret)));
    const there = b.keys.get(record.id);
    assert.deepEqual([there.owner, there.scopes, there.name], ["ada", ["use"], "ci"]);
    const rotated = await b.keys.rotate("ci", 0);
    await until(() => a.keys.holds(hashOf(rotated.secret)));
    assert.ok(!a.keys.holds(hashOf(secret)));
    await b.keys.revoke("ci");
    await until(() => !a.keys.holds(hashOf(rotated.secret)));
    assert.equal(a.keys.state(a.keys.get(record.id)), "revoked");
    assert.deepEqual(
      a.store.keys().map((each) => (each as { revokedAt?: number }).revokedAt !== undefined),
      [true],
    );
  });
}

test("keys of a server that was alone come along when it joins, and do not come back when they were removed meanwhile", async () => {
  const store = new Store(":memory:");
  const { secret } = await new Keys(store).create(INPUT, "admin");
  {
    await using a = await server("a", { store });
    await using b = await server("b");
    assert.ok(a.keys.holds(hashOf(secret)));
    await until(() => b.keys.holds(hashOf(secret)));
  }
  await tests.postgres.query("DELETE FROM stacyvm.keys");
  await tests.postgres.query("UPDATE stacyvm.nodes SET removed_at = now()"); // the names are free
  await using again = await server("a", { store });
  await until(() => !again.keys.holds(hashOf(secret)));
  assert.deepEqual(await tests.postgres.query("SELECT id FROM stacyvm.keys"), []);
  assert.deepEqual(store.keys(), []);
});

test("while the database is away keys let in as before, none is made, and a revocation holds here at once and everywhere later", async () => {
  const store = new Store(":memory:");
  const a = await server("a", { store });
  await using b = await server("b");
  const { record, secret } = await a.keys.create(INPUT, "admin");
  const { record: other, secret: kept } = await a.keys.create({ ...INPUT, name: "kept" }, "admin");
  await until(() => b.keys.holds(hashOf(secret)) && b.keys.holds(hashOf(kept)));
  await tests.postgres.kill();
  try {
    await assert.rejects(a.keys.create({ ...INPUT, name: "later" }, "admin"), { code: "unavailable" });
    await assert.rejects(a.keys.rotate(other.id, 0), { code: "unavailable" });
    assert.ok(a.keys.holds(hashOf(kept)) && b.keys.holds(hashOf(kept)));
    await assert.rejects(a.keys.revoke(record.id), { code: "unavailable" });
    assert.ok(!a.keys.holds(hashOf(secret)), "it lets nobody in here from now on");
    // Nor after a new start, which still has no database.
    assert.ok(!new Keys(store).holds(hashOf(secret)));
  } finally {
    await tests.postgres.start();
  }
  try {
    await until(() => !b.keys.holds(hashOf(secret)));
    await until(() =>
      a.keys.create({ ...INPUT, name: "later" }, "admin").then(
        () => true,
        () => false,
      ),
    );
    assert.ok(!a.keys.holds(hashOf(secret)) && b.keys.holds(hashOf(kept)));
  } finally {
    await a[Symbol.asyncDispose]();
  }
});

test("a revocation that was made while the database was away is not forgotten by a restart", async () => {
  const store = new Store(":memory:");
  const secret = await (async () => {
    await using a = await server("a", { store });
    const made = await a.keys.create(INPUT, "admin");
    await tests.postgres.kill();
    await assert.rejects(a.keys.revoke("ci"), { code: "unavailable" });
    return made.secret;
  })().finally(() => tests.postgres.start());
  await tests.postgres.query("UPDATE stacyvm.nodes SET removed_at = now()");
  await using b = await server("b");
  assert.ok(b.keys.holds(hashOf(secret)));
  await using again = await server("a", { store });
  assert.ok(!again.keys.holds(hashOf(secret)));
  await until(() => !b.keys.holds(hashOf(secret)));
});

test("of two servers that rotate a key at once one is refused, and the secret that the other was given is good on both", async () => {
  await using a = await server("a");
  await using b = await server("b");
  const { record } = await a.keys.create(INPUT, "admin");
  await until(() => b.keys.list().length === 1);
  const outcomes = await Promise.allSettled([a.keys.rotate(record.id, 0), b.keys.rotate(record.id, 0)]);
  const good = outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value.secret] : []));
  for (const each of outcomes) if (each.status === "rejected") assert.equal(each.reason.code, "conflict");
  // The slower one may have heard of the faster one before it began: then both were made, and the later one counts.
  assert.ok(good.length > 0);
  await until(() => good.some((secret) => [a, b].every(({ keys }) => keys.holds(hashOf(secret)))));
  if (good.length === 1) assert.ok([a, b].every(({ keys }) => keys.holds(hashOf(good[0] ?? ""))));
});

test("the use of a key makes nobody read keys anew", async () => {
  await using a = await server("a");
  const { record, secret } = await a.keys.create(INPUT, "admin");
  const revision = async (): Promise<string> => (await tests.postgres.query("SELECT n FROM stacyvm.revisions"))[0].n;
  const before = await revision();
  assert.ok(a.keys.find(hashOf(secret)) !== undefined);
  const used = () => tests.postgres.query("SELECT last_used_at FROM stacyvm.keys WHERE id = $1", [record.id]);
  await until(async () => (await used())[0].last_used_at !== null);
  assert.equal(await revision(), before);
});
