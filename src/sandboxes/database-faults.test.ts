/**
 * Each statement of each operation fails: once, and from then on until there is room again. The machines are fakes, the database is
 * SQLite. With real machines: test/faults.test.ts.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeWorld } from "../../test/fake-provider.ts";
import { arm, disarm } from "../../test/faults/points.ts";
import { asStacyError } from "../host/error.ts";

type World = ReturnType<typeof fakeWorld>;

interface Operation {
  name: string;
  /** @param id of a sandbox that runs */
  work(world: World, id: string): Promise<unknown>;
  before?(world: World, id: string): Promise<unknown>;
  /** What must be stored when `work` has succeeded. */
  stored(world: World, id: string): boolean;
}

const TEMPLATE = {
  ...{ name: "t", image: "i", description: "", setup: [], allowedHosts: [], memoryMiB: 64, vcpus: 1, ttlMs: 1_000 },
  ...{ env: {}, secrets: [], poolSize: 1, metadata: {} },
};
const QUOTA = { maxSandboxes: 1, maxTtlMs: 0, maxExecTimeoutMs: 0 };

const stateOf = ({ store }: World, id: string): string | undefined =>
  store.liveSandboxes().find((row) => row.id === id)?.state;

const OPERATIONS: Operation[] = [
  {
    name: "spawn",
    work: ({ sandboxes }) => sandboxes.spawn({}),
    stored: ({ store }) => store.liveSandboxes().filter(({ state }) => state === "running").length === 3,
  },
  {
    name: "fork",
    work: ({ sandboxes }, id) => sandboxes.fork(id, { count: 2 }),
    stored: ({ store }) => store.liveSandboxes().filter(({ state }) => state === "running").length === 4,
  },
  { name: "pause", work: ({ sandboxes }, id) => sandboxes.pause(id), stored: (w, id) => stateOf(w, id) === "paused" },
  {
    name: "suspend",
    work: ({ sandboxes }, id) => sandboxes.suspend(id),
    stored: (w, id) => stateOf(w, id) === "suspended",
  },
  {
    name: "resume",
    before: ({ sandboxes }, id) => sandboxes.pause(id),
    work: ({ sandboxes }, id) => sandboxes.resume(id),
    stored: (w, id) => stateOf(w, id) === "running",
  },
  {
    name: "checkpoint",
    work: ({ sandboxes }, id) => sandboxes.checkpoint(id),
    stored: ({ store, sandboxes }) => store.checkpoints().some(({ id }) => id === sandboxes.checkpoints.list()[0]?.id),
  },
  {
    name: "restore",
    before: ({ sandboxes }, id) => sandboxes.checkpoint(id),
    work: ({ sandboxes }, id) => sandboxes.restore(id, sandboxes.checkpoints.list(id)[0]?.id ?? ""),
    stored: (w, id) => stateOf(w, id) === "running",
  },
  {
    name: "remove a checkpoint",
    before: ({ sandboxes }, id) => sandboxes.checkpoint(id),
    work: async ({ sandboxes }, id) => {
      for (const { id: checkpoint } of sandboxes.checkpoints.list(id)) await sandboxes.checkpoints.remove(checkpoint);
    },
    stored: ({ store }) => store.checkpoints().length === 0,
  },
  {
    name: "extend",
    work: ({ sandboxes }, id) => sandboxes.extend(id, 77_000),
    stored: ({ store, clock }, id) =>
      store.liveSandboxes().find((row) => row.id === id)?.expiresAt === clock.now() + 77_000,
  },
  {
    name: "network",
    work: ({ sandboxes }, id) => sandboxes.setNetwork(id, ["a.example"]),
    stored: ({ store }, id) =>
      store
        .liveSandboxes()
        .find((row) => row.id === id)
        ?.allowedHosts?.join() === "a.example",
  },
  {
    name: "destroy",
    work: ({ sandboxes }, id) => sandboxes.destroy(id),
    stored: (w, id) => stateOf(w, id) === undefined && !w.provider.machinesById.has(id),
  },
  {
    name: "template",
    work: ({ sandboxes }) => sandboxes.templates.create("default", TEMPLATE),
    stored: ({ store, sandboxes }) => store.templates().length === 1 && sandboxes.templates.list().length === 1,
  },
  {
    name: "remove a template",
    before: ({ sandboxes }) => sandboxes.templates.create("default", TEMPLATE),
    work: ({ sandboxes }) => sandboxes.templates.remove("default", "t"),
    stored: ({ store, sandboxes }) => store.templates().length === 0 && sandboxes.templates.list().length === 0,
  },
  {
    name: "quota",
    work: ({ sandboxes }) => sandboxes.quotas.put("default", "o", QUOTA),
    stored: ({ store, sandboxes }) =>
      store.quotas().length === 1 && sandboxes.quotas.find("default", "o") !== undefined,
  },
];

/** What the memory says, the database says too, and each machine is a sandbox's. */
async function agrees({ store, sandboxes, provider }: World): Promise<void> {
  await store.putMeta("any", "write"); // takes along what was not written before
  const said = sandboxes
    .list()
    .map(({ id, state, expiresAt }) => `${id} ${state} ${expiresAt}`)
    .sort();
  const rows = store
    .liveSandboxes()
    .map(({ id, state, expiresAt }) => `${id} ${state} ${expiresAt}`)
    .sort();
  assert.deepEqual(rows, said);
  assert.deepEqual(
    [...provider.machinesById.keys()].sort(),
    sandboxes
      .list()
      .map(({ id }) => id)
      .sort(),
  );
  for (const { id, allowedHosts = [] } of store.liveSandboxes()) {
    assert.deepEqual(provider.machinesById.get(id)?.network.allowedHosts, allowedHosts, "the rules that are in force");
  }
  assert.deepEqual(
    store.templates().map(({ name }) => name),
    sandboxes.templates.list().map(({ name }) => name),
  );
  assert.deepEqual(
    store
      .checkpoints()
      .filter(({ saving }) => saving !== true) // no checkpoint: what the next start removes
      .map(({ id }) => id)
      .sort(),
    sandboxes.checkpoints
      .list()
      .map(({ id }) => id)
      .sort(),
  );
}

let points = 0;

for (const operation of OPERATIONS) {
  for (const how of ["once", "lasting"] as const) {
    test(`${operation.name}: every statement of it fails ${how === "once" ? "once" : "and all that follow"}`, async (t) => {
      let tried = 0;
      for (let at = 1; ; at++) {
        const world = fakeWorld();
        const { id } = await world.sandboxes.spawn({});
        const { id: other } = await world.sandboxes.spawn({});
        await operation.before?.(world, id);
        arm("db", at, how);
        const [result] = await Promise.allSettled([operation.work(world, id)]);
        const { reached } = disarm();
        if (!reached) break;
        tried += 1;
        const where = `${operation.name}, statement ${at}`;
        if (result?.status === "rejected") {
          assert.equal(asStacyError(result.reason).code, "no-space", `${where}: ${result.reason}`);
          await agrees(world);
          await operation.work(world, id);
        }
        assert.ok(operation.stored(world, id), `${where}: answered, and not stored`);
        await agrees(world);
        assert.equal(world.sandboxes.get(other).state, "running", where);
        await world.sandboxes.close({ destroy: true });
        assert.equal(world.provider.machinesById.size, 0, where);
        assert.deepEqual(world.store.liveSandboxes(), [], where);
        world.store.close();
      }
      assert.ok(tried >= 3, "BEGIN, a row and COMMIT at least");
      points += tried;
      t.diagnostic(`${tried} points, ${points} in all so far`);
    });
  }
}

test("sandboxes end while nothing can be written, and their rows follow", async () => {
  const world = fakeWorld();
  await world.sandboxes.open();
  const ids = await Promise.all([1, 2, 3].map(async () => (await world.sandboxes.spawn({ ttlMs: 60_000 })).id));
  arm("db", 1, "lasting");
  await assert.rejects(world.sandboxes.destroy(ids[0] ?? ""), { code: "no-space" });
  await world.clock.pass(120_000);
  assert.equal(world.provider.machinesById.size, 0, "time is over, whatever the disk says");
  assert.deepEqual(world.sandboxes.list(), []);
  await assert.rejects(world.sandboxes.destroy(ids[0] ?? ""), { code: "no-space" }, "it is not stored yet");
  disarm();
  await world.sandboxes.destroy(ids[0] ?? "");
  assert.deepEqual(world.store.liveSandboxes(), []);
});
