/** Templates that are being built, and who sees what builds them. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connection } from "../../../test/fake-access.ts";
import { fakeApp } from "../../../test/fake-app.ts";
import { StacyError } from "../../host/error.ts";
import type { ImageLibrary } from "../../images/image.ts";

type Asked = (method: string, path: string, body?: object) => Promise<{ status: number; body: Record<string, string> }>;

async function client({ app, keys }: ReturnType<typeof fakeApp>, owner: string): Promise<Asked> {
  const { secret } = await keys.create({ name: owner, owner, scopes: ["use"] }, "test");
  return async (method, path, body) => {
    const headers = { "x-api-key": secret, "content-type": "application/json" };
    const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const answer = await app.request(path, init, connection());
    const text = await answer.text();
    return { status: answer.status, body: text === "" ? {} : JSON.parse(text) };
  };
}

test("a template that is being built is deleted with its build, by its id or its name, and by its owner alone", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "templates-"));
  t.after(() => rm(dir, { recursive: true }));
  let begun = 0;
  let stopped = 0;
  // A base that comes as long as anybody waits for it.
  const resolve = (name: string, { pull, signal }: { pull?: string; signal?: AbortSignal } = {}) =>
    new Promise<never>((_, reject) => {
      if (pull === "never" || signal === undefined) return reject(new StacyError("not-found", `no image ${name}`));
      begun += 1;
      signal.addEventListener("abort", () => {
        stopped += 1;
        reject(signal.reason);
      });
    });
  const scratch = async () => ({ path: await mkdtemp(join(dir, "scratch-")), [Symbol.asyncDispose]: async () => {} });
  const world = fakeApp({ dataDir: dir, images: { resolve, scratch } as unknown as Partial<ImageLibrary> });
  t.after(() => world.sandboxes.close({ destroy: true }));
  const [alice, bob] = [await client(world, "alice"), await client(world, "bob")];
  const build = async (): Promise<{ id: string; status: string }> => {
    const { templateID, buildID } = (await alice("POST", "/v3/templates", { name: "mine" })).body;
    const path = `/v2/templates/${templateID}/builds/${buildID}`;
    assert.equal((await alice("POST", path, { fromImage: "slow", steps: [] })).status, 202);
    return { id: String(templateID), status: `/templates/${templateID}/builds/${buildID}/status` };
  };
  for (const by of ["id", "name"] as const) {
    const before = begun;
    const { id, status } = await build();
    while (begun === before) await new Promise(setImmediate);
    const target = `/templates/${by === "id" ? id : "mine"}`;
    assert.equal((await bob("DELETE", target)).status, 404);
    assert.equal((await alice("GET", status)).body.status, "building");
    assert.equal((await alice("DELETE", target)).status, 204);
    assert.equal(stopped, begun, "the build has ended");
    assert.deepEqual([(await alice("GET", status)).status, (await alice("DELETE", target)).status], [404, 404]);
  }
  // Two builds of one name are one template's, also before the first has made it.
  const before = begun;
  const [one, other] = [await build(), await build()];
  while (begun < before + 2) await new Promise(setImmediate);
  assert.equal(one.id, other.id);
  assert.equal((await alice("DELETE", `/templates/${other.id}`)).status, 204);
  assert.equal(stopped, begun);
  // One that was asked for and has no steps yet has ended, too: they come too late.
  const { templateID, buildID } = (await alice("POST", "/v3/templates", { name: "mine" })).body;
  assert.equal((await alice("DELETE", `/templates/${templateID}`)).status, 204);
  const late = await alice("POST", `/v2/templates/${templateID}/builds/${buildID}`, { fromImage: "slow", steps: [] });
  assert.deepEqual([late.status, begun], [404, before + 2]);
});

test("what a call of the server's own has borrowed is in none of the lists: who ends all that is listed ends no build", async (t) => {
  const world = fakeApp();
  t.after(() => world.sandboxes.close({ destroy: true }));
  const alice = await client(world, "alice");
  // Whatever it says of itself.
  const metadata = { purpose: "template-build" };
  const own = await world.sandboxes.spawn({ owner: "alice", metadata });
  await using _ = await world.sandboxes.borrow({ owner: "alice", metadata });
  for (const path of ["/sandboxes", "/v2/sandboxes", "/v2/sandboxes?metadata=purpose%3Dtemplate-build"]) {
    const { body } = await alice("GET", path);
    assert.deepEqual(
      (body as unknown as { sandboxID: string }[]).map(({ sandboxID }) => sandboxID),
      [own.id],
      path,
    );
  }
  const { secret } = await world.keys.create({ name: "again", owner: "alice", scopes: ["read"] }, "test");
  const counted = await world.app.request("/v2/sandboxes", { headers: { "x-api-key": secret } }, connection());
  assert.equal(counted.headers.get("x-total-running"), "1");
  const ours = await alice("GET", "/api/v1/sandboxes");
  assert.equal((ours.body as unknown as unknown[]).length, 2);
});
