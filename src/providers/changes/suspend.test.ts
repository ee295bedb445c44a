import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { beforeRename } from "../../../test/before-rename.ts";
import { StacyError } from "../../host/error.ts";
import { RECORD_FILE } from "../../launcher/machine-dir.ts";
import { SuspendedState } from "../../launcher/suspended.ts";
import type { ExitReport, PausedMachine } from "../../vmm/vmm.ts";
import type { MachineContext } from "../machine-context.ts";
import type { MachineLife } from "../machine-life.ts";
import { MicrovmMachine } from "../microvm-machine.ts";
import { suspend, wake } from "./suspend.ts";

const { signal } = new AbortController();

test("what a save stands on is made ready while the guest runs; when the disk has no room for it, the guest has not stood still", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "suspend-"));
  t.after(() => rm(dir, { recursive: true }));
  const full = new StacyError("no-space", "the disk is full");
  const did: string[] = [];
  const machine = {
    state: "running",
    prepareSave: async () => {
      did.push("prepare");
      throw full;
    },
    pause: async () => did.push("pause"),
  };
  const life = {
    dir,
    state: "running",
    alive: () => machine,
    counts() {},
    stopTraffic: () => did.push("traffic stopped"),
    agent: { disconnect: async () => did.push("disconnected") },
    recordFile: { whenRight: (work: () => Promise<void>) => work() },
    goOn: async (paused: unknown) => void did.push(`goes on: ${paused}`),
  } as unknown as MachineLife;
  await assert.rejects(suspend(life, signal), full);
  assert.deepEqual(did, ["prepare", "goes on: undefined"]);
});

test("a disk alone is saved when the guest stands still with nothing left to write, and checked before it is started from", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "suspend-"));
  t.after(() => rm(dir, { recursive: true }));
  await writeFile(join(dir, "rootfs.ext4"), "disk");
  const did: string[] = [];
  const step = (name: string) => async () => void did.push(name);
  const running = {
    state: "running",
    prepareSave: step("prepare"),
    pause: async ({ toSave }: { toSave: boolean }) => did.push(`pause, to save: ${toSave}`),
  };
  const life = {
    ...{ dir, state: "running", now: { state: "running" }, target: { image: { base: join(dir, "base") } } },
    ...{ running: () => running, counts() {}, become() {}, settle() {}, stopTraffic() {} },
    ...{ freeze: { freeze: step("freeze") }, agent: { sync: step("sync"), disconnect: async () => {} } },
    ...{
      recordFile: { write: step("record") },
      kill: step("kill"),
      lastOneDied: async () => {},
      context: { launcher: {} },
    },
  } as unknown as MachineLife;
  await suspend(life, signal, "disk");
  assert.deepEqual(did, ["freeze", "sync", "pause, to save: false", "record", "kill"]);
  const saved = join(dir, "suspended");
  assert.deepEqual((await readdir(saved)).sort(), ["base.img", "rootfs.ext4", "sealed.json"]);
  await writeFile(join(saved, "rootfs.ext4"), "dusk");
  await assert.rejects(wake(life, signal), { code: "corrupt" });

  const still = new StacyError("conflict", "it is paused");
  const paused = { ...life, state: "paused", running: () => assert.fail(still) } as unknown as MachineLife;
  await assert.rejects(suspend(paused, signal, "disk"), still);
});

test("what another release saved is told before anything is loaded, and is suspended still", async () => {
  const other = new StacyError("not-supported", "it was saved by Firecracker 1.12.1");
  const asked: unknown[] = [];
  const vmm = {
    checkLoadable: async (identity: unknown) => {
      asked.push(identity);
      throw other;
    },
  };
  const life = {
    dir: "/nowhere",
    target: { shape: { vmmIdentity: { version: "1.12.1" } } },
    context: { launcher: { vmm } },
    lastOneDied: async () => {},
  } as unknown as MachineLife;
  await assert.rejects(wake(life, signal), other);
  assert.deepEqual(asked, [{ version: "1.12.1" }]);
});

test("a start without the saved memory looks at the disk alone, and one that comes to nothing leaves what the memory belongs to", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "anew-"));
  t.after(() => rm(dir, { recursive: true }));
  const state = new SuspendedState(dir);
  const save = async (to: string): Promise<{ finish(): Promise<void> }> => {
    for (const part of ["memory.bin", "vmstate.bin"]) await writeFile(join(to, part), part);
    return { finish: async () => {} };
  };
  await writeFile(join(dir, "rootfs.ext4"), "disk");
  await state.save({ save } as unknown as PausedMachine, join(dir, "base"));
  await state.commit();
  await rm(join(dir, "suspended", "memory.bin"));
  const old = { config: "old", shape: "old", identity: { bootId: "old" } };
  const failed = new StacyError("timeout", "it does not boot");
  const vmm = { prepareBoot: () => Promise.reject(failed), checkLoadable: () => assert.fail("nothing is loaded") };
  const targets = { anew: async () => ({ config: "new", shape: "new" }) };
  const life = {
    ...{ dir, target: { config: "old", shape: "old" }, record: { ...old } },
    ...{ lastOneDied: async () => {}, settle() {}, kill: async () => {}, agent: { disconnect: async () => {} } },
    context: { launcher: { vmm: { ...vmm, answerMs: { booted: [1_000] } }, targets } },
  } as unknown as MachineLife;
  await assert.rejects(wake(life, signal), { code: "corrupt" });
  await assert.rejects(wake(life, signal, { anew: true }), { message: /does not boot/ });
  assert.deepEqual([life.record, life.target], [old, { config: "old", shape: "old" }]);
  await writeFile(join(dir, "suspended", "rootfs.ext4"), "dusk");
  await assert.rejects(wake(life, signal, { anew: true }), { code: "corrupt" });
});

for (const [how, during] of [
  ["its caller gives up", (_: MicrovmMachine, caller: AbortController) => caller.abort(new Error("the server stops"))],
  ["the server lets it go", (machine: MicrovmMachine) => void machine.release()],
] as const) {
  test(`a wake whose record is being written when ${how} has come about: the machine that the record names lives`, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), "wake-"));
    t.after(() => rm(dir, { recursive: true }));
    await mkdir(join(dir, "suspended"));
    await writeFile(join(dir, "suspended", "rootfs.ext4"), "disk");
    const nothing = async (): Promise<void> => {};
    let kills = 0;
    const process = {
      ...{ record: { pid: 1, startTime: "1", hostBootId: "none" }, exited: new Promise<ExitReport>(() => {}) },
      ...{ release: nothing, kill: async () => void kills++ },
    };
    const load = async () => ({ ...process, state: "running" });
    const vmm = { answerMs: { restored: 15_000 }, prepareLoad: async () => ({ ...process, load }) };
    const context = {
      network: { egress: () => ({ start() {}, stop() {} }) },
      ...{ launcher: { vmm }, forget() {} },
    } as unknown as MachineContext;
    const agent = { identify: nothing, standsStill() {}, close: nothing, closed: new Promise(() => {}) };
    const record = { id: "sb-1", state: "suspended", process: null, identity: {} };
    const target = { shape: {}, config: {} };
    const parts = { dir, record, target, boot: {}, agent, releaseSnapshot() {} };
    const machine = new MicrovmMachine(context, parts as unknown as ConstructorParameters<typeof MicrovmMachine>[1]);
    const caller = new AbortController();
    beforeRename(t, "", () => during(machine, caller));
    await machine.resume({ signal: caller.signal });
    const { state } = JSON.parse(await readFile(join(dir, RECORD_FILE), "utf8"));
    assert.deepEqual([machine.state, state, kills], ["running", "running", 0]);
  });
}
