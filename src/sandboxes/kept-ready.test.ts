/** Whose machines wait ready: the rule, and what pools are told when templates and quotas change. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { fakeWorld } from "../../test/fake-provider.ts";
import { shareOut, type Wish } from "./kept-ready.ts";

const wish = (name: string, owner: string, machines: number): Wish => ({ name, owner, machines });
const any = (): number => Number.POSITIVE_INFINITY;

test("owners take in turn: who wishes for much leaves the others theirs, and alone may have all", () => {
  const greedy = Array.from({ length: 500 }, (_, i) => wish(`mallory/${i}`, "mallory", 256));
  assert.equal(
    [...shareOut(greedy, 32, any).values()].reduce((a, b) => a + b),
    32,
  );
  const given = shareOut([...greedy, wish("alice/a", "alice", 10), wish("bob/b", "bob", 20)], 32, any);
  assert.deepEqual([given.get("alice/a"), given.get("bob/b")], [10, 11]);
  assert.deepEqual(Object.fromEntries(shareOut([wish("a/1", "a", 3), wish("a/2", "a", 9)], 8, any)), {
    "a/1": 3,
    "a/2": 5,
  });
  assert.deepEqual([...shareOut(greedy, 0, any)], []);
});

test("never more than there is, than is wished for, than an owner may have; and nothing is left that somebody still may have", () => {
  const wishes = fc.array(
    fc.record({ owner: fc.constantFrom("a", "b", "c"), machines: fc.integer({ min: 1, max: 9 }) }),
    { maxLength: 12 },
  );
  const property = fc.property(wishes, fc.nat(30), fc.nat(12), (input, total, most) => {
    const named = input.map((each, i) => ({ ...each, name: String(i) }));
    const given = shareOut(named, total, () => most);
    const has = (owner: string): number =>
      named.filter((each) => each.owner === owner).reduce((sum, { name }) => sum + (given.get(name) ?? 0), 0);
    const may = (owner: string): number =>
      Math.min(
        most,
        named.filter((each) => each.owner === owner).reduce((sum, { machines }) => sum + machines, 0),
      );
    const owners = ["a", "b", "c"];
    for (const { name, machines } of named) assert.ok((given.get(name) ?? 0) <= machines);
    for (const owner of owners) assert.ok(has(owner) <= may(owner));
    const all = owners.map(may).reduce((a, b) => a + b);
    assert.equal(
      owners.map(has).reduce((a, b) => a + b),
      Math.min(total, all),
    );
    // Of two who may have more, none has more than one machine above the other.
    const wanting = owners.filter((owner) => has(owner) < may(owner)).map(has);
    for (const owner of owners) for (const least of wanting) assert.ok(has(owner) <= least + 1);
  });
  fc.assert(property, { numRuns: 300 });
});

test("pools are told what changes: another owner's wish, a quota, the end of a template", async () => {
  const { provider, sandboxes } = fakeWorld(); // four in all
  const { templates, quotas } = sandboxes;
  const told = (): [string, number][] => provider.pins.splice(0);
  const template = (name: string, poolSize: number) => ({
    ...{ name, description: "", image: "i", memoryMiB: 128, vcpus: 1, ttlMs: 60_000, setup: [], env: {} },
    ...{ allowedHosts: [], secrets: [], poolSize, metadata: {} },
  });
  try {
    await templates.create("mallory", template("all", 256));
    assert.deepEqual(told(), [["mallory/all", 4]]);
    await templates.create("alice", template("one", 1));
    assert.deepEqual(told(), [
      ["mallory/all", 3],
      ["alice/one", 1],
    ]);
    await templates.create("bob", template("none", 0));
    assert.deepEqual(told(), [], "what is as it was is not told again");
    const none = { maxTtlMs: 0, maxExecTimeoutMs: 0 };
    await quotas.put("mallory", "*", { ...none, maxSandboxes: 2 });
    assert.deepEqual(told(), [["mallory/all", 2]]);
    await quotas.remove("mallory", "*");
    assert.deepEqual(told(), [["mallory/all", 3]]);
    await templates.replace("alice", "one", template("one", 1));
    assert.deepEqual(told(), [["alice/one", 1]], "it may be another machine");
    await templates.remove("mallory", "all");
    assert.deepEqual(told(), [["mallory/all", 0]]);
  } finally {
    await sandboxes.close({ destroy: true });
  }
});
