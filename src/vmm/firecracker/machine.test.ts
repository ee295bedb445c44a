import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { NO_HYPERCALLS } from "./hypercalls.ts";
import { BootableFirecracker, type Life, RunningFirecracker } from "./machine.ts";
import type { FirecrackerProcess } from "./process.ts";
import { versionTraits } from "./versions.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "firecracker-machine-"));
});
after(() => rm(dir, { recursive: true, force: true }));

/** A guest that takes sentinels, after it has ignored the first `silent` requests; each save notes how many it has. */
async function machine(options: { silent?: number } = {}) {
  const open = new Set<Socket>();
  const atSaves: number[] = [];
  const said: string[] = [];
  let asked = 0;
  const guest = createServer((socket) => {
    open.add(socket.on("close", () => open.delete(socket)).on("error", () => {}));
    socket.write("\x01");
  });
  await new Promise<void>((done) => guest.listen(join(dir, `${crypto.randomUUID().slice(0, 8)}.sock`), done));
  // A test that fails closes nothing.
  guest.unref();
  const process = {
    dir,
    workDir: dir,
    record: { pid: 0 },
    dialSentinel: async (limitMs: number) => {
      asked += 1;
      if (asked <= (options.silent ?? 0)) {
        // As Firecracker does with a request that a busy guest leaves without an answer.
        await new Promise((done) => setTimeout(done, Math.min(1_100, limitMs)));
        return undefined;
      }
      const socket = connect(guest.address() as string);
      await new Promise((done) => socket.once("connect", done));
      return socket;
    },
    api: {
      patch: async (_path: string, { state }: { state: string }) => void said.push(state),
      put: async (_path: string, body: { snapshot_path: string; mem_file_path: string }) => {
        atSaves.push(open.size);
        said.push("save");
        for (const name of [body.snapshot_path, body.mem_file_path]) await writeFile(join(dir, name), "x");
      },
    },
  } as unknown as FirecrackerProcess;
  const config = { memoryMiB: 128, initramfs: "/initramfs" };
  const life = { traits: versionTraits("1.12.1"), config, tracking: false, ground: "unknown" } as unknown as Life;
  /** The reset that a save sends takes every connection away. */
  const reset = async (): Promise<void> => {
    for (const socket of open) socket.destroy();
    while (open.size > 0) await new Promise((done) => setTimeout(done, 1));
  };
  return { running: new RunningFirecracker(process, life), said, atSaves, reset, life, close: () => guest.close() };
}

test("a machine that was saved, goes on and is paused for another reason has a new sentinel in its next save", async () => {
  const { running, said, atSaves, reset, life, close } = await machine();
  const first = await running.pause({ toSave: true });
  await first.save(dir);
  const goesOn = (await first.resume()) as RunningFirecracker;
  await reset();
  await (await goesOn.pause()).save(dir);
  assert.deepEqual(atSaves, [1, 1], "each save has one sentinel");
  assert.deepEqual(said, ["Paused", "save", "Resumed", "Paused", "Resumed", "Paused", "save"]);
  life.sentinel?.close();
  close();
});

test("a guest that is too busy to answer at once is asked again, and saved with its sentinel", async () => {
  const { running, atSaves, life, close } = await machine({ silent: 2 });
  await (await running.pause({ toSave: true })).save(dir);
  assert.deepEqual(atSaves, [1]);
  life.sentinel?.close();
  close();
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
    const process = { dir, record: { pid: 0 }, confine() {}, api: { put } } as unknown as FirecrackerProcess;
    const config = { vcpus, memoryMiB: 128, kernel: "/kernel", ...(initramfs === undefined ? {} : { initramfs }) };
    const life = { traits: versionTraits("1.12.1"), config, tracking: true, ground: "nothing", interpreted } as const;
    await new BootableFirecracker(process, life).boot();
    assert.deepEqual(bitmaps, told);
  }
});
