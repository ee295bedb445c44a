/**
 * E2B's protocol and who may: every route of its control plane, of a sandbox's agent and of the code interpreter, in this process,
 * with machines that are plain objects. A sandbox of Alice's and one that never was have the same answers for whoever may not know.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, describe, test } from "node:test";
import type { Access } from "../src/access/access.ts";
import type { Credential } from "../src/access/identity.ts";
import { e2bForm } from "../src/access/secret.ts";
import type { RouteAccess } from "../src/api/endpoint.ts";
import { ENVD_PORT, INTERPRETER_PORT } from "../src/e2b/parts.ts";
import { proofOf } from "../src/e2b/proof.ts";
import { StacyError } from "../src/host/error.ts";
import { connection as ownConnection } from "./fake-access.ts";
import { fakeApp } from "./fake-app.ts";

const NEVER = { sandbox: "sb-00000000", checkpoint: "cp-00000000", template: "no-template" };
type Things = typeof NEVER;

interface Asked {
  route?: RouteAccess;
  name: string;
  method: string;
  path: (things: Things) => string;
  /** `undefined`: the control plane. */
  port?: number;
  /** It is about one thing. */
  one: boolean;
}

/** Without credentials, or with ones that are not for Alice's sandboxes. */
type Stranger =
  | "nobody"
  | "wrong key"
  | "revoked key"
  | "another owner's key"
  | "tokens of another sandbox"
  | "a signature";

/** For files of templates. */
function temporary(): string {
  const dir = mkdtempSync(join(tmpdir(), "e2b-owners-"));
  after(() => rm(dir, { recursive: true }));
  return dir;
}

let addresses = 0;
/** A new address each time: wrong keys are counted by it. */
function connection() {
  addresses += 1;
  const remoteAddress = `10.${addresses >> 16}.${(addresses >> 8) & 255}.${addresses & 255}`;
  return { incoming: { socket: { remoteAddress } } } as never;
}

/** What the tokens stand on that whoever has this key is given: of one that is good, or of the own user. */
function credentialOf(access: Access, name?: string): Credential {
  const found = access.holders().find((each) => name === undefined || each.name === name);
  assert.ok(found);
  return found.credential;
}

/** As E2B's clients make it. */
function signature(text: string): string {
  return `v1_${createHash("sha256").update(text).digest("base64").replace(/=+$/, "")}`;
}

/** Every route of the application's table that is of this protocol. */
function routes(table: readonly RouteAccess[]): Asked[] {
  const query: Record<string, string> = { "/files": "?path=/x" };
  const listed = table.filter(({ protocol }) => protocol === "E2B");
  return listed.flatMap((route): Asked[] => {
    const { method, path, port } = route;
    const kind = path.startsWith("/templates/") ? (path.includes(":alias") ? "template" : "checkpoint") : "sandbox";
    const asked = {
      route,
      name: `${port === undefined ? "" : `${port}: `}${method} ${path}`,
      path: (things: Things) =>
        `${path.replace(/:\w+/, things[kind]).replace(/:\w+/, "ab12").replace("*", "x")}${query[path] ?? ""}`,
      ...(port === undefined ? {} : { port: port === "other" ? 8080 : port }),
      one: port !== undefined || path.includes(":"),
    };
    // Of the control plane a POST may be another route's.
    const any = port === undefined ? ["GET"] : ["GET", "POST"];
    return (method === "ALL" ? any : [method]).map((each) => ({ ...asked, method: each }));
  });
}

describe("every route of E2B's protocol", () => {
  const { app, access, keys, sandboxes, tokens } = fakeApp({ dataDir: temporary() });
  const secrets: Record<string, string> = {};
  /** By what has become of it. */
  const hers: Record<string, Things> = {};
  let bobs = "";

  before(async () => {
    for (const [name, owner, scope] of [
      ["use", "alice", "use"],
      ["read", "alice", "read"],
      ["admin", "alice", "admin"],
      ["revoked", "alice", "admin"],
      ["other", "bob", "use"],
    ] as const) {
      secrets[name] = (await keys.create({ name, owner, scopes: [scope] }, "test")).secret;
    }
    await keys.revoke("revoked");
    for (const state of ["running", "paused", "ended"]) {
      const { id, machine } = await sandboxes.spawn({ owner: "alice", metadata: { word: "CANARY" } });
      // What contexts and users are read from; nothing else runs in these machines.
      const nothing = async () => Promise.reject(new StacyError("not-found", "it is not there"));
      Object.assign(machine?.agent ?? {}, { processes: async () => [], readFile: nothing });
      const checkpoint = await sandboxes.checkpoint(id, { name: `CANARY-${state}` });
      const template = `CANARY-template-${state}`;
      const made = await app.request(
        "/api/v1/templates",
        {
          method: "POST",
          headers: { "x-api-key": secrets.use ?? "" },
          body: JSON.stringify({ name: template, image: "i" }),
        },
        connection(),
      );
      assert.equal(made.status, 201);
      if (state === "paused") await sandboxes.suspend(id);
      if (state === "ended") await sandboxes.destroy(id);
      hers[state] = { sandbox: id, checkpoint: checkpoint.id, template };
    }
    bobs = (await sandboxes.spawn({ owner: "bob" })).id;
  });
  after(() => sandboxes.close({ destroy: true }));

  const shows: Record<Stranger, () => Record<string, string>> = {
    nobody: () => ({}),
    "wrong key": () => ({ "x-api-key": "wrong" }),
    "revoked key": () => ({ "x-api-key": secrets.revoked ?? "" }),
    "another owner's key": () => ({ "x-api-key": secrets.other ?? "" }),
    "tokens of another sandbox": () => tokensOf(bobs, "other"),
    "a signature": () => ({}),
  };
  /** Of the key with this name, Alice's by default. */
  const tokensOf = (id: string, by = "use") => ({
    "x-access-token": tokens.of(id, credentialOf(access, by)),
    "e2b-traffic-access-token": tokens.traffic(id, credentialOf(access, by)),
  });
  const strangers = Object.keys(shows) as Stranger[];

  const health: Asked = { name: "", method: "GET", path: () => "/health", port: ENVD_PORT, one: true };
  const get: Asked = { name: "", method: "GET", path: ({ sandbox }) => `/sandboxes/${sandbox}`, one: true };

  async function ask(asked: Asked, things: Things, headers: Record<string, string>, query = "") {
    const target: Record<string, string> =
      asked.port === undefined ? {} : { "e2b-sandbox-id": things.sandbox, "e2b-sandbox-port": String(asked.port) };
    const path = asked.path(things);
    const response = await app.request(
      `http://h${path}${query === "" ? "" : `${path.includes("?") ? "&" : "?"}${query}`}`,
      {
        method: asked.method,
        headers: { "content-type": "application/json", ...target, ...headers },
        ...(asked.method === "GET" ? {} : { body: JSON.stringify({ timeout: 10 }) }),
      },
      connection(),
    );
    const text = await response.text();
    const own = ["x-request-id", "server-timing", "content-length"];
    const told = [...response.headers].filter(([name]) => !own.includes(name));
    return { status: response.status, text, told };
  }

  test("every one is in the table, with who may call it: each scope, an expired key, tokens", async () => {
    const { secret: expired } = await keys.create(
      { name: "expired", owner: "alice", scopes: ["admin"], expiresInMs: 1 },
      "test",
    );
    while ((await ask(get, NEVER, { "x-api-key": expired })).status !== 401);
    const rank = { read: 0, use: 1, admin: 2 };
    let checked = 0;
    for (const asked of routes(app.routeTable)) {
      const access = asked.route?.access;
      assert.ok(access !== undefined && access !== "everybody", asked.name);
      // What changes something is never for who may only read; `ALL` of the control plane is what is not there.
      assert.ok(access !== "read" || /^(GET|ALL)$/.test(asked.route?.method ?? ""), asked.name);
      for (const holder of ["read", "use", "admin"] as const) {
        // Of one that never was, whatever it does: what runs is no part of this.
        const { status, text } = await ask(asked, NEVER, { "x-api-key": secrets[holder] ?? "" });
        const least: number = rank[access === "sandbox" ? "use" : access];
        assert.equal(status === 401 || status === 403, rank[holder] < least, `${asked.name} with ${holder}: ${text}`);
      }
      assert.equal((await ask(asked, NEVER, { "x-api-key": expired })).status, 401, asked.name);
      const inHerName = { "x-api-key": secrets.other ?? "", "x-owner": "alice" };
      assert.equal((await ask(asked, NEVER, inHerName)).status, 403, `${asked.name} as another owner`);
      const shown = tokensOf(NEVER.sandbox);
      assert.equal(
        (await ask(asked, NEVER, shown)).status === 401,
        access !== "sandbox",
        `${asked.name} with its tokens`,
      );
      checked += 1;
    }
    assert.ok(checked > 70, String(checked));
  });

  /** Without the names that were asked for, and the time. */
  function alike(answer: Awaited<ReturnType<typeof ask>>, things: Things): unknown {
    const timeless = answer.text.replace(/expires=\d+&signature=[\w.-]+/, "SIGNED");
    const text = Object.values(things).reduce((left, name) => left.replaceAll(name, "NAME"), timeless);
    return { ...answer, text };
  }

  test("nothing is told of a sandbox to whoever may not know that it is there", async () => {
    let compared = 0;
    for (const asked of routes(app.routeTable)) {
      for (const stranger of strangers) {
        const query =
          stranger === "a signature"
            ? `signature=${signature(`/x:read::${tokensOf(bobs, "other")["x-access-token"]}`)}`
            : "";
        const never = await ask(asked, NEVER, shows[stranger](), query);
        const where = `${asked.name} with ${stranger}: ${never.text}`;
        if (stranger !== "another owner's key") {
          assert.equal(never.status, 401, where);
          const { code, message } = JSON.parse(never.text);
          assert.deepEqual([code, typeof message], [401, "string"], where);
        } else if (asked.port !== undefined) {
          assert.equal(never.status, 502, where);
        } else if (/^\w+ \/(v2\/)?sandboxes\/:id/.test(asked.name)) {
          assert.equal(never.status, 404, where);
        }
        if (!asked.one) {
          assert.ok(!/CANARY|alice/.test(never.text), where);
          continue;
        }
        for (const [state, things] of Object.entries(hers)) {
          const theirs = await ask(asked, things, shows[stranger](), query);
          assert.deepEqual(alike(theirs, things), alike(never, NEVER), `${where}, and of one that is ${state}`);
          compared += 1;
        }
      }
    }
    assert.ok(compared > 800, String(compared));
    // And nothing came of any of it.
    assert.equal(sandboxes.get(hers.running?.sandbox ?? "").state, "running");
    assert.equal(sandboxes.get(hers.paused?.sandbox ?? "").state, "suspended");
    assert.equal(sandboxes.checkpoints.list(hers.running?.sandbox).length, 1);
  });

  const linkOf = (id: string, text: string) =>
    `/files?path=/x&signature=${encodeURIComponent(signature(`${text}:${tokensOf(id)["x-access-token"]}`))}`;

  test("its owner's key, its tokens and its links are told how it is", async () => {
    const { running, paused, ended } = hers as Record<string, Things>;
    for (const [things, status, word] of [
      [running, 204, /^$/],
      [paused, 502, /is not running/],
      [ended, 502, /was not found/],
      [NEVER, 502, /was not found/],
    ] as const) {
      assert.ok(things);
      for (const port of [ENVD_PORT, INTERPRETER_PORT]) {
        for (const headers of [{ "x-api-key": secrets.use ?? "" }, tokensOf(things.sandbox)]) {
          const { status: got, text } = await ask({ ...health, port }, things, headers);
          if (status !== 204) assert.match(text, word);
          assert.equal(got, status === 204 && port === INTERPRETER_PORT ? 200 : status, text);
        }
      }
      const { status: shown } = await ask(get, things, { "x-api-key": secrets.use ?? "" });
      assert.equal(shown, things === running || things === paused ? 200 : 404);
    }
    assert.ok(running && paused && ended);
    // By a link: with the sandbox's name beside it, and without.
    const byLink = async (path: string, id?: string): Promise<number> => {
      const headers: Record<string, string> = id === undefined ? {} : { "e2b-sandbox-id": id };
      return (await app.request(`http://h${path}`, { headers }, connection())).status;
    };
    for (const id of [undefined, paused.sandbox]) {
      assert.equal(await byLink(linkOf(paused.sandbox, "/x:read:"), id), 502);
      assert.equal(await byLink(linkOf(paused.sandbox, "/other:read:"), id), 401);
      assert.equal(await byLink(linkOf(paused.sandbox, "/x:write:"), id), 401);
    }
    assert.equal(await byLink(linkOf(ended.sandbox, "/x:read:")), 401);
    assert.equal(await byLink(linkOf(ended.sandbox, "/x:read:"), ended.sandbox), 502);
  });

  test("each token opens what it is for, and a wrong one is not made good by a key", async () => {
    const { running } = hers as Record<string, Things>;
    assert.ok(running);
    const { sandbox } = running;
    const metrics: Asked = { ...health, path: () => "/metrics" };
    const contexts: Asked = { ...health, path: () => "/contexts", port: INTERPRETER_PORT };
    const port: Asked = { ...health, path: () => "/", port: 8080 };
    const { "x-access-token": files, "e2b-traffic-access-token": ports } = tokensOf(sandbox);
    const [token, traffic] = [{ "x-access-token": files }, { "e2b-traffic-access-token": ports }];
    const status = async (asked: Asked, headers: Record<string, string>) => (await ask(asked, running, headers)).status;
    assert.deepEqual([await status(metrics, token), await status(metrics, traffic)], [200, 401]);
    assert.deepEqual([await status(contexts, token), await status(contexts, traffic)], [200, 200]);
    // Allowed; that these machines have no ports is another matter.
    assert.deepEqual([await status(port, token), await status(port, traffic)], [401, 500]);
    const wrong = { "x-access-token": "wrong", "x-api-key": secrets.use ?? "" };
    assert.deepEqual(
      [await status(metrics, wrong), await status(metrics, { "x-api-key": secrets.use ?? "" })],
      [401, 200],
    );
    assert.equal(await status(metrics, { "x-api-key": secrets.read ?? "" }), 403);
  });

  test("a key that was made here is good in the form that E2B's clients insist on, and nothing else that looks like it", async () => {
    const shown = e2bForm(secrets.use ?? "");
    assert.match(shown, /^e2b_[0-9a-f]+$/);
    const status = async (key: string): Promise<number> =>
      (await app.request("http://h/sandboxes", { headers: { "x-api-key": key } }, connection())).status;
    assert.deepEqual(
      [await status(shown), await status(`${shown}00`), await status(shown.slice(0, -2))],
      [200, 401, 401],
    );
    assert.equal(await status(`e2b_${Buffer.from("wrong").toString("hex")}`), 401);
  });

  test("a key that may only read is not handed the tokens that write", async () => {
    const { running } = hers as Record<string, Things>;
    assert.ok(running);
    const shown = async (key: string) => (await ask(get, running, { "x-api-key": secrets[key] ?? "" })).text;
    assert.equal(JSON.parse(await shown("use")).envdAccessToken, tokensOf(running.sandbox)["x-access-token"]);
    const text = await shown("read");
    assert.equal(JSON.parse(text).sandboxID, running.sandbox);
    assert.ok(!/token/i.test(text), text);
    const link = { ...get, path: () => "/templates/x/files/ab12" };
    const asked = async (key: string) => (await ask(link, running, { "x-api-key": secrets[key] ?? "" })).status;
    assert.deepEqual([await asked("use"), await asked("read")], [201, 403], "nor a link that takes files");
  });

  test("a template's name means an administrator's own, not one that somebody else has given that name", async () => {
    const { secret } = await keys.create({ name: "ops", owner: "ops", scopes: ["admin"] }, "test");
    const ask = async (key: string | undefined, method: string, path: string, body?: object) => {
      const headers = { "x-api-key": key ?? "" };
      const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
      const response = await app.request(path, init, connection());
      return { status: response.status, memory: /"memoryMB":(\d+)/.exec(await response.text())?.[1] };
    };
    const template = (memory_mb: number) => ({ name: "common-name", image: "i", memory_mb });
    assert.equal((await ask(secrets.use, "POST", "/api/v1/templates", template(128))).status, 201);
    assert.equal((await ask(secret, "GET", "/templates/common-name")).status, 404);
    assert.equal((await ask(secret, "POST", "/templates/tags", { target: "common-name", tags: ["v1"] })).status, 404);
    assert.equal((await ask(secret, "POST", "/api/v1/templates", template(256))).status, 201);
    assert.equal((await ask(secret, "GET", "/templates/common-name")).memory, "256");
    assert.equal((await ask(secrets.use, "GET", "/templates/common-name")).memory, "128");
  });

  test("a template under another tag is the same template, whoever made it", async () => {
    const headers = { "x-api-key": secrets.use ?? "" };
    const post = async (path: string, body: object) =>
      await app.request(path, { method: "POST", headers, body: JSON.stringify(body) }, connection());
    const contexts = [{ language: "python", code: "import json" }];
    const whole = { image: "i", setup: ["true"], env: { A: "1" }, allowed_hosts: ["a.example"], contexts };
    assert.equal((await post("/api/v1/templates", { name: "tagged", pool_size: 1, ...whole })).status, 201);
    assert.equal((await post("/templates/tags", { target: "tagged", tags: ["v2"] })).status, 201);
    const made = await app.request("/api/v1/templates/tagged%3Av2", { headers }, connection());
    const shown = (await made.json()) as Record<string, unknown>;
    for (const [field, value] of Object.entries(whole)) assert.deepEqual(shown[field], value, field);
    assert.equal(shown.pool_size, 0, "machines are kept ready for one of them");
  });
});

describe("a sandbox's tokens and links end with the key that they were given for", () => {
  const HOUR_MS = 3_600_000;
  let now = Date.now();
  const world = fakeApp({ now: () => now, dataDir: temporary() });
  const { app, keys, sandboxes } = world;
  let id = "";
  before(async () => {
    id = (await sandboxes.spawn({ owner: "alice" })).id;
    const nothing = async () => Promise.reject(new StacyError("not-found", "it is not there"));
    Object.assign(sandboxes.get(id).machine?.agent ?? {}, { readFile: nothing, stat: nothing, run: nothing });
  });
  after(() => sandboxes.close({ destroy: true }));

  /** Statuses of all that was given for this key. */
  async function given(key: string) {
    const headers = { "x-api-key": key };
    const read = async (path: string) =>
      (await (await app.request(`http://h${path}`, { headers }, connection())).json()) as Record<string, string>;
    const { envdAccessToken = "", trafficAccessToken = "" } = await read(`/sandboxes/${id}`);
    const { url = "" } = await read("/templates/x/files/ab12");
    const link = `/files?path=/x&signature=${encodeURIComponent(signature(`/x:read::${envdAccessToken}`))}`;
    const at = (port: number) => ({ "e2b-sandbox-id": id, "e2b-sandbox-port": String(port) });
    return async (): Promise<Record<string, boolean>> => {
      const asked: Record<string, Response> = {
        files: await app.request(
          "http://h/health",
          { headers: { ...at(ENVD_PORT), "x-access-token": envdAccessToken } },
          connection(),
        ),
        code: await app.request(
          "http://h/health",
          { headers: { ...at(INTERPRETER_PORT), "e2b-traffic-access-token": trafficAccessToken } },
          connection(),
        ),
        port: await app.request(
          "http://h/",
          { headers: { ...at(8080), "e2b-traffic-access-token": trafficAccessToken } },
          connection(),
        ),
        link: await app.request(`http://h${link}`, { headers: at(ENVD_PORT) }, connection()),
        "link without a name": await app.request(`http://h${link}`, {}, connection()),
        upload: await app.request(url, { method: "PUT", body: "x" }, connection()),
      };
      return Object.fromEntries(Object.entries(asked).map(([name, { status }]) => [name, status !== 401]));
    };
  }
  const all = (open: boolean) =>
    Object.fromEntries(["files", "code", "port", "link", "link without a name", "upload"].map((name) => [name, open]));

  const made = async (owner: string, scope: "use" | "admin", expiresInMs?: number) =>
    await keys.create(
      { name: `key ${Math.random()}`, owner, scopes: [scope], ...(expiresInMs === undefined ? {} : { expiresInMs }) },
      "test",
    );

  test("revoked", async () => {
    const { record, secret } = await made("alice", "use");
    const { secret: another } = await made("alice", "use");
    const [hers, others] = [await given(secret), await given(another)];
    assert.deepEqual(await hers(), all(true));
    await keys.revoke(record.id);
    assert.deepEqual([await hers(), await others()], [all(false), all(true)], "another key's go on");
  });

  test("expired", async () => {
    const { secret } = await made("alice", "use", HOUR_MS);
    const hers = await given(secret);
    assert.deepEqual(await hers(), all(true));
    now += HOUR_MS;
    assert.deepEqual(await hers(), all(false));
  });

  test("rotated, when the secret before is good no longer", async () => {
    const { record, secret } = await made("alice", "use");
    const before = await given(secret);
    const rotated = await keys.rotate(record.id, HOUR_MS);
    const since = await given(rotated.secret);
    assert.deepEqual([await before(), await since()], [all(true), all(true)]);
    now += HOUR_MS;
    assert.deepEqual([await before(), await since()], [all(false), all(true)]);
  });

  test("of a key that may do less now", async () => {
    const { record, secret } = await made("alice", "use");
    const hers = await given(secret);
    assert.deepEqual(await hers(), all(true));
    await keys.change(record.id, { scopes: ["read"], role: "viewer" });
    assert.deepEqual(await hers(), all(false));
    // An administrator's for another owner's sandbox: with the scope, not with the key alone.
    const ops = await made("ops", "admin");
    const theirs = await given(ops.secret);
    assert.equal((await theirs()).files, true);
    await keys.change(ops.record.id, { scopes: ["use"], role: "operator" });
    assert.deepEqual(await theirs(), { ...all(false), upload: true }, "files of templates are its own owner's");
  });

  test("a call that such a token has opened is broken off", async () => {
    const { record, secret } = await made("alice", "use");
    const { envdAccessToken } = (await (
      await app.request(`http://h/sandboxes/${id}`, { headers: { "x-api-key": secret } }, connection())
    ).json()) as Record<string, string>;
    const socket = Object.assign(new PassThrough(), { remoteAddress: "10.9.9.9" });
    const outgoing = new PassThrough();
    const headers = { "e2b-sandbox-id": id, "x-access-token": envdAccessToken ?? "" };
    const response = await app.request("http://h/health", { headers }, { incoming: { socket }, outgoing } as never);
    assert.equal(response.status, 204);
    const ended = once(socket, "close");
    await keys.revoke(record.id);
    await ended;
    outgoing.destroy();
  });
});

test("what an open server has given its own user is good only while it asks for no key", async () => {
  const open = fakeApp({ ownUser: true });
  const closed = fakeApp();
  try {
    const credential = credentialOf(open.access);
    const { id } = await open.sandboxes.spawn({});
    const shown = { "e2b-sandbox-id": id, "x-access-token": open.tokens.of(id, credential) };
    const ask = async (access: Access) =>
      (
        await proofOf(
          { tokens: open.tokens, access },
          { id, owner: "default" },
          ENVD_PORT,
          new Request("http://h/health", { headers: shown }),
        )
      ).kind;
    assert.deepEqual([await ask(open.access), await ask(closed.access)], ["right", "wrong"]);
  } finally {
    await open.sandboxes.close({ destroy: true });
    await closed.sandboxes.close({ destroy: true });
  }
});

test("the rate limit counts who shows a token by its sandbox, links by their address, and says so in E2B's form", async () => {
  const { app, access, keys, sandboxes, tokens } = fakeApp({
    config: { rate_limit: { enabled: true, burst: 3, requests_per_minute: 1 } },
  });
  try {
    await keys.create({ name: "user", owner: "a", scopes: ["use"] }, "test");
    const [one, two] = [await sandboxes.spawn({ owner: "a" }), await sandboxes.spawn({ owner: "a" })];
    const ask = (id: string) => {
      const headers = { "e2b-sandbox-id": id, "x-access-token": tokens.of(id, credentialOf(access)) };
      return app.request("http://h/health", { headers }, connection());
    };
    const statuses: number[] = [];
    for (let i = 0; i < 3; i++) statuses.push((await ask(one.id)).status);
    assert.deepEqual(statuses, [204, 204, 204]);
    const refused = await ask(one.id);
    assert.equal(refused.status, 429);
    assert.ok(Number(refused.headers.get("retry-after")) > 50, "when there is one again, not in a second");
    assert.deepEqual(await refused.json(), { code: 429, message: "too many requests" });
    assert.equal((await ask(two.id)).status, 204);

    const address = connection();
    const links: number[] = [];
    for (let i = 0; i < 4; i++) {
      links.push((await app.request("http://h/files?path=/x&signature=v1_x", {}, address)).status);
    }
    assert.deepEqual(links, [401, 401, 401, 429]);
  } finally {
    await sandboxes.close({ destroy: true });
  }
});

test("where the server knows its user by the connection, a sandbox still asks for its token; by host name too", async () => {
  const { app, access, sandboxes, tokens } = fakeApp({ ownUser: true });
  try {
    const { id } = await sandboxes.spawn({});
    const ask = async (path: string, headers: Record<string, string>): Promise<number> =>
      (await app.request(path, { headers: { host: "127.0.0.1", ...headers } }, ownConnection())).status;
    assert.equal(await ask(`/sandboxes/${id}`, {}), 200);
    for (const each of [id, NEVER.sandbox]) {
      for (const port of [ENVD_PORT, INTERPRETER_PORT]) {
        assert.equal(await ask("/health", { "e2b-sandbox-id": each, "e2b-sandbox-port": String(port) }), 401);
        assert.equal(await ask("/health", { host: `${port}-${each}.localhost` }), 401);
      }
    }
    assert.equal(
      await ask("/health", {
        host: `${ENVD_PORT}-${id}.localhost`,
        "x-access-token": tokens.of(id, credentialOf(access)),
      }),
      204,
    );
    assert.equal(await ask("/", { "e2b-sandbox-id": id, "e2b-sandbox-port": "x" }), 400);
  } finally {
    await sandboxes.close({ destroy: true });
  }
});

test("under a preview's host name every path is the guest's: its page is no client of the server, nor of other sandboxes", async () => {
  const { app, access, sandboxes, tokens } = fakeApp({ ownUser: true });
  try {
    const reached: string[] = [];
    const spawn = async (name: string) => {
      const { id, machine } = await sandboxes.spawn({});
      const tunnel = async (port: number) => {
        reached.push(`${name}:${port}`);
        throw new StacyError("not-found", "nobody listens");
      };
      Object.assign(machine?.agent ?? {}, { tunnel });
      return id;
    };
    const [hers, other] = [await spawn("hers"), await spawn("other")];
    /** As a page of hers sends it in the browser of the server's user: from its own origin, without a key. */
    const ask = async (request: string, headers: Record<string, string> = {}, host = `8080-${hers}.localhost:7423`) => {
      const [method = "", path = ""] = request.split(" ");
      const body = method === "POST" ? { body: JSON.stringify({ templateID: "docker.io/library/alpine:3" }) } : {};
      const init = { method, headers: { host, origin: `http://${host}`, ...headers }, ...body };
      return (await app.request(`http://${host}${path}`, init, ownConnection())).status;
    };
    const own = ["GET /events", "GET /templates", "GET /secrets", "GET /files?path=/x&signature=v1_x", "POST /x"];
    const control = ["GET /sandboxes", "GET /v2/sandboxes", "POST /sandboxes", `DELETE /sandboxes/${other}`];
    for (const each of [...own, ...control, "GET /api/v1/sandboxes"]) {
      reached.length = 0;
      assert.equal(await ask(each), 503, each);
      assert.deepEqual(reached, ["hers:8080"], each);
    }
    const linked = { "x-access-token": tokens.of(other, credentialOf(access)) };
    for (const port of [ENVD_PORT, INTERPRETER_PORT, 3000]) {
      reached.length = 0;
      const at = { ...linked, "e2b-sandbox-id": other, "e2b-sandbox-port": String(port) };
      assert.equal(await ask("GET /health", at), 503, "a header that names another sandbox");
      assert.deepEqual(reached, ["hers:8080"]);
      assert.equal(await ask("GET /health", at, `${ENVD_PORT}-${hers}.localhost`), 401, "hers is what is asked");
    }
    assert.equal(sandboxes.list().length, 2);
    // Names below the domain that are no preview, as of another server's page: not without a key.
    for (const host of ["api.localhost:7423", "other.localhost:7423"]) {
      for (const each of ["GET /sandboxes", "GET /api/v1/sandboxes"])
        assert.equal(await ask(each, {}, host), 403, each);
      const at = { "e2b-sandbox-id": other, "e2b-sandbox-port": "3000" };
      assert.equal(await ask("GET /", at, host), 403);
    }
    // E2B's own way by the domain: its ports, with the header too, and a port with the token of the sandbox's traffic.
    const envd = `${ENVD_PORT}-${hers}.localhost:7423`;
    const same = {
      "e2b-sandbox-id": hers,
      "e2b-sandbox-port": String(ENVD_PORT),
      "x-access-token": tokens.of(hers, credentialOf(access)),
    };
    assert.equal(await ask("GET /health", same, envd), 204);
    assert.equal(await ask("GET /", { "e2b-traffic-access-token": tokens.traffic(hers, credentialOf(access)) }), 502);
    assert.equal(await ask("GET /health", same, "sandbox.localhost:7423"), 204);
  } finally {
    await sandboxes.close({ destroy: true });
  }
});

test("a port of a sandbox that is gone, and one that nobody listens on, by host name and by header: as E2B's clients know them", async () => {
  for (const open of [true, false]) {
    const { app, access, sandboxes, tokens } = fakeApp({ ownUser: true, config: { server: { preview_public: open } } });
    try {
      const { id, machine } = await sandboxes.spawn({});
      const { id: killed } = await sandboxes.spawn({});
      await sandboxes.destroy(killed);
      const tunnel = async (): Promise<never> => {
        throw new StacyError("not-found", "nobody listens");
      };
      Object.assign(machine?.agent ?? {}, { tunnel });
      for (const each of [id, killed, NEVER.sandbox]) {
        const traffic: Record<string, string> = open
          ? {}
          : { "e2b-traffic-access-token": tokens.traffic(each, credentialOf(access)) };
        const ways = [{ host: `3000-${each}.localhost` }, { "e2b-sandbox-id": each, "e2b-sandbox-port": "3000" }];
        for (const way of ways) {
          const answer = await app.request("/", { headers: { host: "127.0.0.1", ...way, ...traffic } }, connection());
          const wanted =
            each === id
              ? { message: "The sandbox is running but port is not open", port: 3000 }
              : { message: "The sandbox was not found" };
          const told = { status: answer.status, body: await answer.json() };
          assert.deepEqual(told, { status: 502, body: { sandboxId: each, code: 502, ...wanted } }, JSON.stringify(way));
        }
      }
    } finally {
      await sandboxes.close({ destroy: true });
    }
  }
});

test("volumes: their owner's own, and a token of one tells of its files, which are for sandboxes, and opens nothing", async () => {
  const { app, sandboxes, keys } = fakeApp({});
  try {
    const keyOf = async (owner: string, scope: "read" | "use"): Promise<string> =>
      (await keys.create({ name: `${owner} ${scope}`, owner, scopes: [scope] }, "test")).secret;
    const [hers, reads, his] = [await keyOf("alice", "use"), await keyOf("alice", "read"), await keyOf("bob", "use")];
    const ask = async (request: string, headers: Record<string, string>, body?: object) => {
      const [method = "", path = ""] = request.split(" ");
      const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
      const answer = await app.request(path, init, connection());
      const text = await answer.text();
      return { status: answer.status, body: text === "" ? undefined : JSON.parse(text) };
    };
    const made = await ask("POST /volumes", { "x-api-key": hers }, { name: "data" });
    const { volumeID, token } = made.body;
    assert.deepEqual([made.status, made.body.name], [201, "data"]);
    assert.equal((await ask(`GET /volumes/${volumeID}`, { "x-api-key": hers })).body.token, token);
    assert.deepEqual((await ask("GET /volumes", { "x-api-key": hers })).body, [{ volumeID, name: "data" }]);
    assert.deepEqual((await ask("GET /volumes", { "x-api-key": his })).body, []);
    assert.equal((await ask(`GET /volumes/${volumeID}`, { "x-api-key": reads })).body.token, "");
    for (const method of ["GET", "DELETE"])
      assert.equal((await ask(`${method} /volumes/${volumeID}`, { "x-api-key": his })).status, 404);
    assert.equal((await ask(`DELETE /volumes/${volumeID}`, { "x-api-key": reads })).status, 403);

    const bearer = { authorization: `Bearer ${token}` };
    const files = await ask(`GET /volumecontent/${volumeID}/dir?path=/`, bearer);
    assert.equal(files.status, 501);
    assert.match(files.body.message, /^files of a volume outside of a sandbox/);
    for (const path of ["/volumecontent/vol-00000000/dir", "/volumes", `/volumes/${volumeID}`, "/sandboxes"])
      assert.equal((await ask(`GET ${path}`, bearer)).status, 401, path);

    const brief = await keys.create({ name: "brief", owner: "alice", scopes: ["use"] }, "test");
    const given = (await ask(`GET /volumes/${volumeID}`, { "x-api-key": brief.secret })).body.token;
    const asked = async () =>
      (await ask(`GET /volumecontent/${volumeID}/dir?path=/`, { authorization: `Bearer ${given}` })).status;
    assert.equal(await asked(), 501);
    await keys.revoke(brief.record.id);
    assert.equal(await asked(), 401, "with the key that it was given for");

    const end = { autoPause: true, autoPauseMemory: false, volumeMounts: [{ name: "data", path: "/data" }] };
    const refused = await ask("POST /sandboxes", { "x-api-key": hers }, { templateID: "base", ...end });
    assert.deepEqual([refused.status, /without its memory/.test(refused.body.message)], [400, true]);
    assert.equal((await ask(`DELETE /volumes/${volumeID}`, { "x-api-key": hers })).status, 204);
  } finally {
    await sandboxes.close({ destroy: true });
  }
});

test("a sandbox whose maker has closed its ports, where all are open: its token or a key opens them, by host name and by header", async () => {
  const { app, keys, sandboxes } = fakeApp({ config: { server: { preview_public: true } } });
  try {
    const { secret } = await keys.create({ name: "maker", owner: "alice", scopes: ["use"] }, "test");
    const made = async (network: object) => {
      const body = JSON.stringify({ templateID: "docker.io/library/alpine:3", network });
      const answer = await app.request(
        "/sandboxes",
        { method: "POST", headers: { "x-api-key": secret }, body },
        connection(),
      );
      const { sandboxID: id, trafficAccessToken: token } = (await answer.json()) as Record<string, string>;
      const tunnel = async (): Promise<never> => {
        throw new StacyError("not-found", "nobody listens");
      };
      Object.assign(sandboxes.get(id ?? "").machine?.agent ?? {}, { tunnel });
      return { id: id ?? "", token: token ?? "" };
    };
    const [closed, open] = [await made({ allowPublicTraffic: false }), await made({})];
    const ask = async (headers: Record<string, string>) =>
      (await app.request("/", { headers: { host: "127.0.0.1", ...headers } }, connection())).status;
    const ways = ({ id }: { id: string }): Record<string, string>[] => [
      { host: `3000-${id}.localhost` },
      { "e2b-sandbox-id": id, "e2b-sandbox-port": "3000" },
    ];
    for (const way of ways(open)) assert.equal(await ask(way), 502, "there, and nobody listens");
    assert.deepEqual(await Promise.all(ways(closed).map(ask)), [403, 401]);
    for (const way of ways(closed)) {
      assert.equal(await ask({ ...way, "e2b-traffic-access-token": closed.token }), 502);
      assert.equal(await ask({ ...way, "e2b-traffic-access-token": open.token }), 401, "another sandbox's");
      assert.ok([502, 503].includes(await ask({ ...way, "x-api-key": secret })), "by its owner's key");
      assert.equal(await ask({ ...way, "x-api-key": "wrong" }), 401);
    }
  } finally {
    await sandboxes.close({ destroy: true });
  }
});
