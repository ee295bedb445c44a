import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type FakeMachine, fakeWorld } from "../../test/fake-provider.ts";
import { Store } from "./store.ts";

async function world(t: TestContext, maxVolumes = 0) {
  const dir = await mkdtemp(join(tmpdir(), "mounts-"));
  t.after(() => rm(dir, { recursive: true }));
  const store = new Store(":memory:");
  const made = fakeWorld({ volumes: join(dir, "volumes"), store, maxVolumes });
  await made.sandboxes.open();
  t.after(() => made.sandboxes.close({ destroy: true }));
  await made.sandboxes.volumes.create("default", { name: "data", sizeMiB: 16 });
  return { ...made, dir, again: () => fakeWorld({ volumes: join(dir, "volumes"), store }) };
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
  const refused = sandboxes.checkpoint(sandbox.id, { volumes: "refuse" });
  await assert.rejects(refused, { code: "conflict", message: /has volumes/ });
});

test("what starts from a checkpoint has new volumes with what was saved, and none if it does not come to be", async (t) => {
  const { sandboxes, provider, dir } = await world(t);
  const { volumes } = sandboxes;
  const sandbox = await sandboxes.spawn({ volumes: [data] });
  const saved = await sandboxes.checkpoint(sandbox.id);
  assert.deepEqual(
    saved.volumes?.map(({ name, path, bytes }) => [name, path, bytes]),
    [["data", "/data", 16 << 20]],
  );
  provider.savedVolumes = dir;
  await writeFile(join(dir, `${saved.id}-0`), Buffer.alloc(16 << 20, "saved"));
  // The original may be gone.
  await sandboxes.destroy(sandbox.id);
  await volumes.remove("default", "data");
  for (const _ of [1, 2]) {
    const { record } = await sandboxes.spawn({ checkpoint: saved.id });
    const [mount] = record.volumes ?? [];
    assert.deepEqual([mount?.name, mount?.path, mount?.readOnly], [`data-${record.id}`, "/data", false]);
    assert.equal((await readFile(volumes.file(mount?.id ?? ""))).subarray(0, 5).toString(), "saved");
    await assert.rejects(sandboxes.restore(record.id, saved.id), { code: "conflict", message: /volumes/ });
  }
  provider.spawnFailure = new Error("no");
  await assert.rejects(sandboxes.spawn({ checkpoint: saved.id }));
  assert.equal((await volumes.list()).length, 2);
  provider.spawnFailure = undefined;
  await rm(join(dir, `${saved.id}-0`));
  await assert.rejects(sandboxes.spawn({ checkpoint: saved.id }));
  assert.equal((await volumes.list()).length, 2);
  assert.equal(sandboxes.list().length, 2);
});

test("a template's volumes are those of whoever spawns from it, and a spawn's own take their place", async (t) => {
  const { sandboxes } = await world(t);
  const { volumes, templates } = sandboxes;
  await volumes.create("default", { name: "more", sizeMiB: 16 });
  const about = { image: "image", description: "", setup: [], allowedHosts: [], memoryMiB: 128, vcpus: 1 };
  const template = { ...about, name: "kept", ttlMs: 60_000, env: {}, secrets: [], poolSize: 0, metadata: {} };
  await templates.create("default", { ...template, shared: true, volumes: [{ ...data, readOnly: true }] });
  const mounts = async (input: object) =>
    (await sandboxes.spawn({ template: "kept", ...input })).record.volumes?.map(
      ({ name, path, readOnly }) => `${name}:${path}${readOnly ? ":ro" : ""}`,
    );
  assert.deepEqual(await mounts({}), ["data:/data:ro"]);
  assert.deepEqual(await mounts({ volumes: [{ name: "more", path: "/more" }] }), ["more:/more", "data:/data:ro"]);
  assert.deepEqual(await mounts({ volumes: [{ name: "data", path: "/other", readOnly: true }] }), ["data:/other:ro"]);
  assert.deepEqual(await mounts({ volumes: [{ name: "data", path: "/data", readOnly: true }] }), ["data:/data:ro"]);
  // Another owner's volume of that name is another one, and there is none.
  await assert.rejects(mounts({ owner: "other" }), { code: "not-found", message: /no volume "data"/ });
  await volumes.create("other", { name: "data", sizeMiB: 16 });
  assert.deepEqual(await mounts({ owner: "other" }), ["data:/data:ro"]);
  const { users } = await volumes.get("other", "data");
  assert.equal(users.length, 1);
  const wrong = [
    { volumes: [{ name: "data", path: "/etc" }] },
    { volumes: [data, data] },
    { volumes: [data], poolSize: 1 },
  ];
  for (const each of wrong)
    await assert.rejects(templates.create("default", { ...template, name: "wrong", ...each }), { code: "invalid" });
});

test("a copy has a clone of what its source writes to, or nothing, and shares what that only reads", async (t) => {
  const { sandboxes } = await world(t);
  const { volumes } = sandboxes;
  await volumes.create("default", { name: "shared", sizeMiB: 16 });
  const sandbox = await sandboxes.spawn({ volumes: [data, { name: "shared", path: "/shared", readOnly: true }] });
  const file = volumes.file(volumes.find("default", "data").id);
  await writeFile(file, "as it was", { flag: "r+" });
  const { sandboxes: copies } = await sandboxes.fork(sandbox.id, { count: 2 });
  await writeFile(file, "later on!", { flag: "r+" });
  for (const copy of copies) {
    const name = `data-${copy.id}`;
    assert.deepEqual(
      copy.volumes?.map((mount) => [mount.name, mount.path, mount.readOnly]),
      [
        [name, "/data", false],
        ["shared", "/shared", true],
      ],
    );
    const { id, from, users } = await volumes.get("default", name);
    assert.deepEqual([from, users.map((user) => user.sandbox)], ["data", [copy.id]]);
    assert.equal((await readFile(volumes.file(id))).subarray(0, 9).toString(), "as it was");
    assert.equal((sandbox.machine as FakeMachine).copied.get(copy.id)?.[0]?.file, volumes.file(id));
    await assert.rejects(sandboxes.spawn({ volumes: [{ name, path: "/x" }] }), { code: "conflict" });
  }
  const [only] = (await sandboxes.fork(sandbox.id, { count: 1, volumes: "read_only" })).sandboxes;
  assert.deepEqual(
    only?.volumes?.map(({ onlyRead }) => onlyRead),
    [true, undefined],
  );
  const [none] = (await sandboxes.fork(sandbox.id, { count: 1, volumes: "none" })).sandboxes;
  assert.equal(none?.volumes, undefined);
  assert.deepEqual((sandbox.machine as FakeMachine).copied.get(none?.id ?? ""), [
    { slot: 0, name: "data", path: "/data" },
    { slot: 1, name: "shared", path: "/shared" },
  ]);
  // A copy's volume is its owner's: it outlives the copy.
  const [first] = copies;
  await sandboxes.destroy(first?.id ?? "");
  await volumes.remove("default", `data-${first?.id}`);
});

test("a fork that comes to nothing leaves no volume, nor does one whose server died before its copies ran", async (t) => {
  const { sandboxes, provider, again } = await world(t);
  const { volumes } = sandboxes;
  const sandbox = await sandboxes.spawn({ volumes: [data] });
  provider.spawnFailure = new Error("no");
  await assert.rejects(sandboxes.fork(sandbox.id, { count: 2 }));
  provider.spawnFailure = undefined;
  assert.deepEqual(
    (await volumes.list()).map(({ name }) => name),
    ["data"],
  );
  const { made } = volumes.copyFor("sb-00000001", "default", volumes.find("default", "data"), "half", async (path) =>
    writeFile(path, Buffer.alloc(16 << 20)),
  );
  await made;
  const next = again();
  next.provider.found = { ...next.provider.found, adopted: [sandbox.machine as FakeMachine] };
  await next.sandboxes.open();
  assert.deepEqual(
    (await next.sandboxes.volumes.list()).map(({ name }) => name),
    ["data"],
  );
  await next.sandboxes.close({ destroy: true });
  provider.machinesById.clear();
});

test("a fork whose volumes its owner has no room for is refused before the sandbox is stopped", async (t) => {
  const { sandboxes } = await world(t, 1);
  const sandbox = await sandboxes.spawn({ volumes: [data] });
  await assert.rejects(sandboxes.fork(sandbox.id, { count: 1 }), { code: "limit" });
  assert.equal((sandbox.machine as FakeMachine).copied.size, 0);
  await sandboxes.fork(sandbox.id, { count: 1, volumes: "none" });
});
