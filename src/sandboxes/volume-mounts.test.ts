import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type FakeMachine, fakeWorld } from "../../test/fake-provider.ts";
import { Store } from "./store.ts";

async function world(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "mounts-"));
  t.after(() => rm(dir, { recursive: true }));
  const store = new Store(":memory:");
  const made = fakeWorld({ volumes: join(dir, "volumes"), store });
  await made.sandboxes.open();
  t.after(() => made.sandboxes.close({ destroy: true }));
  await made.sandboxes.volumes.create("default", { name: "data", sizeMiB: 16 });
  return { ...made, again: () => fakeWorld({ volumes: join(dir, "volumes"), store }) };
}

const data = { name: "data", path: "/data" };

test("a volume is with one sandbox that writes until that is gone, and with many that read", async (t) => {
  const { sandboxes } = await world(t);
  const first = await sandboxes.spawn({ volumes: [data] });
  assert.deepEqual(
    first.record.volumes?.map(({ name, path, readOnly }) => [name, path, readOnly]),
    [["data", "/data", false]],
  );
  await assert.rejects(sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  await assert.rejects(sandboxes.spawn({ volumes: [{ ...data, readOnly: true }] }), { code: "conflict" });
  await assert.rejects(sandboxes.volumes.remove("default", "data"), { code: "conflict" });
  await sandboxes.destroy(first.id);
  const readers = await Promise.all([1, 2].map(() => sandboxes.spawn({ volumes: [{ ...data, readOnly: true }] })));
  await assert.rejects(sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  const { users } = await sandboxes.volumes.get("default", "data");
  assert.deepEqual(users.map(({ sandbox }) => sandbox).sort(), readers.map(({ id }) => id).sort());
  for (const { id } of readers) await sandboxes.destroy(id);
  await sandboxes.volumes.remove("default", "data");
});

test("of many that ask at once for the same volume one gets it", async (t) => {
  const { sandboxes } = await world(t);
  const asked = await Promise.allSettled(Array.from({ length: 8 }, () => sandboxes.spawn({ volumes: [data] })));
  assert.equal(asked.filter(({ status }) => status === "fulfilled").length, 1);
});

test("a spawn that fails and a machine that dies leave the volume to others; a machine that does not end keeps it", async (t) => {
  const { sandboxes, provider } = await world(t);
  provider.spawnFailure = new Error("no");
  await assert.rejects(sandboxes.spawn({ volumes: [data] }));
  provider.spawnFailure = undefined;
  const second = await sandboxes.spawn({ volumes: [data] });
  (second.machine as FakeMachine).die();
  await second.machine?.exited;
  for (let tries = 0; provider.machinesById.size > 0 && tries < 1_000; tries++) await new Promise(setImmediate);
  assert.equal(second.state, "error");
  const third = await sandboxes.spawn({ volumes: [data] });
  provider.destroyFailure = new Error("it does not die");
  await assert.rejects(sandboxes.destroy(third.id));
  await assert.rejects(sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  provider.destroyFailure = undefined;
});

test("the next server knows who has a volume by the sandboxes that it finds, and by what is left of others", async (t) => {
  const { sandboxes, again, provider } = await world(t);
  const first = await sandboxes.spawn({ volumes: [data] });
  await sandboxes.store.committed();
  const next = again();
  next.provider.found = { ...next.provider.found, adopted: [first.machine as FakeMachine] };
  await next.sandboxes.open();
  await assert.rejects(next.sandboxes.spawn({ volumes: [data] }), { code: "conflict" });
  await next.sandboxes.destroy(first.id);
  // As if a row had been lost: what is left of its machine counts.
  const { volumes } = next.sandboxes;
  const record = volumes.find("default", "data");
  await volumes.lease(record, "sb-00000001", false);
  next.provider.remains.add("sb-00000001");
  await assert.rejects(next.sandboxes.spawn({ volumes: [data] }), { code: "conflict", message: /sb-00000001/ });
  next.provider.remains.delete("sb-00000001");
  await next.sandboxes.spawn({ volumes: [data] });
  await next.sandboxes.close({ destroy: true });
  provider.machinesById.clear();
});

test("places that cannot be, names that are not there, and what a copy cannot have are refused before anything is made", async (t) => {
  const { sandboxes, provider } = await world(t);
  await sandboxes.volumes.create("default", { name: "more", sizeMiB: 16 });
  for (const path of ["data", "/", "/proc/x", "/dev", "/run/a", "/etc", "/a/../b", "/a//b", "/a/./b", "/a\0b"])
    await assert.rejects(sandboxes.spawn({ volumes: [{ name: "data", path }] }), { code: "invalid" }, path);
  await assert.rejects(sandboxes.spawn({ volumes: [{ name: "none", path: "/data" }] }), { code: "not-found" });
  await assert.rejects(sandboxes.spawn({ owner: "other", volumes: [data] }), { code: "not-found" });
  await assert.rejects(sandboxes.spawn({ volumes: [data, { ...data, path: "/b" }] }), { code: "invalid" });
  await assert.rejects(sandboxes.spawn({ volumes: [data, { name: "more", path: "/data/" }] }), { code: "invalid" });
  assert.equal(provider.machinesById.size, 0);
  const sandbox = await sandboxes.spawn({
    volumes: [
      { ...data, readOnly: true },
      { name: "more", path: "/more" },
    ],
  });
  // What is written comes first: fewer kinds of machines to save.
  assert.deepEqual(
    sandbox.record.volumes?.map(({ name }) => name),
    ["more", "data"],
  );
  for (const refused of [() => sandboxes.fork(sandbox.id, { count: 1 }), () => sandboxes.checkpoint(sandbox.id)])
    await assert.rejects(refused, { code: "conflict", message: /has volumes/ });
});
