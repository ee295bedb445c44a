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
          else if (status === 404 && !/'(x|b1|site)'|it is not there/.test(message)) wrong.push(where);
          else if (status >= 500 && status !== 501) wrong.push(where);
        }
      }
      assert.deepEqual(wrong, []);
    });
  }

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
