import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mock, type TestContext, test } from "node:test";
import { StacyError } from "../host/error.ts";
import { dataPaths } from "../host/paths.ts";
import type { Images } from "../images/image.ts";
import type { BlankVmm, LoadableVmm, Vmm } from "../vmm/vmm.ts";
import { Launcher } from "./launcher.ts";
import type { Snapshot } from "./snapshot-store.ts";

const KEY = "a".repeat(64);
const ended = (): StacyError => new StacyError("machine-exited", "Firecracker ended");
const second = new StacyError("limit", "the second start");

/** A launcher with one fork and one blank; a VMM that is started for a load is not to be had. */
async function bench(t: TestContext, load: LoadableVmm["load"], vmm: Partial<Vmm> = {}) {
  const root = await mkdtemp(join(tmpdir(), "launcher-"));
  t.after(() => rm(root, { recursive: true }));
  let [dir, started] = [join(root, "blank"), 0];
  await Promise.all([mkdir(dir), mkdir(join(root, "sandboxes"))]);
  const blank = {
    get dir() {
      return dir;
    },
    relocate(to: string) {
      dir = to;
    },
    become: async () => ({ dir, load, kill: async () => {} }),
    kill: async () => {},
    exited: new Promise(() => {}),
  } as unknown as BlankVmm;
  const fake = {
    name: "firecracker",
    abilities: { blank: true, diskBeforeStart: true },
    answerMs: { booted: [1_000], restored: 1_000 },
    prepareLoad: async () => {
      started += 1;
      throw second;
    },
    ...vmm,
  } as unknown as Vmm;
  const launcher = new Launcher({ vmm: fake, images: {} as Images, paths: dataPaths(root), pool: { maxBlank: 0 } });
  t.after(() => launcher.close());
  const shape = { guest: "bare", imageDigest: "none", cmdline: "", vmm: "firecracker", vmmIdentity: { version: "1" } };
  const manifest = { key: KEY, kind: "fork", image: "i", shape: { ...shape, setup: [], setupEnv: {} }, config: {} };
  const disk = { copyTo: async () => {} };
  const snapshot = { key: KEY, dir: root, disk, manifest: { ...manifest, imageConfig: { env: [] } } };
  mock.method(launcher.store, "get", async () => snapshot as unknown as Snapshot);
  assert.ok(launcher.pool);
  const blanks = [blank];
  mock.method(launcher.pool, "takeBlank", () => blanks.shift());
  const fork = (): Promise<unknown> => launcher.launchSaved(KEY, "fork", { id: "sb-1" });
  return { fork, launcher, place: join(root, "blank"), started: () => started };
}

test("a VMM that ended while it waited costs one more start, not the restore", async (t) => {
  const told: unknown[] = [];
  const { fork, launcher, started } = await bench(t, async () => Promise.reject(ended()));
  launcher.events.on("restore.failed", ({ phase, reason }) => told.push([phase, reason]));
  await assert.rejects(fork(), { code: "limit", message: second.message });
  assert.equal(started(), 1);
  assert.deepEqual(told, [["idle", "Firecracker ended"]]);
});

test("so does one whose directory is gone", async (t) => {
  const { fork, place, started } = await bench(t, async () => Promise.reject(ended()));
  await rm(place, { recursive: true });
  await assert.rejects(fork(), { code: "limit", message: second.message });
  assert.equal(started(), 1);
});

test("a snapshot that does not load, and a guest that ends once it runs, are told as they are", async (t) => {
  const damaged = await bench(t, async () => Promise.reject(new StacyError("corrupt", "vmstate.bin is damaged")));
  await assert.rejects(damaged.fork(), { code: "corrupt" });
  const machine = { connectAgent: async () => Promise.reject(ended()), exited: new Promise(() => {}) };
  const guest = await bench(t, async () => machine as never);
  await assert.rejects(guest.fork(), { code: "machine-exited", phase: "agent" });
  assert.deepEqual([damaged.started(), guest.started()], [0, 0]);
});

test("what another release saved is not loaded", async (t) => {
  const other = new StacyError("not-supported", "it was saved by Firecracker 1.12.1");
  const asked: unknown[] = [];
  const { fork, started } = await bench(t, async () => Promise.reject(ended()), {
    checkLoadable: async (identity) => {
      asked.push(identity);
      throw other;
    },
  });
  await assert.rejects(fork(), other);
  assert.deepEqual([asked, started()], [[{ version: "1" }], 0]);
});
