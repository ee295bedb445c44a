/** A record that cannot be written, and cannot be put back: what is in memory, what is on disk, and what lives. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { beforeRename } from "../../test/before-rename.ts";
import { noDescriptorsAfter } from "../../test/no-descriptors.ts";
import { exists } from "../host/exists.ts";
import { type MachineRecord, RECORD_FILE } from "../launcher/machine-dir.ts";
import type { ExitReport } from "../vmm/vmm.ts";
import type { MachineContext } from "./machine-context.ts";
import { nextId } from "./machine-life.ts";
import { MicrovmMachine } from "./microvm-machine.ts";

const nothing = async (): Promise<void> => {};
const EXIT = { reason: "requested", signal: "SIGKILL", vmmLog: [], console: [] } as unknown as ExitReport;
/** Of the process that a machine has; of that which a change brings. */
const [BEFORE, NEXT] = [1, 2].map((pid) => ({ pid, startTime: "1", hostBootId: "none" })) as [
  NonNullable<MachineRecord["process"]>,
  NonNullable<MachineRecord["process"]>,
];

/** @param state what it is at the beginning @param kill what the monitor that it has then answers to that */
async function world(t: TestContext, state: MachineRecord["state"], kill?: () => Promise<void>) {
  const root = await mkdtemp(join(tmpdir(), "record-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const dir = join(root, "sb-1");
  await mkdir(dir);
  await writeFile(join(dir, "rootfs.ext4"), "disk");
  const killed: number[] = [];
  const monitor = (process: typeof BEFORE) => {
    const exit = Promise.withResolvers<ExitReport>();
    const ends = async (): Promise<void> => {
      killed.push(process.pid);
      if (process === BEFORE) await kill?.();
      exit.resolve(EXIT);
    };
    const each = {
      record: process,
      exited: exit.promise,
      relocate() {},
      release: nothing,
      prepareSave: nothing,
      kill: ends,
    };
    const save = async (into: string) => {
      for (const part of ["vmstate.bin", "memory.bin"]) await writeFile(join(into, part), part);
      return { finish: nothing };
    };
    const running = { ...each, state: "running", pause: async (): Promise<object> => paused };
    const paused = { ...each, state: "paused", save, resume: async () => running };
    return { running, die: () => exit.resolve(EXIT) };
  };
  const agent = {
    identify: nothing,
    standsStill() {},
    close: nothing,
    disconnect: nothing,
    closed: new Promise(() => {}),
  };
  const now = monitor(BEFORE);
  const released: string[] = [];
  const vmm = {
    ...{ abilities: { pauseResume: true }, answerMs: { restored: 15_000 } },
    prepareLoad: async () => ({ ...monitor(NEXT).running, load: async () => monitor(NEXT).running }),
  };
  const launchSaved = async () => {
    const beside = join(root, nextId("sb-1"));
    await mkdir(beside);
    return { dir: beside, machine: monitor(NEXT).running, agent, releaseSnapshot: () => released.push("next") };
  };
  const context = {
    network: { egress: () => ({ start() {}, stop() {}, allow() {} }), rules: () => ({}) },
    ...{ launcher: { vmm, launchSaved, paths: {} }, forget() {} },
  } as unknown as MachineContext;
  const record = { id: "sb-1", state, process: state === "suspended" ? null : BEFORE, identity: { env: {} } };
  await writeFile(join(dir, RECORD_FILE), JSON.stringify(record));
  const parts = {
    ...{ dir, record, target: { image: { base: root }, shape: {}, config: {} }, boot: {}, agent },
    releaseSnapshot: () => released.push("former"),
    ...(state === "suspended" ? {} : { machine: now.running }),
  };
  const machine = new MicrovmMachine(context, parts as unknown as ConstructorParameters<typeof MicrovmMachine>[1]);
  const written = async () => {
    const { state, process, allowedHosts } = JSON.parse(await readFile(join(dir, RECORD_FILE), "utf8"));
    return { state, pid: process?.pid, ...(allowedHosts && { allowedHosts }) };
  };
  return { machine, root, dir, written, killed, released, die: now.die };
}

test("a wake whose record cannot be taken back has come about: the process that it names lives", async (t) => {
  const w = await world(t, "suspended");
  await mkdir(join(w.dir, "suspended"));
  await writeFile(join(w.dir, "suspended", "rootfs.ext4"), "disk");
  const over = noDescriptorsAfter(t, RECORD_FILE);
  await assert.rejects(w.machine.resume(), { code: "EMFILE" });
  over();
  assert.deepEqual([w.machine.state, w.killed], ["running", []]);
  // Asked again it is answered when the record is right.
  await w.machine.resume();
  assert.deepEqual(await w.written(), { state: "running", pid: NEXT.pid });
});

test("a suspend whose record cannot be taken back leaves what it saved until the record says that it runs", async (t) => {
  const w = await world(t, "running");
  const over = noDescriptorsAfter(t, RECORD_FILE);
  await assert.rejects(w.machine.suspend(), { code: "EMFILE" });
  const saved = join(w.dir, "suspended");
  // Should this daemon end now, the next one takes that.
  assert.deepEqual(
    [w.machine.state, await w.written(), await exists(saved)],
    ["running", { state: "suspended", pid: undefined }, true],
  );
  over();
  await w.machine.pause();
  assert.deepEqual([await w.written(), await exists(saved)], [{ state: "paused", pid: BEFORE.pid }, false]);
});

test("it is put right beside, when there is room again, and by a daemon that stops", async (t) => {
  for (const meanwhile of [(): Promise<unknown> => new Promise((wake) => setTimeout(wake, 1_500)), undefined]) {
    const w = await world(t, "running");
    const over = noDescriptorsAfter(t, RECORD_FILE);
    await assert.rejects(w.machine.pause(), { code: "EMFILE" });
    over();
    assert.equal((await w.written()).state, "paused");
    await (meanwhile?.() ?? w.machine.release());
    assert.deepEqual(await w.written(), { state: "running", pid: BEFORE.pid });
    await w.machine.release();
  }
});

test("hosts that were refused are not in the record that the next daemon reads", async (t) => {
  const w = await world(t, "running");
  const over = noDescriptorsAfter(t, RECORD_FILE);
  await assert.rejects(w.machine.allow(["example.com"]), { code: "EMFILE" });
  assert.deepEqual((await w.written()).allowedHosts, ["example.com"]);
  over();
  await w.machine.release();
  assert.deepEqual((await w.written()).allowedHosts, undefined);
});

test("a monitor that dies when its machine is saved, and before that counts, takes nothing with it", async (t) => {
  const w = await world(t, "running");
  beforeRename(t, "suspended", async () => {
    w.die();
    await new Promise((wake) => setImmediate(wake));
  });
  await w.machine.suspend();
  assert.deepEqual([w.machine.state, (await w.written()).state], ["suspended", "suspended"]);
  assert.equal(await exists(join(w.dir, "suspended", "memory.bin")), true);
});

test("a restore whose old machine dies late is one: the new machine has its place when the old one has left it", async (t) => {
  let resists = true;
  const w = await world(t, "running", async () => {
    if (resists) throw new Error("it was killed and is still there");
  });
  await assert.rejects(w.machine.restore("cp-1"), /still there/);
  assert.deepEqual([w.machine.state, w.machine.process?.pid, w.released], ["running", NEXT.pid, []]);
  resists = false;
  await w.machine.pause();
  assert.deepEqual([w.killed.includes(NEXT.pid), w.released, await readdir(w.root)], [false, ["former"], ["sb-1"]]);
  assert.deepEqual(await w.written(), { state: "paused", pid: NEXT.pid });
});
