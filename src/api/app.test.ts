/** Routes in this process: `createApp` is a function from a request to an answer; the machines are fakes, the database is SQLite. */
import assert from "node:assert/strict";
import { mkdtempDisposable, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { connection, fakeAccess } from "../../test/fake-access.ts";
import { fakeWorld } from "../../test/fake-provider.ts";
import { arm, disarm } from "../../test/faults/points.ts";
import { validateConfig } from "../config/load.ts";
import { checkpointKey } from "../providers/provider.ts";
import { createApp } from "./app.ts";
import { Metrics } from "./metrics.ts";
import { RateLimiter } from "./rate-limit.ts";

function appOf(
  raw: Record<string, unknown> = {},
  options: Parameters<typeof fakeWorld>[0] = {},
  configPath = "",
  metrics = new Metrics(),
) {
  const world = fakeWorld(options);
  const config = validateConfig(raw, "");
  const stop = new AbortController();
  const app = createApp({
    ...{ sandboxes: world.sandboxes, images: {} as never, config, dataDir: "/", configPath, version: "1" },
    ...fakeAccess(world.store),
    environments: {} as never,
    rateLimiter: config.rate_limit.enabled ? new RateLimiter(config.rate_limit) : undefined,
    ...{ metrics, log: pino({ level: "silent" }), startedAt: 0, stopping: stop.signal },
  });
  const call = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
    const init = {
      method,
      headers: { host: "localhost", ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    };
    const answer = await app.request(`/api/v1${path}`, init, connection());
    const text = await answer.text();
    // biome-ignore lint/suspicious/noExplicitAny: tests look into every kind of answer
    let value: any = text;
    try {
      value = JSON.parse(text);
    } catch {}
    return { status: answer.status, body: value, headers: answer.headers };
  };
  return { ...world, app, call, stop };
}

test("a command's arguments, input and code may be as large as a guest takes them; other JSON is small", async () => {
  const { call } = appOf();
  const large = "x".repeat(3 << 20);
  for (const [path, body] of [
    ["/sandboxes/sb-00000000/exec", { command: "sh", args: ["-c", large] }],
    ["/sandboxes/sb-00000000/exec", { command: "cat", stdin: large }],
    ["/sandboxes/sb-00000000/processes", { command: "sh", args: ["-c", large] }],
    ["/sandboxes/sb-00000000/code", { code: large }],
  ] as const)
    assert.equal((await call("POST", path, body)).status, 404, path);
  assert.equal((await call("POST", "/sandboxes", { image: large })).status, 413);
});

test("a sandbox's life over HTTP, with the statuses that clients of the published server know", async () => {
  const { call, provider } = appOf();
  const made = await call("POST", "/sandboxes", { image: "i", metadata: { a: "b" } });
  assert.equal(made.status, 201);
  const { id } = made.body;
  assert.equal((await call("GET", `/sandboxes/${id}`)).body.metadata.a, "b");
  assert.equal((await call("POST", `/sandboxes/${id}/pause`)).body.state, "paused");
  assert.equal((await call("POST", `/sandboxes/${id}/exec`, { command: "x" })).status, 409);
  assert.equal((await call("POST", `/sandboxes/${id}/resume`)).body.state, "running");
  assert.equal((await call("POST", `/sandboxes/${id}/fork`, { count: 2 })).body.sandboxes.length, 2);
  const checkpoint = await call("POST", `/sandboxes/${id}/checkpoints`, { name: "n" });
  assert.equal(checkpoint.status, 201);
  assert.equal((await call("GET", "/sandboxes")).body.length, 3);
  assert.equal((await call("DELETE", `/sandboxes/${id}`)).status, 200);
  assert.equal((await call("DELETE", `/sandboxes/${id}`)).status, 200, "again is no error");
  assert.equal((await call("GET", `/sandboxes/${id}`)).status, 404);
  assert.equal(provider.machinesById.size, 2);
});

test("what is wrong with a request is said, with its code and the request's id", async () => {
  const { call } = appOf();
  for (const [method, path, body, status, code] of [
    ["POST", "/sandboxes", "{", 400, "BAD_REQUEST"],
    ["POST", "/sandboxes", { ttl: "soon" }, 400, "BAD_REQUEST"],
    ["POST", "/sandboxes", { memory: 512 }, 400, "BAD_REQUEST"],
    ["POST", "/sandboxes", { provider: "none" }, 404, "NOT_FOUND"],
    ["POST", "/sandboxes", { provider: "docker" }, 404, "NOT_FOUND"], // without providers.aliases
    ["GET", "/sandboxes/sb-00000000", undefined, 404, "NOT_FOUND"],
    ["GET", "/nothing", undefined, 404, "NOT_FOUND"],
    ["PUT", "/secrets/KEY", { hosts: ["a.example"] }, 400, "BAD_REQUEST"],
    ["POST", "/sandboxes", { secrets: ["NONE"] }, 404, "NOT_FOUND"],
    ["GET", "/sandboxes/sb-00000000/terminal", undefined, 404, "NOT_FOUND"],
  ] as const) {
    const answer = await call(method, path, body, { "x-request-id": "r-1" });
    assert.deepEqual([answer.status, answer.body.code], [status, code], `${method} ${path}: ${answer.body.message}`);
    assert.equal(answer.headers.get("x-request-id"), "r-1");
    assert.ok(answer.body.message.length > 5);
  }
});

test("a full disk is 507 with the remedy for every change, and reading goes on; with room again all goes on", async () => {
  const { call, store } = appOf();
  const { id } = (await call("POST", "/sandboxes", { image: "i" })).body;
  const changes = [
    ["POST", "/sandboxes", { image: "i" }],
    ["POST", `/sandboxes/${id}/pause`, {}],
    ["POST", `/sandboxes/${id}/extend`, { ttl: "1h" }],
    ["POST", `/sandboxes/${id}/checkpoints`, {}],
    ["POST", "/templates", { name: "t", image: "i" }],
    ["PUT", "/quotas/o", { max_sandboxes: 1 }],
    ["DELETE", `/sandboxes/${id}`, undefined],
  ] as const;
  arm("db", 1, "lasting");
  try {
    for (const [method, path, body] of changes) {
      const answer = await call(method, path, body);
      assert.deepEqual(
        [answer.status, answer.body.code],
        [507, "NO_SPACE"],
        `${method} ${path}: ${answer.body.message}`,
      );
      assert.match(answer.body.remedy, /free disk space/);
    }
    assert.equal((await call("GET", "/sandboxes")).status, 200);
    assert.equal((await call("GET", "/health")).status, 200);
    assert.equal((await call("GET", "/ready")).status, 200);
  } finally {
    disarm();
  }
  assert.equal((await call("POST", "/templates", { name: "t", image: "i" })).status, 201);
  assert.equal((await call("POST", "/sandboxes", { image: "i" })).status, 201);
  assert.equal((await call("DELETE", `/sandboxes/${id}`)).status, 200);
  assert.deepEqual(store.liveSandboxes().length, 1);
});

test("limits are 429: of sandboxes, and of requests with when to come back", async () => {
  const full = appOf({}, { maxSandboxes: 1 });
  assert.equal((await full.call("POST", "/sandboxes", {})).status, 201);
  const refused = await full.call("POST", "/sandboxes", {});
  assert.deepEqual([refused.status, refused.body.code], [429, "RESOURCE_LIMIT"]);
  const limited = appOf({ rate_limit: { enabled: true, requests_per_minute: 1, burst: 1 } });
  await limited.call("GET", "/sandboxes");
  const often = await limited.call("GET", "/sandboxes");
  assert.equal(often.status, 429, JSON.stringify(often.body));
  assert.ok(Number(often.headers.get("retry-after")) >= 1);
});

test("the stream of events begins with where it is, so that a break before the first one loses none", async () => {
  const { app, call, stop, sandboxes } = appOf();
  await call("POST", "/sandboxes", {});
  const response = await app.request("/api/v1/events", { headers: { host: "localhost" } }, connection());
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const first = new TextDecoder().decode((await reader.read()).value);
  assert.match(first, new RegExp(`^: connected\nid: evt-${sandboxes.events.last}\n`));
  const at = /id: (evt-\d+)/.exec(first)?.[1] ?? "";
  await reader.cancel();
  await call("POST", "/sandboxes", {});
  const again = await app.request(
    `/api/v1/events?last_event_id=${at}&type=sandbox.running`,
    {
      headers: { host: "localhost" },
    },
    connection(),
  );
  const next = (again.body as ReadableStream<Uint8Array>).getReader();
  let text = "";
  while (!text.includes("data:")) text += new TextDecoder().decode((await next.read()).value);
  assert.equal(text.match(/sandbox\.running/g)?.length, 1);
  stop.abort();
  await next.cancel();
  assert.equal(sandboxes.events.followers, 0);
});

test("a provider says what its monitor can do, and no more", async () => {
  const { call, provider } = appOf();
  const capabilities = async (): Promise<string[]> => (await call("GET", "/providers")).body[0].capabilities;
  assert.ok((await capabilities()).includes("pause"));
  provider.health = async () => ({ healthy: true, detail: "", canPause: false, canCopy: false });
  const without = await capabilities();
  for (const name of ["pause", "fork", "checkpoint"]) assert.ok(!without.includes(name), name);
  assert.ok(without.includes("exec"));
});

test("a failing handler gives its lease back, and HEAD keeps none", async () => {
  const { app, call, sandboxes } = appOf();
  const { id } = (await call("POST", "/sandboxes", {})).body;
  // The fake's agent can do nothing: each of these fails after the lease was taken.
  for (const [method, path, body] of [
    ["POST", `/sandboxes/${id}/exec`, { command: "x" }],
    ["POST", `/sandboxes/${id}/exec`, { command: "x", stream: true }],
    ["GET", `/sandboxes/${id}/files?path=/x`, undefined],
    ["GET", `/sandboxes/${id}/processes`, undefined],
  ] as const) {
    assert.equal((await call(method, path, body)).status, 500);
    assert.equal(sandboxes.get(id).inUse, false, `${method} ${path}`);
  }
  await app.request(`/api/v1/events`, { method: "HEAD", headers: { host: "localhost" } }, connection());
  assert.equal(sandboxes.events.followers, 0);
});

test("history: newest first, page by page, by sandbox and type, from memory and from the database", async () => {
  const { call, sandboxes, store } = appOf();
  const { id } = (await call("POST", "/sandboxes", { image: "i" })).body;
  // More than memory holds, so that the first ones are in the database only.
  for (let i = 0; i < 5_000; i++) sandboxes.events.emit("exec.started", "sb-0000000f", { i });
  await store.committed();
  const all: number[] = [];
  let next: string | undefined;
  do {
    const page = await call("GET", `/events/history?limit=700${next === undefined ? "" : `&before=${next}`}`);
    assert.equal(page.status, 200, page.body.message);
    for (const event of page.body.events) all.push(Number(event.id.slice(4)));
    next = page.body.next;
  } while (next !== undefined);
  assert.deepEqual(
    all,
    Array.from({ length: all.length }, (_, i) => all.length - i),
  );
  assert.ok(all.length > 5_000);
  const own: { type: string; data: object }[] = [];
  let pages = 0;
  do {
    const page = await call("GET", `/events/history?sandbox_id=${id}${next === undefined ? "" : `&before=${next}`}`);
    own.push(...page.body.events);
    next = page.body.next;
    pages += 1;
  } while (next !== undefined);
  assert.deepEqual(
    own.map(({ type }) => type),
    ["sandbox.running", "sandbox.created"],
  );
  assert.equal(pages, 2, "a filter that matches little does not read everything in one go");
  assert.equal((await call("GET", "/events/history?before=nonsense")).status, 400);
  assert.deepEqual((await call("GET", "/events/history?before=evt-1")).body, { events: [] });
});

test("use of all sandboxes at once, and the doctor where there is one", async () => {
  const { call } = appOf();
  const { id } = (await call("POST", "/sandboxes", { image: "i" })).body;
  await call("POST", "/sandboxes", { image: "i" });
  const { body } = await call("GET", "/sandboxes/stats");
  assert.equal(Object.keys(body).length, 2);
  assert.equal(body[id].supported, true);
  assert.deepEqual((await call("GET", "/system/history")).body, []);
  assert.equal((await call("GET", "/doctor")).status, 501);
});

test("no number that an owner reads changes with how many things other owners have", async () => {
  const metrics = new Metrics();
  const { call, sandboxes } = appOf({}, {}, "", metrics);
  const network = { counts: { connected: 3 }, traffic: { sent: 5 } };
  metrics.watch(sandboxes, "/", network as unknown as Parameters<Metrics["watch"]>[2]);
  const { key } = (await call("POST", "/keys", { name: "k", owner: "bob", scopes: ["use"] })).body;
  const bob = { "x-api-key": key };
  const look = async (headers?: Record<string, string>) => {
    const { store, sandboxes: counted, pools } = (await call("GET", "/diagnostics", undefined, headers)).body;
    const gauges = (await call("GET", "/metrics/prometheus", undefined, headers)).body as string;
    const lines = gauges.split("\n").filter((line) => /^stacyvm_(sandboxes|snapshots?|pool|network)/.test(line));
    const { latency_ms: _, ...rest } = store;
    return { store: rest, counted, pools, lines, pool: (await call("GET", "/pool/status", undefined, headers)).body };
  };
  const [own, all] = [await look(bob), await look()];
  const { id } = (await call("POST", "/sandboxes", { image: "i" })).body;
  await call("POST", `/sandboxes/${id}/checkpoints`, {});
  await call("POST", "/templates", { name: "t", image: "i" });
  assert.deepEqual(await look(bob), own);
  const administrators = await look();
  assert.equal(administrators.store.rows.templates, all.store.rows.templates + 1);
  assert.ok(administrators.lines.includes('stacyvm_sandboxes{state="running"} 1'), administrators.lines.join("\n"));
  assert.ok(administrators.lines.includes('stacyvm_network_connections_total{result="connected"} 3'));
});

test("checkpoints are listed with what is wrong with their files", async () => {
  const { call, provider } = appOf();
  const { id } = (await call("POST", "/sandboxes", { image: "i" })).body;
  const [good, bad] = [
    (await call("POST", `/sandboxes/${id}/checkpoints`, {})).body.id,
    (await call("POST", `/sandboxes/${id}/checkpoints`, {})).body.id,
  ];
  provider.damage.set(checkpointKey(bad), "memory.bin is other");
  for (const path of ["/checkpoints", `/sandboxes/${id}/checkpoints`]) {
    const listed = (await call("GET", path)).body as { id: string; damaged?: string }[];
    assert.deepEqual(
      new Map(listed.map((each) => [each.id, each.damaged])),
      new Map([
        [good, undefined],
        [bad, "memory.bin is other"],
      ]),
    );
  }
  assert.equal((await call("GET", `/checkpoints/${bad}`)).body.damaged, "memory.bin is other");
});

test("who may not is told with which key one may", async () => {
  const { call } = appOf();
  const made = await call("POST", "/keys", { name: "plain" });
  const key = { "x-api-key": made.body.key };
  const admin = await call("GET", "/admin/tenants", undefined, key);
  assert.deepEqual([admin.status, admin.body.code], [403, "FORBIDDEN"]);
  assert.match(admin.body.remedy, /--scope admin/);
  const other = await call("GET", "/sandboxes", undefined, { ...key, "x-tenant-id": "beta" });
  assert.equal(other.status, 403);
  assert.match(other.body.remedy, /--owner beta/);
});

test("a key with hosts of its own makes, sets and saves nothing that goes beyond them", async () => {
  const { call } = appOf();
  const made = await call("POST", "/keys", { name: "narrow", allowed_hosts: ["@pypi", "*.lan:5432"] });
  assert.deepEqual([made.status, made.body.allowed_hosts], [201, ["@pypi", "*.lan:5432"]]);
  assert.equal((await call("POST", "/keys", { name: "wrong", allowed_hosts: ["http://x"] })).status, 400);
  const key = { "x-api-key": made.body.key };
  const { status, body } = await call("POST", "/sandboxes", { allowed_hosts: ["pypi.org", "db.lan:5432"] }, key);
  assert.equal(status, 201);
  await call("PUT", "/secrets/KEY", { hosts: ["api.example"], value: "value-of-the-secret" });
  for (const [method, path, asked] of [
    ["POST", "/sandboxes", { allowed_hosts: ["evil.example"] }],
    ["POST", "/sandboxes", { allowed_hosts: ["db.lan"] }],
    ["POST", "/sandboxes", { secrets: ["KEY"] }],
    ["PUT", `/sandboxes/${body.id}/network`, { allowed_hosts: ["*:*"] }],
    ["POST", "/templates", { name: "t", image: "i", setup: ["wget evil"], allowed_hosts: ["evil.example"] }],
    ["POST", "/snapshots", { allowed_hosts: ["evil.example"] }],
  ] as const) {
    const answer = await call(method, path, asked, key);
    assert.equal(answer.status, 403, `${method} ${path}: ${JSON.stringify(answer.body)}`);
    assert.match(answer.body.message, /this key's sandboxes may not connect to/);
  }
  assert.equal((await call("PUT", `/sandboxes/${body.id}/network`, { allowed_hosts: [] }, key)).status, 200);
});

test("names that every object of JavaScript knows are names like any other", async () => {
  const { call } = appOf();
  for (const name of ["constructor", "__proto__", "toString"]) {
    assert.equal((await call("GET", `/templates/${name}`)).status, 404);
    assert.equal((await call("POST", "/sandboxes", { template: name })).status, 404);
    assert.equal((await call("POST", `/templates/${name}/spawn`, {})).status, 404);
    assert.equal((await call("POST", "/sandboxes", { provider: name })).status, 404);
    assert.equal((await call("POST", "/sandboxes", { allowed_hosts: [`@${name}`] })).status, 400);
    assert.equal((await call("POST", "/templates", { name, image: "i" })).status, 201);
    assert.equal((await call("GET", `/templates/${name}`)).body.image, "i");
  }
});

test("a run's sandbox outlives its command's time as far as its owner's limit lets it", async () => {
  const { call, sandboxes } = appOf();
  assert.equal((await call("PUT", "/quotas/*", { max_ttl: "90s" })).status, 200);
  const given: (number | undefined)[] = [];
  const lend = sandboxes.lend.bind(sandboxes);
  sandboxes.lend = (input, signal) => {
    given.push(input.ttlMs);
    return lend(input, signal);
  };
  const run = async (body: object) => (await call("POST", "/run", { command: "true", ...body })).body;
  for (const timeout of ["10s", "60s", "90s"]) assert.notEqual((await run({ timeout })).code, "RESOURCE_LIMIT");
  const refused = await run({ timeout: "2m" });
  assert.match(refused.message, /the ttl is over the limit of 1m30s/);
  await run({ timeout: "10s", ttl: "20s" });
  assert.deepEqual(given, [70_000, 90_000, 90_000, 120_000, 20_000]);
});

test("what a key refuses is refused to all that it makes, sets, saves and copies", async () => {
  const { call } = appOf();
  const hosts = ["*:*", "!bad.example", "!10.0.0.0/8"];
  const made = await call("POST", "/keys", { name: "refusing", allowed_hosts: hosts });
  const key = { "x-api-key": made.body.key };
  const refusals = hosts.slice(1);
  const spawned = await call("POST", "/sandboxes", { allowed_hosts: ["*:*", "!bad.example"] }, key);
  assert.deepEqual(spawned.body.allowed_hosts, hosts);
  assert.equal((await call("POST", "/sandboxes", {}, key)).body.allowed_hosts, undefined, "no network needs none");
  await call("PUT", "/secrets/KEY", { hosts: ["api.example"], value: "value-of-the-secret" });
  const withSecret = await call("POST", "/sandboxes", { secrets: ["KEY"] }, key);
  assert.deepEqual(withSecret.body.allowed_hosts, ["api.example:443", ...refusals]);
  const path = `/sandboxes/${spawned.body.id}/network`;
  assert.deepEqual((await call("PUT", path, { allowed_hosts: ["a.example"] }, key)).body.allowed_hosts, [
    "a.example",
    ...refusals,
  ]);
  const template = await call("POST", "/templates", { name: "t", image: "i", allowed_hosts: ["*"] }, key);
  assert.deepEqual(template.body.allowed_hosts, ["*", ...refusals]);
  // By another key of the same owner it may connect to more, and a copy would too.
  assert.equal((await call("PUT", path, { allowed_hosts: ["a.example"] })).status, 200);
  const copy = await call("POST", `/sandboxes/${spawned.body.id}/fork`, {}, key);
  assert.equal(copy.status, 403);
  assert.match(copy.body.message, /hosts that this key refuses/);
});

test("a secret's value goes in and never comes out; files of the server are for administrators", async () => {
  const { call } = appOf();
  const value = "value-of-the-secret";
  const put = await call("PUT", "/secrets/KEY", {
    hosts: ["api.example"],
    value,
    placement: { kind: "query", name: "k" },
  });
  assert.deepEqual([put.status, put.body.source, put.body.kept], [200, "value", false]);
  const spawned = await call("POST", "/sandboxes", {
    secrets: ["KEY", { name: "OWN", value, hosts: ["own.example"] }],
  });
  assert.deepEqual(spawned.body.secrets, ["KEY", "OWN"]);
  assert.deepEqual(spawned.body.allowed_hosts, ["api.example:443", "own.example:443"]);
  const answers = [put, spawned, await call("GET", "/secrets"), await call("GET", "/secrets/KEY")];
  assert.ok(!JSON.stringify(answers.map(({ body }) => body)).includes(value));
  assert.equal((await call("GET", "/secrets")).body.length, 1, "a sandbox's own are on no list");
  const key = { "x-api-key": (await call("POST", "/keys", { name: "user", owner: "user" })).body.key };
  for (const source of [{ file: "/etc/shadow" }, { variable: "HOME" }])
    assert.equal((await call("PUT", "/secrets/F", { hosts: ["a.example"], ...source }, key)).status, 403);
  assert.equal((await call("GET", "/secrets/KEY", undefined, key)).status, 404, "another owner's does not exist");
  assert.equal((await call("POST", "/sandboxes", { secrets: ["KEY"] }, key)).status, 404);
});

test("the first change of the configuration makes the file, and its directory", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "config-"));
  const path = join(dir.path, "none yet", "config.yaml");
  const { call } = appOf({}, {}, path);
  const changed = await call("PATCH", "/config", { "defaults.ttl": "1h" });
  assert.equal(changed.status, 200, changed.body.message);
  assert.equal(await readFile(path, "utf8"), "defaults:\n  ttl: 1h\n");
});

test("a template is named by what its address can hold, a tenant by what is left without blanks", async () => {
  const { call } = appOf();
  for (const name of [".", ".."]) assert.equal((await call("POST", "/templates", { name, image: "i" })).status, 400);
  assert.equal((await call("POST", "/templates", { name: "...", image: "i" })).status, 201);
  assert.equal((await call("GET", "/templates/...")).body.name, "...");
  assert.equal((await call("POST", "/admin/tenants", { id: " acme ", name: "Acme" })).body.tenant.id, "acme");
  const rule = { resource_type: "image", effect: "deny", pattern: "x", priority: -3 };
  assert.equal((await call("POST", "/admin/tenants/acme/policies", rule)).body.policy.priority, -3);
});

test("what is read can be sent back to where it came from, changed or not; other unknown fields stay refused", async () => {
  const { call } = appOf();
  await call("PUT", "/secrets/KEY", { hosts: ["api.example"], value: "value-of-the-secret" });
  await call("POST", "/templates", { name: "t", image: "i" });
  await call("POST", "/admin/tenants", { id: "acme", name: "Acme" });
  await call("PUT", "/quotas/acme", { max_sandboxes: 3 });
  for (const path of ["/secrets/KEY", "/templates/t", "/quotas/acme", "/admin/tenants/acme"]) {
    const answer = (await call("GET", path)).body;
    const record = answer.tenant ?? answer;
    const { status, body } = await call("PUT", path, record);
    assert.equal(status, 200, `${path}: ${JSON.stringify(body)}`);
    const other = await call("PUT", path, { ...record, nonsense: 1 });
    assert.equal(other.status, 400, path);
    assert.match(JSON.stringify(other.body), /there is no field ..nonsense/);
  }
  assert.equal((await call("PUT", "/secrets/KEY", { sauce: "x" })).status, 400);
});

test("a template that says no size and no time has what a spawn has that says none: both start from one golden snapshot", async () => {
  const { call } = appOf();
  const template = (await call("POST", "/templates", { name: "t", image: "i" })).body;
  const spawned = (await call("POST", "/sandboxes", { image: "i" })).body;
  assert.deepEqual([template.memory_mb, template.vcpus], [spawned.memory_mb, spawned.vcpus]);
  assert.equal(template.ttl_seconds * 1000, Date.parse(spawned.expires_at) - Date.parse(spawned.created_at));
});
