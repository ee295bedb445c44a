import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { dataPaths } from "../host/paths.ts";
import { createImages } from "../images/store.ts";
import type { Snapshot } from "../launcher/snapshot-store.ts";
import type { Target } from "../launcher/target.ts";
import type { Vmm } from "../vmm/vmm.ts";
import { createMicrovmProvider } from "./microvm.ts";

/** A provider whose golden snapshots are there when the test says so; a shape's key is its image. */
async function building(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), "microvm-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const paths = dataPaths(root);
  const vmm = { name: "qemu" } as Vmm;
  const provider = createMicrovmProvider({ vmm, images: createImages(paths), paths, pool: {} });
  const { launcher } = provider;
  const builds = new Map<string, PromiseWithResolvers<Snapshot>>();
  const signals = new Map<string, AbortSignal>();
  launcher.targets.resolve = async ({ image }) => ({ key: image }) as Target;
  launcher.ensureGolden = async ({ key }, signal) => {
    const build = Promise.withResolvers<Snapshot>();
    builds.set(key, build);
    if (signal !== undefined) signals.set(key, signal);
    signal?.addEventListener("abort", () => build.reject(signal.reason));
    return build.promise;
  };
  const pins = new Map<string, [string, number]>();
  const { pool } = launcher;
  assert.ok(pool !== undefined);
  pool.pin = (owner, { key }, count) => void pins.set(owner, [key, count]);
  pool.unpin = (owner) => void pins.delete(owner);
  const spec = (image: string) => ({ image, memoryMiB: 1, vcpus: 1, diskMiB: 1, env: {}, setup: [] });
  return { provider, builds, signals, pins, spec };
}

async function begun(builds: ReadonlyMap<string, unknown>, key: string): Promise<void> {
  while (!builds.has(key)) await new Promise((wake) => setImmediate(wake));
}

test("a template that is gone before its snapshot is built keeps nothing ready, and its build is cancelled", async (t) => {
  const w = await building(t);
  const pinning = w.provider.pin("owner/template", w.spec("a"), 2);
  await begun(w.builds, "a");
  await w.provider.pin("owner/template", w.spec("a"), 0);
  await pinning;
  assert.equal(w.signals.get("a")?.aborted, true);
  assert.deepEqual([...w.pins], []);
  await w.provider.close();
});

test("of two shapes that a template wanted, one after the other, the last counts, whichever is built first", async (t) => {
  const w = await building(t);
  const former = w.provider.pin("owner/template", w.spec("a"), 2);
  await begun(w.builds, "a");
  const latter = w.provider.pin("owner/template", w.spec("b"), 3);
  await begun(w.builds, "b");
  w.builds.get("b")?.resolve({} as Snapshot);
  await latter;
  w.builds.get("a")?.resolve({} as Snapshot);
  await former;
  assert.deepEqual([...w.pins], [["owner/template", ["b", 3]]]);
  await w.provider.close();
});

test("a stop cancels what is built for templates and waits for its end; one that fails says so", async (t) => {
  const w = await building(t);
  const failing = w.provider.pin("owner/failing", w.spec("a"), 1);
  await begun(w.builds, "a");
  w.builds.get("a")?.reject(new Error("no room"));
  await assert.rejects(failing, /no room/);
  const pinning = w.provider.pin("owner/template", w.spec("b"), 1);
  await begun(w.builds, "b");
  await w.provider.close();
  await pinning;
  assert.deepEqual([...w.pins], []);
});

test("what could not be kept ready is tried again, and meanwhile nothing is kept of what was wanted before", async (t) => {
  const w = await building(t);
  const former = w.provider.pin("owner/template", w.spec("a"), 2);
  await begun(w.builds, "a");
  w.builds.get("a")?.resolve({} as Snapshot);
  await former;
  assert.deepEqual([...w.pins], [["owner/template", ["a", 2]]]);
  const failing = w.provider.pin("owner/template", w.spec("b"), 3);
  await begun(w.builds, "b");
  w.builds.get("b")?.reject(new Error("the registry does not answer"));
  w.builds.delete("b");
  await assert.rejects(failing, /does not answer/);
  assert.deepEqual([...w.pins], []);
  await begun(w.builds, "b");
  w.builds.get("b")?.resolve({} as Snapshot);
  while (w.pins.size === 0) await new Promise((wake) => setImmediate(wake));
  assert.deepEqual([...w.pins], [["owner/template", ["b", 3]]]);
  await w.provider.close();
});

test("a checkpoint that machines came from is removed once: whoever asks again, since its row could not be, is told that it is gone", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "microvm-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const paths = dataPaths(root);
  const provider = createMicrovmProvider({ vmm: { name: "qemu" } as Vmm, images: createImages(paths), paths });
  const { store } = provider.launcher;
  const key = "c".repeat(64);
  const work = join(root, "work");
  await mkdir(work);
  for (const part of ["vmstate.bin", "memory.bin", "rootfs.ext4"]) await writeFile(join(work, part), part);
  const shape = { imageDigest: "d", cmdline: "", vmm: "qemu", vmmIdentity: {} };
  await store.publish(work, { key, kind: "checkpoint", image: "i", shape: shape as never });
  const release = store.use(key);
  await provider.removeSnapshot(key);
  await assert.rejects(provider.removeSnapshot(key), { code: "not-found" });
  assert.equal((await store.get(key))?.key, key, "its machine runs from it");
  release();
  await provider.close();
});
