/** What holds for all servers of a fleet together, with a real PostgreSQL and machines that are plain objects: limits, and clients' keys. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Store } from "../src/sandboxes/store.ts";
import { fakeWorld } from "./fake-provider.ts";
import { fleetTests, until } from "./fleet-support.ts";

const QUOTA = { maxSandboxes: 3, maxTtlMs: 0, maxExecTimeoutMs: 0 };

const tests = fleetTests();

async function server(name: string, { maxSandboxes = 0 } = {}) {
  const { fleet } = await tests.open(name);
  const store = new Store(":memory:");
  const world = fakeWorld({ registry: fleet.registry, shared: fleet.shared(store), store, maxSandboxes });
  world.clock.set(Date.now());
  await fleet.join(world.sandboxes);
  return { ...world, fleet, [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose]() };
}
type Server = Awaited<ReturnType<typeof server>>;

test("an owner's limit is that of all servers together, also of creates at once, and each place is free again with its end", async () => {
  await using a = await server("a");
  await using b = await server("b");
  await a.sandboxes.quotas.put("ada", "*", QUOTA);
  await until(() => b.sandboxes.quotas.list("ada").length === 1);
  const asked = await Promise.allSettled(
    Array.from({ length: 12 }, (_, i) => (i % 2 === 0 ? a : b).sandboxes.spawn({ owner: "ada" })),
  );
  const made = asked.flatMap((each) => (each.status === "fulfilled" ? [each.value.id] : []));
  assert.equal(made.length, 3);
  for (const each of asked) {
    if (each.status === "fulfilled") continue;
    assert.equal(each.reason.code, "limit");
    assert.match(each.reason.message, /^the owner has \d of at most 3 sandboxes$/);
  }
  assert.equal(a.provider.machinesById.size + b.provider.machinesById.size, 3, "nothing else is left");
  // Refused, whoever is asked, and for copies too; other owners have places.
  for (const { sandboxes } of [a, b]) {
    await assert.rejects(sandboxes.spawn({ owner: "ada" }), { code: "limit" });
    assert.equal((await sandboxes.admission({ owner: "ada" })).reason, "max_sandboxes_per_owner");
    assert.equal((await sandboxes.admission({ owner: "bob" })).allowed, true);
  }
  const [first] = made;
  const [here, other] = a.sandboxes.find(first as string) === undefined ? [b, a] : [a, b];
  await assert.rejects(here.sandboxes.fork(first as string, { count: 1 }), { code: "limit" });
  await here.sandboxes.destroy(first as string);
  await other.sandboxes.spawn({ owner: "ada" });
  await other.sandboxes.spawn({ owner: "bob" });
});

test("a refusal is not paid for with a machine twice", async () => {
  await using a = await server("a");
  await using b = await server("b");
  await a.sandboxes.quotas.put("ada", "*", { ...QUOTA, maxSandboxes: 1 });
  await until(() => b.sandboxes.quotas.list("ada").length === 1);
  await a.sandboxes.spawn({ owner: "ada" });
  await assert.rejects(b.sandboxes.spawn({ owner: "ada" }), { code: "limit" });
  const asked = b.provider.spawned.length;
  await assert.rejects(b.sandboxes.spawn({ owner: "ada" }), { code: "limit" });
  assert.equal(b.provider.spawned.length, asked, "it is refused before anything is begun");
});

test("a user's limit counts that user's sandboxes on all servers, and what failed takes no place", async () => {
  await using a = await server("a");
  await using b = await server("b");
  await a.sandboxes.quotas.put("ada", "eve", { ...QUOTA, maxSandboxes: 1 });
  await until(() => b.sandboxes.quotas.list("ada").length === 1);
  const eves = { owner: "ada", ownerId: "eve" };
  const { id } = await a.sandboxes.spawn(eves);
  await assert.rejects(b.sandboxes.spawn(eves), { code: "limit" });
  assert.equal(await b.sandboxes.countOfUser("ada", "eve"), 1);
  await b.sandboxes.spawn({ owner: "ada", ownerId: "adam" });
  a.provider.machinesById.get(id)?.die();
  await until(async () => (await b.sandboxes.countOfUser("ada", "eve")) === 0);
  await b.sandboxes.spawn(eves);
});

test("admission knows the places of all servers", async () => {
  await using a = await server("a", { maxSandboxes: 1 });
  await using _ = await server("b", { maxSandboxes: 2 });
  await a.sandboxes.spawn({});
  await until(async () => {
    await a.fleet.directory.refresh();
    return (await a.sandboxes.admission({})).allowed;
  });
  const { activeSandboxes, maxSandboxes } = await a.sandboxes.admission({});
  assert.deepEqual([activeSandboxes, maxSandboxes], [1, 3]);
  await assert.rejects(a.sandboxes.spawn({}), { code: "limit" });
});

test("what was made for a client's key is found from all servers, and nobody makes it once more", async () => {
  await using a = await server("a");
  await using b = await server("b");
  const request = { key: "once", digest: "d" };
  const both = await Promise.allSettled([a, b].map(({ sandboxes }) => sandboxes.spawn({ owner: "ada", request })));
  const [made, ...more] = both.flatMap((each) => (each.status === "fulfilled" ? [each.value.id] : []));
  assert.ok(made !== undefined && more.length === 0);
  for (const each of both) if (each.status === "rejected") assert.match(each.reason.message, /idempotency key/);
  for (const { fleet } of [a, b]) {
    assert.equal((await fleet.directory.requested("ada", "once"))?.sandboxId, made);
    assert.equal(await fleet.directory.requested("bob", "once"), undefined);
  }
  const [here, other] = a.sandboxes.find(made) === undefined ? [b, a] : [a, b];
  // Of one that has failed, and of an old one, the key is free.
  here.provider.machinesById.get(made)?.die();
  await until(async () => (await other.fleet.directory.requested("ada", "once")) === undefined);
  const second = await other.sandboxes.spawn({ owner: "ada", request });
  assert.equal((await here.fleet.directory.requested("ada", "once"))?.sandboxId, second.id);
  here.clock.set(Date.now() + 25 * 3_600_000);
  await here.sandboxes.spawn({ owner: "ada", request });
});

test("keys that more than one sandbox was made for hold up no sandbox when the table has lost their rows", async () => {
  await using a = await server("a");
  await using b = await server("b");
  const make = (at: Server, key: string) => at.sandboxes.spawn({ owner: "ada", request: { key, digest: "d" } });
  const requested = async (key: string) => (await b.fleet.directory.requested("ada", key))?.sandboxId;
  const old = await make(a, "old");
  a.clock.set(Date.now() - 25 * 3_600_000);
  const older = await make(a, "older");
  a.clock.set(Date.now());
  const failed = await make(a, "failed");
  a.provider.machinesById.get(failed.id)?.die();
  await until(async () => (await requested("failed")) === undefined);
  const [repeated, anew] = [await make(a, "failed"), await make(a, "older")];
  // A client that repeats what the table has lost gets it from another node.
  await tests.postgres.query("UPDATE stacyvm.sandboxes SET request_key = NULL WHERE id = $1", [old.id]);
  const elsewhere = await make(b, "old");
  await tests.postgres.query("DELETE FROM stacyvm.sandboxes WHERE id <> $1", [elsewhere.id]);
  await tests.postgres.kill();
  await tests.postgres.start();
  const all = [old, older, failed, repeated, anew, elsewhere].map(({ id }) => id).toSorted();
  const rows = () => tests.postgres.query("SELECT id FROM stacyvm.sandboxes ORDER BY id");
  await until(() =>
    rows().then(
      (found) => found.length === all.length,
      () => false,
    ),
  );
  assert.deepEqual(
    (await rows()).map(({ id }) => id),
    all,
  );
  assert.equal(await requested("failed"), repeated.id);
  assert.equal(await requested("older"), anew.id);
  assert.equal(await requested("old"), elsewhere.id);
});
