/** The fleet's tables on a real PostgreSQL, directly and through a PgBouncer in its transaction mode: nodes, owners, epochs, notices. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { after, before, suite, test } from "node:test";
import type { FleetNode } from "../src/fleet/contract.ts";
import { FleetDatabase } from "../src/fleet/database/database.ts";
import { NODES_CHANNEL, Nodes } from "../src/fleet/database/nodes.ts";
import { type Claim, Ownerships } from "../src/fleet/database/ownerships.ts";
import { migrate, SCHEMA_VERSION } from "../src/fleet/database/schema.ts";
import { silentLog } from "../src/sandboxes/observer.ts";
import { PgBouncer, Postgres } from "./postgres.ts";

const LOST_MS = 60_000;
const HEARTBEAT_MS = 1_000;

let postgres: Postgres;
let bouncer: PgBouncer;
before(async () => {
  postgres = await Postgres.create();
  bouncer = await PgBouncer.create(postgres);
});
after(async () => {
  await bouncer?.[Symbol.asyncDispose]();
  await postgres?.[Symbol.asyncDispose]();
});

function open(url: string): FleetDatabase {
  return new FleetDatabase({ url, listenUrl: postgres.url, connections: 4, log: silentLog });
}

async function join(database: FleetDatabase, name: string, id: string = randomUUID()) {
  const incarnation = randomUUID();
  const node = {
    ...{ id, name, url: `http://${name}`, role: "node" as const, version: "1", labels: {}, architecture: "x64" },
    ...{ providers: ["qemu"], hostIdentity: "cpu" },
    load: {
      ...{ sandboxes: 0, maxSandboxes: 0, queued: 0, vcpus: 2, memoryMiB: 1024, freeMemoryMiB: 512, loadAverage: 0 },
      ...{ warm: [], snapshots: [], images: [] },
    },
  };
  await new Nodes(database, LOST_MS).register(node, incarnation, HEARTBEAT_MS);
  return { id, incarnation, node, ownerships: new Ownerships(database, id, incarnation) };
}

let made = 0;
function claimOf(more: Partial<Claim> = {}): Claim {
  made += 1;
  const sandboxId = `sb-${made.toString(16).padStart(8, "0")}`;
  const size = { memoryMiB: 512, vcpus: 1, diskMiB: 1024 };
  const createdAt = Date.now() + made;
  return {
    ...{ sandboxId, owner: "ada", state: "creating", image: "alpine", ...size, createdAt, expiresAt: createdAt + 1 },
    ...more,
  };
}

for (const way of ["directly", "through PgBouncer"] as const) {
  suite(`the fleet's database ${way}`, () => {
    let database: FleetDatabase;
    let nodes: Nodes;
    before(async () => {
      database = open(way === "directly" ? postgres.url : bouncer.url);
      nodes = new Nodes(database, LOST_MS);
      await migrate(database);
    });
    after(() => database[Symbol.asyncDispose]());
    const named = async (name: string): Promise<FleetNode | undefined> =>
      (await nodes.list()).find((node) => node.name === name);

    test("servers that start at once bring the tables forward once", async () => {
      await postgres.query("DROP SCHEMA stacyvm CASCADE");
      await Promise.all(Array.from({ length: 8 }, () => migrate(database)));
      const steps = await postgres.query("SELECT version FROM stacyvm.steps ORDER BY version");
      assert.deepEqual(
        steps.map(({ version }) => version),
        Array.from({ length: SCHEMA_VERSION }, (_, index) => index + 1),
      );
    });

    test("tables of a newer version are worked with as long as they allow it, and refused by name afterwards", async () => {
      await postgres.query("INSERT INTO stacyvm.steps (version, works) VALUES (1000, $1)", [SCHEMA_VERSION]);
      try {
        await migrate(database);
        await postgres.query("UPDATE stacyvm.steps SET works = 1000 WHERE version = 1000");
        await assert.rejects(migrate(database), { code: "conflict", message: /newer version \(1000\)/ });
      } finally {
        await postgres.query("DELETE FROM stacyvm.steps WHERE version = 1000");
      }
    });

    test("a node is up, then silent, then lost, by the database's clock, and up again with its next heartbeat", async () => {
      const { id, incarnation } = await join(database, `states-${way}`);
      const age = (ms: number) =>
        postgres.query("UPDATE stacyvm.nodes SET seen_at = now() - $2 * interval '1 ms' WHERE id = $1", [id, ms]);
      assert.equal((await named(`states-${way}`))?.state, "up");
      await age(4 * HEARTBEAT_MS);
      assert.equal((await named(`states-${way}`))?.state, "silent");
      await age(LOST_MS + 1_000);
      assert.equal((await named(`states-${way}`))?.state, "lost");
      assert.equal(typeof (await nodes.beat(id, incarnation, undefined)), "object");
      assert.equal((await named(`states-${way}`))?.state, "up");
    });

    test("a look at what has changed tells of others' changes, of who is silent, and not of what nodes say with each heartbeat", async () => {
      const { id, incarnation } = await join(database, `look-${way}`);
      const other = await join(database, `other-${way}`);
      // All that was changed until now is long ago.
      await postgres.query("UPDATE stacyvm.nodes SET changed_at = now() - interval '1 minute'");
      const first = await nodes.changes((await nodes.changes("-infinity", [])).at, []);
      assert.deepEqual([first.nodes, first.removed], [[], []]);
      assert.equal(first.count, (await nodes.list()).length);
      const load = (await named(`look-${way}`))?.load as FleetNode["load"];
      await nodes.beat(id, incarnation, { ...load, sandboxes: 7 });
      assert.deepEqual((await nodes.changes(first.at, [])).nodes, []);
      const [asked] = (await nodes.changes(first.at, [id])).nodes;
      assert.deepEqual([asked?.id, asked?.load.sandboxes, asked?.state], [id, 7, "up"]);
      await postgres.query("UPDATE stacyvm.nodes SET seen_at = now() - interval '1 hour' WHERE id = $1", [other.id]);
      await nodes.drain(id, true);
      const changes = await nodes.changes(first.at, []);
      assert.deepEqual(
        changes.nodes.map((node) => [node.id, node.draining]),
        [[id, true]],
      );
      assert.equal(changes.silent.get(other.id), "lost");
      await nodes.remove(other.id, true);
      assert.deepEqual((await nodes.changes(first.at, [])).removed, [other.id]);
    });

    test("a name is one node's; of two processes with one id the later one is the node", async () => {
      const first = await join(database, `name-${way}`);
      await assert.rejects(join(database, `name-${way}`), { code: "conflict", message: /another node/ });
      const second = await join(database, `name-${way}`, first.id);
      assert.equal(await nodes.beat(first.id, first.incarnation, undefined), "replaced");
      assert.equal(typeof (await nodes.beat(first.id, second.incarnation, undefined)), "object");
      await assert.rejects(first.ownerships.claim(claimOf()), { code: "unavailable" });
      assert.equal((await second.ownerships.claim(claimOf())).nodeId, first.id);
    });

    test("a sandbox has one owner: of many that claim one id, one gets it, and keeps its epoch when it asks again", async () => {
      const all = await Promise.all(Array.from({ length: 6 }, (_, index) => join(database, `many-${index}-${way}`)));
      const claim = claimOf();
      const outcomes = await Promise.allSettled(all.map(({ ownerships }) => ownerships.claim(claim)));
      const won = outcomes.flatMap((each, index) => (each.status === "fulfilled" ? [{ index, got: each.value }] : []));
      assert.equal(won.length, 1);
      for (const each of outcomes) if (each.status === "rejected") assert.equal(each.reason.code, "unavailable");
      const { index, got } = won[0] as (typeof won)[0];
      assert.equal(got.nodeId, all[index]?.id);
      assert.equal((await all[index]?.ownerships.claim(claim))?.epoch, got.epoch);
      assert.deepEqual(await all[0]?.ownerships.of([claim.sandboxId]), [got]);
    });

    test("a write under an older epoch, or of another node, changes nothing, and its writer is told", async () => {
      const old = await join(database, `old-${way}`);
      const other = await join(database, `other-${way}`);
      const claim = claimOf();
      const { epoch } = await old.ownerships.claim(claim);
      const write = { sandboxId: claim.sandboxId, epoch, state: "running", expiresAt: 5 };
      assert.deepEqual(await other.ownerships.publish([write]), new Set());
      assert.deepEqual(await old.ownerships.publish([write]), new Set([claim.sandboxId]));
      // As a wake elsewhere will do it: another owner, under a newer epoch.
      await postgres.query(
        "UPDATE stacyvm.sandboxes SET node_id = $2, epoch = nextval('stacyvm.epoch') WHERE id = $1",
        [claim.sandboxId, other.id],
      );
      assert.deepEqual(await old.ownerships.publish([{ ...write, state: "error" }]), new Set());
      await old.ownerships.release([write]);
      const [now] = await old.ownerships.of([claim.sandboxId]);
      assert.equal(now?.state, "running");
      assert.equal(now?.nodeId, other.id);
      assert.ok((now?.epoch ?? 0) > epoch);
      await assert.rejects(old.ownerships.claim(claim), { code: "unavailable" });
      await other.ownerships.release([{ sandboxId: claim.sandboxId, epoch: now?.epoch ?? 0 }]);
      assert.deepEqual(await old.ownerships.of([claim.sandboxId]), []);
    });

    test("a name is one sandbox's of its owner in the whole fleet, and free again after its end", async () => {
      const [a, b] = [await join(database, `names-a-${way}`), await join(database, `names-b-${way}`)];
      const first = await a.ownerships.claim(claimOf({ name: "work" }));
      await assert.rejects(b.ownerships.claim(claimOf({ name: "work" })), { code: "conflict", message: /name work/ });
      await b.ownerships.claim(claimOf({ name: "work", owner: "bob" }));
      assert.equal((await b.ownerships.named("ada", "work"))?.sandboxId, first.sandboxId);
      await a.ownerships.release([first]);
      const again = await b.ownerships.claim(claimOf({ name: "work" }));
      assert.deepEqual(
        (await b.ownerships.all({ owner: "ada", nodeId: b.id })).map((each) => each.sandboxId),
        [again.sandboxId],
      );
      await b.ownerships.release([again, ...(await b.ownerships.all({ owner: "bob" }))]);
    });

    test("a node that is up or has sandboxes is removed by force only; then it claims, writes and says nothing any more", async () => {
      const { id, incarnation, ownerships, node } = await join(database, `gone-${way}`);
      const { sandboxId, epoch } = await ownerships.claim(claimOf());
      await assert.rejects(nodes.remove(id, false), { code: "conflict", message: /has a sandbox/ });
      assert.deepEqual(await nodes.remove(id, true), [sandboxId]);
      assert.deepEqual(await nodes.remove(id, true), [], "once more: nothing is left to do");
      await assert.rejects(nodes.remove(randomUUID(), true), { code: "not-found" });
      assert.equal(await named(`gone-${way}`), undefined);
      assert.equal(await nodes.beat(id, incarnation, undefined), "removed");
      await assert.rejects(ownerships.claim(claimOf()), { code: "unavailable" });
      assert.deepEqual(await ownerships.publish([{ sandboxId, epoch, state: "running", expiresAt: 1 }]), new Set());
      await assert.rejects(nodes.register(node, randomUUID(), HEARTBEAT_MS), { code: "conflict", message: /removed/ });
      // Its name is free.
      await join(database, `gone-${way}`);
    });

    test("a start anew gives the node's sandboxes new epochs: what the process before still writes changes nothing", async () => {
      const first = await join(database, `anew-${way}`);
      const claim = claimOf();
      const { epoch } = await first.ownerships.claim(claim);
      const second = await join(database, `anew-${way}`, first.id);
      const write = { sandboxId: claim.sandboxId, epoch, state: "error", expiresAt: 9 };
      assert.deepEqual(await first.ownerships.publish([write]), new Set());
      await first.ownerships.release([write]);
      const [now] = await second.ownerships.of([claim.sandboxId]);
      assert.ok((now?.epoch ?? 0) > epoch);
      assert.equal(now?.state, "creating");
    });

    test("of processes that register as one node at once, those that are refused are told, and one that was not is the node", async () => {
      const id = randomUUID();
      const all = await Promise.allSettled(Array.from({ length: 6 }, () => join(database, `once-${way}`, id)));
      const told = all.flatMap((each) => (each.status === "fulfilled" ? [each.value.incarnation] : []));
      for (const each of all) if (each.status === "rejected") assert.equal(each.reason.code, "unavailable");
      const answers = await Promise.all(told.map((incarnation) => nodes.beat(id, incarnation, undefined)));
      assert.equal(answers.filter((answer) => typeof answer === "object").length, 1);
    });

    test("a node that is removed while it claims has nothing afterwards", async () => {
      for (let round = 0; round < 20; round++) {
        const { id, ownerships } = await join(database, `race-${round}-${way}`);
        await Promise.allSettled([
          ...[1, 2, 3].map(() => ownerships.claim(claimOf())),
          nodes.remove(id, true),
          ...[1, 2, 3].map(() => ownerships.claim(claimOf())),
        ]);
        assert.deepEqual(await ownerships.all({ nodeId: id }), []);
      }
    });

    test("a node of which the database knows nothing is told so, not that it was removed", async () => {
      assert.equal(await nodes.beat(randomUUID(), randomUUID(), undefined), "unknown");
    });

    test("whoever listens is told of a change of nodes", async () => {
      const told = new EventTarget();
      database.listen(NODES_CHANNEL, (payload) => told.dispatchEvent(new CustomEvent("told", { detail: payload })));
      await once(told, "told"); // it listens
      const { id } = await join(database, `told-${way}`);
      let next = once(told, "told");
      await nodes.drain(id, true);
      for (;;) {
        const [event] = (await next) as [CustomEvent<string>];
        if (event.detail === id && (await named(`told-${way}`))?.draining === true) break;
        next = once(told, "told");
      }
      await nodes.drain(id, false);
      assert.equal((await named(`told-${way}`))?.draining, false);
      await assert.rejects(nodes.drain(randomUUID(), true), { code: "not-found" });
    });
  });
}

test("a database that is killed is said to be away at once, and is there again by itself", async () => {
  await using database = open(postgres.url);
  await database.query("SELECT 1");
  await postgres.kill();
  await assert.rejects(database.query("SELECT 1"), { code: "unavailable", message: /database does not answer/ });
  assert.ok(database.away !== undefined);
  await postgres.start();
  assert.deepEqual((await database.query<{ one: number }>("SELECT 1 AS one")).rows, [{ one: 1 }]);
  assert.equal(database.away, undefined);
});

test("a database that stands still holds up nobody for ever", async () => {
  await using database = open(postgres.url);
  await database.query("SELECT 1");
  await postgres.stop();
  try {
    await assert.rejects(database.query("SELECT 1"), { code: "unavailable" });
  } finally {
    await postgres.goOn();
  }
  await database.query("SELECT 1");
});

test("connections that have gone dumb are waited for once, not one after another", async () => {
  await using database = open(postgres.url);
  const slow = () => database.query<{ pid: number }>("SELECT pg_backend_pid() AS pid, pg_sleep(0.2)");
  const pids = (await Promise.all([1, 2, 3, 4].map(slow))).map(({ rows }) => rows[0]?.pid ?? 0);
  assert.equal(new Set(pids).size, 4);
  // As by a fail-over behind an address that stays: the server answers, these connections never do.
  for (const pid of pids) process.kill(pid, "SIGSTOP");
  try {
    await assert.rejects(database.query("SELECT 1"), { code: "unavailable" });
    const { rows } = await database.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    assert.ok(!pids.includes(rows[0]?.pid ?? 0));
  } finally {
    for (const pid of pids) process.kill(pid, "SIGCONT");
  }
});

test("a server ends although its database stands still", async () => {
  const database = open(postgres.url);
  const told = new EventTarget();
  database.listen(NODES_CHANNEL, () => told.dispatchEvent(new Event("told")));
  await once(told, "told");
  await database.query("SELECT 1");
  await postgres.stop();
  try {
    await database[Symbol.asyncDispose]();
  } finally {
    await postgres.goOn();
  }
});

test("what is no address of a PostgreSQL is refused with what one looks like", () => {
  for (const url of ["mysql://host/db", "postgresql://user:p@ss:word@[host/db"])
    assert.throws(() => open(url), { code: "invalid", remedy: /postgresql:\/\// });
});
