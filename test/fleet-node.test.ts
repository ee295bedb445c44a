/**
 * Servers as nodes of a fleet, with a real PostgreSQL and machines that are plain objects: what the table says of their sandboxes, what they
 * know of one another, and what goes on while the database is away.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { configSchema } from "../src/config/schema.ts";
import type { NodeState, Ownership } from "../src/fleet/contract.ts";
import { Fleet } from "../src/fleet/fleet.ts";
import { silentLog } from "../src/sandboxes/observer.ts";
import type { Store } from "../src/sandboxes/store.ts";
import { fakeWorld } from "./fake-provider.ts";
import { fleetTests, HEARTBEAT_MS, until } from "./fleet-support.ts";

const tests = fleetTests();

/** A server. @param home of one that ran before, or a copy of it */
async function node(name: string, from: { home?: string; store?: Store; url?: string } = {}) {
  const { fleet, home } = await tests.open(name, from);
  const world = fakeWorld({
    registry: fleet.registry,
    volumes: join(home, "volumes"),
    ...(from.store === undefined ? {} : { store: from.store }),
  });
  await fleet.join(world.sandboxes);
  const { sandboxes } = world;
  return { ...world, fleet, home, name, sandboxes, [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose]() };
}

const rows = (): Promise<{ id: string; state: string; name: string | null; node_id: string; epoch: string }[]> =>
  tests.postgres.query("SELECT id, state, name, node_id, epoch FROM stacyvm.sandboxes ORDER BY id");
const stateOf = async (id: string): Promise<string | undefined> => (await rows()).find((row) => row.id === id)?.state;

test("a sandbox is in the table before anybody hears of it, as what it becomes, and not after its end", async () => {
  await using a = await node("a");
  const { id } = await a.sandboxes.spawn({ name: "work" });
  assert.deepEqual(
    (await rows()).map((row) => [row.id, row.name, row.node_id]),
    [[id, "work", a.fleet.directory.self.id]],
  );
  await until(async () => (await stateOf(id)) === "running");
  await a.sandboxes.pause(id);
  await until(async () => (await stateOf(id)) === "paused");
  const { sandboxes: copies } = await a.sandboxes.resume(id).then(() => a.sandboxes.fork(id, { count: 2 }));
  assert.equal((await rows()).length, 3);
  for (const each of [id, ...copies.map((copy) => copy.id)]) await a.sandboxes.destroy(each);
  await until(async () => (await rows()).length === 0);
});

test("a spawn that comes to nothing leaves nothing in the table, and frees its name", async () => {
  await using a = await node("a");
  a.provider.spawnFailure = new Error("no machine today");
  await assert.rejects(a.sandboxes.spawn({ name: "work" }));
  a.provider.spawnFailure = undefined;
  await until(async () => (await rows()).length === 0);
  await a.sandboxes.spawn({ name: "work" });
});

test("each node knows what the others have, by id and by their owner's name; a name is one sandbox's in all of them", async () => {
  await using a = await node("a");
  await using b = await node("b");
  const { id } = await a.sandboxes.spawn({ name: "work", owner: "ada" });
  const where = async (idOrName: string, whose?: string): Promise<string | undefined> =>
    (await b.fleet.directory.ownerOf(idOrName, whose))?.nodeId;
  const nodeA = a.fleet.directory.self.id;
  assert.equal(await where(id), nodeA);
  assert.equal(await where("work", "ada"), nodeA);
  assert.equal(await where(id, "ada"), nodeA);
  for (const [idOrName, whose] of [[id, "bob"], ["work", "bob"], ["work"], ["sb-00000000"]] as const)
    assert.equal(await where(idOrName, whose), undefined);
  await assert.rejects(b.sandboxes.spawn({ name: "work", owner: "ada" }), { code: "conflict", message: /name work/ });
  assert.equal(b.provider.machinesById.size, 0);
  await b.sandboxes.spawn({ name: "work", owner: "bob" });
  assert.deepEqual(
    (await b.fleet.directory.all({ owner: "ada" })).map(({ sandboxId, name }) => [sandboxId, name]),
    [[id, "work"]],
  );
  assert.deepEqual(
    b.fleet.directory
      .nodes()
      .map(({ name, state }) => [name, state])
      .sort(),
    [
      ["a", "up"],
      ["b", "up"],
    ],
  );
});

test("what a node remembers of others is corrected by their `not mine`", async () => {
  await using a = await node("a");
  await using b = await node("b");
  const { id } = await a.sandboxes.spawn({ name: "work" });
  const ask = (): Promise<Ownership | undefined> => b.fleet.directory.ownerOf("work", "default");
  assert.equal((await ask())?.sandboxId, id);
  await a.sandboxes.destroy(id);
  await until(async () => (await rows()).length === 0);
  const other = await b.sandboxes.spawn({ name: "work" });
  await b.sandboxes.destroy(other.id);
  assert.equal((await ask())?.sandboxId, id, "it remembers");
  b.fleet.directory.mistaken(id, b.fleet.directory.self.id);
  assert.equal((await ask())?.sandboxId, id, "another node said nothing of it");
  b.fleet.directory.mistaken(id, a.fleet.directory.self.id);
  await until(async () => (await ask()) === undefined);
});

for (const [how, goes, comes] of [
  ["killed", () => tests.postgres.kill(), () => tests.postgres.start()],
  ["stopped", () => tests.postgres.stop(), () => tests.postgres.goOn()],
] as const) {
  test(`while the database is ${how}, what runs goes on, known sandboxes are found, creates are refused at once; then all is as it is`, async () => {
    await using a = await node("a");
    await using b = await node("b");
    const [kept, ended] = [await a.sandboxes.spawn({ name: "kept" }), await a.sandboxes.spawn({})];
    await b.fleet.directory.ownerOf(kept.id);
    await goes();
    try {
      // The first may have to find out.
      await assert.rejects(a.sandboxes.spawn({}), { code: "unavailable", message: /database/ });
      await assert.rejects(a.sandboxes.spawn({}), (error: { data?: { retryAfterMs?: number }; remedy?: string }) => {
        assert.ok((error.data?.retryAfterMs ?? 0) > 0);
        assert.match(error.remedy ?? "", /try again/);
        return true;
      });
      assert.equal(a.provider.machinesById.size, 2, "no machine stays of what was refused");
      await a.sandboxes.pause(kept.id);
      await a.sandboxes.destroy(ended.id);
      assert.equal((await b.fleet.directory.ownerOf(kept.id))?.nodeId, a.fleet.directory.self.id);
      assert.equal((await a.fleet.directory.ownerOf("kept", "default"))?.state, "paused");
      await assert.rejects(b.fleet.directory.ownerOf("sb-00000000"), { code: "unavailable" });
      assert.deepEqual(
        b.fleet.directory.nodes().map(({ state }) => state),
        ["up", "up"],
      );
    } finally {
      await comes();
    }
    await until(async () => (await rows()).length === 1 && (await stateOf(kept.id)) === "paused");
    await until(() =>
      a.sandboxes.spawn({ name: "later" }).then(
        () => true,
        () => false,
      ),
    );
    assert.equal((await rows()).length, 2);
  });
}

test("a server that starts while the database is away has its sandboxes, and joins by itself", async () => {
  await tests.postgres.kill();
  const a = await node("a").finally(() => tests.postgres.start());
  try {
    await until(() =>
      a.sandboxes.spawn({}).then(
        () => true,
        () => false,
      ),
    );
    assert.equal((await rows()).length, 1);
  } finally {
    await a[Symbol.asyncDispose]();
  }
});

test("a start compares what is here with the table: what is missing is claimed, what is gone is released", async () => {
  const first = await node("a");
  const [stays, goes] = [await first.sandboxes.spawn({ name: "stays" }), await first.sandboxes.spawn({})];
  await until(async () => (await stateOf(stays.id)) === "running");
  const nodeId = first.fleet.directory.self.id;
  await first[Symbol.asyncDispose]();
  // A backup that knows the one and not the other.
  await tests.postgres.query("DELETE FROM stacyvm.sandboxes WHERE id = $1", [stays.id]);
  await first.sandboxes.destroy(goes.id);
  await using again = await Fleet.open({
    ...{
      config: configSchema.parse({ fleet: { database_url: tests.postgres.url, node_name: "a" } }).fleet,
      dataDir: first.home,
    },
    ...{ url: "http://a:1", role: "node", version: "1", providers: ["qemu"], log: silentLog },
  });
  await again.join(first.sandboxes);
  await until(async () => (await rows()).length === 1);
  assert.deepEqual(
    (await rows()).map((row) => [row.id, row.name, row.state, row.node_id]),
    [[stays.id, "stays", "running", nodeId]],
  );
});

test("a sandbox that another node has under a newer epoch is not this one's any more, and its machine here goes on", async () => {
  await using a = await node("a");
  await using b = await node("b");
  const { id } = await a.sandboxes.spawn({ name: "work" });
  await until(async () => (await stateOf(id)) === "running");
  const [before] = await rows();
  // As a wake on b under a newer epoch will write it.
  await tests.postgres.query(
    "UPDATE stacyvm.sandboxes SET node_id = $2, epoch = nextval('stacyvm.epoch') WHERE id = $1",
    [id, b.fleet.directory.self.id],
  );
  await a.sandboxes.pause(id); // a write under the old epoch tells it
  const where = async (): Promise<string | undefined> => (await a.fleet.directory.ownerOf(id))?.nodeId;
  await until(async () => (await where()) === b.fleet.directory.self.id);
  assert.equal((await a.fleet.directory.ownerOf("work", "default"))?.nodeId, b.fleet.directory.self.id);
  const [row] = await rows();
  assert.equal(row?.state, "running", "what the old owner wrote did not count");
  assert.ok(Number(row?.epoch) > Number(before?.epoch));
  assert.equal(a.provider.machinesById.size, 1);
  await a.sandboxes.destroy(id); // a user may
  await delay(3 * HEARTBEAT_MS);
  assert.equal((await rows()).length, 1, "and the row is the other's");
});

test("a node that is drained refuses new ones, keeps what it has, and takes new ones again", async () => {
  await using a = await node("a");
  await using b = await node("b");
  const nodeA = a.fleet.directory.self.id;
  const { id } = await a.sandboxes.spawn({});
  await b.fleet.admin().drain(nodeA, true);
  assert.ok(
    b.fleet.directory.nodes().some((each) => each.id === nodeA && each.draining),
    "who has said so places nothing there any more",
  );
  await until(() => a.fleet.directory.self.draining);
  await assert.rejects(a.sandboxes.spawn({}), { code: "unavailable", message: /drained/ });
  await assert.rejects(a.sandboxes.fork(id, { count: 1 }), { code: "unavailable", message: /drained/ });
  await a.sandboxes.pause(id);
  await until(() => b.fleet.directory.nodes().some((each) => each.id === nodeA && each.draining));
  await b.fleet.nodes.drain(nodeA, false);
  await until(() => !a.fleet.directory.self.draining);
  await a.sandboxes.spawn({});
});

test("a node that stands still is silent, then lost, to the others; a removed one makes nothing new and says why", async () => {
  await using a = await node("a");
  await using b = await node("b");
  const nodeB = b.fleet.directory.self.id;
  const { id } = await b.sandboxes.spawn({});
  const stateOfB = (): NodeState | undefined => a.fleet.directory.nodes().find((each) => each.id === nodeB)?.state;
  // What stands still writes nothing; here its heartbeats are taken back instead.
  const freeze = (ms: number) =>
    tests.postgres.query("UPDATE stacyvm.nodes SET seen_at = now() - $2 * interval '1 ms' WHERE id = $1", [nodeB, ms]);
  for (const [ms, state] of [
    [10_000, "silent"],
    [61_000, "lost"],
  ] as const)
    await until(async () => {
      await freeze(ms);
      await a.fleet.refresh();
      return stateOfB() === state;
    });
  await until(() => stateOfB() === "up");
  await a.fleet.nodes.remove(nodeB, true);
  await until(() =>
    b.sandboxes.spawn({}).then(
      () => false,
      (error: Error) => /removed from the fleet/.test(error.message),
    ),
  );
  await b.sandboxes.pause(id);
  assert.deepEqual(await rows(), []);
});

test("a copy of a data directory that starts beside its original takes the node over, and the original is told", async () => {
  await using a = await node("a");
  await using copy = await node("a", { home: a.home });
  await until(() =>
    a.sandboxes.spawn({}).then(
      () => false,
      (error: Error) => /another server has registered/.test(error.message),
    ),
  );
  await copy.sandboxes.spawn({});
});

test("a name is free as soon as its sandbox's end is answered, here and on the others", async () => {
  await using a = await node("a");
  await using b = await node("b");
  for (const each of [a, b, a, b]) {
    const { id } = await a.sandboxes.spawn({ name: "work" });
    await a.sandboxes.destroy(id, "stopped");
    const next = await each.sandboxes.spawn({ name: "work" });
    await each.sandboxes.destroy(next.id, "stopped");
  }
});

test("times with fractions of a millisecond, and for ever, are taken", async () => {
  await using a = await node("a");
  const { id } = await a.sandboxes.spawn({ ttlMs: 3_600_000.5 });
  const endless = await a.sandboxes.spawn({ ttlMs: 1e17 });
  await until(async () => (await stateOf(id)) === "running" && (await stateOf(endless.id)) === "running");
});

test("tables that are an older version's again, as from a backup, are brought forward under a server that runs", async () => {
  await using a = await node("a");
  const { id } = await a.sandboxes.spawn({ name: "work" });
  await tests.postgres.query(`
    DROP TABLE stacyvm.events, stacyvm.event_marks;
    ALTER TABLE stacyvm.fleet DROP COLUMN events_base;
    DELETE FROM stacyvm.revisions WHERE what = 'events swept';
    DROP FUNCTION stacyvm.admit, stacyvm.taken;
    ALTER TABLE stacyvm.sandboxes DROP COLUMN owner_id, DROP COLUMN memory_mib, DROP COLUMN vcpus, DROP COLUMN disk_mib, DROP COLUMN request_key;
    DELETE FROM stacyvm.steps WHERE version > 3;
    DELETE FROM stacyvm.sandboxes;
  `);
  await until(async () => (await rows()).some((row) => row.id === id));
  await a.sandboxes.spawn({});
});

for (const [what, loses] of [
  ["this node", () => tests.postgres.query("TRUNCATE stacyvm.nodes CASCADE")],
  ["all of its tables", () => tests.postgres.query("DROP SCHEMA stacyvm CASCADE")],
] as const)
  test(`a database that has lost ${what} is told anew of it and of what it has, also of a drained one`, async () => {
    await using a = await node("a");
    const { id } = await a.sandboxes.spawn({ name: "work" });
    await loses();
    await until(() =>
      rows().then(
        (all) => all.some((row) => row.id === id),
        () => false,
      ),
    );
    await until(() =>
      a.sandboxes.spawn({}).then(
        () => true,
        () => false,
      ),
    );
    await a.fleet.nodes.drain(a.fleet.directory.self.id, true);
    await until(() => a.fleet.directory.self.draining);
    await tests.postgres.query("DELETE FROM stacyvm.sandboxes WHERE id = $1", [id]);
    await tests.postgres.kill();
    await tests.postgres.start();
    await until(async () => (await rows()).some((row) => row.id === id));
  });

test("a database that knows only an earlier start of a node, as from a backup, is told of this one; a copy's place stays lost", async () => {
  const first = await node("a");
  const backup = () => tests.postgres.query("SELECT id, incarnation FROM stacyvm.nodes");
  const [before] = await backup();
  await first[Symbol.asyncDispose]();
  for (let i = 0; i < 2; i++) await (await node("a", { home: first.home }))[Symbol.asyncDispose]();
  await using again = await node("a", { home: first.home });
  const { id } = await again.sandboxes.spawn({ name: "since" });
  await tests.postgres.query("DELETE FROM stacyvm.sandboxes");
  await tests.postgres.query("UPDATE stacyvm.nodes SET incarnation = $1", [before.incarnation]);
  await until(async () => (await rows()).some((row) => row.id === id));
  await again.sandboxes.spawn({});
  assert.notEqual((await backup())[0].incarnation, before.incarnation);
  await tests.postgres.query("UPDATE stacyvm.nodes SET incarnation = gen_random_uuid()");
  await until(() =>
    again.sandboxes.spawn({}).then(
      () => false,
      (error: Error) => /another server has registered/.test(error.message),
    ),
  );
});

test("a server whose database is not there, or not its own, starts all the same, and says so to whoever creates", async () => {
  await using a = await node("a", { url: tests.postgres.url.replace("/postgres?", "/nonexistent?") });
  await assert.rejects(a.sandboxes.spawn({}), { code: "unavailable", message: /not joined/ });
});
