/** What all servers of a fleet have alike, with a real PostgreSQL: templates, and quotas. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Store } from "../src/sandboxes/store.ts";
import type { TemplateInput } from "../src/sandboxes/templates.ts";
import { fakeWorld } from "./fake-provider.ts";
import { fleetTests, until } from "./fleet-support.ts";

const TEMPLATE: TemplateInput = {
  ...{
    name: "web",
    image: "image",
    description: "",
    setup: [],
    allowedHosts: [],
    memoryMiB: 64,
    vcpus: 1,
    ttlMs: 60_000,
  },
  ...{ env: { A: "\u0000" }, secrets: [], poolSize: 0, metadata: {} },
};
const QUOTA = { maxSandboxes: 1, maxTtlMs: 0, maxExecTimeoutMs: 0 };

const tests = fleetTests();

async function server(name: string, store = new Store(":memory:")) {
  const { fleet } = await tests.open(name);
  const { sandboxes } = fakeWorld({ registry: fleet.registry, shared: fleet.shared(store), store });
  await fleet.join(sandboxes);
  return { sandboxes, store, [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose]() };
}

test("a template that is made, replaced or removed on one server is so on all, also in their own databases", async () => {
  await using a = await server("a");
  await using b = await server("b");
  const made = await a.sandboxes.templates.create("ada", TEMPLATE);
  const there = () => b.sandboxes.templates.list("ada").find(({ name }) => name === "web");
  await until(() => there() !== undefined);
  assert.deepEqual(there(), made);
  const { id } = await b.sandboxes.spawn({ owner: "ada", template: "web" });
  assert.equal(b.sandboxes.get(id).record.memoryMiB, 64);
  await b.sandboxes.templates.replace("ada", "web", { ...TEMPLATE, memoryMiB: 96 });
  await until(() => a.sandboxes.templates.get("ada", "web").memoryMiB === 96);
  assert.equal(a.sandboxes.templates.get("ada", "web").version, 2);
  assert.deepEqual(a.store.templates(), b.store.templates());
  await a.sandboxes.templates.remove("ada", "web");
  await until(() => there() === undefined);
  assert.deepEqual(b.store.templates(), []);
});

test("of two servers that make a template of one name, or change one, at once, one is refused", async () => {
  await using a = await server("a");
  await using b = await server("b");
  const both = (work: (each: typeof a, memoryMiB: number) => Promise<unknown>) =>
    Promise.allSettled([work(a, 64), work(b, 96)]);
  const refused = (outcomes: PromiseSettledResult<unknown>[]): string[] =>
    outcomes.flatMap((each) => (each.status === "rejected" ? [each.reason.code] : []));
  // Many at once, so that the news of one server's reaches the other while it waits for its turn.
  const names = ["web", ...Array.from({ length: 12 }, (_, i) => `web-${i}`)];
  const made = names.map((name) =>
    both((each, memoryMiB) => each.sandboxes.templates.create("ada", { ...TEMPLATE, name, memoryMiB })),
  );
  for (const outcomes of await Promise.all(made)) assert.deepEqual(refused(outcomes), ["conflict"]);
  const same = () =>
    until(() => {
      const [one, other] = [a, b].map(({ store }) => JSON.stringify(store.templates()));
      return one === other && one !== "[]";
    });
  await same();
  await both((each, memoryMiB) => each.sandboxes.templates.replace("ada", "web", { ...TEMPLATE, memoryMiB }));
  await same();
  assert.deepEqual(a.sandboxes.templates.list(), b.sandboxes.templates.list());
});

test("what a server that was alone has comes along when it joins; what the fleet has by that name stays", async () => {
  const store = new Store(":memory:");
  const alone = fakeWorld({ store }).sandboxes;
  await alone.templates.create("ada", TEMPLATE);
  await alone.templates.create("ada", { ...TEMPLATE, name: "own" });
  await alone.quotas.put("ada", "*", QUOTA);
  await using a = await server("a");
  await a.sandboxes.templates.create("ada", { ...TEMPLATE, memoryMiB: 96 });
  await using b = await server("b", store);
  for (const each of [a, b]) {
    await until(() => each.sandboxes.templates.list("ada").length === 2);
    assert.equal(each.sandboxes.templates.get("ada", "web").memoryMiB, 96);
    await until(() => each.sandboxes.quotas.find("ada", "*")?.maxSandboxes === 1);
  }
});

test("a quota that is set on one server holds on each", async () => {
  await using a = await server("a");
  await using b = await server("b");
  await a.sandboxes.quotas.put("ada", "*", QUOTA);
  await until(() => b.sandboxes.quotas.list("ada").length === 1);
  await b.sandboxes.spawn({ owner: "ada" });
  await assert.rejects(b.sandboxes.spawn({ owner: "ada" }), { code: "limit" });
  await a.sandboxes.quotas.remove("ada", "*");
  await until(() => b.sandboxes.quotas.list("ada").length === 0);
  await b.sandboxes.spawn({ owner: "ada" });
});

test("while the database is away all is read as before, and changes are refused; then they work again by themselves", async () => {
  await using a = await server("a");
  await a.sandboxes.templates.create("ada", TEMPLATE);
  await tests.postgres.kill();
  try {
    assert.equal(a.sandboxes.templates.get("ada", "web").memoryMiB, 64);
    await assert.rejects(a.sandboxes.templates.create("ada", { ...TEMPLATE, name: "later" }), { code: "unavailable" });
    await assert.rejects(a.sandboxes.templates.remove("ada", "web"), { code: "unavailable" });
    await assert.rejects(a.sandboxes.quotas.put("ada", "*", QUOTA), { code: "unavailable" });
    assert.equal(a.store.templates().length, 1);
    assert.deepEqual(a.sandboxes.quotas.list(), []);
  } finally {
    await tests.postgres.start();
  }
  await until(() =>
    a.sandboxes.templates.remove("ada", "web").then(
      () => true,
      () => false,
    ),
  );
});
