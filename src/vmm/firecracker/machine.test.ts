import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { Undoing } from "../undoing.ts";
import { faultError } from "./faults.ts";
import type { NO_HYPERCALLS } from "./hypercalls.ts";
import { BootableFirecracker, type Life, PausedFirecracker, RunningFirecracker } from "./machine.ts";
import { GROUND } from "./memory-file.ts";
import type { FirecrackerProcess } from "./process.ts";
import { versionTraits } from "./versions.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "firecracker-machine-"));
});
after(() => rm(dir, { recursive: true, force: true }));

interface Conditions {
  /** Requests for a sentinel that the guest ignores, at first. */
  silent?: number;
  /** Its agent takes none. */
  refuses?: boolean;
  version?: string;
  tracking?: boolean;
  /** What comes of each save, one after the other; then they succeed. */
  saves?: StacyError[];
  /** What each change of its state fails with, one after the other, and whether it is carried out all the same; then they succeed. */
  changes?: [StacyError, "done" | "lost"][];
  /** Saves wait for it. */
  mayBeSaved?: Promise<void>;
}

/** A guest that takes sentinels; each save notes how many it has. */
async function machine(options: Conditions = {}) {
  const open = new Set<Socket>();
  const atSaves: number[] = [];
  /** The host's ends. */
  const dialed: Socket[] = [];
  const said: string[] = [];
  const kinds: string[] = [];
  const failures = [...(options.saves ?? [])];
  const changes = [...(options.changes ?? [])];
  let asked = 0;
  let runs = true;
  const guest = createServer((socket) => {
    open.add(socket.on("close", () => open.delete(socket)).on("error", () => {}));
    socket.unref().write("\x01");
  });
  await new Promise<void>((done) => guest.listen(join(dir, `${crypto.randomUUID().slice(0, 8)}.sock`), done));
  // A test that fails closes nothing.
  guest.unref();
  const process = {
    dir,
    workDir: dir,
    record: { pid: 0 },
    undoing: new Undoing(),
    dialSentinel: async (limitMs: number) => {
      asked += 1;
      if (options.refuses === true) return undefined;
      if (asked <= (options.silent ?? 0)) {
        // As Firecracker does with a request that a busy guest leaves without an answer.
        await new Promise((done) => setTimeout(done, Math.min(1_100, limitMs)));
        return undefined;
      }
      const socket = connect(guest.address() as string).on("error", () => {});
      await new Promise((done) => socket.once("connect", done));
      dialed.push(socket);
      return socket;
    },
    api: {
      patch: async (_path: string, { state }: { state: string }) => {
        said.push(state);
        const [failure, what] = changes.shift() ?? [];
        if (what !== "lost") runs = state === "Resumed";
        if (failure !== undefined) throw failure;
      },
      get: async () => ({ state: runs ? "Running" : "Paused" }),
      put: async (_path: string, body: { snapshot_type: string; snapshot_path: string; mem_file_path: string }) => {
        await options.mayBeSaved;
        atSaves.push(open.size);
        kinds.push(body.snapshot_type);
        said.push("save");
        const failure = failures.shift();
        if (failure !== undefined) throw failure;
        for (const name of [body.snapshot_path, body.mem_file_path]) await writeFile(join(dir, name), "x");
      },
    },
  } as unknown as FirecrackerProcess;
  const config = { memoryMiB: 128, initramfs: "/initramfs" };
  const { version = "1.12.1", tracking = false } = options;
  const life = { traits: versionTraits(version), config, tracking, ground: "unknown" } as unknown as Life;
  /** The reset that a save sends takes every connection away. */
  const reset = async (): Promise<void> => {
    for (const socket of open) socket.destroy();
    while (open.size > 0) await new Promise((done) => setTimeout(done, 1));
  };
  const close = (): void => {
    life.sentinel?.close();
    guest.close();
  };
  const running = new RunningFirecracker(process, life);
  return { process, running, open, dialed, said, kinds, atSaves, reset, life, close };
}

const FULL = new StacyError("no-space", "the disk is full");

test("a machine that was saved, goes on and is paused for another reason has a new sentinel in its next save", async () => {
  const { running, said, atSaves, reset, close } = await machine();
  const first = await running.pause({ toSave: true });
  await first.save(dir);
  const goesOn = (await first.resume()) as RunningFirecracker;
  await reset();
  await (await goesOn.pause()).save(dir);
  assert.deepEqual(atSaves, [1, 1], "each save has one sentinel");
  assert.deepEqual(said, ["Paused", "save", "Resumed", "Paused", "Resumed", "Paused", "save"]);
  close();
});

test("a guest that is too busy to answer at once is asked again, and saved with its sentinel", async () => {
  const { running, atSaves, close } = await machine({ silent: 2 });
  await (await running.pause({ toSave: true })).save(dir);
  assert.deepEqual(atSaves, [1]);
  close();
});

test("a golden machine that takes no sentinel is not saved, where the machines that are loaded from it need one", async () => {
  for (const [version, golden, saves] of [
    ["1.12.1", true, false],
    ["1.12.1", false, true],
    ["1.16.1", true, true],
  ] as const) {
    const { running, said, life, close } = await machine({ version, refuses: true });
    life.golden = golden;
    const saving = (await running.pause({ toSave: true })).save(dir);
    if (saves) await saving;
    else await assert.rejects(saving, { code: "timeout", phase: "save", message: /did not take the connection/ });
    assert.equal(said.includes("save"), saves, `${version} ${golden}`);
    close();
  }
});

test("the bare guest needs no sentinel: its golden machine is saved whatever it was paused for", async () => {
  const { process, said, dialed, life, close } = await machine({ refuses: true });
  const { initramfs: _, ...config } = life.config;
  await (await new RunningFirecracker(process, { ...life, config, golden: true }).pause()).save(dir);
  assert.deepEqual([said, dialed], [["Paused", "save"], []]);
  close();
});

test("a save that fails once it has begun has sent the reset: the sentinel is left to it", async () => {
  for (const saves of [[FULL], [new StacyError("timeout", "no answer")], [new StacyError("corrupt", "EIO")]]) {
    const { running, dialed, close } = await machine({ saves });
    const paused = await running.pause({ toSave: true });
    await assert.rejects(paused.save(dir));
    await paused.resume();
    assert.equal(dialed[0]?.destroyed, false, String(saves[0]));
    close();
  }
});

test("without a reset nothing waits for one: no save, or one that was refused before it began", async () => {
  for (const saves of [
    undefined,
    [faultError("Diff snapshots are not allowed on uVMs with dirty page tracking disabled.", "save")],
  ]) {
    const { running, open, close } = await machine({ ...(saves === undefined ? {} : { saves }) });
    const paused = await running.pause({ toSave: true });
    if (saves !== undefined) await assert.rejects(paused.save(dir), { code: "not-supported" });
    const [sentinel] = open;
    const closed = new Promise((done) => sentinel?.once("close", done));
    await paused.resume();
    await closed;
    close();
  }
});

test("a sentinel that is opened right after a save waits until the reset of that one has come", async () => {
  const { running, open, atSaves, close } = await machine({ saves: [FULL] });
  const paused = await running.pause({ toSave: true });
  await assert.rejects(paused.save(dir));
  const [first] = open;
  const goesOn = await paused.resume();
  // The guest's kernel has nothing to say by itself; it answers what comes on a connection that it has reset.
  let [asked, together] = [0, 0];
  first?.on("data", () => {
    asked += 1;
    together = Math.max(together, open.size);
    if (asked === 3) first.destroy();
  });
  const closed = new Promise((done) => first?.once("close", done));
  await (await goesOn.pause({ toSave: true })).save(dir);
  await closed;
  assert.deepEqual([asked, together], [3, 1], "no new one until then");
  assert.deepEqual(atSaves, [1, 1]);
  close();
});

test("what another daemon left may be about to lose its connections: its agent is asked behind a sentinel, which ends by itself", async () => {
  const running = await machine();
  await RunningFirecracker.adopted(running.process, running.life);
  assert.equal(running.dialed[0]?.destroyed, false);
  const paused = await machine();
  await new PausedFirecracker(paused.process, paused.life, { ready: false, reset: "unknown" }).resume();
  assert.equal(paused.dialed[0]?.destroyed, false);
  assert.deepEqual(paused.said, ["Resumed"]);
  for (const { dialed, open, close } of [paused, running]) {
    assert.equal(dialed.length, 1);
    for (const socket of open) await new Promise((done) => socket.once("close", done));
    close();
  }
});

test("where data is held back, and under the bare guest, a machine that another daemon left gets no sentinel", async () => {
  for (const [version, initramfs] of [
    ["1.16.1", "/initramfs"],
    ["1.12.1", undefined],
  ] as const) {
    const { process, life, dialed, close } = await machine({ version });
    const { initramfs: _, ...bare } = life.config;
    await RunningFirecracker.adopted(process, { ...life, config: initramfs === undefined ? bare : life.config });
    assert.deepEqual(dialed, [], version);
    close();
  }
});

test("under 1.16.1 a machine goes on after a save that failed, without another one", async () => {
  const { running, said, close } = await machine({ version: "1.16.1", saves: [FULL] });
  const paused = await running.pause({ toSave: true });
  await assert.rejects(paused.save(dir), { code: "no-space" });
  await paused.resume();
  assert.deepEqual(said, ["Paused", "save", "Resumed"]);
  close();
});

test("under 1.16.1 a pause ends on a full disk too: what its save writes is the least, and thrown away", async () => {
  for (const tracking of [true, false]) {
    const { running, said, kinds, close } = await machine({ version: "1.16.1", tracking, saves: [FULL] });
    await (await running.pause()).resume();
    assert.deepEqual([said, kinds], [["Paused", "save", "Resumed"], ["Diff"]]);
    close();
  }
  const refused = await machine({ version: "1.16.1", saves: [new StacyError("not-supported", "no")] });
  await assert.rejects((await refused.running.pause()).resume(), { code: "not-supported" });
  assert.deepEqual(refused.said, ["Paused", "save"], "it would lose its guest");
  refused.close();
});

const LATE = new StacyError("timeout", "it did not answer");
const CUT = new StacyError("machine-exited", "Firecracker closed its API connection");

test("what follows a pause that was not answered waits until that is undone, and is a whole save where the undoing was one", async () => {
  const gate = Promise.withResolvers<void>();
  const conditions: Conditions = { version: "1.16.1", tracking: true, changes: [[LATE, "done"]] };
  conditions.mayBeSaved = gate.promise;
  const { running, said, kinds, life, open, close } = await machine(conditions);
  await writeFile(join(dir, GROUND), "what it was loaded from");
  life.ground = "own";
  await running.prepareSave();
  await assert.rejects(running.pause({ toSave: true }), { code: "timeout" });
  // Its caller tries it again at once.
  let prepared = false;
  const again = running.prepareSave().then(() => {
    prepared = true;
    return running.pause({ toSave: true });
  });
  for (let turn = 0; turn < 10_000 && !prepared; turn++) await new Promise((next) => setImmediate(next));
  assert.equal(prepared, false);
  gate.resolve();
  const paused = await again;
  assert.equal(open.size > 0, true, "the undoing does not end the sentinel of what comes after it");
  await paused.save(dir);
  assert.deepEqual(said, ["Paused", "save", "Resumed", "Paused", "save"]);
  assert.deepEqual(kinds, ["Diff", "Full"]);
  close();
});

test("a guest that may have been stopped is let go on until its monitor says that it runs", async () => {
  for (const failure of [LATE, CUT]) {
    const { running, said, close } = await machine({
      changes: [
        [failure, "done"],
        [LATE, "lost"],
        [CUT, "lost"],
        [LATE, "done"],
      ],
    });
    await assert.rejects(running.pause(), { code: failure.code });
    await running.pause();
    assert.deepEqual(said, ["Paused", "Resumed", "Resumed", "Resumed", "Paused"]);
    close();
  }
});

test("a guest that was not stopped by a pause without an answer goes on as it is, and so does one whose pause was refused", async () => {
  for (const change of [
    [LATE, "lost"],
    [new StacyError("internal", "Firecracker refused"), "lost"],
  ] as const) {
    const { running, said, close } = await machine({ version: "1.16.1", changes: [[...change]] });
    await assert.rejects(running.pause(), { code: change[0].code });
    await running.pause();
    assert.deepEqual(said, ["Paused", "Paused"]);
    close();
  }
});

test("a Linux guest of several processors is offered no hypercalls where KVM interprets its kernel; all others are told nothing", async () => {
  for (const [interpreted, vcpus, initramfs, told] of [
    [true, 2, "/initramfs", ["0b0x0x0x0xxxxxxx"]],
    [true, 1, "/initramfs", []],
    [true, 2, undefined, []],
    [false, 2, "/initramfs", []],
  ] as const) {
    const bitmaps: string[] = [];
    const put = async (path: string, body: typeof NO_HYPERCALLS): Promise<void> => {
      if (path !== "/cpu-config") return;
      for (const { leaf, modifiers } of body.cpuid_modifiers) {
        assert.equal(leaf, "0x40000001");
        bitmaps.push(...modifiers.map(({ bitmap }) => bitmap));
      }
    };
    const process = {
      dir,
      record: { pid: 0 },
      confine() {},
      limitFiles: async () => {},
      api: { put },
    } as unknown as FirecrackerProcess;
    const config = { vcpus, memoryMiB: 128, kernel: "/kernel", ...(initramfs === undefined ? {} : { initramfs }) };
    const life = { traits: versionTraits("1.12.1"), config, tracking: true, ground: "nothing", interpreted } as const;
    await new BootableFirecracker(process, life).boot();
    assert.deepEqual(bitmaps, told);
  }
});
