/** Machines that come to nothing before a sandbox has got them, and do not die at once. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { arm, disarm } from "../../test/faults/points.ts";
import { StacyError } from "../host/error.ts";
import { dataPaths } from "../host/paths.ts";
import { createImages } from "../images/store.ts";
import type { Launched } from "../launcher/launcher.ts";
import type { SavedState, Vmm } from "../vmm/vmm.ts";
import { createMicrovmProvider } from "./microvm.ts";
import type { SandboxSpec } from "./provider.ts";

const nothing = async (): Promise<void> => {};
const HELD = new StacyError("timeout", "the kernel holds it");

/** Launches give machines that are held by the kernel when they are to be ended for the first time. */
async function world(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), "discard-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const paths = dataPaths(root);
  const vmm = { name: "qemu", abilities: { saveClone: true, saveKeepsChannel: true }, answerMs: { restored: 15_000 } };
  const provider = createMicrovmProvider({ vmm: vmm as unknown as Vmm, images: createImages(paths), paths });
  t.after(() => provider.close());
  const told: unknown[] = [];
  const removed = Promise.withResolvers<void>();
  provider.onEvent(({ type, data }) => {
    if (type !== "reconcile.action") return;
    told.push(data);
    if (data.action === "removed") removed.resolve();
  });
  const base = join(root, "base.img");
  await writeFile(base, "");
  const image = { reference: "image", digest: "sha256:1", base, config: {} };
  const used = { snapshots: 0 };
  const launched = async (id: string): Promise<Launched> => {
    const dir = join(paths.sandboxes, id);
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, "rootfs.ext4"), "");
    let held = true;
    const process = {
      ...{
        dir,
        record: { pid: 1, startTime: "1", hostBootId: "none" },
        exited: new Promise(() => {}),
        release: nothing,
      },
      kill: async () => {
        if (!held) return;
        held = false;
        throw HELD;
      },
    };
    const paused = {
      ...{ ...process, state: "paused", resume: async () => running },
      save: async (to: string): Promise<SavedState> => {
        for (const name of ["vmstate.bin", "memory.bin"]) await writeFile(join(to, name), "");
        return { stateBytes: 0, memoryBytes: 0, resumable: true, finish: nothing };
      },
    };
    const running = { ...process, state: "running", prepareSave: nothing, pause: async () => paused };
    const agent = {
      ...{ closed: new Promise(() => {}), close: nothing, freeze: nothing, thaw: nothing, identify: nothing },
      standsStill() {},
      stat: async () => undefined,
      tarIn: async () => {
        throw new Error("its disk is full");
      },
    };
    used.snapshots += 1;
    return {
      ...{ dir, machine: running, agent, boot: { phases: {} }, identity: { env: {} } },
      target: { key: "a".repeat(64), image, config: { memoryMiB: 1 }, shape: { vmm: "qemu" }, guest: "linux" },
      releaseSnapshot: () => {
        used.snapshots -= 1;
      },
    } as unknown as Launched;
  };
  const gone = async (id: string) => {
    assert.deepEqual(told, [{ action: "failed", name: id, reason: HELD.message }], "it is there still");
    await removed.promise;
    assert.deepEqual(told[1], { action: "removed", name: id });
    return { left: await readdir(paths.sandboxes), snapshots: used.snapshots };
  };
  return { provider, launched, gone };
}

test("a machine whose first record cannot be written is ended in the end, and the record's error is the answer", async (t) => {
  const { provider, launched, gone } = await world(t);
  const made = await launched("sb-1");
  arm("fs.rename", 1);
  t.after(() => disarm());
  await assert.rejects(provider.own(made, { id: "sb-1", allowedHosts: [] }), { phase: "record" });
  assert.equal(disarm().reached, true);
  assert.deepEqual(await gone("sb-1"), { left: [], snapshots: 0 });
});

test("a machine that does not take its certificate is ended in the end, and that is the answer", async (t) => {
  const { provider, launched, gone } = await world(t);
  provider.launcher.launch = async (_spec, { id }) => launched(id);
  const spec = { id: "sb-1", image: "image", env: {}, setup: [], secrets: { TOKEN: "placeholder" } };
  await assert.rejects(provider.spawn(spec as unknown as SandboxSpec), { phase: "trust" });
  assert.deepEqual(await gone("sb-1"), { left: [], snapshots: 0 });
});

test("of a fork whose other child failed nothing stays, and why that failed is the answer", async (t) => {
  const { provider, launched, gone } = await world(t);
  const parent = await provider.own(await launched("sb-0"), { id: "sb-0", allowedHosts: [] });
  const full = new StacyError("no-space", "the disk is full");
  provider.launcher.launchSaved = async (_key, _kind, { id }) => {
    if (id === "sb-2") throw full;
    return launched(id);
  };
  await assert.rejects(parent.fork(["sb-1", "sb-2"]), full);
  assert.deepEqual(await gone("sb-1"), { left: ["sb-0"], snapshots: 1 });
});
