import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import fs, { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { beforeRename } from "../../test/before-rename.ts";
import { arm, disarm } from "../../test/faults/points.ts";
import { exists } from "../host/exists.ts";
import { dataPaths } from "../host/paths.ts";
import { isAlive, type ProcessRecord, spawnProcess } from "../host/process.ts";
import { createImages } from "../images/store.ts";
import { type MachineRecord, RECORD_FILE } from "../launcher/machine-dir.ts";
import type { PausedMachine, Vmm } from "../vmm/vmm.ts";
import { formerId, nextId } from "./machine-life.ts";
import { createMicrovmProvider } from "./microvm.ts";

const KEY = "a".repeat(64);
const GOLDEN = "b".repeat(64);
const ID = "sb-00000001";
const SHAPE = { imageDigest: `sha256:${KEY}`, cmdline: "", vmm: "qemu", vmmIdentity: {} };

/** A data directory with one machine's, and a fork's snapshot that it runs from; the monitor is whatever the test needs of one. */
async function world(t: TestContext, vmm: Partial<Vmm> = {}) {
  const root = await mkdtemp(join(tmpdir(), "adoption-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const paths = dataPaths(root);
  const fake = { name: "qemu", ...vmm } as Vmm;
  const provider = createMicrovmProvider({ vmm: fake, images: createImages(paths), paths });
  t.after(() => provider.close());
  const { store } = provider.launcher;
  for (const [key, kind] of [[KEY, "fork"] as const, [GOLDEN, "golden"] as const]) {
    const work = join(root, "work");
    await mkdir(work);
    for (const part of ["vmstate.bin", "memory.bin", "rootfs.ext4"]) await writeFile(join(work, part), part);
    await store.publish(work, { key, kind, image: "i", shape: SHAPE as never });
  }
  const dir = join(paths.sandboxes, ID);
  await mkdir(dir, { recursive: true });
  const recorded = async (process: ProcessRecord | null, state: MachineRecord["state"]): Promise<void> => {
    const config = { vcpus: 1, memoryMiB: 128, kernel: "kernel" };
    const identity = { hostname: "h", machineId: "m", bootId: "b", env: {} };
    const imageConfig = { env: [], entrypoint: [], cmd: [], labels: {}, exposedPorts: [] };
    const record = {
      ...{ version: 1, id: ID, role: "sandbox", vmm: "qemu", guest: "linux", key: KEY, image: "i" },
      ...{ imageDigest: SHAPE.imageDigest, config, process, state, identity, shape: SHAPE, imageConfig },
      ...{ boot: {}, createdAt: 1 },
    };
    await writeFile(join(dir, RECORD_FILE), JSON.stringify(record));
  };
  const sleeper = async (cwd: string) => {
    await mkdir(cwd, { recursive: true });
    const process = await spawnProcess({ command: "sleep", args: ["60"], cwd, log: join(root, "log") });
    t.after(() => process.kill());
    return process;
  };
  return { sleeper, dir, provider, store, recorded, kept: () => exists(store.path(KEY)) };
}

test("a fork's snapshot that no machine runs from goes with the start", async (t) => {
  const w = await world(t);
  await w.recorded(null, "running");
  const { removed } = await w.provider.adopt(new Set());
  assert.deepEqual([removed, await w.kept()], [[ID], false]);
});

test("a machine that is left alone keeps what it runs from", async (t) => {
  const w = await world(t);
  await w.recorded(null, "running");
  const { removed } = await w.provider.adopt(new Set(), new Set([ID]));
  assert.deepEqual([removed, await w.kept(), w.store.users(KEY)], [[], true, 1]);
});

test("while a record cannot be read, nothing goes that its machine may run from", async (t) => {
  const w = await world(t);
  await writeFile(join(w.dir, RECORD_FILE), "{");
  await w.sleeper(w.dir);
  const { unreachable } = await w.provider.adopt(new Set([ID]));
  assert.equal(unreachable.length, 1);
  // A sibling ends: the other may still run from the same.
  w.store.use(KEY)();
  await w.store.collectFork(KEY);
  assert.equal(await w.kept(), true);
  await assert.rejects(w.provider.removeSnapshot(GOLDEN), { code: "conflict" });
  assert.equal(await readFile(join(w.dir, RECORD_FILE), "utf8"), "{");
});

test("of a machine that ran when its host went down nothing is left to lose: it stops no start, and is gone", async (t) => {
  const w = await world(t);
  const process = { pid: 4, startTime: "5", hostBootId: "the one before" };
  for (const record of [() => w.recorded(process, "running"), () => writeFile(join(w.dir, RECORD_FILE), "")]) {
    await mkdir(w.dir, { recursive: true });
    await record();
    assert.deepEqual(await w.provider.machines(), []);
    const { gone, unreachable } = await w.provider.adopt(new Set([ID]));
    assert.deepEqual([gone.map(({ id }) => id), unreachable, await exists(w.dir)], [[ID], [], false]);
  }
});

test("a saved state that cannot be seen is not gone: its sandbox is kept until the disk answers", async (t) => {
  const w = await world(t);
  await mkdir(join(w.dir, "suspended"));
  await w.recorded(null, "suspended");
  const { access } = fs;
  const patched = (replacement: typeof access): void => {
    fs.access = replacement;
    syncBuiltinESMExports();
  };
  t.after(() => patched(access));
  patched(async (path, mode) => {
    if (String(path).endsWith("/suspended")) throw Object.assign(new Error("EIO"), { code: "EIO" });
    return access(path, mode);
  });
  assert.deepEqual(await w.provider.machines(), [ID]);
  const { gone, unreachable } = await w.provider.adopt(new Set([ID]));
  assert.deepEqual([gone, unreachable.map(({ id, reason }) => [id, reason])], [[], [[ID, "EIO"]]]);
  patched(access);
  const outcome = await unreachable[0]?.outcome;
  assert.ok(outcome !== undefined && "machine" in outcome);
  assert.equal(outcome.machine.state, "suspended");
});

test("what nobody wants and could not be removed at the start is removed later", async (t) => {
  let resists = true;
  const w = await world(t, {
    end: async () => {
      if (resists) throw new Error("it does not die");
    },
  });
  const monitor = await w.sleeper(w.dir);
  await w.recorded(monitor.record, "running");
  const actions: unknown[] = [];
  const removed = new Promise<void>((resolve) => {
    w.provider.onEvent(({ data }) => {
      if (actions.push(data.action) === 2) resolve();
    });
  });
  assert.deepEqual((await w.provider.adopt(new Set())).removed, []);
  assert.equal(await isAlive(monitor.record), true);
  resists = false;
  await removed;
  assert.deepEqual(actions, ["failed", "removed"]);
  assert.deepEqual([await isAlive(monitor.record), await exists(w.dir)], [false, false]);
});

test("a removal that is tried again does not end the machine that has the name by then", async (t) => {
  const attempts: string[] = [];
  const w = await world(t, {
    end: async (dir) => {
      attempts.push(dir);
      throw new Error("it does not die");
    },
  });
  const resisting = await w.sleeper(w.dir);
  await w.recorded(resisting.record, "running");
  const retried = new Promise<void>((resolve) => {
    w.provider.onEvent(({ data }) => {
      if (data.action === "removed") resolve();
    });
  });
  await w.provider.adopt(new Set());
  assert.deepEqual(attempts, [w.dir]);
  // It died after all, and its directory went.
  await resisting.kill();
  await rm(w.dir, { recursive: true });
  const another = await w.sleeper(w.dir);
  await w.recorded(another.record, "running");
  await retried;
  assert.deepEqual([attempts.length, await isAlive(another.record), await exists(w.dir)], [1, true, true]);
});

for (const [times, told] of [
  [1, ["failed", "removed"]],
  [2, ["failed"]],
] as const) {
  test(`a directory that could not be seen ${times === 1 ? "at first is removed before that is said" : "at all is not said to be removed"}`, async (t) => {
    const w = await world(t);
    await w.recorded(null, "running");
    const { stat, rm: remove } = fs;
    const restore = (): void => {
      Object.assign(fs, { stat, rm: remove });
      syncBuiltinESMExports();
    };
    t.after(restore);
    let blind: number = times;
    let unremovable = true;
    const tooMany = Object.assign(new Error("EMFILE"), { code: "EMFILE" });
    fs.stat = (async (path: string, options: never) => {
      if (path === w.dir && blind-- > 0) throw tooMany;
      return stat(path, options);
    }) as typeof stat;
    fs.rm = async (path, options) => {
      if (path === w.dir && unremovable) throw tooMany;
      return remove(path, options);
    };
    syncBuiltinESMExports();
    const actions: unknown[] = [];
    const there: boolean[] = [];
    const last = Promise.withResolvers<void>();
    w.provider.onEvent(({ data }) => {
      there.push(existsSync(w.dir));
      if (actions.push(data.action) === told.length) last.resolve();
    });
    assert.deepEqual((await w.provider.adopt(new Set())).removed, []);
    unremovable = false;
    await last.promise;
    await w.provider.close();
    restore();
    assert.deepEqual(actions, told);
    assert.deepEqual(
      there,
      told.map((action) => action === "failed"),
    );
    assert.equal(await exists(w.dir), times === 2);
  });
}

test("what lives or is suspended is a machine, whether its record can be read or not", async (t) => {
  const w = await world(t);
  await mkdir(join(w.dir, "suspended"));
  for (const record of [() => w.recorded(null, "suspended"), () => writeFile(join(w.dir, RECORD_FILE), "")]) {
    await record();
    assert.deepEqual(await w.provider.machines(), [ID]);
  }
  await rm(join(w.dir, "suspended"), { recursive: true });
  assert.deepEqual(await w.provider.machines(), []);
  const { record } = await w.sleeper(w.dir);
  assert.deepEqual(await w.provider.machines(), [ID]);
  await w.recorded(record, "running");
  assert.deepEqual(await w.provider.machines(), [ID]);
});

test("a machine that is taken over has nothing left of the save that was under way", async (t) => {
  const w = await world(t, {
    adopt: async (_dir, record) =>
      ({ state: "paused", record, exited: new Promise(() => {}), release: async () => {} }) as unknown as PausedMachine,
  });
  const unfinished = join(w.dir, "suspended.new");
  const [monitor, second] = [await w.sleeper(w.dir), await w.sleeper(join(unfinished, "normalise"))];
  await w.recorded(monitor.record, "paused");
  const { adopted } = await w.provider.adopt(new Set([ID]));
  assert.deepEqual(
    adopted.map(({ id, state }) => [id, state]),
    [[ID, "paused"]],
  );
  assert.deepEqual([await isAlive(monitor.record), await isAlive(second.record)], [true, false]);
  assert.equal(await exists(unfinished), false);
});

for (const state of ["suspended", "running"] as const) {
  test(`a restore that its host did not live through, between two renames: the machine that was ${state} before is what is looked for`, async (t) => {
    const w = await world(t);
    const root = dirname(w.dir);
    const dead = { pid: 4, startTime: "5", hostBootId: "the one before" };
    await w.recorded(dead, "running");
    await rename(w.dir, join(root, nextId(ID)));
    await mkdir(join(w.dir, "suspended"), { recursive: true });
    await w.recorded(state === "running" ? dead : null, state);
    await rename(w.dir, join(root, formerId(ID)));
    assert.deepEqual(await w.provider.machines(), state === "suspended" ? [ID] : []);
    const { adopted, gone } = await w.provider.adopt(new Set([ID]));
    assert.deepEqual(
      [adopted.map((machine) => [machine.id, machine.state]), gone.map(({ id }) => id)],
      state === "suspended" ? [[[ID, "suspended"]], []] : [[], [ID]],
    );
    assert.deepEqual(await readdir(root), state === "suspended" ? [ID] : []);
  });
}

/** A restore that got to B3: the new machine beside its place is suspended by now, the old one is dead in it. */
async function halfReplaced(t: TestContext) {
  const w = await world(t);
  const next = join(dirname(w.dir), nextId(ID));
  const dead = { pid: 4, startTime: "5", hostBootId: "the one before" };
  await mkdir(join(w.dir, "suspended"));
  await w.recorded(null, "suspended");
  await rename(w.dir, next);
  await mkdir(w.dir);
  await w.recorded(dead, "running");
  return { ...w, next };
}

test("one that was restored, could not be moved into its place, and was suspended there is taken over from there", async (t) => {
  const w = await halfReplaced(t);
  assert.deepEqual(await w.provider.machines(), [ID]);
  const { adopted } = await w.provider.adopt(new Set([ID]));
  assert.deepEqual(
    adopted.map(({ id, state }) => [id, state]),
    [[ID, "suspended"]],
  );
  assert.deepEqual(await readdir(dirname(w.dir)), [ID]);
});

test("a replacement that cannot be finished costs one sandbox its adoption, until it can be", async (t) => {
  const w = await halfReplaced(t);
  arm("fs.rename", 1);
  t.after(() => disarm());
  const { adopted, unreachable, removed } = await w.provider.adopt(new Set([ID]));
  assert.equal(disarm().reached, true);
  assert.deepEqual([adopted, unreachable.map(({ id }) => id), removed], [[], [ID], []]);
  assert.deepEqual((await readdir(dirname(w.dir))).sort(), [ID, nextId(ID)]);
  const outcome = await unreachable[0]?.outcome;
  assert.ok(outcome !== undefined && "machine" in outcome);
  assert.equal(outcome.machine.state, "suspended");
  assert.deepEqual(await readdir(dirname(w.dir)), [ID]);
});

test("one whose replacement cannot be finished ends when its user says so, with all that there is of it", async (t) => {
  const w = await halfReplaced(t);
  arm("fs.rename", 1);
  t.after(() => disarm());
  const { unreachable } = await w.provider.adopt(new Set([ID]));
  disarm();
  await unreachable[0]?.destroy();
  assert.deepEqual(await readdir(dirname(w.dir)), []);
});

test("one that ends while its replacement is moved into its place leaves nothing: neither name may hide it from the end", async (t) => {
  const w = await halfReplaced(t);
  arm("fs.rename", 1);
  t.after(() => disarm());
  const { unreachable } = await w.provider.adopt(new Set([ID]));
  disarm();
  const { access } = fs;
  t.after(() => {
    fs.access = access;
    syncBuiltinESMExports();
  });
  const ended = Promise.withResolvers<void>();
  beforeRename(t, ID, async () => {
    // It finds nothing in the place, and gets to the name beside it when the move is over.
    const passed = Promise.withResolvers<void>();
    fs.access = async (path, mode) => {
      if (path === w.next) {
        passed.resolve();
        while (existsSync(w.next)) await new Promise((turn) => setImmediate(turn));
      }
      return access(path, mode);
    };
    syncBuiltinESMExports();
    unreachable[0]?.destroy().then(ended.resolve, ended.reject);
    await passed.promise;
  });
  await ended.promise;
  assert.deepEqual(await readdir(dirname(w.dir)), []);
  assert.equal(w.store.users(KEY), 1, "that of the start, which could not see what it runs from");
});
