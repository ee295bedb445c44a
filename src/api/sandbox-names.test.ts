/** A sandbox's name stands wherever its id may, and only for its owner. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connection } from "../../test/fake-access.ts";
import { fakeApp } from "../../test/fake-app.ts";
import { StacyError } from "../host/error.ts";
import { checkSandboxName } from "../sandboxes/name.ts";
import { API_BASE } from "./endpoint.ts";

function start() {
  const world = fakeApp({ ownUser: true });
  // biome-ignore lint/suspicious/noExplicitAny: tests look into every kind of answer
  const call = async (method: string, path: string, body?: unknown, headers: object = {}): Promise<any> => {
    const init = {
      method,
      headers: { host: "localhost", "content-type": "application/json", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    const answer = await world.app.request(`${API_BASE}${path}`, init, connection());
    const text = await answer.text();
    return { status: answer.status, body: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : text };
  };
  return { ...world, call };
}

test("every route of a sandbox takes its name for its id, and calls it by its id in what it says", async () => {
  const { call, app } = start();
  const made = await call("POST", "/sandboxes", { name: "web" });
  assert.deepEqual([made.status, made.body.name], [201, "web"]);
  const { id } = made.body;
  const routes = app.routeTable.filter(({ path }) => path.startsWith(`${API_BASE}/sandboxes/:id`));
  assert.ok(routes.length > 30, `${routes.length} routes`);
  for (const { method, path } of routes.sort((a, b) => Number(a.method === "DELETE") - Number(b.method === "DELETE"))) {
    const below = path
      .slice(API_BASE.length)
      .replace(/:port/, "8000")
      .replace(/:(?!id)\w+/g, "1")
      .replace("*", "");
    // Nothing is asked that could succeed and change something: the request is wrong, or the fake machine does not do it.
    const of = (named: string) =>
      call(method === "ALL" ? "GET" : method, below.replace(":id", named), {}).catch(String);
    if (method === "DELETE" && path.endsWith(":id")) continue;
    const [nobody, byName] = [await of("nobody"), await of("web")];
    if (nobody.status === 404) assert.notDeepEqual(byName.body, nobody.body, `${method} ${path}`);
    assert.ok(!JSON.stringify(byName).includes("no sandbox"), `${method} ${path}: ${JSON.stringify(byName)}`);
  }
  const events = await call("GET", "/events/history?sandbox_id=web");
  assert.ok(events.body.events.length > 0);
  assert.deepEqual([...new Set(events.body.events.map((event: { sandbox_id: string }) => event.sandbox_id))], [id]);
  assert.equal((await call("DELETE", "/sandboxes/web")).status, 200);
  assert.equal((await call("GET", `/sandboxes/${id}`)).status, 404);
});

test("no word that the API has in the place of an id can be a name", () => {
  const words = start().app.routeTable.flatMap(({ path }) => /^\/api\/v1\/sandboxes\/(\w+)$/.exec(path)?.[1] ?? []);
  assert.ok(words.includes("stats"));
  for (const word of words) assert.throws(() => checkSandboxName(word), { code: "invalid" }, word);
});

test("a name is taken once for each owner, and another owner's is as none", async () => {
  const { call } = start();
  const key = async (owner: string) => {
    const { body } = await call("POST", "/keys", { name: owner, owner, scopes: ["use", "read"] });
    return { "x-api-key": body.key };
  };
  const [alpha, beta] = [await key("alpha"), await key("beta")];
  const first = await call("POST", "/sandboxes", { name: "web" }, alpha);
  const again = await call("POST", "/sandboxes", { name: "web" }, alpha);
  assert.deepEqual([again.status, again.body.code], [409, "CONFLICT"]);
  assert.match(`${again.body.message}; ${again.body.remedy}`, new RegExp(`${first.body.id}.*stacyvm rm web`));
  // To the letter what is said of a name that nobody has.
  const others = await call("GET", "/sandboxes/web", undefined, beta);
  assert.equal(others.status, 404);
  assert.equal(others.body.message, 'there is no sandbox "web"');
  assert.equal((await call("DELETE", "/sandboxes/web", undefined, beta)).status, 200);
  assert.equal((await call("GET", "/sandboxes/web", undefined, alpha)).body.id, first.body.id, "it is there still");
  const theirs = await call("POST", "/sandboxes", { name: "web" }, beta);
  assert.equal(theirs.status, 201);
  assert.equal((await call("GET", "/sandboxes/web", undefined, beta)).body.id, theirs.body.id);
  // An administrator has names of its own, and another owner's by acting for that owner.
  assert.equal((await call("GET", "/sandboxes/web")).status, 404);
  assert.equal((await call("GET", "/sandboxes/web", undefined, { "x-owner": "alpha" })).body.id, first.body.id);
});

test("a copy has no name unless one is asked for, and then it is a single one; what has ended leaves its name", async () => {
  const { call } = start();
  await call("POST", "/sandboxes", { name: "web" });
  const fork = (body: object) => call("POST", "/sandboxes/web/fork", body);
  assert.equal((await fork({})).body.sandboxes[0].name, undefined);
  assert.equal((await fork({ name: "web" })).status, 409);
  assert.equal((await fork({ name: "two", count: 2 })).status, 400);
  assert.equal((await fork({ name: "copy" })).body.sandboxes[0].name, "copy");
  assert.equal((await call("POST", "/sandboxes", { name: "Web" })).status, 400);
  await call("DELETE", "/sandboxes/web");
  assert.equal((await call("GET", "/sandboxes/web")).status, 404);
  assert.equal((await call("POST", "/sandboxes", { name: "web" })).status, 201);
});

test("a preview is found by the sandbox's name, in the owner's view", async () => {
  const { call, app, provider } = start();
  const { body } = await call("POST", "/sandboxes", { name: "web-1" });
  const asked: number[] = [];
  const tunnel = async (port: number): Promise<never> => {
    asked.push(port);
    throw new StacyError("disconnected", "the fake machine has no ports");
  };
  Object.assign(provider.machinesById.get(body.id) ?? {}, { agent: { tunnel } });
  const ask = async (host: string) => (await app.request("/", { headers: { host } }, connection())).status;
  const unavailable = await ask(`8000-${body.id}.localhost`);
  assert.equal(await ask("8001-web-1.localhost:7423"), unavailable);
  assert.deepEqual(asked, [8000, 8001]);
  assert.equal(await ask("8000-web-2.localhost"), 404);
});
