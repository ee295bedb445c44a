/**
 * Who may call what, and what owners see of each other: every route of the application, from its own table, in this process, with
 * machines that are plain objects. With a real server, sockets and users: server-owners.test.ts.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import type { Scope } from "../src/access/identity.ts";
import { Keys } from "../src/access/keys.ts";
import { Endpoints, newApi, type RouteAccess } from "../src/api/endpoint.ts";
import { listen } from "../src/api/server.ts";
import { validateConfig } from "../src/config/load.ts";
import { dataPaths } from "../src/host/paths.ts";
import { createImages } from "../src/images/store.ts";
import { connection } from "./fake-access.ts";
import { fakeApp } from "./fake-app.ts";

const BASE = "/api/v1";
const OWN_UID = process.getuid?.() ?? 0;
const HOLDERS = ["read", "use", "admin", "expired", "revoked", "other"] as const;
type Holder = (typeof HOLDERS)[number];

/** What a route needs beside its path to come as far as the thing that it is about. */
const BODIES: Record<string, object> = {
  "POST /sandboxes/:id/extend": { ttl: "1h" },
  "PUT /sandboxes/:id/network": { allowed_hosts: [] },
  "POST /sandboxes/:id/restore": { checkpoint: "CHECKPOINT" },
  "POST /sandboxes/:id/exec": { command: "true" },
  "POST /sandboxes/:id/code": { code: "1" },
  "POST /sandboxes/:id/processes": { command: "true" },
  "POST /sandboxes/:id/processes/:process/signal": { signal: 15 },
  "POST /sandboxes/:id/files": { path: "/x", content: "" },
  "POST /sandboxes/:id/files/move": { old_path: "/x", new_path: "/y" },
  "POST /sandboxes/:id/files/copy": { old_path: "/x", new_path: "/y" },
  "POST /sandboxes/:id/files/chmod": { path: "/x", mode: "0644" },
  "POST /sandboxes/:id/files/mkdir": { path: "/x" },
  "PUT /templates/:name": { image: "i" },
  "POST /sandboxes/:id/volumes": { name: "no-volume", path: "/data" },
  "PATCH /volumes/:name": { size_mb: 32 },
  "POST /volumes/:name/clone": { name: "copy" },
  "POST /environments/builds": { spec_id: "SPEC" },
};
/** An id as environments and their builds have one. */
const NEVER_MADE = "00000000-0000-4000-8000-000000000000";
/** What is not 404 for a thing that is not there: idempotent, or a list. */
const NOT_404: Record<string, number> = {
  "DELETE /sandboxes/:id": 200,
  "GET /sandboxes/:id/checkpoints": 200,
  "GET /sandboxes/:id/history": 200,
  "GET /quotas/:owner/usage": 200,
  // It would be one of the asker's own.
  "PUT /secrets/:name": 400,
  "PUT /volumes/:name/content": 400,
};

/** The beginning of an answer: some never end. */
async function textOf(response: Response, gone: AbortController): Promise<string> {
  if (response.headers.get("content-type") !== "text/event-stream" || response.body === null) return response.text();
  const reader = response.body.getReader();
  let text = "";
  for (let i = 0; i < 3; i++) {
    const next = await Promise.race([
      reader.read(),
      new Promise<undefined>((resolve) => setTimeout(resolve, 50, undefined)),
    ]);
    if (next?.value === undefined) break;
    text += new TextDecoder().decode(next.value);
  }
  gone.abort();
  await reader.cancel();
  return text;
}

describe("every route of our own", () => {
  let now = 1_000_000;
  const volumes = mkdtempSync(join(tmpdir(), "owners-"));
  after(() => rm(volumes, { recursive: true }));
  const world = fakeApp({ now: () => now, volumes });
  const { app, keys, sandboxes, store } = world;
  /** E2B's are in test/e2b-owners.test.ts. */
  const own = app.routeTable.filter(({ protocol }) => protocol === undefined);
  const secrets = {} as Record<Holder, string>;
  /** What Alice has. */
  const hers: Record<string, string> = {};

  before(async () => {
    const make = async (name: Holder, owner: string, scopes: Scope[], expiresInMs?: number): Promise<void> => {
      const input = { name, owner, scopes, ...(expiresInMs === undefined ? {} : { expiresInMs }) };
      secrets[name] = (await keys.create(input, "test")).secret;
    };
    for (const scope of ["read", "use", "admin"] as const) await make(scope, "alice", [scope]);
    await make("expired", "alice", ["admin"], 1_000);
    await make("revoked", "alice", ["admin"]);
    await make("other", "bob", ["use"]);
    await keys.revoke("revoked");
    now += 2_000;
    const created = await ask("use", "POST", "/sandboxes", { metadata: { word: "CANARY" }, owner_id: "CANARY-user" });
    assert.equal(created.status, 201, created.text);
    hers.id = JSON.parse(created.text).id;
    const checkpoint = await ask("use", "POST", `/sandboxes/${hers.id}/checkpoints`, { name: "CANARY" });
    assert.equal(checkpoint.status, 201, checkpoint.text);
    hers.checkpoint = JSON.parse(checkpoint.text).id;
    const template = await ask("use", "POST", "/templates", { name: "CANARY-template", image: "i" });
    assert.equal(template.status, 201, template.text);
    assert.equal((await ask("admin", "PUT", "/quotas/CANARY-user", { max_sandboxes: 7 })).status, 200);
    const secret = { hosts: ["canary.example"], value: "CANARY-value-of-hers" };
    assert.equal((await ask("use", "PUT", "/secrets/CANARY_SECRET", secret)).status, 200);
    const volume = await ask("use", "POST", "/volumes", { name: "canary-volume", size_mb: 16 });
    assert.equal(volume.status, 201, volume.text);
    const packages = { owner_id: "CANARY-user", name: "CANARY", base_image: "canary" };
    const spec = await ask("use", "POST", "/environments/specs", packages);
    assert.equal(spec.status, 201, spec.text);
    hers.spec = JSON.parse(spec.text).id;
    const build = await ask("use", "POST", "/environments/builds", { spec_id: hers.spec });
    assert.equal(build.status, 201, build.text);
    hers.build = JSON.parse(build.text).id;
    store.addExec({ sandboxId: hers.id ?? "", command: "CANARY", startedAt: 1, durationMs: 1, outcome: "completed" });
    await store.committed();
  });
  after(() => sandboxes.close({ destroy: true }));

  const ask = async (
    holder: Holder | undefined,
    method: string,
    path: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; text: string }> => {
    const url = new URL(
      path.startsWith(BASE) || /^\/(ui|docs|swagger|\?|$)/.test(path) ? path : `${BASE}${path}`,
      "http://h",
    );
    const gone = new AbortController();
    const response = await app.request(
      url,
      {
        method,
        signal: gone.signal,
        headers: { ...(holder === undefined ? {} : { "x-api-key": secrets[holder] }), ...headers },
        ...(body === undefined || method === "GET" ? {} : { body: JSON.stringify(body) }),
      },
      {},
    );
    return { status: response.status, text: await textOf(response, gone) };
  };

  /** The route's path, about things of Alice or about ones that never were. */
  const fill = ({ path }: RouteAccess, mine: boolean): string => {
    const values: Record<string, string> = {
      id: (mine ? (path.includes("/checkpoints/:id") ? hers.checkpoint : hers.id) : undefined) ?? "sb-00000000",
      name: mine ? "CANARY-template" : "no-template",
      owner: mine ? "CANARY-user" : "no-user",
      key: "0".repeat(64),
      process: "1",
      port: "8080",
      resource: "r",
    };
    if (path.includes("/providers/")) values.name = "none";
    if (path.includes("/secrets/")) values.name = mine ? "CANARY_SECRET" : "NO_SECRET";
    if (path.includes("/volumes/")) values.name = mine ? "canary-volume" : "no-volume";
    if (/\/(workers?|tenants)\//.test(path)) values.id = "none";
    const environment = /\/environments\/(spec|build)s\//.exec(path)?.[1];
    if (environment !== undefined) values.id = (mine ? hers[environment] : undefined) ?? NEVER_MADE;
    const filled = path.replaceAll(/:(\w+)/g, (_, name: string) => values[name] ?? "none");
    return `${filled.replace("*", "x")}?path=/x&pattern=*&reference=a&last_event_id=0`;
  };
  const keyOf = ({ method, path }: RouteAccess): string => `${method} ${path.replace(BASE, "")}`;
  const methodOf = ({ method }: RouteAccess): string => (method === "ALL" ? "GET" : method);
  const bodyOf = (route: RouteAccess, mine: boolean): object | undefined => {
    if (methodOf(route) === "GET") return undefined;
    const text = JSON.stringify(BODIES[keyOf(route)] ?? {});
    const named: Record<string, string | undefined> = { CHECKPOINT: hers.checkpoint, SPEC: hers.spec };
    const never: Record<string, string> = { CHECKPOINT: "cp-00000000", SPEC: NEVER_MADE };
    return JSON.parse(text.replaceAll(/CHECKPOINT|SPEC/g, (word) => (mine ? named : never)[word] ?? ""));
  };

  test("says who may call it: one that does not keeps the application from being made", () => {
    // Each is also found by its own name, and nothing else is there but middleware for everything.
    const middleware = app.routes.filter(({ method, path }) => method === "ALL" && /^\/(api\/v1\/)?\*$/.test(path));
    assert.equal(app.routes.length, middleware.length + own.length);
    assert.ok(own.length > 100, String(own.length));
    const endpoints = new Endpoints(newApi(), {
      limits: { maxBytes: 1, timeoutMs: 1 },
      contentLimits: { maxBytes: 1, timeoutMs: 1 },
      sandboxes,
      images: {} as never,
      audit: world.audit,
    });
    endpoints.assertComplete();
    endpoints.app.get("/api/v1/forgotten", () => new Response("for whomever"));
    assert.throws(() => endpoints.assertComplete(), /GET \/api\/v1\/forgotten does not say who may call it/);
  });

  test("no key, a wrong one, each scope, an expired and a revoked one", async () => {
    const rank = { read: 0, use: 1, admin: 2 };
    let checked = 0;
    for (const route of own) {
      const where = keyOf(route);
      const call = (holder: Holder | undefined, headers?: Record<string, string>) =>
        ask(holder, methodOf(route), fill(route, false), bodyOf(route, false), headers);
      if (route.access === "everybody") {
        assert.ok(!route.path.startsWith(BASE), where);
        const { status } = await call(undefined);
        assert.ok([200, 302, 404].includes(status), `${where}: ${status}`);
        continue;
      }
      assert.equal((await call(undefined)).status, 401, where);
      // Too many wrong ones are not even told that any more.
      assert.ok([401, 429].includes((await call(undefined, { authorization: "Bearer wrong" })).status), where);
      for (const holder of ["expired", "revoked"] as const) {
        assert.ok([401, 429].includes((await call(holder)).status), `${where} with an ${holder} key`);
      }
      const { access } = route;
      assert.ok(access !== "sandbox", where);
      // Whatever is asked for in another owner's name, by a key that is not an administrator's.
      assert.equal((await call("other", { "x-owner": "alice" })).status, 403, `${where} as another owner`);
      // Whichever method a route for all of them is asked with.
      for (const method of route.method === "ALL" ? ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"] : []) {
        for (const [holder, status] of [
          [undefined, 401],
          ["read", 403],
          ["other", 404],
        ] as const) {
          const answer = await ask(holder, method, fill(route, false));
          assert.equal(answer.status, status, `${method} ${where} with ${holder ?? "no key"}`);
        }
      }
      for (const holder of ["read", "use", "admin"] as const) {
        const { status } = await call(holder);
        const refused = status === 401 || status === 403;
        assert.equal(refused, rank[holder] < rank[access], `${where} (${access}) with ${holder}: ${status}`);
        checked += 1;
      }
    }
    assert.ok(checked > 300, String(checked));
  });

  test("what is another owner's does not exist: the same answer as for what never was, and no word of it", async () => {
    let compared = 0;
    const strip = (text: string): string =>
      text
        .replaceAll(/"request_id":"[^"]*"|"(?:timestamp|uptime|latency_ms|last_checked|last_heartbeat)":[^,}]*/g, "")
        .replaceAll(
          /[sc][bp]-[0-9a-f]{8}|CANARY-template|no-template|CANARY-user|no-user|CANARY_SECRET|NO_SECRET|canary-volume|no-volume|evt-\d+/g,
          "ID",
        )
        .replaceAll(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "ID");
    for (const route of own) {
      const where = keyOf(route);
      const theirs = await ask("other", methodOf(route), fill(route, true), bodyOf(route, true));
      const own = new RegExp(Object.values(hers).join("|"), "g");
      // The id that was asked for may be in the answer; nothing else of Alice's may.
      const words = theirs.text.replaceAll(own, "").replaceAll(/CANARY[-_](?:template|user|SECRET)/g, "");
      assert.ok(!words.includes("CANARY"), `${where}: ${theirs.text}`);
      // About one thing, by its path or its body.
      if (!route.path.includes("/:") && !JSON.stringify(BODIES[where] ?? {}).includes("SPEC")) {
        assert.doesNotMatch(theirs.text, own, `${where}: ${theirs.text}`);
        assert.doesNotMatch(theirs.text, /CANARY|alice/, `${where}: ${theirs.text}`);
        continue;
      }
      const nothing = await ask("other", methodOf(route), fill(route, false), bodyOf(route, false));
      assert.deepEqual([theirs.status, strip(theirs.text)], [nothing.status, strip(nothing.text)], where);
      if (
        !/\/(sandboxes|checkpoints|templates|quotas|secrets|volumes|environments\/(specs|builds))\/:/.test(
          route.path,
        ) ||
        route.access === "admin"
      )
        continue;
      assert.equal(theirs.status, NOT_404[where] ?? 404, `${where}: ${theirs.text}`);
      compared += 1;
    }
    assert.ok(compared > 55, String(compared));
    // And nothing came of any of it.
    const { record } = sandboxes.get(hers.id ?? "");
    assert.deepEqual([record.state, record.allowedHosts], ["running", undefined]);
    assert.equal(sandboxes.checkpoints.list(hers.id).length, 1);
    assert.equal(sandboxes.templates.get("alice", "CANARY-template").version, 1);
  });

  test("previews by host name ask for a key, its scope and its owner", async () => {
    const at = async (holder: Holder | undefined): Promise<{ status: number }> => {
      const key = holder === undefined ? {} : { "x-api-key": secrets[holder] };
      return app.request("/", { headers: { host: `8080-${hers.id}.localhost`, ...key } }, {});
    };
    assert.equal((await at(undefined)).status, 401);
    for (const holder of ["expired", "revoked"] as const)
      assert.ok([401, 429].includes((await at(holder)).status), holder);
    assert.equal((await at("read")).status, 403);
    assert.equal((await at("other")).status, 404);
    // Allowed; that these machines have no ports is another matter.
    assert.equal((await at("use")).status, 500);
    assert.equal((await at("admin")).status, 500);
  });

  test("sockets, over a real connection: refused before the upgrade, with the same statuses", async () => {
    const server = await listen(app, { ...validateConfig({ server: { port: 0 } }, "").server });
    try {
      // Every one that the document has, and previews.
      const document = (await (await fetch(`${server.url}/swagger/doc.json`)).json()) as {
        paths: Record<string, { get?: { responses: Record<string, unknown> } }>;
      };
      const sockets = Object.entries(document.paths).flatMap(([path, { get }]) =>
        get?.responses["101"] === undefined ? [] : [path.replace("{port}", "8080")],
      );
      assert.ok(sockets.length >= 3, String(sockets));
      const previews: [way: string, host?: string][] = [
        [`${BASE}/sandboxes/{id}/ports/8080/x`],
        ["/", `8080-${hers.id}.localhost`],
      ];
      for (const [way, host] of [...sockets.map((path): [string] => [path]), ...previews]) {
        // What is let in to a port is answered: nobody listens in these machines.
        const open101 = previews.some(([each]) => each === way) ? 500 : 101;
        const open = async (key: string | undefined): Promise<number> => {
          const url = `${server.url.replace("http", "ws")}${way.replace("{id}", hers.id ?? "")}`;
          const headers = {
            ...(key === undefined ? {} : { "x-api-key": key }),
            ...(host === undefined ? {} : { host: `${host}:${server.port}` }),
          };
          const socket = new WebSocket(url, { headers });
          socket.on("error", () => {});
          const refused = once(socket, "unexpected-response").then(([, response]) => Number(response.statusCode));
          const status = await Promise.race([once(socket, "open").then(() => 101), refused]);
          socket.terminate();
          return status;
        };
        const { secret: good } = await keys.create({ name: "socket", owner: "alice", scopes: ["use"] }, "test");
        assert.equal(await open(good), open101, way);
        assert.equal(await open(secrets.admin), open101, way);
        assert.equal(await open(secrets.read), 403, way);
        assert.equal(await open(secrets.other), 404, way);
        // This address has presented many wrong keys by now.
        for (const wrong of [secrets.expired, secrets.revoked, "nonsense"]) {
          assert.ok([401, 429].includes(await open(wrong)), way);
        }
        assert.equal(await open(undefined), 401, way);
      }
    } finally {
      await server.close(0);
    }
  });

  test("what is open ends soon after its key, and other keys' streams go on", async () => {
    const server = await listen(app, { ...validateConfig({ server: { port: 0 } }, "").server });
    try {
      const made = async (name: string, expiresInMs?: number): Promise<string> => {
        const input = { name, owner: "alice", scopes: ["use" as const] };
        return (await keys.create({ ...input, ...(expiresInMs === undefined ? {} : { expiresInMs }) }, "test")).secret;
      };
      const begun = { revoked: await made("stream"), expired: await made("short", 60_000), good: await made("good") };
      const path = `${server.url}${BASE}/sandboxes/${hers.id}`;
      /** Settles when it is broken off. */
      const open = async (key: string): Promise<Promise<unknown>[]> => {
        const socket = new WebSocket(`${path.replace("http", "ws")}/terminal`, { headers: { "x-api-key": key } });
        socket.on("error", () => {});
        const closed = once(socket, "close");
        await once(socket, "open");
        const events = await fetch(`${server.url}${BASE}/events`, { headers: { "x-api-key": key } });
        const reader = events.body?.getReader();
        await reader?.read();
        const ended = (async () => {
          while (!(await reader?.read())?.done);
        })();
        return [closed, ended.catch(() => "broken off")];
      };
      const [revoked, expired, good] = await Promise.all([begun.revoked, begun.expired, begun.good].map(open));
      let over = 0;
      for (const each of good ?? []) void each.then(() => (over += 1));
      await keys.revoke("stream");
      await Promise.all(revoked ?? []);
      now += 60_000;
      await Promise.all(expired ?? []);
      assert.equal(over, 0);
    } finally {
      await server.close(0);
    }
  });

  test("an owner's own things, an administrator's view of all, and acting as an owner", async () => {
    const list = async (holder: Holder, headers: Record<string, string> = {}): Promise<string[]> =>
      JSON.parse((await ask(holder, "GET", "/sandboxes", undefined, headers)).text).map(({ id }: { id: string }) => id);
    const before = await list("other");
    assert.ok((await list("use")).includes(hers.id ?? ""));
    assert.ok(!before.includes(hers.id ?? ""));
    assert.deepEqual(await list("admin", { "x-owner": "bob" }), before);
    assert.equal((await ask("other", "GET", "/sandboxes", undefined, { "x-owner": "alice" })).status, 403);
    // Names are each owner's own.
    const same = { name: "CANARY-template", image: "other" };
    assert.equal((await ask("other", "POST", "/templates", same)).status, 201);
    const her = await ask("use", "GET", "/templates/CANARY-template");
    assert.equal(JSON.parse(her.text).image, "i");
    // Made for an owner by an administrator: that owner's.
    const made = await ask("admin", "POST", "/sandboxes", {}, { "x-owner": "bob" });
    const { id } = JSON.parse(made.text);
    assert.deepEqual(new Set(await list("other")), new Set([id, ...before]));
    const all = await list("admin");
    assert.ok(all.includes(id) && all.includes(hers.id ?? ""));
    assert.equal((await ask("admin", "POST", `/sandboxes/${id}/pause`)).status, 200);
    await store.committed();
    const entries = world.audit.list({ about: "bob", limit: 10 });
    assert.deepEqual(
      entries.map(({ actor, method, route, status, owner }) => [actor, method, route, status, owner]),
      [
        ["admin", "POST", "/api/v1/sandboxes/{id}/pause", 200, "alice"],
        ["admin", "POST", "/api/v1/sandboxes", 201, "alice"],
        ["admin", "GET", "/api/v1/sandboxes", 200, "alice"],
      ],
    );
    // A fork is its parent's owner's, whoever asked for it.
    await ask("admin", "POST", `/sandboxes/${id}/resume`);
    const forked = JSON.parse((await ask("admin", "POST", `/sandboxes/${id}/fork`)).text).sandboxes;
    assert.equal(forked[0].owner, "bob");
  });

  test("a shared template is found by every owner, and only administrators share", async () => {
    const shared = { name: "common", image: "i", shared: true };
    assert.equal((await ask("use", "POST", "/templates", shared)).status, 403);
    assert.equal((await ask("admin", "POST", "/templates", shared)).status, 201);
    assert.equal((await ask("other", "GET", "/templates/common")).status, 200);
    assert.match((await ask("other", "GET", "/templates")).text, /"common"/);
    assert.equal((await ask("other", "POST", "/templates/common/spawn")).status, 201);
    // It is not theirs to change.
    assert.equal((await ask("other", "PUT", "/templates/common", { image: "x" })).status, 404);
    assert.equal((await ask("other", "DELETE", "/templates/common")).status, 404);
  });

  test("a tenant, by the published interface: its member's key, what it sees, its policies, and its end", async () => {
    const admin = async (method: string, path: string, body?: object, status = 200) => {
      const answer = await ask("admin", method, `/admin/tenants${path}`, body);
      assert.equal(answer.status, status, answer.text);
      return answer.text === "" ? undefined : JSON.parse(answer.text);
    };
    const { tenant } = await admin("POST", "", { name: "Acme Corp" }, 201);
    const { key, member } = await admin("PUT", `/${tenant.id}/members/eve`, { role: "operator" });
    // As it came, and about somebody else.
    assert.equal((await admin("PUT", `/${tenant.id}/members/eve`, member)).member.user_id, "eve");
    const other = { ...member, user_id: "mallory" };
    assert.equal((await ask("admin", "PUT", `/admin/tenants/${tenant.id}/members/eve`, other)).status, 400);
    const eve = (method: string, path: string, body?: object) =>
      ask(undefined, method, path, body, { "x-api-key": key });
    const made = await eve("POST", "/sandboxes", { image: "alpine:3" });
    const { owner, tenant_id } = JSON.parse(made.text);
    assert.deepEqual([owner, tenant_id], [tenant.id, tenant.id], made.text);
    assert.equal(JSON.parse((await eve("GET", "/sandboxes")).text).length, 1);
    assert.equal((await eve("GET", "/admin/tenants")).status, 403);
    // By the published header too: an administrator acts as the tenant, others may name their own only.
    const named = { "x-tenant-id": tenant.id };
    const hers = await ask("admin", "GET", "/sandboxes", undefined, named);
    assert.deepEqual(
      JSON.parse(hers.text).map(({ id }: { id: string }) => id),
      [JSON.parse(made.text).id],
    );
    assert.equal((await ask("other", "GET", "/sandboxes", undefined, named)).status, 403);
    assert.equal((await ask(undefined, "GET", "/sandboxes", undefined, { ...named, "x-api-key": key })).status, 200);
    const all = await ask("admin", "GET", "/admin/tenants", undefined, named);
    assert.ok(JSON.parse(all.text).tenants.length > 1);
    await eve("POST", "/templates", { name: "t", image: "library/alpine" });
    const rule = { resource_type: "image", effect: "deny", pattern: "alpine:*" };
    const { policy } = await admin("POST", `/${tenant.id}/policies`, rule, 201);
    for (const [path, body] of [
      ["/sandboxes", { image: "docker.io/library/alpine:3.20" }],
      ["/sandboxes", { template: "t" }],
      ["/sandboxes/admission", { image: "alpine:3" }],
      ["/templates/t/spawn", {}],
      ["/snapshots", { image: "alpine:3" }],
    ] as const) {
      const refused = await eve("POST", path, body);
      assert.equal(refused.status, 403, `${path} ${refused.text}`);
      assert.match(refused.text, /FORBIDDEN.*is not permitted by a policy/);
    }
    assert.equal((await eve("POST", "/sandboxes", { image: "python:3" })).status, 201);
    const spec = JSON.parse(
      (await eve("POST", "/environments/specs", { owner_id: "eve", name: "e", base_image: "alpine:3" })).text,
    );
    assert.equal((await eve("POST", "/environments/builds", { spec_id: spec.id })).status, 403);
    for (const path of [`specs/${spec.id}`, `specs/${spec.id}/suggestions`]) {
      assert.equal((await eve("GET", `/environments/${path}`)).status, 200, path);
      assert.equal((await ask("other", "GET", `/environments/${path}`)).status, 404, path);
    }
    assert.equal((await ask("other", "POST", "/environments/builds", { spec_id: spec.id })).status, 404);
    assert.equal((await ask("other", "DELETE", `/environments/specs/${spec.id}`)).status, 404);
    assert.deepEqual(JSON.parse((await ask("other", "GET", "/environments/specs?owner_id=eve")).text), []);
    assert.equal((await ask("use", "POST", "/sandboxes", { image: "alpine:3" })).status, 201, "another owner's rules");
    await admin("DELETE", `/${tenant.id}/policies/${policy.id}`, undefined, 204);
    assert.equal((await eve("POST", "/sandboxes/admission", { image: "alpine:3" })).status, 200);
    const provider = { resource_type: "provider", effect: "deny", pattern: "*" };
    await admin("POST", `/${tenant.id}/policies`, provider, 201);
    assert.equal((await eve("POST", "/sandboxes", { image: "python:3" })).status, 403, "the default one is meant, too");
    await admin("DELETE", `/${tenant.id}`, undefined, 204);
    assert.ok([401, 429].includes((await eve("GET", "/sandboxes")).status));
    assert.deepEqual(sandboxes.policies.list(tenant.id), []);
    await store.committed();
    assert.ok(world.audit.list({ about: tenant.id, limit: 20 }).length >= 5);
  });

  test("images: an owner's own by name, everybody's when they are shared", async (t) => {
    const dir = await mkdtemp(join(tmpdir(), "images-"));
    t.after(() => rm(dir, { recursive: true }));
    await mkdir(join(dir, "tree"));
    const images = createImages(dataPaths(join(dir, "data")), { offline: true });
    const { app: other, keys: others } = fakeApp({ images });
    const key = async (owner: string, scope: Scope): Promise<string> =>
      (await others.create({ name: `${owner}-${scope}`, owner, scopes: [scope] }, "test")).secret;
    const [ops, alice, bob] = [await key("ops", "admin"), await key("alice", "use"), await key("bob", "use")];
    const call = async (secret: string, method: string, path: string, body?: object, as?: string) => {
      const headers = { "x-api-key": secret, ...(as === undefined ? {} : { "x-owner": as }) };
      const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
      const response = await other.request(`${BASE}${path}`, init, {});
      return { status: response.status, text: await response.text() };
    };
    const source = join(dir, "tree");
    for (const [reference, shared] of [
      ["hers:1", false],
      ["common:1", true],
    ] as const) {
      const made = await call(ops, "POST", "/images/import", { source, reference, shared }, "alice");
      assert.equal(made.status, 200, made.text);
    }
    assert.equal((await call(ops, "POST", "/images/tag", { reference: "common:1", name: "ops:1" })).status, 200);
    const list = async (secret: string): Promise<string[]> =>
      JSON.parse((await call(secret, "GET", "/images")).text).map(
        ({ owner = "-", reference }: { owner?: string; reference: string }) =>
          `${owner} ${reference.split("/").at(-1)}`,
      );
    assert.deepEqual(await list(alice), ["- common:1", "alice hers:1"]);
    assert.deepEqual(await list(bob), ["- common:1"]);
    assert.deepEqual(await list(ops), ["- common:1", "alice hers:1", "ops ops:1"]);
    const ways: [string, string, object?][] = [
      ["GET", "/images/inspect?reference=NAME"],
      ["POST", "/images/pull", { reference: "NAME", pull: "never" }],
    ];
    for (const [method, path, body] of ways) {
      const ask = (secret: string, name: string) =>
        call(
          secret,
          method,
          path.replace("NAME", name),
          body && JSON.parse(JSON.stringify(body).replace("NAME", name)),
        );
      assert.equal((await ask(alice, "hers:1")).status, 200, path);
      assert.equal((await ask(bob, "common:1")).status, 200, path);
      const [theirs, nothing] = [await ask(bob, "hers:1"), await ask(bob, "none:1")];
      const strip = (text: string): string => text.replaceAll(/hers|none|"request_id":"[^"]*"/g, "");
      assert.deepEqual([theirs.status, strip(theirs.text)], [404, strip(nothing.text)], path);
    }
    // An administrator means its own owner's by a name, or, acting for it, another one's.
    const gone = "/images?reference=hers:1";
    assert.equal((await call(ops, "DELETE", gone)).status, 404);
    assert.equal((await call(ops, "DELETE", gone, undefined, "alice")).status, 200);
    assert.deepEqual(await list(alice), ["- common:1"]);
  });

  test("events: each owner's own, the server's for administrators", async () => {
    sandboxes.events.emit("provider.failed", undefined, { provider: "qemu" });
    const events = async (holder: Holder): Promise<string> => {
      const { text } = await ask(holder, "GET", "/events?last_event_id=evt-0");
      return text;
    };
    assert.match(await events("use"), new RegExp(`sandbox.created.*${hers.id}`));
    assert.doesNotMatch(await events("use"), /provider\.failed|"owner":"bob"/);
    assert.doesNotMatch(await events("other"), new RegExp(`${hers.id}|alice`));
    assert.match(await events("admin"), /provider\.failed/);
  });

  test("quotas: of a user within an owner, and of all users of an owner", async () => {
    await ask("admin", "PUT", "/quotas/*", { max_sandboxes: 1 }, { "x-owner": "carol" });
    const { secret } = await keys.create({ name: "carol", owner: "carol", scopes: ["use"] }, "test");
    const spawn = (user: string) =>
      ask(undefined, "POST", "/sandboxes", {}, { "x-api-key": secret, "x-user-id": user });
    assert.equal((await spawn("one")).status, 201);
    const second = await spawn("two");
    assert.equal(second.status, 429);
    assert.match(second.text, /the owner has 1 of at most 1/);
    assert.equal((await ask("other", "POST", "/sandboxes", {}, { "x-user-id": "two" })).status, 201);
  });
});

describe("keys", () => {
  test("made, rotated with a grace, expired, revoked; only hashes are stored, and a restart knows them", async () => {
    let now = 1_000;
    const { app, keys, store } = fakeApp({ now: () => now });
    const made = await keys.create({ name: "a", owner: "o", scopes: ["use"], expiresInMs: 10_000 }, "test");
    assert.match(made.secret, /^stacyvm_[\w-]{43}$/);
    assert.ok(!JSON.stringify(store.keys()).includes(made.secret));
    const status = async (secret: string): Promise<number> =>
      (await app.request(`${BASE}/sandboxes`, { headers: { "x-api-key": secret } }, {})).status;
    assert.equal(await status(made.secret), 200);
    const rotated = await keys.rotate("a", 1_000);
    assert.deepEqual([await status(made.secret), await status(rotated.secret)], [200, 200]);
    now += 1_001;
    assert.deepEqual([await status(made.secret), await status(rotated.secret)], [401, 200]);
    assert.deepEqual(
      new Keys(store, () => now).list().map(({ id, hash }) => [id, hash]),
      keys.list().map(({ id, hash }) => [id, hash]),
    );
    now += 10_000;
    assert.equal(await status(rotated.secret), 401);
    await assert.rejects(keys.rotate(made.record.id, 0), /is expired/);
    const other = await keys.create({ name: "b", owner: "o", scopes: ["use"] }, "test");
    await keys.revoke(other.record.id);
    assert.equal(await status(other.secret), 401);
  });

  test("guessing: an address is soon not heard any more, and those with good keys go on", async () => {
    const told: [string, number][] = [];
    const { app, keys } = fakeApp({ wrongKey: (address, left) => told.push([address, left]) });
    const { secret } = await keys.create({ name: "good", owner: "o", scopes: ["read"] }, "test");
    const ask = async (key: string): Promise<number> =>
      (await app.request(`${BASE}/health`, { headers: { "x-api-key": key } }, {})).status;
    const statuses: number[] = [];
    for (let i = 0; i < 40; i++) statuses.push(await ask(`guess-${i}`));
    assert.equal(statuses.filter((status) => status === 401).length, 30);
    assert.equal(statuses.at(-1), 429);
    assert.equal(await ask(secret), 200);
    // Each that was answered is told of, and the last says that it was the last.
    assert.deepEqual([told.length, told[0], told.at(-1)], [30, ["local", 29], ["local", 0]]);
  });

  test("the rate limit counts owners, whatever they call their users", async () => {
    const { app, keys } = fakeApp({ config: { rate_limit: { enabled: true, burst: 5, requests_per_minute: 1 } } });
    const key = async (owner: string): Promise<string> =>
      (await keys.create({ name: owner, owner, scopes: ["use"] }, "test")).secret;
    const [one, two] = [await key("one"), await key("two")];
    const ask = async (secret: string, user: string, host = "localhost"): Promise<number> =>
      (await app.request(`${BASE}/health`, { headers: { host, "x-api-key": secret, "x-user-id": user } }, {})).status;
    const statuses: number[] = [];
    for (let i = 0; i < 6; i++) statuses.push(await ask(one, `user-${i}`));
    assert.deepEqual(statuses, [200, 200, 200, 200, 200, 429]);
    assert.equal(await ask(one, "another", "80-sb-00000000.localhost"), 429);
    assert.equal(await ask(two, "user-0"), 200);
  });
});

test("keys that two owners call the same are two to the rate limit that counts keys", async () => {
  const rate_limit = { enabled: true, burst: 1, requests_per_minute: 1, key_by: "api_key" };
  const { app, keys } = fakeApp({ config: { rate_limit } });
  const statuses: number[] = [];
  for (const owner of ["one", "two"]) {
    const { secret } = await keys.create({ name: "ci", owner, scopes: ["use"] }, "test");
    statuses.push((await app.request(`${BASE}/health`, { headers: { "x-api-key": secret } }, {})).status);
  }
  assert.deepEqual(statuses, [200, 200]);
});

describe("without a configured key", () => {
  const { app, keys } = fakeApp({ ownUser: true });
  const ask = async (uid: number, headers: Record<string, string> = {}): Promise<{ status: number; text: string }> => {
    const response = await app.request(
      `${BASE}/sandboxes`,
      { headers: { host: "127.0.0.1", ...headers } },
      connection(uid),
    );
    return { status: response.status, text: await response.text() };
  };

  test("the server's own user and root are answered, others are told what to do", async () => {
    assert.equal((await ask(OWN_UID)).status, 200);
    assert.equal((await ask(0)).status, 200);
    const other = await ask(65_533);
    assert.equal(other.status, 401);
    assert.match(other.text, /uid 65533.*stacyvm key create/);
    const { secret } = await keys.create({ name: "guest", owner: "guest", scopes: ["use"] }, "test");
    assert.equal((await ask(65_533, { "x-api-key": secret })).status, 200);
    // A key that is presented has to be right, whoever presents it.
    assert.equal((await ask(OWN_UID, { "x-api-key": "wrong" })).status, 401);
  });

  test("pages of other origins, foreign host names and requests that somebody passes on are not its user's", async () => {
    assert.equal((await ask(OWN_UID, { origin: "https://evil.example" })).status, 403);
    assert.equal((await ask(OWN_UID, { host: "evil.example" })).status, 403);
    assert.equal((await ask(OWN_UID, { "x-forwarded-for": "192.0.2.1" })).status, 401);
    assert.equal((await ask(OWN_UID, { "x-forwarded-for": "127.0.0.1" })).status, 401);
  });

  test("what a page makes a browser ask for is not its user's: pictures, scripts and frames, which have no origin", async () => {
    const shown = { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image" };
    const page = (referer: string) => ({ ...shown, referer });
    for (const headers of [
      shown,
      { ...shown, "sec-fetch-site": "same-site" },
      { ...shown, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe" },
      page("https://evil.example/"),
      page("http://8080-sb-00000000.localhost:7423/"),
      page("http://127.0.0.1.evil.example/"),
    ]) {
      assert.equal((await ask(OWN_UID, headers)).status, 403, JSON.stringify(headers));
    }
    for (const headers of [
      { "sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" },
      { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" },
      { ...shown, "sec-fetch-site": "same-origin" },
      page("http://localhost:3000/"),
      page("http://127.0.0.1:3000/app"),
    ]) {
      assert.equal((await ask(OWN_UID, headers)).status, 200, JSON.stringify(headers));
    }
  });

  test("a proxy of this host is let through where the configuration says so, for this host only", async () => {
    const proxied = fakeApp({ ownUser: true, config: { server: { local_proxies: true } } });
    const ask = async (uid: number, headers: Record<string, string>): Promise<number> => {
      const init = { headers: { host: "localhost:5749", ...headers } };
      return (await proxied.app.request(`${BASE}/sandboxes`, init, connection(uid))).status;
    };
    for (const own of ["127.0.0.1", "::1", "127.0.0.1, ::1"]) {
      assert.equal(await ask(OWN_UID, { "x-forwarded-for": own }), 200, own);
      assert.equal(await ask(65_533, { "x-forwarded-for": own }), 401, `${own}, by another user's proxy`);
    }
    for (const foreign of ["192.0.2.1", "127.0.0.1, 192.0.2.1", "192.0.2.1, 127.0.0.1", "", "localhost", "unknown"]) {
      assert.equal(await ask(OWN_UID, { "x-forwarded-for": foreign }), 401, foreign);
    }
    assert.equal(await ask(OWN_UID, { "x-forwarded-for": "::1", "x-real-ip": "192.0.2.1" }), 401);
    assert.equal(await ask(OWN_UID, { forwarded: "for=127.0.0.1" }), 401);
    assert.equal(await ask(OWN_UID, { "x-forwarded-for": "::1", origin: "https://evil.example" }), 403);
  });
});
