/** The state machine of a machine, over a monitor and a guest that do as each test says. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { beforeRename } from "../../test/before-rename.ts";
import { arm, disarm } from "../../test/faults/points.ts";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { isAlive, spawnProcess } from "../host/process.ts";
import { type MachineRecord, RECORD_FILE } from "../launcher/machine-dir.ts";
import type { ExitReport, PausedMachine, RunningMachine } from "../vmm/vmm.ts";
import type { MachineContext } from "./machine-context.ts";
import { type LifeParts, MachineLife, nextId } from "./machine-life.ts";
import { MicrovmMachine } from "./microvm-machine.ts";

const EXIT = { reason: "crash", signal: "SIGSEGV", vmmLog: [], console: [] } as unknown as ExitReport;
const nothing = async (): Promise<void> => {};

async function world(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), "life-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  t.after(() => disarm());
  const dir = join(root, "sb-1");
  await mkdir(dir);
  const exit = Promise.withResolvers<ExitReport>();
  /** What the monitor and the guest do when they are asked. */
  const does = { pause: nothing, resume: nothing, identify: nothing };
  const asked: string[] = [];
  /** What the guest's channel was told. */
  const still: boolean[] = [];
  const doing = async (what: keyof typeof does): Promise<void> => {
    asked.push(what);
    await Promise.race([
      does[what](),
      exit.promise.then(() => Promise.reject(new StacyError("machine-exited", "gone"))),
    ]);
  };
  const process = {
    record: { pid: 1, startTime: "1", hostBootId: "none" },
    exited: exit.promise,
    relocate() {},
    release: nothing,
    kill: async () => exit.resolve(EXIT),
  };
  const running = { ...process, state: "running" } as unknown as RunningMachine;
  const paused = { ...process, state: "paused" } as unknown as PausedMachine;
  Object.assign(running, { pause: () => doing("pause").then(() => paused) });
  Object.assign(paused, { resume: () => doing("resume").then(() => running) });
  const forgotten: string[] = [];
  const context = {
    network: { egress: () => ({ start() {}, stop() {} }) },
    launcher: { vmm: { abilities: { pauseResume: true }, answerMs: { restored: 15_000 } } },
    forget: ({ id }: { id: string }) => forgotten.push(id),
  } as unknown as MachineContext;
  const agent = {
    identify: () => doing("identify"),
    standsStill: (now: boolean) => still.push(now),
    close: nothing,
    closed: new Promise(() => {}),
  } as unknown as Agent;
  const record = { id: "sb-1", state: "running", process: process.record, identity: {} } as unknown as MachineRecord;
  const target = { image: { base: root } };
  const parts = { dir, record, target, boot: {}, machine: running, agent, releaseSnapshot() {} };
  const machine = new MicrovmMachine(context, parts as unknown as ConstructorParameters<typeof MicrovmMachine>[1]);
  const written = async (): Promise<string> => JSON.parse(await readFile(join(dir, RECORD_FILE), "utf8")).state;
  const life = (): MachineLife => new MachineLife(context, parts as unknown as LifeParts);
  return {
    machine,
    life,
    running,
    paused,
    does,
    asked,
    still,
    root,
    dir,
    written,
    forgotten,
    die: () => exit.resolve(EXIT),
  };
}

const never = (): Promise<void> => new Promise(() => {});

test("pause and resume: the record says what the machine is; asked again they do nothing", async (t) => {
  const { machine, asked, still, written } = await world(t);
  await machine.pause();
  await machine.pause();
  assert.deepEqual([machine.state, await written()], ["paused", "paused"]);
  await machine.resume();
  await machine.resume();
  assert.deepEqual([machine.state, await written()], ["running", "running"]);
  assert.deepEqual(asked, ["pause", "resume", "identify"]);
  assert.deepEqual(still, [true, false], "a guest that stands still may be silent");
});

test("a pause whose record cannot be written has not happened", async (t) => {
  const { machine, asked, written } = await world(t);
  arm("fs.rename", 1);
  await assert.rejects(machine.pause(), { code: "EIO" });
  disarm();
  assert.deepEqual([machine.state, await written(), asked.at(-1)], ["running", "running", "resume"]);
  await machine.pause();
  assert.equal(machine.state, "paused");
});

test("a resume is one only when the guest knows of it and the record says so; until then it is paused, and can be asked again", async (t) => {
  const { machine, does, written } = await world(t);
  await machine.pause();
  does.identify = () => Promise.reject(new StacyError("disconnected", "the channel broke"));
  await assert.rejects(machine.resume(), { code: "disconnected" });
  assert.deepEqual([machine.state, await written()], ["paused", "paused"]);
  does.identify = nothing;
  arm("fs.rename", 1);
  await assert.rejects(machine.resume(), { code: "EIO" });
  disarm();
  assert.deepEqual([machine.state, await written()], ["paused", "paused"]);
  await machine.resume();
  assert.deepEqual([machine.state, await written()], ["running", "running"]);
});

test("one that runs again and cannot be stopped again is still shown as paused, and the next resume takes it from there", async (t) => {
  const { machine, does, asked } = await world(t);
  await machine.pause();
  does.identify = () => Promise.reject(new StacyError("disconnected", "the channel broke"));
  does.pause = () => Promise.reject(new StacyError("timeout", "no answer"));
  await assert.rejects(machine.resume(), { code: "disconnected" });
  assert.equal(machine.state, "paused");
  does.identify = nothing;
  const before = asked.length;
  await machine.resume();
  assert.deepEqual([machine.state, asked.slice(before)], ["running", ["identify"]]);
});

test("no change runs beside another", async (t) => {
  const { machine, does } = await world(t);
  const gate = Promise.withResolvers<void>();
  does.pause = () => gate.promise;
  const first = machine.pause();
  await assert.rejects(machine.resume(), { code: "conflict" });
  gate.resolve();
  await first;
  await machine.resume();
});

test("an end takes the monitor from the change that waits for it, lets that fail, and leaves nothing", async (t) => {
  const { machine, does, dir, forgotten } = await world(t);
  does.pause = never;
  const change = machine.pause();
  const failed = assert.rejects(change, StacyError);
  await machine.destroy();
  await failed;
  assert.deepEqual([machine.state, await exists(dir), forgotten], ["exited", false, ["sb-1"]]);
  await assert.rejects(machine.resume(), { code: "not-found" });
});

test("a machine that dies in the middle of a change is dead, and nothing brings it back", async (t) => {
  const { machine, does, die } = await world(t);
  await machine.pause();
  does.identify = never;
  const change = machine.resume();
  const failed = assert.rejects(change, StacyError);
  setImmediate(die);
  await failed;
  assert.deepEqual([machine.state, (await machine.exited).signal], ["exited", "SIGSEGV"]);
  await assert.rejects(machine.resume(), { code: "not-found" });
  await assert.rejects(machine.pause(), { code: "not-found" });
});

test("the end of a process is no news of the machine that has its pid by now", async (t) => {
  const { life, running } = await world(t);
  const now = life();
  const former = { record: { ...running.record, startTime: "0" }, exited: Promise.resolve(EXIT) };
  now.watch(former as unknown as RunningMachine);
  await former.exited;
  assert.equal(now.state, "running");
});

test("a monitor that dies while the record of its suspended machine is written takes nothing with it", async (t) => {
  const w = await world(t);
  await writeFile(join(w.dir, "rootfs.ext4"), "disk");
  const save = async (dir: string) => {
    for (const part of ["vmstate.bin", "memory.bin"]) await writeFile(join(dir, part), part);
    return { finish: nothing };
  };
  Object.assign(w.running, { prepareSave: nothing });
  Object.assign(w.paused, { save });
  beforeRename(t, RECORD_FILE, () => {
    w.die();
    return new Promise((wake) => setImmediate(wake));
  });
  await w.machine.suspend();
  const told = await Promise.race([w.machine.exited, new Promise((wake) => setImmediate(wake, "nothing"))]);
  assert.deepEqual([w.machine.state, await w.written(), told], ["suspended", "suspended", "nothing"]);
});

test("an end leaves nothing of a restore that was cut off, its process included", async (t) => {
  const { machine, root } = await world(t);
  const beside = join(root, nextId("sb-1"));
  await mkdir(beside);
  const left = await spawnProcess({ command: "sleep", args: ["60"], cwd: beside, log: join(root, "log") });
  t.after(() => left.kill());
  await machine.destroy();
  assert.deepEqual([await isAlive(left.record), await exists(beside)], [false, false]);
});
