/**
 * Several servers in this process, each with the application, the listeners and the trust that a server has, and with machines that are
 * plain objects: who is asked for what, and who is believed. Where things are says a table in memory; PostgreSQL's is in test/.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, request } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { after, test } from "node:test";
import pino from "pino";
import { connection } from "../../test/fake-access.ts";
import { fakeApp } from "../../test/fake-app.ts";
import { listen, type RunningServer } from "../api/server.ts";
import { validateConfig } from "../config/load.ts";
import { sha256 } from "../host/digest.ts";
import type { Directory, FleetNode, Ownership, OwnershipFilter } from "./contract.ts";
import { FLEET_HEADER } from "./forwarding/forwarder.ts";
import { NodesListener } from "./nodes-listener.ts";
import { Assertions, derived, GOOD_MS } from "./trust/assertions.ts";

const SECRET = "a secret of a fleet, long enough for anybody";
const log = pino({ level: "silent" });

const owned: (() => unknown)[] = [];
after(() => Promise.all(owned.map((end) => end())));

type App = ReturnType<typeof fakeApp>;

class Member {
  readonly app: App;
  readonly listener: NodesListener;
  readonly server: RunningServer;
  readonly node: { -readonly [K in keyof FleetNode]: FleetNode[K] };
  key = "";
  /** What it believes of where things are, right or wrong. */
  readonly cache: Map<string, Ownership>;
  readonly directory: Directory;

  constructor(parts: Pick<Member, "app" | "listener" | "server" | "node" | "cache" | "directory">) {
    this.directory = parts.directory;
    this.app = parts.app;
    this.listener = parts.listener;
    this.server = parts.server;
    this.node = parts.node;
    this.cache = parts.cache;
  }

  async ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
    const asked = request(`${this.server.url}${path}`, {
      method,
      headers: {
        ...(this.key === "" ? {} : { "x-api-key": this.key }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
    });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    const said = await text(answer);
    // biome-ignore lint/suspicious/noExplicitAny: tests look into every kind of answer
    let value: any = said;
    try {
      value = JSON.parse(said);
    } catch {}
    return { status: answer.statusCode ?? 0, body: value, headers: answer.headers };
  }

  spawn(options: Record<string, unknown> = {}) {
    return this.app.sandboxes.spawn({ owner: "default", ...options } as never);
  }
}

/** A fleet of those: each knows the others, and a key of its own that nobody else knows. */
async function fleetOf(
  count: number,
  options: (i: number) => NonNullable<Parameters<typeof fakeApp>[0]> & { role?: FleetNode["role"] } = () => ({}),
): Promise<Member[]> {
  const members: Member[] = [];
  const owned_ = (filter?: OwnershipFilter): Ownership[] =>
    members
      .flatMap(({ app, node }) =>
        app.sandboxes.list().map((one) => ({
          ...{ sandboxId: one.id, nodeId: node.id, epoch: 1, owner: one.owner, state: one.state, image: one.image },
          ...{ memoryMiB: one.memoryMiB, vcpus: one.vcpus, diskMiB: one.diskMiB },
          ...{ createdAt: one.createdAt, expiresAt: one.expiresAt },
          ...(one.name === undefined ? {} : { name: one.name }),
        })),
      )
      .filter(({ owner, nodeId }) => (filter?.owner ?? owner) === owner && (filter?.nodeId ?? nodeId) === nodeId);
  for (let i = 0; i < count; i++) {
    const { role = "node", ...given } = options(i);
    const app = fakeApp({ secret: derived(SECRET, "tokens"), ...given });
    app.clock.set(Date.now() - 10_000 + i);
    const config = {
      ...app.config,
      server: { ...app.config.server, port: 0 },
      fleet: { ...app.config.fleet, address: "127.0.0.1:0", secret: SECRET },
    };
    const listener = await NodesListener.bind(config, log);
    const node = {
      ...{
        id: `node-${i}`,
        name: `n${i}`,
        url: listener.url,
        role,
        state: "up" as const,
        draining: false,
        version: "0",
      },
      ...{ labels: {}, architecture: "x64", providers: ["fake"], hostIdentity: "x", seenAt: Date.now() },
      load: {
        sandboxes: 0,
        maxSandboxes: 0,
        queued: 0,
        vcpus: 1,
        memoryMiB: 0,
        freeMemoryMiB: 0,
        loadAverage: 0,
        warm: [],
        snapshots: [],
        images: [],
      },
    };
    const cache = new Map<string, Ownership>();
    const directory: Directory = {
      self: node,
      nodes: () => members.map((member) => member.node),
      refresh: async () => {},
      ownerOf: async (idOrName, whose) =>
        cache.get(idOrName) ??
        owned_().find((one) => one.sandboxId === idOrName || (one.name === idOrName && one.owner === whose)),
      requested: async (owner, key) => {
        const all = members.flatMap(({ app }) => app.sandboxes.list());
        const made = all.find((one) => one.owner === owner && one.request?.key === key);
        return owned_().find(({ sandboxId }) => sandboxId === made?.id);
      },
      mistaken: (id) => void cache.delete(id),
      all: async (filter) => owned_(filter),
    };
    const placement = {
      candidates: (nodes: readonly FleetNode[]) =>
        nodes.filter((each) => each.role === "node" && each.state === "up" && !each.draining).toReversed(),
    };
    const front = listener.open({
      ...{ placement, config, log, sandboxes: app.sandboxes, access: app.access, tokens: app.tokens },
      ...{ app: app.app, images: app.images },
      // Without a database nobody can say whose one is that moves.
      fleet: { directory, lost: () => false, moveBy() {}, ownership: {} as never },
    });
    const server = await listen(app.app, config.server, { front });
    owned.push(() => Promise.all([server.close(0), listener.close(0)]));
    const member = new Member({ app, listener, server, node, cache, directory });
    const { secret } = await app.keys.create({ name: `k${i}`, owner: "default", scopes: ["admin"] }, "test");
    member.key = secret;
    members.push(member);
  }
  return members;
}

function pair(): Promise<[Member, Member]> {
  return fleetOf(2) as Promise<[Member, Member]>;
}

test("a sandbox that another node has is asked for there: by id and by name, read, changed and ended", async () => {
  const [here, there] = await pair();
  const { record } = await there.spawn({ name: "web" });
  for (const name of [record.id, "web"]) {
    const answer = await here.ask("GET", `/api/v1/sandboxes/${name}`);
    assert.deepEqual([answer.status, answer.body.id], [200, record.id], JSON.stringify(answer.body));
  }
  assert.equal((await here.ask("POST", "/api/v1/sandboxes/web/pause")).body.state, "paused");
  assert.equal((await here.ask("POST", `/sandboxes/${record.id}/timeout`, { timeout: 60 })).status, 204, "E2B's");
  // Errors as they are there.
  const wrong = await here.ask("POST", "/api/v1/sandboxes/web/extend", { ttl: "nonsense" });
  assert.deepEqual([wrong.status, wrong.body.code], [400, "BAD_REQUEST"]);
  assert.equal((await here.ask("DELETE", "/api/v1/sandboxes/web")).body.status, "destroyed");
  assert.equal(there.app.sandboxes.list().length, 0);
  assert.equal((await here.ask("GET", "/api/v1/sandboxes/web")).status, 404);
  // The audit log of the node that did it says who did it.
  const entries = there.app.audit;
  assert.ok(entries !== undefined);
});

test("who calls is found out where it comes in: a key of there alone, of nobody, of another owner, one that may only read", async () => {
  const [here, there] = await pair();
  const { record } = await there.spawn();
  const path = `/api/v1/sandboxes/${record.id}`;
  for (const key of ["", "stk_wrong", there.key]) {
    const answer = await here.ask("GET", path, undefined, { "x-api-key": key });
    assert.equal(answer.status, 401, key);
  }
  const { secret: other } = await here.app.keys.create({ name: "o", owner: "other", scopes: ["use"] }, "test");
  assert.equal((await here.ask("GET", path, undefined, { "x-api-key": other })).status, 404);
  const { secret: reader, record: kept } = await here.app.keys.create(
    { name: "r", owner: "default", scopes: ["read"] },
    "test",
  );
  assert.equal((await here.ask("GET", path, undefined, { "x-api-key": reader })).status, 200);
  assert.equal((await here.ask("DELETE", path, undefined, { "x-api-key": reader })).status, 403);
  assert.ok(kept.id);
  // What an administrator does as another owner, it does there as that one.
  const theirs = await there.spawn({ owner: "other", name: "mine" });
  const asOther = await here.ask("GET", "/api/v1/sandboxes/mine", undefined, { "x-owner": "other" });
  assert.equal(asOther.body.id, theirs.record.id);
  assert.equal((await here.ask("GET", "/api/v1/sandboxes/mine")).status, 404);
});

test("nobody but a node of the fleet is believed", async () => {
  const [here, there] = await pair();
  const { record } = await there.spawn();
  const path = `/api/v1/sandboxes/${record.id}`;
  const caller = {
    ...{ name: "root", owner: "default", scopes: ["admin" as const] },
    credential: { id: "x", bound: "y" },
  };
  const claim = { to: "node-1", address: "10.0.0.1", sandbox: record.id, caller };
  const ask = async (
    sign: (headers: string[]) => string,
    { method = "GET", at = path, url = there.listener.url, extra = [] as string[] } = {},
  ): Promise<number> => {
    const headers = ["Host", "x", ...extra];
    const asked = request(url, { method, path: at, headers: [...headers, FLEET_HEADER, sign(headers)] });
    asked.end();
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    answer.resume();
    return answer.statusCode ?? 0;
  };
  const ofHere = new Assertions(SECRET, "node-0");
  const sealed = (headers: string[], method = "GET", at = path) => ({ method, path: at, headers });
  assert.equal(await ask((headers) => ofHere.sign(claim, sealed(headers))), 200);
  // What is none.
  assert.equal(await ask(() => "nonsense"), 403);
  assert.equal(await ask(() => "e30.AAAA"), 403);
  const foreign = new Assertions(`${SECRET}!`, "node-0");
  assert.equal(await ask((headers) => foreign.sign(claim, sealed(headers))), 403, "another secret");
  // What was for something else.
  assert.equal(
    await ask((headers) => ofHere.sign({ ...claim, to: "node-0" }, sealed(headers))),
    403,
    "for another node",
  );
  assert.equal(
    await ask((headers) => ofHere.sign(claim, sealed(headers)), { method: "DELETE" }),
    403,
    "another method",
  );
  assert.equal(await ask((headers) => ofHere.sign(claim, sealed(headers)), { at: `${path}?x=1` }), 403, "another path");
  assert.equal(
    await ask((headers) => ofHere.sign(claim, sealed(headers.slice(0, 2))), { extra: ["X-Owner", "other"] }),
    403,
    "a header more",
  );
  // Once, and soon.
  let kept = "";
  const once_ = (headers: string[]): string => (kept ||= ofHere.sign(claim, sealed(headers)));
  assert.deepEqual([await ask(once_), await ask(once_)], [200, 403]);
  for (const ms of [-GOOD_MS - 1_000, GOOD_MS + 1_000]) {
    const late = new Assertions(SECRET, "node-0", () => Date.now() + ms);
    assert.equal(await ask((headers) => late.sign(claim, sealed(headers))), 403, `${ms} ms`);
  }
  // A node that is none, or no longer; and whoever says nothing.
  const removed = new Assertions(SECRET, "node-9");
  assert.equal(await ask((headers) => removed.sign(claim, sealed(headers))), 503);
  const plain = await fetch(`${there.listener.url}${path}`, { headers: { "x-api-key": there.key } });
  assert.equal(plain.status, 403, "a client with a good key");
  // A client that says it where clients come in is not heard, here or behind it.
  for (const member of [there, here]) {
    const forged = ofHere.sign({ ...claim, to: member.node.id }, sealed(["Host", "x"]));
    const answer = await member.ask("GET", path, undefined, { "x-api-key": "", [FLEET_HEADER]: forged });
    assert.equal(answer.status, 401);
  }
});

test("what is believed of a place is corrected by the node that is asked, with the body that it had", async () => {
  const [here, there, third] = (await fleetOf(3)) as [Member, Member, Member];
  const { record } = await third.spawn();
  const wrong = {
    sandboxId: record.id,
    nodeId: there.node.id,
    epoch: 1,
    owner: "default",
    state: "running",
    image: "",
    ...{ memoryMiB: 0, vcpus: 0, diskMiB: 0 },
  };
  here.cache.set(record.id, { ...wrong, createdAt: 0, expiresAt: 0 });
  const answer = await here.ask("POST", `/api/v1/sandboxes/${record.id}/extend`, { ttl: "2h" });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  assert.equal(here.cache.size, 0);
  // One that is nowhere any more.
  const gone = (await there.spawn()).record;
  here.cache.set(gone.id, { ...wrong, sandboxId: gone.id, createdAt: 0, expiresAt: 0 });
  await there.app.sandboxes.destroy(gone.id, "stopped");
  assert.equal((await here.ask("GET", `/api/v1/sandboxes/${gone.id}`)).status, 404);
  // Its row is still there for a moment.
  const ownerOf = here.directory.ownerOf;
  here.directory.ownerOf = async () => ({ ...wrong, sandboxId: gone.id, createdAt: 0, expiresAt: 0 });
  assert.equal((await here.ask("GET", `/api/v1/sandboxes/${gone.id}`)).status, 404);
  assert.equal((await here.ask("DELETE", `/api/v1/sandboxes/${gone.id}`)).body.status, "destroyed");
  assert.equal((await here.ask("POST", `/api/v1/sandboxes/${gone.id}/extend`, { ttl: "2h" })).status, 404);
  here.directory.ownerOf = ownerOf;
  here.cache.set(gone.id, { ...wrong, sandboxId: gone.id, createdAt: 0, expiresAt: 0 });
  assert.equal((await here.ask("POST", `/api/v1/sandboxes/${gone.id}/extend`, { ttl: "2h" })).status, 404);
});

test("the sandboxes of a node that does not answer are unreachable, and say when to ask again; lists have them", async () => {
  const [here, there] = await pair();
  const { record } = await there.spawn({ name: "web" });
  const mine = await here.spawn();
  assert.deepEqual(
    (await here.ask("GET", "/api/v1/sandboxes")).body.map(({ id }: { id: string }) => id).sort(),
    [record.id, mine.record.id].sort(),
  );
  // Only its way to the database is cut: what is here goes on.
  there.node.state = "silent";
  assert.equal((await here.ask("GET", "/api/v1/sandboxes/web")).status, 200);
  assert.equal((await here.ask("GET", "/api/v1/sandboxes")).body.length, 2);
  there.node.state = "up";
  await there.listener.close(0);
  const refused = await here.ask("GET", `/api/v1/sandboxes/${record.id}`);
  assert.deepEqual([refused.status, refused.body.phase], [503, "unreachable"]);
  assert.equal(refused.headers["x-request-id"], refused.body.request_id);
  for (const [origin, allowed] of [
    [here.server.url, here.server.url],
    ["https://evil.example", undefined],
  ] as const) {
    const { headers } = await here.ask("GET", `/api/v1/sandboxes/${record.id}`, undefined, { origin });
    assert.equal(headers["access-control-allow-origin"], allowed);
  }
  const own = await here.ask("GET", "/api/v1/sandboxes", undefined, { "x-request-id": "mine" });
  assert.deepEqual([own.headers["x-request-id"], own.headers["server-timing"] !== undefined], ["mine", true]);
  there.node.state = "silent";
  const silent = await here.ask("GET", "/api/v1/sandboxes/web");
  assert.deepEqual(
    [silent.status, silent.body.phase, Number(silent.headers["retry-after"]) > 0],
    [503, "unreachable", true],
  );
  const e2b = await here.ask("GET", `/sandboxes/${record.id}`);
  assert.deepEqual([e2b.status, e2b.body.code], [503, 503]);
  const rows = (await here.ask("GET", "/api/v1/sandboxes")).body as { id: string; unreachable?: object }[];
  assert.deepEqual(
    rows.map(({ id, unreachable }) => [id, unreachable !== undefined]).sort(),
    [
      [record.id, true],
      [mine.record.id, false],
    ].sort(),
  );
  // Another owner's are nobody else's to see, not even that they are out of reach.
  const { secret } = await here.app.keys.create({ name: "o", owner: "other", scopes: ["read"] }, "test");
  assert.deepEqual((await here.ask("GET", "/api/v1/sandboxes", undefined, { "x-api-key": secret })).body, []);
  for (const [path, headers] of [
    [record.id, {}],
    ["web", { "x-owner": "default" }],
  ] as const) {
    const asked = await here.ask("GET", `/api/v1/sandboxes/${path}`, undefined, { "x-api-key": secret, ...headers });
    assert.notEqual(asked.status, 503, path);
    assert.doesNotMatch(JSON.stringify(asked.body), /n1|unreachable/);
  }
});

test("a node that has come a moment ago is known to whom it asks first; one that is none of the fleet's is not", async () => {
  const [here, there] = await pair();
  const { record } = await there.spawn();
  const { nodes } = there.directory;
  let known = false;
  there.directory.nodes = () => nodes().filter(({ id }) => known || id !== here.node.id);
  const ask = async () => (await here.ask("GET", `/api/v1/sandboxes/${record.id}`)).status;
  assert.equal(await ask(), 503);
  there.directory.refresh = async () => {
    known = true;
  };
  assert.equal(await ask(), 200);
});

test("a create goes to the node that has a place, and to the next one when it has none", async () => {
  const fleet = (await fleetOf(3, (i) => ({
    ...(i === 0 ? { role: "entrance" } : {}),
    maxSandboxes: i === 2 ? 1 : 2,
  }))) as [Member, Member, Member];
  const [entrance, one, two] = fleet;
  const made: string[] = [];
  for (let i = 0; i < 3; i++) {
    const answer = await entrance.ask(
      "POST",
      i === 1 ? "/sandboxes" : "/api/v1/sandboxes",
      i === 1 ? { templateID: "base" } : { image: "image" },
    );
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    made.push(answer.body.id ?? answer.body.sandboxID);
    assert.equal(answer.headers["x-stacyvm-refused"], undefined);
  }
  assert.deepEqual([two.app.sandboxes.list().length, one.app.sandboxes.list().length], [1, 2]);
  assert.equal(entrance.app.sandboxes.list().length, 0);
  const full = await entrance.ask("POST", "/api/v1/sandboxes", { image: "image" });
  assert.deepEqual([full.status, full.headers["x-stacyvm-refused"]], [429, undefined]);
  for (const id of made) assert.equal((await entrance.ask("GET", `/api/v1/sandboxes/${id}`)).status, 200);
  const listed = await entrance.ask("GET", "/v2/sandboxes?limit=2");
  assert.equal(listed.body.length, 2);
  assert.equal(listed.headers["x-total-running"], "3");
  const next = await entrance.ask("GET", `/v2/sandboxes?limit=2&nextToken=${listed.headers["x-next-token"]}`);
  const ids = [...listed.body, ...next.body].map(({ sandboxID }: { sandboxID: string }) => sandboxID);
  assert.deepEqual(ids.sort(), made.sort());
  // What is wrong is said as ever, and one that does not let itself be read too.
  assert.equal((await entrance.ask("POST", "/api/v1/sandboxes", { image: 7 })).status, 400);
  assert.equal((await entrance.ask("POST", "/api/v1/sandboxes", { image: "x".repeat(2_000_000) })).status, 413);
  assert.equal((await entrance.ask("POST", "/api/v1/sandboxes", {}, { "x-api-key": "stk_wrong" })).status, 401);
  one.node.draining = true;
  two.node.state = "silent";
  const none = await entrance.ask("POST", "/api/v1/sandboxes", { image: "image" });
  assert.deepEqual([none.status, none.body.phase], [503, "placement"]);
});

test("pages of what several nodes have are in one order, each once, also of one moment, and when their last one has gone", async () => {
  const fleet = await fleetOf(3);
  const [here] = fleet as [Member];
  const at = Date.now();
  for (let i = 0; i < 5; i++) {
    for (const each of fleet) {
      each.app.clock.set(at + 1_000 * Math.floor(i / 3));
      await each.spawn();
    }
  }
  for (const order of ["desc", "asc"]) {
    const seen: { sandboxID: string; startedAt: string }[] = [];
    let token = "";
    do {
      const { body, headers } = await here.ask("GET", `/v2/sandboxes?limit=4&order=${order}${token}`);
      assert.equal(headers["x-total-running"], String(fleet.flatMap(({ app }) => app.sandboxes.list()).length));
      assert.ok(body.length > 0 && body.length <= 4, JSON.stringify(body));
      seen.push(...body);
      const next = headers["x-next-token"];
      token = next === undefined ? "" : `&nextToken=${String(next)}`;
      // The one that the next page goes on behind.
      const last = body.at(-1).sandboxID as string;
      if (seen.length === 4)
        for (const { app } of fleet) if (app.sandboxes.find(last)) await app.sandboxes.destroy(last);
    } while (token !== "");
    assert.equal(new Set(seen.map(({ sandboxID }) => sandboxID)).size, seen.length);
    assert.equal(seen.length, order === "desc" ? 15 : 14);
    const times = seen.map(({ startedAt }) => Date.parse(startedAt));
    assert.deepEqual(
      times,
      times.toSorted((a, b) => (order === "desc" ? b - a : a - b)),
    );
  }
});

test("stats and checkpoints are those of all nodes; a node's limit of requests is what it is, and nothing out of reach", async () => {
  const limited = { rate_limit: { enabled: true, requests_per_minute: 60, burst: 3 } };
  const [here, there] = (await fleetOf(2, (i) => (i === 1 ? { config: limited } : {}))) as [Member, Member];
  const both = [(await here.spawn()).record.id, (await there.spawn()).record.id].toSorted();
  const stats = await here.ask("GET", "/api/v1/sandboxes/stats");
  assert.deepEqual(Object.keys(stats.body).toSorted(), both);
  const saved = await there.app.sandboxes.checkpoint(there.app.sandboxes.list()[0]?.id as string);
  const { body } = await here.ask("GET", "/api/v1/checkpoints");
  assert.deepEqual(
    body.map(({ id }: { id: string }) => id),
    [saved.id],
  );
  let answer = await here.ask("GET", "/api/v1/sandboxes");
  for (let i = 0; i < 5 && answer.status === 200; i++) {
    assert.equal(
      answer.body.some(({ unreachable }: { unreachable?: object }) => unreachable !== undefined),
      false,
    );
    answer = await here.ask("GET", "/api/v1/sandboxes");
  }
  assert.deepEqual([answer.status, Number(answer.headers["retry-after"]) > 0], [429, true]);
});

test("what an owner may have at most at the node that is asked first it does not get from the next", async () => {
  const [one, two] = await pair();
  assert.equal((await two.ask("PUT", "/api/v1/quotas/alice", { max_sandboxes: 1 })).status, 200);
  const create = () => one.ask("POST", "/api/v1/sandboxes", { image: "image" }, { "x-user-id": "alice" });
  assert.deepEqual([(await create()).status, (await create()).status], [201, 429]);
  assert.deepEqual([one.app.sandboxes.list().length, two.app.sandboxes.list().length], [0, 1]);
});

test("a create that this node is the best for is made here, and is as it is on one server", async () => {
  const [other, here] = await pair(); // the last one is the first candidate
  const answer = await here.ask("POST", "/api/v1/sandboxes", { image: "image", name: "mine" });
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  assert.ok(answer.headers["server-timing"] && answer.headers["x-request-id"]);
  assert.equal(here.app.sandboxes.list().length, 1);
  assert.equal((await other.ask("GET", "/api/v1/sandboxes/mine")).status, 200);
  // Asked again with E2B's key it comes to the same node, wherever it is asked.
  const keys = { "idempotency-key": "once" };
  const twice = await Promise.all([
    here.ask("POST", "/sandboxes", { templateID: "base" }, keys),
    here.ask("POST", "/sandboxes", { templateID: "base" }, keys),
  ]);
  assert.equal(twice[0].body.sandboxID, twice[1].body.sandboxID);
  // Also when others come first by then, and while whoever has made it is away nobody makes it once more.
  const maker = [here, other].find(({ app }) => app.sandboxes.find(twice[0].body.sandboxID) !== undefined) as Member;
  const [elsewhere] = [here, other].filter((each) => each !== maker) as [Member];
  maker.node.draining = true;
  for (const each of [here, other]) {
    const again = await each.ask("POST", "/sandboxes", { templateID: "base" }, keys);
    assert.deepEqual([again.status, again.body.sandboxID], [201, twice[0].body.sandboxID]);
  }
  const differs = await elsewhere.ask("POST", "/sandboxes", { templateID: "base", timeout: 7 }, keys);
  assert.equal(differs.status, 409, JSON.stringify(differs.body));
  maker.node.state = "lost";
  const away = await elsewhere.ask("POST", "/sandboxes", { templateID: "base" }, keys);
  assert.equal(away.status, 503, JSON.stringify(away.body));
});

test("E2B's tokens open a sandbox wherever it is, and that one alone", async () => {
  const [here, there] = await pair();
  const { record } = await there.spawn();
  const second = await there.spawn();
  const opened = await here.ask("POST", `/sandboxes/${record.id}/connect`, { timeout: 60 });
  const token = opened.body.envdAccessToken as string;
  assert.ok(token, JSON.stringify(opened.body));
  const envd = (id: string, headers: Record<string, string>) =>
    here.ask("GET", "/health", undefined, { "x-api-key": "", host: `49983-${id}.localhost`, ...headers });
  assert.ok((await envd(record.id, { "x-access-token": token })).status < 300);
  assert.equal((await envd(second.record.id, { "x-access-token": token })).status, 401);
  assert.equal((await envd(record.id, {})).status, 401);
  const byHeader = {
    "e2b-sandbox-id": record.id,
    "e2b-sandbox-port": "49983",
    "x-access-token": token,
    "x-api-key": "",
  };
  assert.ok((await here.ask("GET", "/health", undefined, byHeader)).status < 300);
  // A token opens no route of ours, whatever it stands on.
  const rest = await here.ask("GET", `/api/v1/sandboxes/${record.id}`, undefined, {
    "x-api-key": "",
    "x-access-token": token,
  });
  assert.equal(rest.status, 401);
});

test("previews go to the guest wherever it is, with the key kept back; WebSockets too; public ones ask nobody, closed ones do", async () => {
  const program = createServer((incoming, outgoing) => outgoing.end(JSON.stringify(incoming.headers)));
  program.on("upgrade", (_incoming, socket: Socket) => {
    socket.write("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => program.listen(0, "127.0.0.1", resolve));
  owned.push(() => program.close());
  const { port } = program.address() as AddressInfo;
  for (const open of [false, true]) {
    const config = { server: { preview_public: open } };
    const [here, there] = (await fleetOf(2, () => ({ config }))) as [Member, Member];
    const spawn = async (options = {}) => {
      const { record } = await there.spawn(options);
      const machine = there.app.provider.machinesById.get(record.id);
      Object.assign(machine?.agent ?? {}, {
        tunnel: async () => connect({ port, host: "127.0.0.1", allowHalfOpen: true }),
      });
      return record;
    };
    const { id } = await spawn();
    const host = `8080-${id}.localhost`;
    // A path that nodes have among themselves is the guest's like any other, whatever the client gives along.
    const asked = { id, since: 0 };
    const digest = { "x-stacyvm-body": sha256(Buffer.from(JSON.stringify(asked))) };
    const ways: Record<string, string>[] = [{ host }, { "e2b-sandbox-id": id, "e2b-sandbox-port": "8080" }];
    for (const way of ways) {
      const between = await here.ask("POST", "/fleet/has", asked, { ...way, ...digest });
      assert.deepEqual([between.status, between.body.is], [200, undefined], JSON.stringify(between.body));
      assert.ok(between.body.host, "the guest's program has answered");
    }
    const withKey = await here.ask("GET", "/page?x=1", undefined, { host, "x-mine": "1" });
    assert.equal(withKey.status, 200, JSON.stringify(withKey.body));
    assert.deepEqual(
      [withKey.body["x-api-key"], withKey.body["x-mine"], withKey.body[FLEET_HEADER]],
      [undefined, "1", undefined],
    );
    const without = await here.ask("GET", "/", undefined, { host, "x-api-key": "", authorization: "Bearer theirs" });
    assert.equal(without.status, open ? 200 : 401);
    const below = await here.ask("GET", `/api/v1/sandboxes/${id}/ports/8080/x`);
    assert.equal(below.status, 200);
    const socket = connect(here.server.port, "127.0.0.1");
    socket.write(
      `GET / HTTP/1.1\r\nHost: ${host}\r\nX-API-Key: ${here.key}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    );
    let heard = "";
    socket.on("data", (piece) => {
      heard += piece.toString();
    });
    while (!heard.endsWith("hello")) await new Promise((wake) => setTimeout(wake, 5));
    socket.write("back");
    while (!heard.endsWith("back")) await new Promise((wake) => setTimeout(wake, 5));
    if (!open) {
      // What it stands on ends where it came in, and so does it.
      const [key] = here.app.keys.list();
      const ended = once(socket, "close");
      await here.app.keys.revoke(key?.id ?? "");
      await ended;
      continue;
    }
    socket.destroy();
    const closed = await spawn({ ports: { closed: true } });
    const at = { host: `8080-${closed.id}.localhost` };
    assert.equal((await here.ask("GET", "/", undefined, { ...at, "x-api-key": "" })).status, 403);
    assert.equal((await here.ask("GET", "/", undefined, at)).status, 200, "asked who it is, and knows it");
    assert.equal((await here.ask("GET", "/", undefined, { ...at, "x-api-key": "stk_wrong" })).status, 401);
  }
});

test("without a key the user of the connection counts, where it comes in, and a page of somebody else's does not", async () => {
  const [here, there] = (await fleetOf(2, () => ({ ownUser: true, peer: "kernel" }))) as [Member, Member];
  here.key = "";
  const { record } = await there.spawn();
  const path = `/api/v1/sandboxes/${record.id}`;
  assert.equal((await here.ask("GET", path)).status, 200);
  assert.equal((await here.ask("GET", path, undefined, { host: "evil.example" })).status, 403);
  assert.equal((await here.ask("GET", path, undefined, { origin: "https://evil.example" })).status, 403);
  assert.equal((await here.ask("GET", path, undefined, { "x-forwarded-for": "10.1.1.1" })).status, 401);
  assert.equal((await here.ask("GET", path, undefined, { "sec-fetch-site": "cross-site" })).status, 403);
  assert.ok(connection());
});

test("a configuration that would not be safe is refused with what to do", async () => {
  const bind = (fleet: Record<string, unknown>): Promise<NodesListener> =>
    NodesListener.bind(validateConfig({ fleet }, ""), log);
  await assert.rejects(bind({ secret: "short", address: "127.0.0.1:0" }), { code: "invalid", remedy: /openssl rand/ });
  await assert.rejects(bind({ secret: SECRET, address: "7424" }), { code: "invalid" });
  await assert.rejects(bind({ secret: SECRET, address: "0.0.0.0:0" }), { code: "invalid", remedy: /fleet\.url/ });
  await assert.rejects(bind({ secret: SECRET, key_file: "/x" }), { code: "invalid", message: /belong together/ });
});
