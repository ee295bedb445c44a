/**
 * Whatever E2B's published clients may ask has an answer: done, or refused with 501 by its name, in E2B's shape of an error. The routes
 * are those of the clients' own types, in every pinned version; the calls of processes and files those of their protocol files.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Filesystem } from "../src/e2b/envd/gen/filesystem/filesystem_pb.ts";
import { Process } from "../src/e2b/envd/gen/process/process_pb.ts";
import { ENVD_PORT } from "../src/e2b/parts.ts";
import { StacyError } from "../src/host/error.ts";
import { boundJsonLevels } from "../src/host/json-bounds.ts";
import { packageRoot } from "../src/host/paths.ts";
import { connection } from "./fake-access.ts";
import { fakeApp } from "./fake-app.ts";

interface Route {
  method: string;
  path: string;
}

/** What the routes of tags answer, in one: a list of tags, one assignment, groups of them. */
interface Told extends Array<{ buildID: string }> {
  buildID: string;
  tags: { tag: string; assignments: { buildId: string }[] }[];
  data: { buildId: string }[];
  nextCursor: string | null;
}

/** @returns the control plane's, and those of the agent in a sandbox, as the types of one version have them */
async function routesOf(version: string): Promise<{ control: Route[]; agent: Route[] }> {
  const types = await readFile(join(packageRoot, "node_modules", version, "dist/index.d.ts"), "utf8");
  const groups = types.split(/^interface paths(?:\$\d+)? \{$/m).slice(1);
  const read = (text: string): Route[] => {
    const found: Route[] = [];
    let path = "";
    for (const line of text.slice(0, text.search(/^\}$/m)).split("\n")) {
      path = /^ {2,4}['"](\/[^'"]*)['"]: \{$/.exec(line)?.[1] ?? path;
      const method = /^ {4,8}(get|put|post|delete|patch): (?:\{|operations)/.exec(line)?.[1];
      if (method !== undefined) found.push({ method: method.toUpperCase(), path });
    }
    return found;
  };
  const all = groups.map(read);
  const isControl = (routes: Route[]): boolean => routes.some(({ path }) => path === "/sandboxes");
  const isAgent = (routes: Route[]): boolean => routes.some(({ path }) => path === "/files");
  return { control: all.find(isControl) ?? [], agent: all.find(isAgent) ?? [] };
}

describe("every route that E2B's clients know", () => {
  const { app, keys, sandboxes } = fakeApp();
  const headers = { "x-api-key": "", "content-type": "application/json" };
  const things: Record<string, string> = {};

  before(async () => {
    // As the program does at its start.
    boundJsonLevels();
    headers["x-api-key"] = (await keys.create({ name: "k", owner: "alice", scopes: ["use"] }, "test")).secret;
    const body = JSON.stringify({ name: "site", image: "i" });
    assert.equal((await app.request("/api/v1/templates", { method: "POST", headers, body }, connection())).status, 201);
    Object.assign(things, { templateID: "site", alias: "site", buildID: "b1", hash: "ab" });
  });
  after(() => sandboxes.close({ destroy: true }));

  /** Each with a sandbox of its own: some end it. */
  async function answerTo(
    { method, path }: Route,
    port?: number,
    body = "{}",
  ): Promise<{ status: number; text: string }> {
    const { id, machine } = await sandboxes.spawn({ owner: "alice" });
    const nothing = async () => Promise.reject(new StacyError("not-found", "it is not there"));
    Object.assign(machine?.agent ?? {}, { processes: async () => [], readFile: nothing, stat: nothing });
    const asked = path.replace(/\{(\w+)\}/g, (_, name) => (name === "sandboxID" ? id : (things[name] ?? "x")));
    const target = port === undefined ? {} : { "e2b-sandbox-id": id, "e2b-sandbox-port": String(port) };
    const response = await app.request(
      `http://h${asked}`,
      { method, headers: { ...headers, ...target }, ...(method === "GET" ? {} : { body }) },
      connection(),
    );
    return { status: response.status, text: await response.text() };
  }

  for (const version of ["e2b", "e2b-2-35", "e2b-2-9"]) {
    test(`${version}: each is answered, or refused by name`, { timeout: 120_000 }, async () => {
      const { control, agent } = await routesOf(version);
      // The types of the oldest do not tell the agent's.
      assert.ok(
        control.length >= 25 && (agent.length >= 3 || version === "e2b-2-9"),
        `${control.length} ${agent.length}`,
      );
      const wrong: string[] = [];
      for (const [routes, port] of [
        [control, undefined],
        [agent, ENVD_PORT],
      ] as const) {
        for (const route of routes) {
          const { status, text } = await answerTo(route, port);
          const where = `${route.method} ${route.path}: ${status} ${text.slice(0, 200)}`;
          if (status < 300) continue;
          const { code, message } = JSON.parse(text) as { code: unknown; message: unknown };
          if (code !== status || typeof message !== "string") wrong.push(where);
          // A thing that is not there is named; of the sandbox, which is there, nobody says so.
          else if (status === 404 && !/(['"])(x|b1|site)\1|it is not there/.test(message)) wrong.push(where);
          else if (status >= 500 && status !== 501) wrong.push(where);
        }
      }
      assert.deepEqual(wrong, []);
    });
  }

  test("who names no time gets what each version's routes say: 15 seconds, or 300 since clients leave it to the server", async () => {
    const left = async (path: string, body: object): Promise<[string, number]> => {
      const answer = await app.request(path, { method: "POST", headers, body: JSON.stringify(body) }, connection());
      const { sandboxID } = (await answer.json()) as { sandboxID: string };
      const { createdAt, expiresAt } = sandboxes.get(sandboxID).record;
      return [sandboxID, (expiresAt - createdAt) / 1000];
    };
    const template = { name: "timed", image: "i" };
    await app.request("/api/v1/templates", { method: "POST", headers, body: JSON.stringify(template) }, connection());
    const [id, first] = await left("/sandboxes", { templateID: "timed" });
    assert.equal(first, 15);
    assert.equal((await left("/v2/sandboxes", { templateID: "timed" }))[1], 300);
    assert.equal((await left("/v2/sandboxes", { templateID: "timed", timeout: 60 }))[1], 60);
    assert.ok((await left(`/sandboxes/${id}/connect`, {}))[1] < 60, "it is left as it is");
    assert.ok((await left(`/v2/sandboxes/${id}/connect`, {}))[1] > 60);
  });

  test("tags of a template that no client of E2B's made: each has one build, with an id that is a UUID to clients", async () => {
    const asked = async (method: string, path: string, body?: object): Promise<{ status: number; body: Told }> => {
      const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
      const answer = await app.request(path, init, connection());
      const text = await answer.text();
      return { status: answer.status, body: text === "" ? undefined : JSON.parse(text) };
    };
    await asked("POST", "/api/v1/templates", { name: "shop", image: "i" });
    const made = await asked("POST", "/templates/tags", { target: "shop", tags: ["v1", "v2"] });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const at = async (rest: string) => (await asked("GET", `/templates/shop/tags${rest}`)).body;
    const builds: string[] = [made.body.buildID, ...(await at("")).map(({ buildID }) => buildID)];
    assert.equal(builds.length, 4);
    for (const build of builds) assert.match(build, /^[0-9a-f]{32}$/);
    assert.deepEqual(await at("/count"), { total: 3 });
    assert.deepEqual(await at("/exists?tag=v2"), { exists: true, normalizedTag: "v2" });
    assert.deepEqual(await at("/exists?tag=v3"), { exists: false, normalizedTag: "v3" });
    const names = ({ tags }: Told): string[] => tags.map(({ tag }) => tag);
    const first = await at("/groups?sort=name_desc&tagsLimit=2");
    assert.deepEqual(names(first), ["v2", "v1"]);
    const rest = await at(`/groups?sort=name_desc&tagsLimit=2&tagsCursor=${first.nextCursor}`);
    assert.deepEqual([names(rest), rest.nextCursor], [["default"], null]);
    assert.deepEqual(names(await at("/groups?search=v1")), ["v1"]);
    const { data, nextCursor } = await at("/v1/assignments");
    assert.deepEqual([data.length, nextCursor, data[0]?.buildId], [1, null, first.tags[1]?.assignments[0]?.buildId]);
    assert.equal((await asked("GET", "/templates/none/tags/count")).status, 404);
    // The name's other tags go with it.
    assert.equal((await asked("DELETE", "/templates/shop")).status, 204);
    assert.equal((await asked("GET", "/templates/shop/tags")).status, 404);
  });

  test("a name is there whatever its tags are: in lists, by its name and its id", async () => {
    const asked = async (method: string, path: string, body?: object): Promise<{ status: number; text: string }> => {
      const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
      const answer = await app.request(path, init, connection());
      return { status: answer.status, text: await answer.text() };
    };
    const status = async (path: string): Promise<number> => (await asked("GET", path)).status;
    await asked("POST", "/api/v1/templates", { name: "tagged", image: "i" });
    const listed = async (path: string): Promise<string[]> =>
      (JSON.parse((await asked("GET", path)).text) as { names: string[] }[]).flatMap(({ names }) => names);
    const before = await listed("/templates");
    assert.equal((await asked("POST", "/templates/tags", { target: "tagged", tags: ["v1", "v2"] })).status, 201);
    assert.deepEqual(await listed("/templates"), before);
    assert.equal((await asked("DELETE", "/templates/tags", { name: "tagged", tags: ["default"] })).status, 204);
    for (const path of ["/templates", "/v2/templates"])
      assert.deepEqual((await listed(path)).sort(), before.sort(), path);
    for (const path of ["/templates/aliases/tagged", "/templates/tagged", "/templates/aliases/tagged:v1"])
      assert.equal(await status(path), 200, path);
    // Who names a tag means that one.
    for (const tag of ["default", "v3"]) assert.equal(await status(`/templates/aliases/tagged:${tag}`), 404, tag);
    const made = await asked("POST", "/sandboxes", { templateID: "tagged" });
    assert.deepEqual([made.status, /has no tag 'default'.*tagged:v1/.test(made.text)], [404, true], made.text);
    assert.equal((await asked("DELETE", "/templates/tagged")).status, 204);
    assert.equal(await status("/templates/aliases/tagged"), 404);
  });

  test("templates in pages, and those that every server has", async () => {
    const page = async (path: string) => {
      const answer = await app.request(path, { headers }, connection());
      const names = ((await answer.json()) as { names: string[] }[]).flatMap((each) => each.names);
      return { names, next: answer.headers.get("x-next-token") };
    };
    for (const name of ["first", "second"]) {
      const body = JSON.stringify({ name, image: "i" });
      await app.request("/api/v1/templates", { method: "POST", headers, body }, connection());
    }
    const all = await page("/v2/templates");
    const one = await page("/v2/templates?limit=1");
    assert.deepEqual(one.names, all.names.slice(0, 1));
    assert.deepEqual((await page(`/v2/templates?nextToken=${one.next}`)).names, all.names.slice(1));
    assert.ok(all.names.length > 1 && all.next === null);
    assert.deepEqual((await page("/default-templates")).names, ["base", "code-interpreter"]);
  });

  test("the agent's calls of processes and files: all of them are there", async () => {
    for (const service of [Process, Filesystem]) {
      for (const { name, methodKind } of service.methods) {
        if (methodKind !== "unary") continue; // one that streams answers 200, and says the rest in the stream
        const { status, text } = await answerTo({ method: "POST", path: `/${service.typeName}/${name}` }, ENVD_PORT);
        assert.doesNotMatch(text, /is not implemented/, name);
        // What a fake guest cannot do is no matter here.
        assert.ok(status !== 501 || /signal 0/.test(text), `${name}: ${status} ${text}`);
      }
    }
  });

  test("a message that nests too deep is refused, where the library reads it too", async () => {
    const deep = `${'{"a":1,"b":'.repeat(20_000)}"\u0001`;
    const { status, text } = await answerTo({ method: "POST", path: `/${Process.typeName}/List` }, ENVD_PORT, deep);
    assert.equal(status, 400, text);
    assert.match(text, /levels/);
  });
});
