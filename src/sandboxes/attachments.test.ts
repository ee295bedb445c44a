import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type FakeMachine, fakeWorld } from "../../test/fake-provider.ts";
import type { SandboxRecord } from "./record.ts";
import { Store } from "./store.ts";

async function world(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "attachments-"));
  t.after(() => rm(dir, { recursive: true }));
  const store = new Store(":memory:");
  const made = fakeWorld({ volumes: join(dir, "volumes"), store });
  await made.sandboxes.open();
  t.after(() => made.sandboxes.close({ destroy: true }));
  for (const name of ["data", "more"]) await made.sandboxes.volumes.create("default", { name, sizeMiB: 16 });
  return { ...made, dir, again: () => fakeWorld({ volumes: join(dir, "volumes"), store }) };
}

const data = { name: "data", path: "/data" };
const more = { name: "more", path: "/more" };
const one = { write: 1, read: 0 };
const shown = ({ volumes = [] }: SandboxRecord) => volumes.map(({ name, slot, changing }) => [name, slot, changing]);

test("a volume goes into a free place, and only there; a place that became free takes another one", async (t) => {
  const { sandboxes } = await world(t);
  const plain = await sandboxes.spawn({});
  await assert.rejects(sandboxes.attachVolume(plain.id, data), { code: "conflict", message: /no free place/ });
  const { id, machine } = await sandboxes.spawn({ spareSlots: { write: 1, read: 1 } });
  const { attached } = machine as FakeMachine;
  assert.deepEqual(shown(await sandboxes.attachVolume(id, data)), [["data", 0, undefined]]);
  await assert.rejects(sandboxes.attachVolume(id, more), { code: "conflict" });
  await assert.rejects(sandboxes.attachVolume(id, { ...data, path: "/x", readOnly: true }), { code: "conflict" });
  await assert.rejects(sandboxes.attachVolume(id, { ...more, path: "/data", readOnly: true }), { code: "conflict" });
  await sandboxes.attachVolume(id, { ...more, readOnly: true });
  assert.deepEqual(
    [...attached],
    [
      [0, "data"],
      [1, "more"],
    ],
  );
  await assert.rejects(sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  await sandboxes.detachVolume(id, "data", false);
  await sandboxes.spawn({ volumes: [data] });
  await assert.rejects(sandboxes.detachVolume(id, "data", false), { code: "not-found" });
  await sandboxes.detachVolume(id, "more", false);
  assert.deepEqual(shown(await sandboxes.attachVolume(id, more)), [["more", 0, undefined]]);
});

test("at most four places, with those of the volumes that it starts with", async (t) => {
  const { sandboxes } = await world(t);
  await assert.rejects(sandboxes.spawn({ volumes: [data], spareSlots: { write: 2, read: 2 } }), { code: "invalid" });
  const { record } = await sandboxes.spawn({
    volumes: [{ ...data, readOnly: true }],
    spareSlots: { write: 2, read: 1 },
  });
  assert.deepEqual(record.slots, ["write", "write", "read", "read"]);
  assert.deepEqual(shown(record), [["data", 2, undefined]]);
});

test("what programs hold stays; by force it goes, and its place with it", async (t) => {
  const { sandboxes } = await world(t);
  const sandbox = await sandboxes.spawn({ spareSlots: one });
  await sandboxes.attachVolume(sandbox.id, data);
  const machine = sandbox.machine as FakeMachine;
  machine.held = true;
  await assert.rejects(sandboxes.detachVolume(sandbox.id, "data", false), { code: "conflict", message: /sh \(7\)/ });
  assert.deepEqual(shown(sandbox.record), [["data", 0, undefined]]);
  await assert.rejects(sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  await sandboxes.detachVolume(sandbox.id, "data", true);
  assert.deepEqual([sandbox.record.volumes, sandbox.record.slots], [undefined, ["spent"]]);
  await assert.rejects(sandboxes.attachVolume(sandbox.id, data), { code: "conflict" });
  await sandboxes.spawn({ volumes: [data] });
});

test("an attachment that fails leaves nothing; one that cannot be taken back stays with the sandbox until it can", async (t) => {
  const { sandboxes, dir } = await world(t);
  const sandbox = await sandboxes.spawn({ spareSlots: one });
  const machine = sandbox.machine as FakeMachine;
  machine.attachFailure = new Error("it is damaged");
  await assert.rejects(sandboxes.attachVolume(sandbox.id, data), /damaged/);
  assert.deepEqual([shown(sandbox.record), [...machine.attached]], [[], []]);
  const { id } = sandboxes.volumes.find("default", "data");
  assert.deepEqual(await readdir(join(dir, "volumes", id, "uses")), []);
  machine.failure = new Error("it does not answer");
  await assert.rejects(sandboxes.attachVolume(sandbox.id, data), /not answer/);
  assert.deepEqual(shown(sandbox.record), [["data", 0, "attach"]]);
  await assert.rejects(sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  machine.failure = undefined;
  await assert.rejects(sandboxes.fork(sandbox.id, { count: 1 }), { code: "conflict", message: /neither/ });
  await assert.rejects(sandboxes.checkpoint(sandbox.id), { code: "conflict", message: /neither/ });
  await sandboxes.detachVolume(sandbox.id, "data", false);
  await sandboxes.spawn({ volumes: [data] });
});

for (const [changing, held, left] of [
  ["attach", false, []],
  ["attach", true, []],
  ["detach", false, []],
  ["detach", true, [["data", 0, undefined]]],
] as const) {
  test(`the next server puts right what was ${changing}ed half${held ? ", where programs hold it" : ""}`, async (t) => {
    const { sandboxes, again } = await world(t);
    const sandbox = await sandboxes.spawn({ spareSlots: one });
    await sandboxes.attachVolume(sandbox.id, data);
    const [mount] = sandbox.record.volumes ?? [];
    assert.ok(mount);
    sandbox.record.volumes = [{ ...mount, changing }];
    await sandboxes.extend(sandbox.id, 1_000_000);
    await sandboxes.store.committed();
    const machine = sandbox.machine as FakeMachine;
    machine.held = held;
    const next = again();
    next.provider.found = { ...next.provider.found, adopted: [machine] };
    await next.sandboxes.open();
    const found = next.sandboxes.get(sandbox.id);
    await found.changes.run(async () => {}); // after what it puts right
    assert.deepEqual(shown(found.record), left);
    const { users } = await next.sandboxes.volumes.get("default", "data");
    assert.equal(users.length, left.length);
  });
}
