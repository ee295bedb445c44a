/** What happens on several servers, read as one list from any of them, with a real PostgreSQL. */
import assert from "node:assert/strict";
import { test } from "node:test";
import pg from "pg";
import { FleetEvents } from "../src/fleet/events.ts";
import type { SandboxEvent } from "../src/sandboxes/events.ts";
import { silentLog } from "../src/sandboxes/observer.ts";
import { Store } from "../src/sandboxes/store.ts";
import { fakeWorld } from "./fake-provider.ts";
import { fleetTests, until } from "./fleet-support.ts";

const tests = fleetTests();

async function server(name: string, { home, store = new Store(":memory:") }: { home?: string; store?: Store } = {}) {
  const { fleet, home: dir } = await tests.open(name, { home });
  const world = fakeWorld({ registry: fleet.registry, eventLog: fleet.events, store });
  await fleet.join(world.sandboxes);
  return {
    ...world,
    fleet,
    home: dir,
    events: fleet.events,
    [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose](),
  };
}
type Server = Awaited<ReturnType<typeof server>>;

/** As a stream of the API does. @returns how it ends, with the number up to which it has read */
function follow({ events }: Pick<Server, "events">, from: number, owner?: string) {
  const found: SandboxEvent[] = [];
  const stop = new AbortController();
  const reading = (async () => {
    let at = from;
    while (!stop.signal.aborted) {
      const newest = await events.newest();
      const batch = await events.after(at, owner);
      if (batch.length === 0) at = Math.max(at, newest);
      for (const event of batch) at = event.number;
      found.push(...batch);
      if (batch.length === 0) await events.wait(10_000, stop.signal);
    }
    return at;
  })();
  const end = async (): Promise<number> => {
    stop.abort();
    return reading;
  };
  return { found, end };
}

const created = (all: readonly SandboxEvent[]): string[] =>
  all.filter(({ type }) => type === "sandbox.created").map(({ sandboxId }) => sandboxId as string);

test("events of all servers are one list, alike on each, that goes on at another one from where it was left", async () => {
  await using a = await server("a");
  await using b = await server("b");
  const from = await a.events.newest();
  const there = follow(b, from);
  const ids: string[] = [];
  for (let i = 0; i < 20; i++)
    ids.push((await (i % 2 === 0 ? a : b).sandboxes.spawn({ owner: i < 10 ? "ada" : "bob" })).id);
  await until(() => created(there.found).length === 20);
  const left = await there.end();
  assert.deepEqual(created(there.found).toSorted(), ids.toSorted());
  const here = follow(a, from);
  const own = follow(a, from, "ada");
  await until(() => here.found.length >= there.found.length && created(own.found).length === 10);
  await here.end();
  await own.end();
  assert.deepEqual(here.found.slice(0, there.found.length), there.found, "the same events under the same numbers");
  assert.deepEqual(created(own.found).toSorted(), ids.slice(0, 10).toSorted());
  assert.ok(here.found.every(({ number }, i) => number > (here.found[i - 1]?.number ?? from)));
  // Of those that came while it was with nobody.
  const { id } = await b.sandboxes.spawn({});
  const again = follow(a, left);
  await until(() => created(again.found).includes(id));
  await again.end();
  assert.deepEqual(created(again.found), [id]);
  const history: SandboxEvent[] = [];
  for (let at = Number.MAX_SAFE_INTEGER; ; at = history.at(-1)?.number as number) {
    const page = await b.events.before(at);
    if (page.length === 0) break;
    history.push(...page);
  }
  assert.deepEqual(created(history).toSorted(), [...ids, id].toSorted());
});

test("one that is being written holds back those after it: who follows misses none", async () => {
  await using a = await server("a");
  const slow = new pg.Client({ connectionString: tests.postgres.url });
  await slow.connect();
  await slow.query("BEGIN");
  await slow.query(
    `INSERT INTO stacyvm.events (n, at, type) SELECT pg_current_xact_id()::text::bigint * 1024 + 1, 0, 'sandbox.error'`,
  );
  const read = follow(a, 0);
  const { id } = await a.sandboxes.spawn({});
  await until(
    async () => (await tests.postgres.query("SELECT 1 FROM stacyvm.events WHERE sandbox_id = $1", [id])).length > 0,
  );
  const [before] = await tests.postgres.query(
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint * 1024 AS n",
  );
  await until(async () => (await a.events.newest()) >= Number(before.n) - 1);
  assert.deepEqual(created(read.found), []);
  await slow.query("COMMIT");
  await slow.end();
  await until(() => created(read.found).length === 1);
  await read.end();
  assert.equal(read.found[0]?.type, "sandbox.error");
});

test("while the database is away events wait, and each comes once; so it is over restarts", async () => {
  const store = new Store(":memory:");
  const a = await server("a", { store });
  await using b = await server("b");
  const read = follow(b, await b.events.newest());
  await a.sandboxes.spawn({ name: "first" });
  await until(() => created(read.found).length === 1);
  await tests.postgres.kill();
  for (let i = 0; i < 600; i++) a.sandboxes.events.emit("quota.saved", undefined, { i }, "ada");
  await tests.postgres.start();
  const told = (): number[] =>
    read.found.flatMap(({ type, data }) => (type === "quota.saved" ? [data?.i as number] : []));
  await until(() => told().length >= 600);
  await a[Symbol.asyncDispose]();
  await using again = await server("a", { store, home: a.home });
  await again.sandboxes.quotas.put("ada", "*", { maxSandboxes: 1, maxTtlMs: 0, maxExecTimeoutMs: 0 });
  await until(() => told().length >= 601);
  await read.end();
  assert.deepEqual(
    told().slice(0, 600),
    Array.from({ length: 600 }, (_, i) => i),
  );
});

test("tables that have come from another cluster, whose transactions had greater numbers, go on", async () => {
  {
    await using a = await server("a");
    await a.sandboxes.spawn({});
    await until(async () => (await tests.postgres.query("SELECT 1 FROM stacyvm.events")).length > 0);
  }
  await tests.postgres.query("UPDATE stacyvm.events SET n = n + 1000000000000");
  await using b = await server("b");
  const from = await b.events.newest();
  const read = follow(b, from);
  const { id } = await b.sandboxes.spawn({});
  await until(() => created(read.found).length === 1);
  await read.end();
  assert.deepEqual(created(read.found), [id]);
  assert.ok((read.found[0]?.number ?? 0) > 1_000_000_000_000);
  assert.equal(created(await b.events.before(Number.MAX_SAFE_INTEGER)).length, 2);
});

for (const [what, lose] of [
  ["set back to a backup", () => tests.postgres.query("DELETE FROM stacyvm.events")],
  ["brought to another cluster", async () => {}],
] as const)
  test(`under servers that run, a database that is ${what} gives new events numbers that nobody has read past`, async () => {
    await using a = await server("a");
    await using b = await server("b");
    const read = follow(b, await b.events.newest());
    const { id: before } = await a.sandboxes.spawn({});
    await until(() => created(read.found).includes(before));
    // Transactions' numbers go back; here what is added to them does.
    await tests.postgres.query("UPDATE stacyvm.fleet SET events_base = events_base - 1000000");
    await lose();
    const made: string[] = [];
    for (const each of [a, b, a]) {
      const { id } = await each.sandboxes.spawn({});
      made.push(id);
      await until(async () => created(await a.events.before(Number.MAX_SAFE_INTEGER)).includes(id));
    }
    await until(() => made.every((id) => created(read.found).includes(id)));
    await read.end();
    assert.deepEqual(created(read.found), [before, ...made]);
    assert.deepEqual(created(await a.events.before(Number.MAX_SAFE_INTEGER)).slice(0, 3), made.toReversed());
  });

test("one that comes while old ones are being removed is not left to the next one", async () => {
  await using a = await server("a");
  const { events: local } = a.sandboxes;
  const late = new FleetEvents(
    {
      away: undefined,
      query: async (sql) => {
        if (sql.includes("events swept")) local.emit("quota.saved");
        return { rows: [{ n: `${local.last}` }] as never[], count: 1 };
      },
    },
    "b",
    silentLog,
  );
  const waited = Promise.withResolvers<boolean>();
  const sent: number[] = [];
  late.follow({
    get last() {
      return local.last;
    },
    after: (number) => {
      sent.push(number);
      return local.after(number);
    },
    wait: (ms, signal) => {
      waited.resolve(sent.at(-1) === local.last);
      return local.wait(ms, signal);
    },
  });
  assert.ok(await waited.promise, "it waits when all are sent");
  await late[Symbol.asyncDispose]();
});
