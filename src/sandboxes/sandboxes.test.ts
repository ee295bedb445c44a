/** A sandbox's life on an injected clock, with machines that do what the test says. */
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import { test } from "node:test";
import {
  type FakeMachine,
  type FakeProvider,
  FakeUnreachable,
  fakeWorld,
  Gate,
  settle,
} from "../../test/fake-provider.ts";
import { OWNER_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { checkpointKey } from "../providers/provider.ts";
import { newSandboxId, type SandboxRecord } from "./record.ts";
import { idTaken, type Registry } from "./registry.ts";
import type { Sandbox } from "./sandbox.ts";
import { Store } from "./store.ts";
import { View } from "./view.ts";

function record(over: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    ...{
      id: newSandboxId(),
      state: "running",
      owner: "default",
      provider: "qemu",
      image: "image",
      memoryMiB: 128,
      vcpus: 1,
      diskMiB: 64,
    },
    ...{ createdAt: 1, expiresAt: 1e15, idleTimeoutMs: 0, idleAction: "destroy", metadata: {} },
    ...over,
  };
}

async function withMachine(w: ReturnType<typeof fakeWorld>, input = {}) {
  const sandbox = await w.sandboxes.spawn(input);
  return { sandbox, id: sandbox.id, machine: sandbox.machine as FakeMachine };
}

test("an end cancels the spawn that is under way, and nothing is left", async () => {
  const w = fakeWorld();
  w.provider.gate.close();
  const spawning = w.sandboxes.spawn({});
  await settle();
  const [row] = w.sandboxes.list();
  assert.equal(row?.state, "creating");
  const failed = assert.rejects(spawning, { code: "cancelled" });
  await w.sandboxes.destroy(row?.id ?? "");
  await failed;
  assert.deepEqual(w.sandboxes.list(), []);
  assert.equal(w.provider.machinesById.size, 0);
  assert.deepEqual(w.store.liveSandboxes(), []);
  assert.equal(w.sandboxes.activeOf("default", undefined).active, 0);
});

test("one that is borrowed lives as long as its work may, within the owner's limit, and goes with its lease", async () => {
  const w = fakeWorld();
  const lived = (): number[] => w.sandboxes.list().map(({ createdAt, expiresAt }) => expiresAt - createdAt);
  for (const [owner, hours] of [
    ["a", 2],
    ["b", 0.5],
  ] as const) {
    if (owner === "b")
      await w.sandboxes.quotas.put("b", "*", { maxSandboxes: 0, maxTtlMs: 1_800_000, maxExecTimeoutMs: 0 });
    await using _ = await w.sandboxes.borrow({ owner });
    assert.deepEqual(lived(), [hours * 3_600_000]);
  }
  assert.deepEqual(w.sandboxes.list(), []);
});

test("what is lent to a call is written down as that and no more: a daemon that comes meanwhile removes it", async () => {
  const w = fakeWorld();
  const rows = (): unknown[] => w.store.liveSandboxes().map(({ state, lent }) => [state, lent]);
  {
    await using lease = await w.sandboxes.lend({});
    assert.equal(lease.sandbox.state, "running");
    await settle();
    assert.deepEqual([rows(), w.provider.spawned.at(-1)?.lent], [[["creating", true]], true]);
    const next = fakeWorld({ store: w.store });
    await next.sandboxes.open();
    assert.deepEqual([next.sandboxes.list(), rows()], [[], []]);
  }
  await withMachine(w);
  assert.deepEqual([rows(), w.provider.spawned.at(-1)?.lent], [[["running", undefined]], undefined]);
});

test("a stop ends what is lent to a call: nobody would take it up again", async () => {
  const w = fakeWorld();
  const kept = (await withMachine(w)).machine;
  const { sandbox } = await w.sandboxes.lend({});
  const lent = sandbox.machine as FakeMachine;
  await w.sandboxes.close({ destroy: false });
  assert.deepEqual([lent.destroyed > 0, kept.destroyed], [true, 0]);
});

test("a client that leaves cancels its spawn", async () => {
  const w = fakeWorld();
  w.provider.gate.close();
  const abort = new AbortController();
  const spawning = w.sandboxes.spawn({}, abort.signal);
  await settle();
  abort.abort();
  await assert.rejects(spawning, { code: "cancelled" });
  assert.deepEqual(w.sandboxes.list(), []);
});

test("a spawn that fails says why, also when its row cannot be removed", async () => {
  const w = fakeWorld();
  w.provider.spawnFailure = new StacyError("no-space", "the disk is full");
  await assert.rejects(w.sandboxes.spawn({}), { code: "no-space" });
  assert.deepEqual(w.store.liveSandboxes(), []);
  // It stays in the history, with its reason.
  const told = w.sandboxes.events.after(0).map(({ type, data }) => [type, data?.message ?? data?.reason]);
  assert.deepEqual(told.slice(-2), [
    ["sandbox.error", "the disk is full"],
    ["sandbox.destroyed", "spawn failed"],
  ]);
});

for (const change of ["pause", "suspend", "checkpoint", "fork", "restore"] as const) {
  test(`an end beside ${change}: the change fails, the machine goes, the row too`, async () => {
    const w = fakeWorld();
    const { id, machine } = await withMachine(w);
    const { id: cp } = await w.sandboxes.checkpoint(id);
    machine.gate.close();
    const changing =
      change === "fork"
        ? w.sandboxes.fork(id, { count: 2 })
        : change === "restore"
          ? w.sandboxes.restore(id, cp)
          : w.sandboxes[change](id);
    const failed = assert.rejects(changing);
    await settle();
    await w.sandboxes.destroy(id);
    await failed;
    assert.equal(machine.state, "exited");
    assert.deepEqual(w.sandboxes.list(), []);
    assert.equal(w.provider.machinesById.size, 0);
    assert.deepEqual(w.store.liveSandboxes(), []);
    await assert.rejects(async () => w.sandboxes.pause(id), { code: "not-found" });
  });
}

test("changes of one sandbox never run beside one another", async () => {
  const w = fakeWorld();
  const { id, machine } = await withMachine(w);
  machine.gate.close();
  const all = [w.sandboxes.pause(id), w.sandboxes.resume(id), w.sandboxes.checkpoint(id), w.sandboxes.suspend(id)];
  await settle();
  machine.gate.open();
  for (const result of await Promise.allSettled(all)) assert.equal(result.status, "fulfilled");
  assert.equal(w.sandboxes.get(id).state, "suspended");
});

test("a change that fails leaves the record saying what the machine is", async () => {
  const w = fakeWorld();
  const { id, machine } = await withMachine(w);
  machine.failure = new StacyError("no-space", "full");
  await assert.rejects(w.sandboxes.suspend(id), { code: "no-space" });
  assert.equal(w.sandboxes.get(id).state, "running");
  machine.failure = undefined;
  await w.sandboxes.suspend(id);
  machine.failure = new StacyError("corrupt", "damaged");
  await assert.rejects(w.sandboxes.resume(id), { code: "corrupt" });
  assert.equal(w.sandboxes.get(id).state, "suspended");
});

test("the row of one that is suspended outlives the host before anybody hears of it, and so does its end", async () => {
  const w = fakeWorld();
  const { id, machine } = await withMachine(w);
  let full = true;
  const synced: unknown[] = [];
  w.store.sync = async () => {
    if (full) throw new StacyError("unavailable", "it could not be brought to disk");
    const row = w.store.liveSandboxes().find((each) => each.id === id);
    synced.push([row?.state, machine.destroyed > 0]);
  };
  await w.sandboxes.pause(id);
  await assert.rejects(w.sandboxes.suspend(id), { code: "unavailable" });
  assert.equal(machine.state, "paused", "not without its row");
  full = false;
  machine.gate.close();
  const suspending = w.sandboxes.suspend(id);
  await settle();
  full = true;
  machine.gate.open();
  await assert.rejects(suspending, { code: "unavailable" });
  await assert.rejects(w.sandboxes.suspend(id), { code: "unavailable" });
  full = false;
  await w.sandboxes.suspend(id);
  assert.equal(machine.state, "suspended");
  await w.sandboxes.extend(id, 60_000);
  await w.sandboxes.destroy(id);
  assert.deepEqual(synced, [
    ["paused", false],
    ["suspended", false],
    ["suspended", false],
    [undefined, false],
  ]);
});

test("a fork is of its source's template", async () => {
  const w = fakeWorld();
  const size = { memoryMiB: 128, vcpus: 1, ttlMs: 60_000, poolSize: 0 };
  const about = { env: {}, setup: [], metadata: {}, secrets: [], allowedHosts: [], description: "" };
  await w.sandboxes.templates.create("default", { ...size, ...about, name: "t", image: "i" });
  const { id } = (await w.sandboxes.spawn({ template: "t" })).record;
  const { sandboxes } = await w.sandboxes.fork(id, { count: 1 });
  assert.deepEqual(
    sandboxes.map(({ template, forkedFrom }) => [template, forkedFrom]),
    [["t", id]],
  );
});

test("a child that is destroyed while the fork is under way is destroyed, the others live", async () => {
  const w = fakeWorld();
  const { id, machine } = await withMachine(w);
  machine.gate.close();
  const forking = w.sandboxes.fork(id, { count: 2 });
  await settle();
  const children = w.sandboxes.list().filter(({ forkedFrom }) => forkedFrom === id);
  const ending = w.sandboxes.destroy(children[0]?.id ?? "");
  await settle();
  machine.gate.open();
  await forking;
  await ending;
  assert.deepEqual(
    w.sandboxes.list().map((row) => [row.id, row.state]),
    w.sandboxes
      .list()
      .filter((row) => row.id !== children[0]?.id)
      .map((row) => [row.id, "running"]),
  );
  assert.equal(w.sandboxes.list().length, 2);
  assert.equal(w.provider.machinesById.size, 2);
});

test("a child that is destroyed before its fork begins leaves no machine", async () => {
  const w = fakeWorld();
  const { id } = await withMachine(w);
  // Another program holds the database for a moment.
  const put = w.store.putSandbox.bind(w.store);
  const lock = new Gate();
  lock.close();
  w.store.putSandbox = async (row, now) => {
    await lock.pass();
    return put(row, now);
  };
  const forking = w.sandboxes.fork(id, { count: 2 });
  await settle();
  const child = w.sandboxes.list().find(({ forkedFrom }) => forkedFrom === id)?.id ?? "";
  const ending = w.sandboxes.destroy(child);
  await settle();
  lock.open();
  const { sandboxes } = await forking;
  await ending;
  const other = sandboxes.map((row) => row.id).find((each) => each !== child) ?? "";
  assert.deepEqual([...w.provider.machinesById.keys()].sort(), [id, other].sort());
  assert.equal(w.sandboxes.get(other).state, "running");
});

test("a fork whose rows cannot be written makes no machines", async () => {
  const w = fakeWorld();
  const { id } = await withMachine(w);
  w.store.putSandbox = () => Promise.reject(new StacyError("no-space", "full"));
  await assert.rejects(w.sandboxes.fork(id, { count: 2 }), { code: "no-space", phase: "fork" });
  assert.deepEqual([...w.provider.machinesById.keys()], [id]);
  assert.deepEqual(
    w.sandboxes.list().map((row) => row.id),
    [id],
  );
});

test("an end is answered when the machine cannot run any more: its id is unknown, its row says so, and its place is waited for", async () => {
  const w = fakeWorld({ maxSandboxes: 1 });
  const removed = Promise.withResolvers<void>();
  w.provider.removing = removed.promise;
  const { id, machine } = await withMachine(w);
  await w.sandboxes.destroy(id, "stopped");
  assert.throws(() => w.sandboxes.get(id), { code: "not-found" });
  assert.deepEqual([w.sandboxes.list(), w.store.liveSandboxes()], [[], []]);
  assert.equal(machine.destroyed, 0);
  await w.sandboxes.destroy(id, "stopped"); // again
  // Its machine is still being given back, and somebody who would be refused for that waits for it.
  assert.equal(w.sandboxes.activeOf("default", undefined).active, 1);
  const next = w.sandboxes.spawn({});
  await settle();
  assert.deepEqual(w.sandboxes.list(), []);
  removed.resolve();
  const { id: other } = await next;
  assert.deepEqual([machine.destroyed > 0, w.sandboxes.list().map((row) => row.id)], [true, [other]]);
  // Whoever asks for all of it to be gone waits for that.
  const more = Promise.withResolvers<void>();
  w.provider.removing = more.promise;
  let gone = false;
  const ending = w.sandboxes.destroy(other).then(() => {
    gone = true;
  });
  await settle();
  assert.equal(gone, false);
  more.resolve();
  await ending;
});

test("an end is not answered before all of it is gone where others wait for that, or where its row could not be written", async () => {
  const removed = Promise.withResolvers<void>();
  type World = ReturnType<typeof fakeWorld>;
  const full = (): Promise<never> => Promise.reject(new StacyError("no-space", "full"));
  const cases: [string, boolean, (w: World, sandbox: Sandbox) => void][] = [
    ["nothing", true, () => {}],
    ["directories", false, (_, { record }) => Object.assign(record, { directories: [{}] })],
    ["volumes", false, (_, { record }) => Object.assign(record, { volumes: [{ id: "v", name: "v" }] })],
    ["a change", false, (_, { changes }) => void changes.run(() => removed.promise)],
    ["no row", false, ({ store }) => Object.assign(store, { putSandbox: full })],
  ];
  const answers: Promise<unknown>[] = [];
  for (const [what, early, make] of cases) {
    const w = fakeWorld();
    const { id, sandbox } = await withMachine(w);
    w.provider.removing = removed.promise;
    make(w, sandbox);
    await settle();
    let answered = false;
    const over = (): void => {
      answered = true;
    };
    answers.push(w.sandboxes.destroy(id, "stopped").then(over, over));
    await settle();
    assert.equal(answered, early, what);
  }
  removed.resolve();
  await Promise.all(answers);
});

test("a server that stops waits for ends that were answered", async () => {
  const w = fakeWorld();
  const removed = Promise.withResolvers<void>();
  w.provider.removing = removed.promise;
  const { id, machine } = await withMachine(w);
  await w.sandboxes.destroy(id, "stopped");
  const closing = w.sandboxes.close({ destroy: false });
  await settle();
  assert.equal(machine.destroyed, 0);
  removed.resolve();
  await closing;
  assert.equal(machine.destroyed > 0, true);
});

test("an end that fails is tried again, by the next call and by itself, and counts until it succeeds", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { id } = await withMachine(w);
  w.provider.destroyFailure = new Error("it does not die");
  await assert.rejects(w.sandboxes.destroy(id), { phase: "destroy" });
  await assert.rejects(w.sandboxes.destroy(id), { phase: "destroy" });
  assert.equal(w.sandboxes.activeOf("default", undefined).active, 1);
  assert.deepEqual(w.sandboxes.list(), []);
  w.provider.destroyFailure = undefined;
  await w.clock.pass(5_000);
  assert.equal(w.sandboxes.activeOf("default", undefined).active, 0);
  assert.equal(w.provider.machinesById.size, 0);
  await w.sandboxes.close({ destroy: false });
});

test("a machine that dies: state error with the console, at once; destroying it is all that is left", async () => {
  const w = fakeWorld();
  const { id, machine } = await withMachine(w);
  machine.die();
  await settle();
  const sandbox = w.sandboxes.get(id);
  assert.equal(sandbox.state, "error");
  assert.deepEqual(sandbox.record.failure?.console, ["the last line"]);
  await assert.rejects(async () => sandbox.lease(), { code: "machine-exited" });
  assert.equal(machine.destroyed, 1);
  await w.sandboxes.destroy(id);
  assert.deepEqual(w.sandboxes.list(), []);
});

test("time to live: it ends when it is over, not before, and an extension counts", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { id } = await withMachine(w, { ttlMs: 10_000 });
  const { id: extended } = await withMachine(w, { ttlMs: 10_000 });
  await w.clock.pass(9_000);
  assert.equal(w.sandboxes.list().length, 2);
  await w.sandboxes.extend(extended, 60_000);
  await w.clock.pass(2_000);
  assert.deepEqual(
    w.sandboxes.list().map((row) => row.id),
    [extended],
  );
  assert.equal(w.provider.machinesById.has(id), false);
  await w.sandboxes.close({ destroy: false });
});

test("an idle sandbox is suspended; a use that comes meanwhile waits and finds it running", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { id, machine } = await withMachine(w, { idleTimeoutMs: 5_000, idleAction: "suspend" });
  const lease = await w.sandboxes.lease(id);
  await w.clock.pass(10_000);
  assert.equal(machine.state, "running", "it is in use");
  lease[Symbol.dispose]();
  machine.gate.close();
  await w.clock.pass(6_000);
  const waiting = w.sandboxes.lease(id);
  await settle();
  machine.gate.open();
  using used = await waiting;
  await settle();
  assert.equal(used.machine.state, "running");
  assert.equal(w.sandboxes.get(id).state, "running");
  const told = w.sandboxes.events.after(0).map(({ type, data }) => [type, data?.reason]);
  assert.deepEqual(told.slice(-2), [
    ["sandbox.suspended", "idle"],
    ["sandbox.resumed", "used"],
  ]);
  await w.sandboxes.close({ destroy: false });
});

for (const change of ["suspend", "pause"] as const) {
  test(`one that came to ${change} by itself stays so once its client has asked for it`, async () => {
    const w = fakeWorld();
    await w.sandboxes.open();
    const { id, machine } = await withMachine(w, { idleTimeoutMs: 5_000, idleAction: change });
    const marks = () => [w.sandboxes.get(id).record.resumeOnUse, w.store.liveSandboxes()[0]?.resumeOnUse];
    await w.clock.pass(6_000);
    assert.deepEqual(marks(), [true, true]);
    await w.sandboxes[change](id);
    assert.deepEqual(marks(), [undefined, undefined]);
    await assert.rejects(w.sandboxes.lease(id), { code: "conflict" });
    assert.notEqual(machine.state, "running");
    await w.sandboxes.close({ destroy: false });
  });
}

test("one that is suspended already is kept as long as its client asks now, and comes back by its use where that is its way", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { id } = await withMachine(w, { ttlMs: 5_000, onExpiry: { keepMs: 60_000, resumeMs: 8_000 } });
  await w.clock.pass(6_000);
  await w.sandboxes.suspend(id, { keepMs: 600_000 });
  const [row] = w.store.liveSandboxes();
  assert.deepEqual([row?.expiresAt, row?.resumeOnUse, row?.onExpiry?.over], [w.clock.now() + 600_000, true, undefined]);
  await w.sandboxes.close({ destroy: false });
});

for (const change of ["checkpoint", "fork", "suspend"] as const) {
  test(`one that stands still after a ${change} that failed comes back by its next use: nobody asked for it`, async () => {
    const w = fakeWorld();
    const { id, machine } = await withMachine(w);
    Object.assign(machine, {
      [change]: async () => {
        machine.state = "paused"; // its monitor would not let it go on
        throw new StacyError("timeout", "the monitor did not answer");
      },
    });
    const changing = change === "fork" ? w.sandboxes.fork(id, { count: 1 }) : w.sandboxes[change](id);
    await assert.rejects(changing, { code: "timeout" });
    assert.deepEqual([w.sandboxes.get(id).state, w.sandboxes.get(id).record.resumeOnUse], ["paused", true]);
    using _lease = await w.sandboxes.lease(id);
    assert.equal(machine.state, "running");
    assert.equal(w.sandboxes.get(id).record.resumeOnUse, undefined);
  });
}

test("what runs in a sandbox is use: it is idle when that has ended", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { machine } = await withMachine(w, { idleTimeoutMs: 5_000, idleAction: "destroy" });
  machine.commands = 2;
  const waiting = { id: "0", pid: 1, startedAt: 0, running: true };
  const command = 'python3 -u /run/stacyvm-interpreter/python.py python {"id":"python"}';
  Object.assign(machine.agent, { processes: async () => [{ ...waiting, command }] });
  await w.clock.pass(20_000);
  assert.equal(machine.destroyed, 0);
  machine.commands = 1; // a context that waits for code is no work of its own
  await w.clock.pass(10_000);
  assert.equal(machine.destroyed > 0, true);
  assert.deepEqual([machine.why?.code, machine.why?.data], ["not-found", { ended: "idle" }]);
  await w.sandboxes.close({ destroy: false });
});

test("one that is to be kept is suspended at the end of its time, comes back by its use, and ends when it was kept long enough", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { machine, id } = await withMachine(w, { ttlMs: 5_000, onExpiry: { keepMs: 60_000, resumeMs: 8_000 } });
  await w.clock.pass(6_000);
  assert.deepEqual([machine.state, w.sandboxes.get(id).state, machine.destroyed], ["suspended", "suspended", 0]);
  const used = await w.sandboxes.lease(id);
  used[Symbol.dispose]();
  assert.equal(w.sandboxes.get(id).state, "running");
  await w.clock.pass(7_000);
  assert.equal(w.sandboxes.get(id).state, "running", "its use gave it its time again");
  await w.clock.pass(3_000);
  assert.equal(w.sandboxes.get(id).state, "suspended");
  await w.clock.pass(61_000);
  assert.throws(() => w.sandboxes.get(id), { code: "not-found" });
  await w.sandboxes.close({ destroy: false });
});

test("one that is to be kept is kept whatever it was at the end of its time: suspended by its user, paused, or not reachable", async () => {
  const store = new Store(":memory:");
  const onExpiry = { keepMs: 600_000 };
  const silent = record({ onExpiry, expiresAt: 1_000_000 + 5_000 });
  await store.putSandbox(silent, 1);
  const w = fakeWorld({ store });
  const unreachable = new FakeUnreachable(silent.id);
  w.provider.found = { ...w.provider.found, unreachable: [unreachable] };
  await w.sandboxes.open();
  const asleep = await withMachine(w, { ttlMs: 5_000, onExpiry });
  const still = await withMachine(w, { ttlMs: 5_000, onExpiry });
  await w.sandboxes.suspend(asleep.id);
  await w.sandboxes.pause(still.id);
  await w.clock.pass(10_000);
  const state = (id: string): string => w.sandboxes.get(id).state;
  assert.deepEqual([state(asleep.id), state(still.id), state(silent.id)], ["suspended", "suspended", "running"]);
  assert.equal(unreachable.destroyed, false);
  const rows = store.liveSandboxes().map(({ id, expiresAt }) => [id, expiresAt > w.clock.now()]);
  assert.deepEqual(new Map(rows as [string, boolean][]).get(asleep.id), true, "the next start finds it so");

  const machine = (await fakeWorld().provider.spawn({ id: silent.id } as never)) as FakeMachine;
  unreachable.settle({ machine });
  await settle();
  await w.clock.pass(90_000);
  assert.equal(state(silent.id), "suspended", "as soon as it is there");
  await w.clock.pass(600_000);
  assert.deepEqual(w.sandboxes.list(), [], "each of them was kept for its time");
  await w.sandboxes.close({ destroy: false });
});

test("one that is to be kept and cannot be suspended for a while is tried again; where that can never be, it ends", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const onExpiry = { keepMs: 600_000 };
  const kept = await withMachine(w, { ttlMs: 5_000, onExpiry });
  const unable = await withMachine(w, { ttlMs: 5_000, onExpiry });
  kept.machine.failure = new StacyError("no-space", "the disk is full");
  unable.machine.failure = new StacyError("not-supported", "this monitor cannot");
  await w.clock.pass(30_000);
  assert.deepEqual([kept.machine.destroyed, unable.machine.destroyed > 0], [0, true]);
  kept.machine.failure = undefined;
  await w.clock.pass(60_000);
  assert.equal(w.sandboxes.get(kept.id).state, "suspended");
  await w.clock.pass(600_000);
  assert.deepEqual(w.sandboxes.list(), []);
  await w.sandboxes.close({ destroy: false });
});

test("one that was suspended for good and whose row does not say so yet is kept by the next start", async () => {
  const store = new Store(":memory:");
  const row = record({ onExpiry: { keepMs: 60_000 }, expiresAt: 1_000_000 - 1 });
  await store.putSandbox(row, 1);
  const w = fakeWorld({ store });
  const machine = (await fakeWorld().provider.spawn({ id: row.id } as never)) as FakeMachine;
  machine.state = "suspended";
  w.provider.found = { ...w.provider.found, adopted: [machine] };
  await w.sandboxes.open();
  await w.clock.pass(30_000);
  assert.deepEqual([w.sandboxes.get(row.id).state, machine.destroyed], ["suspended", 0]);
  await w.sandboxes.close({ destroy: false });
});

test("one that is slow to say what runs in it is not idle for that", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { machine } = await withMachine(w, { idleTimeoutMs: 5_000, idleAction: "destroy" });
  const { info } = machine.agent;
  Object.assign(machine.agent, { info: () => Promise.reject(new StacyError("timeout", "no answer")) });
  await w.clock.pass(30_000);
  assert.equal(machine.destroyed, 0);
  Object.assign(machine.agent, { info });
  await w.clock.pass(10_000);
  assert.equal(machine.destroyed > 0, true);
  await w.sandboxes.close({ destroy: false });
});

test("one that is suspended to be kept does not end by its time in the middle of it, and has that again if it fails", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { id, machine } = await withMachine(w, { ttlMs: 5_000 });
  machine.gate.close();
  const suspending = w.sandboxes.suspend(id, { keepMs: 600_000 });
  await w.clock.pass(10_000);
  assert.equal(machine.destroyed, 0);
  machine.gate.open();
  await suspending;
  const [row] = w.store.liveSandboxes();
  assert.deepEqual([row?.state, (row?.expiresAt ?? 0) > w.clock.now() + 500_000], ["suspended", true]);
  const other = await withMachine(w, { ttlMs: 5_000 });
  const { expiresAt } = w.sandboxes.get(other.id).record;
  other.machine.failure = new StacyError("no-space", "the disk is full");
  await assert.rejects(w.sandboxes.suspend(other.id, { keepMs: 600_000 }), { code: "no-space" });
  assert.equal(w.sandboxes.get(other.id).record.expiresAt, expiresAt);
  await w.sandboxes.close({ destroy: false });
});

test("one whose row says that it runs, and which is found paused or suspended, comes back by its next use", async () => {
  for (const state of ["paused", "suspended"] as const) {
    const store = new Store(":memory:");
    const row = record({});
    await store.putSandbox(row, 1);
    const w = fakeWorld({ store });
    const machine = (await fakeWorld().provider.spawn({ id: row.id } as never)) as FakeMachine;
    machine.state = state;
    w.provider.found = { ...w.provider.found, adopted: [machine] };
    await w.sandboxes.open();
    assert.equal(w.sandboxes.get(row.id).state, state);
    using _lease = await w.sandboxes.lease(row.id);
    assert.equal(machine.state, "running");
    await w.sandboxes.close({ destroy: false });
  }
});

test("what could not be removed of a machine that turned out to be gone goes with its sandbox", async () => {
  const store = new Store(":memory:");
  const row = record({});
  await store.putSandbox(row, 1);
  const w = fakeWorld({ store });
  const unreachable = new FakeUnreachable(row.id);
  const { destroy } = unreachable;
  unreachable.destroy = () => Promise.reject(new Error("the disk does not answer"));
  w.provider.found = { ...w.provider.found, unreachable: [unreachable] };
  await w.sandboxes.open();
  unreachable.settle({ gone: { id: row.id, reason: "it ended", console: [] } });
  await settle();
  assert.equal(w.sandboxes.get(row.id).state, "error");
  unreachable.destroy = destroy;
  await w.sandboxes.destroy(row.id);
  assert.equal(unreachable.destroyed, true);
  await w.sandboxes.close({ destroy: false });
});

test("calls under way are told why their sandbox ends", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const short = await withMachine(w, { ttlMs: 5_000 });
  await w.clock.pass(6_000);
  assert.deepEqual(short.machine.why?.data, { ended: "ttl" });
  assert.match(short.machine.why?.message ?? "", /time to live/);
  const deleted = await withMachine(w);
  await w.sandboxes.destroy(deleted.id);
  assert.deepEqual(deleted.machine.why?.data, { ended: "requested" });
  await w.sandboxes.close({ destroy: false });
});

test("a stop cancels what is still being made, tells changes to end, and leaves machines running", async () => {
  const w = fakeWorld();
  const { id, machine } = await withMachine(w);
  machine.gate.close();
  const suspending = assert.rejects(w.sandboxes.suspend(id), { code: "unavailable" });
  w.provider.gate.close();
  const spawning = assert.rejects(w.sandboxes.spawn({}), { code: "cancelled" });
  await settle();
  await w.sandboxes.close({ destroy: false });
  await Promise.all([suspending, spawning]);
  assert.equal(machine.destroyed, 0);
  assert.deepEqual(
    w.store.liveSandboxes().map((row) => [row.id, row.state]),
    [[id, "running"]],
  );
});

test("a queue lets spawns in as room comes, in order", async () => {
  const w = fakeWorld({ maxSandboxes: 1, overflow: "queue" });
  const { id } = await withMachine(w);
  const order: string[] = [];
  const waiting = ["a", "b"].map((name) =>
    w.sandboxes.spawn({ metadata: { name } }).then(({ record }) => {
      order.push(record.metadata.name ?? "");
      return record.id;
    }),
  );
  await settle();
  assert.equal(w.sandboxes.queue.waiting, 2);
  await w.sandboxes.destroy(id);
  await w.sandboxes.destroy((await waiting[0]) ?? "");
  await waiting[1];
  assert.deepEqual(order, ["a", "b"]);
});

test("a start takes over what answers, keeps what does not, and loses only what is gone", async () => {
  const store = new Store(":memory:");
  const rows = ["running", "paused", "suspended", "running", "running", "creating"].map((state) =>
    record({ state: state as SandboxRecord["state"] }),
  );
  const cutOff = record({ lent: true });
  for (const row of [...rows, cutOff]) await store.putSandbox(row, 1);
  const [fine, , asleep, silent, gone] = rows.map(({ id }) => id) as [string, string, string, string, string];
  const w = fakeWorld({ store });
  const probe = fakeWorld();
  const machineOf = async (id: string, state: FakeMachine["state"]): Promise<FakeMachine> => {
    const machine = (await probe.provider.spawn({ id } as never)) as FakeMachine;
    machine.state = state;
    return machine;
  };
  const unreachable = new FakeUnreachable(silent);
  w.provider.found = {
    adopted: [
      await machineOf(fine, "running"),
      await machineOf(rows[1]?.id ?? "", "running"),
      await machineOf(asleep, "suspended"),
    ],
    unreachable: [unreachable],
    gone: [{ id: gone, reason: "it ended", console: ["bye"] }],
    removed: [],
  };
  const done = await w.sandboxes.open();
  assert.deepEqual([done.adopted.length, done.unreachable, done.lost], [3, [silent], [gone]]);
  assert.equal(w.sandboxes.get(rows[1]?.id ?? "").state, "running", "what the machine is, counts");
  assert.deepEqual(w.sandboxes.get(gone).record.failure?.console, ["bye"]);
  assert.throws(() => w.sandboxes.get(rows[5]?.id ?? ""), { code: "not-found" });
  assert.throws(() => w.sandboxes.get(cutOff.id), { code: "not-found" }, "its call is gone with its server");

  const kept = w.sandboxes.get(silent);
  assert.equal(kept.state, "running");
  assert.equal(kept.record.unreachable?.reason, "it does not answer");
  await assert.rejects(w.sandboxes.lease(silent), { code: "unavailable" });
  unreachable.settle({ machine: await machineOf(silent, "paused") });
  await settle();
  assert.equal(kept.record.unreachable, undefined);
  assert.equal(kept.state, "paused");
  assert.equal((await w.sandboxes.resume(silent)).state, "running");
  await w.sandboxes.close({ destroy: false });
});

test("one that does not answer is ended by its user, and by its time", async () => {
  const store = new Store(":memory:");
  const rows = [record(), record({ expiresAt: 1_003_000 })];
  for (const row of rows) await store.putSandbox(row, 1);
  const w = fakeWorld({ store });
  const unreachable = rows.map(({ id }) => new FakeUnreachable(id));
  w.provider.found = { ...w.provider.found, unreachable };
  await w.sandboxes.open();
  await w.sandboxes.destroy(rows[0]?.id ?? "");
  assert.equal(unreachable[0]?.destroyed, true);
  await w.clock.pass(5_000);
  assert.equal(unreachable[1]?.destroyed, true);
  assert.deepEqual(w.sandboxes.list(), []);
  await w.sandboxes.close({ destroy: false });
});

test("one that does not answer is not idle: its idle time begins when it is there again", async () => {
  const store = new Store(":memory:");
  const row = record({ idleTimeoutMs: 5_000, idleAction: "destroy" });
  await store.putSandbox(row, 1);
  const w = fakeWorld({ store });
  const unreachable = new FakeUnreachable(row.id);
  w.provider.found = { ...w.provider.found, unreachable: [unreachable] };
  await w.sandboxes.open();
  await w.clock.pass(20_000);
  assert.deepEqual([unreachable.destroyed, w.sandboxes.get(row.id).state], [false, "running"]);

  const machine = (await fakeWorld().provider.spawn({ id: row.id } as never)) as FakeMachine;
  unreachable.settle({ machine });
  await settle();
  await w.clock.pass(3_000);
  assert.equal(machine.destroyed, 0);
  await w.clock.pass(5_000);
  assert.equal(machine.destroyed > 0, true);
  await w.sandboxes.close({ destroy: false });
});

test("a database that does not know a machine stops the start, with the remedy; unless it is to be removed", async () => {
  const w = fakeWorld();
  w.provider.strangers = ["sb-00000001"];
  await assert.rejects(w.sandboxes.open(), (error: StacyError) => {
    assert.equal(error.code, "conflict");
    assert.match(error.message, /sb-00000001/);
    assert.match(error.remedy ?? "", /--remove-unknown/);
    return true;
  });
  await w.sandboxes.open({ removeUnknown: true });
  await w.sandboxes.close({ destroy: false });
});

test("a checkpoint that was being saved when the daemon died is no checkpoint", async () => {
  const store = new Store(":memory:");
  const half = {
    id: "cp-1",
    sandboxId: "sb-1",
    owner: "default",
    provider: "qemu",
    image: "i",
    memoryMiB: 1,
    vcpus: 1,
    diskMiB: 1,
    bytes: 0,
    createdAt: 1,
  };
  await store.putCheckpoint({ ...half, saving: true });
  await store.putCheckpoint({ ...half, id: "cp-2" });
  const w = fakeWorld({ store });
  await w.sandboxes.open();
  assert.deepEqual(
    store.checkpoints().map(({ id }) => id),
    ["cp-2"],
  );
  await w.sandboxes.close({ destroy: false });
});

const CHECKPOINT = {
  ...{ sandboxId: "sb-1", owner: "default", provider: "qemu", image: "i", memoryMiB: 1, vcpus: 1, diskMiB: 1 },
  ...{ bytes: 0, createdAt: 1 },
};

test("a checkpoint whose saved machine is gone goes at a start, unless all of them are, or none can be seen", async () => {
  const store = new Store(":memory:");
  for (const id of ["cp-1", "cp-2"]) await store.putCheckpoint({ ...CHECKPOINT, id });
  const started = async (change: (provider: FakeProvider) => void) => {
    const w = fakeWorld({ store });
    change(w.provider);
    const { last } = w.sandboxes.events;
    await w.sandboxes.open();
    const events = w.sandboxes.events.after(last).map(({ type, data }) => [type, data?.name, data?.action]);
    await w.sandboxes.close({ destroy: false });
    assert.deepEqual(
      w.sandboxes.checkpoints.list().map(({ id }) => id),
      store.checkpoints().map(({ id }) => id),
    );
    return { left: store.checkpoints().map(({ id }) => id), events };
  };
  assert.deepEqual((await started(() => {})).left, ["cp-1", "cp-2"]);
  const unseen = await started((provider) => {
    provider.snapshotKeys = async () => {
      throw new Error("EMFILE");
    };
  });
  assert.deepEqual(unseen.left, ["cp-1", "cp-2"]);
  const { left, events } = await started(({ saved }) => void saved.add(checkpointKey("cp-1")));
  assert.deepEqual([left, events], [["cp-1"], [["reconcile.action", "cp-2", "removed"]]]);
});

test("a checkpoint that goes as a snapshot is no checkpoint any more; one that is being saved stays", async () => {
  const w = fakeWorld();
  const { id } = await w.sandboxes.spawn({});
  const { id: cp } = await w.sandboxes.checkpoint(id);
  const [owner] = w.sandboxes.checkpoints.snapshotOwners();
  const machine = w.provider.machinesById.get(id) as FakeMachine;
  machine.gate.close();
  const saving = w.sandboxes.checkpoint(id);
  await settle();
  const half = w.store.checkpoints().find((each) => each.saving === true)?.id ?? "";
  await assert.rejects(owner?.removeSnapshot(checkpointKey(half)) ?? assert.fail(), { code: "conflict" });
  await owner?.removeSnapshot(checkpointKey(cp));
  assert.throws(() => w.sandboxes.checkpoints.get(cp), { code: "not-found" });
  machine.gate.open();
  assert.equal((await saving).id, half);
  assert.deepEqual([w.store.checkpoints().map((each) => each.id), w.provider.saved.size], [[half], 1]);
  await w.sandboxes.close({ destroy: true });
});

test("a checkpoint gets an id that neither a row nor a saved machine has", async (t) => {
  const taken = ["aaaaaaaa", "bbbbbbbb"];
  const store = new Store(":memory:");
  await store.putCheckpoint({ ...CHECKPOINT, id: "cp-aaaaaaaa" });
  const w = fakeWorld({ store });
  for (const each of taken) w.provider.saved.add(checkpointKey(`cp-${each}`));
  await w.sandboxes.open();
  const { id } = await w.sandboxes.spawn({});
  const { randomBytes } = crypto;
  const restore = (): void => {
    crypto.randomBytes = randomBytes;
    syncBuiltinESMExports();
  };
  t.after(restore);
  crypto.randomBytes = ((size: number) => {
    const next = taken.shift();
    return next === undefined ? randomBytes(size) : Buffer.from(next, "hex");
  }) as typeof randomBytes;
  syncBuiltinESMExports();
  const { id: cp } = await w.sandboxes.checkpoint(id);
  restore();
  assert.deepEqual(taken, []);
  assert.deepEqual([/^cp-[ab]{8}$/.test(cp), w.provider.saved.size], [false, 3]);
  assert.equal(w.sandboxes.checkpoints.get("cp-aaaaaaaa").createdAt, 1);
  await w.sandboxes.close({ destroy: true });
});

test("a clock that is set back ends nobody early and wedges nothing; set forward, what is over ends once", async () => {
  const w = fakeWorld();
  await w.sandboxes.open();
  const { sandbox } = await withMachine(w, { ttlMs: 60_000, idleTimeoutMs: 10_000, idleAction: "pause" });
  w.clock.set(w.clock.now() - 3_600_000);
  await w.clock.pass(30_000);
  assert.equal(sandbox.state, "running", "by this clock it was used in the future");
  const { id } = await w.sandboxes.spawn({ ttlMs: 60_000 });
  assert.ok(sandbox.record.expiresAt > w.clock.now(), "its time is a moment, which clients were told");
  using lease = await w.sandboxes.lease(sandbox.id);
  lease[Symbol.dispose]();
  await w.clock.pass(15_000);
  assert.equal(sandbox.state, "paused", "used since then, it is idle by the new clock");
  w.clock.set(w.clock.now() + 7_200_000);
  await w.clock.pass(2_000);
  assert.deepEqual(w.sandboxes.list(), []);
  const ended = w.sandboxes.events.after(0).filter(({ type }) => type === "sandbox.expired");
  assert.deepEqual(ended.map(({ sandboxId }) => sandboxId).sort(), [sandbox.id, id].sort());
  await w.sandboxes.close({ destroy: false });
});

test("an idle action that the monitor cannot do is refused before anything is made", async () => {
  const w = fakeWorld();
  w.provider.canPause = false;
  const input = { idleTimeoutMs: 1_000, idleAction: "pause" as const };
  await assert.rejects(w.sandboxes.spawn(input), { code: "not-supported", remedy: /suspend/ });
  assert.deepEqual(w.store.liveSandboxes(), []);
  await w.sandboxes.spawn({ ...input, idleAction: "suspend" });
});

test("what a build borrows has no secrets, also where each sandbox has one", async () => {
  const w = fakeWorld();
  await w.sandboxes.secrets.put("default", {
    ...{ name: "KEY", hosts: ["api.example"], value: "a-long-value", everywhere: true },
  });
  assert.deepEqual((await w.sandboxes.spawn({})).record.secrets, ["KEY"]);
  await using _ = await w.sandboxes.borrow({});
  assert.deepEqual(
    w.sandboxes
      .list()
      .map(({ secrets }) => secrets?.length ?? 0)
      .sort(),
    [0, 1],
  );
});

test("a snapshot that several owners share is called as each owner's own sandboxes are, and tells of no others", async () => {
  const w = fakeWorld();
  const info = {
    ...{
      key: "k",
      kind: "golden",
      image: "local/bobs-secret:1",
      imageDigest: "d",
      vmm: "qemu",
      vcpus: 1,
      memoryMiB: 64,
    },
    ...{ diskMiB: 64, createdAt: 1, lastUsedAt: 9e12, bytes: 1, inUse: 7 },
  };
  const pool = { key: "k", image: info.image, vcpus: 1, memoryMiB: 64, warm: 1, idle: 0, target: 1, filling: 0 };
  Object.assign(w.provider, { snapshots: async () => [info], pool: () => [pool] });
  Object.assign(w.provider, {
    buildSnapshot: async (_spec: unknown, queued?: () => void) => {
      queued?.();
      return info;
    },
  });
  const view = (owner: string, everything = false): View => new View(w.sandboxes, { owner, everything });
  const { signal } = new AbortController();
  assert.deepEqual([await view("alice").snapshots(), view("alice").pools()], [[], []]);
  let queued = 0;
  const built = await view("alice").buildSnapshot({ image: "mine:1" }, signal, () => {
    queued += 1;
  });
  assert.equal(queued, 1, "who waits for a turn is told so");
  assert.deepEqual(built, { ...info, image: "mine:1", lastUsedAt: 1, inUse: 0 });

  for (const [owner, image] of [
    ["bob", info.image],
    ["alice", "mine:1"],
    ["alice", "mine:2"],
  ] as const) {
    const { id } = await view(owner).spawn({ image });
    await w.clock.pass(1_000);
    Object.assign(w.sandboxes.get(id).record, { boot: { key: "k" } });
  }
  const [newest] = view("alice").list();
  const hers = { ...info, image: "mine:2", lastUsedAt: newest?.createdAt, inUse: 2 };
  assert.deepEqual(await view("alice").snapshots(), [hers]);
  assert.deepEqual(await view("alice").buildSnapshot({ image: "mine:1" }, signal), hers);
  assert.deepEqual(view("alice").pools(), [{ ...pool, image: "mine:2" }]);
  assert.deepEqual([await view("root", true).snapshots(), view("root", true).pools()], [[info], [pool]]);
  assert.deepEqual(await view("root", true).buildSnapshot({ image: "mine:1" }, signal), info);
});

test("a key with a limit makes no copy of what may connect to more", async () => {
  const w = fakeWorld();
  const { id } = await w.sandboxes.spawn({ allowedHosts: ["a.example"] });
  const view = (hosts: string[]): View => new View(w.sandboxes, { owner: "default", everything: false, hosts });
  assert.throws(() => view(["b.example"]).fork(id, { count: 1 }), { code: "permission" });
  assert.equal((await view(["a.example"]).fork(id, { count: 1 })).sandboxes.length, 1);
});

test("a sandbox that is older than a denial is not copied", async () => {
  const w = fakeWorld();
  const { id, record } = await w.sandboxes.spawn({});
  const { owner } = record;
  const rule = { owner, effect: "deny", priority: 10, createdAt: 0 } as const;
  for (const [resource, pattern] of [
    ["image", record.image],
    ["provider", record.provider],
  ] as const) {
    const policy = await w.sandboxes.policies.create({ ...rule, resource, pattern });
    await assert.rejects(w.sandboxes.fork(id, { count: 1 }), { code: "permission" });
    await w.sandboxes.policies.remove(owner, policy.id);
  }
  assert.equal((await w.sandboxes.fork(id, { count: 1 })).sandboxes.length, 1);
});

test("two owners that share a template of one name at the same time: one of them does; two replacements are two versions", async () => {
  const { templates } = fakeWorld().sandboxes;
  const input = {
    ...{ name: "t", image: "i", setup: [], allowedHosts: [], memoryMiB: 128, vcpus: 1, ttlMs: 1_000, env: {} },
    ...{ secrets: [], poolSize: 0, metadata: {}, description: "" },
  };
  const shared = { ...input, shared: true };
  const made = await Promise.allSettled([templates.create("a", shared), templates.create("b", shared)]);
  assert.deepEqual(
    made.map(({ status }) => status),
    ["fulfilled", "rejected"],
  );
  const replaced = await Promise.all([templates.replace("a", "t", input), templates.replace("a", "t", input)]);
  assert.deepEqual(
    replaced.map(({ version }) => version),
    [2, 3],
  );
});

test("an owner has a bound of templates; another one has its own", async () => {
  const { templates } = fakeWorld().sandboxes;
  const input = (name: string) => ({
    ...{ name, image: "i", setup: [], allowedHosts: [], memoryMiB: 128, vcpus: 1, ttlMs: 1_000, env: {} },
    ...{ secrets: [], poolSize: 0, metadata: {}, description: "" },
  });
  for (let i = 0; i < OWNER_BOUNDS.templates; i++) await templates.create("a", input(`t${i}`));
  await assert.rejects(templates.create("a", input("more")), { code: "limit" });
  await templates.replace("a", "t0", input("t0"));
  await templates.create("b", input("t"));
});

test("an id that another server has is no reason to fail: the sandbox gets another one, and nothing of the first is left", async () => {
  const claimed: string[] = [];
  const registry: Registry = {
    assertOpen() {},
    async claim({ id }) {
      claimed.push(id);
      if (claimed.length === 1) throw idTaken(id);
    },
    doubts: () => false,
    taken: async () => ({ all: { sandboxes: 0, memoryMiB: 0, vcpus: 0, diskMiB: 0 } }),
    elsewhere: () => ({ sandboxes: 0, maxSandboxes: undefined }),
    publish() {},
    release() {},
  };
  const { sandboxes, provider } = fakeWorld({ registry });
  const { id } = await sandboxes.spawn({ name: "work" });
  assert.deepEqual([claimed.length, claimed[1]], [2, id]);
  assert.deepEqual([...provider.machinesById.keys()], [id]);
});
