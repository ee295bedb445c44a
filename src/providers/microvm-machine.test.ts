import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { arm, disarm } from "../../test/faults/points.ts";
import type { MachineRecord } from "../launcher/machine-dir.ts";
import type { MachineContext } from "./machine-context.ts";
import { formerId, nextId } from "./machine-life.ts";
import { MicrovmMachine } from "./microvm-machine.ts";

/** A suspended machine that is restored, of whose renames one fails. */
async function restored(t: TestContext, failing: number) {
  const root = await mkdtemp(join(tmpdir(), "machine-"));
  t.after(() => rm(root, { recursive: true }));
  const [place, beside] = [join(root, "sb-1"), join(root, nextId("sb-1"))];
  await mkdir(place);
  let network = false;
  const process = { pid: 1, startTime: "1", hostBootId: "none" };
  const next = { record: process, exited: new Promise(() => {}), relocate() {}, kill: async () => {} };
  const context = {
    network: {
      egress: () => ({
        start: () => {
          network = true;
        },
        stop: () => {
          network = false;
        },
      }),
    },
    launcher: {
      store: { path: (key: string) => join(root, key) },
      launchSaved: async () => {
        await mkdir(beside);
        arm("fs.rename", failing);
        return { dir: beside, machine: next, agent: { close: async () => {} }, releaseSnapshot() {} };
      },
    },
  } as unknown as MachineContext;
  const record = { id: "sb-1", state: "suspended", process: null, identity: {} } as unknown as MachineRecord;
  const parts = { dir: place, record, target: {}, boot: {}, releaseSnapshot() {} };
  const machine = new MicrovmMachine(context, parts as unknown as ConstructorParameters<typeof MicrovmMachine>[1]);
  t.after(() => disarm());
  await assert.rejects(machine.restore("cp-1"), /fs.rename|rename|EIO|ENOSPC/);
  assert.equal(disarm().reached, true);
  return { machine, root, network: () => network };
}

// The first rename is that of the new record.
test("a suspended one that cannot be moved aside for its restore is what it was", async (t) => {
  const { machine, root, network } = await restored(t, 2);
  assert.deepEqual([machine.state, network(), await readdir(root)], ["suspended", false, ["sb-1"]]);
});

test("a restore that runs, and cannot take its place, has its network; its next change takes the place first", async (t) => {
  const { machine, root, network } = await restored(t, 3);
  assert.deepEqual([machine.state, network()], ["running", true]);
  assert.deepEqual((await readdir(root)).sort(), [formerId("sb-1"), nextId("sb-1")]);
  await machine.allow([]).catch(() => {}); // its guest answers nobody
  assert.deepEqual(await readdir(root), ["sb-1"]);
});
