import assert from "node:assert/strict";
import { chmod, readdir, rm, stat, truncate } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { createImages } from "../src/images/store.ts";
import { type Launched, Launcher } from "../src/launcher/launcher.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { flip } from "./damage.ts";
import { Bench, scratchPaths, sh } from "./launcher-support.ts";

describe("Linux sandboxes under the real QEMU", () => {
  let bench: Bench;
  let key: string;
  before(async () => {
    bench = await Bench.create();
    const first = await bench.launch({}, { mode: "restore" });
    assert.equal(first.boot.path, "restored");
    ({ key } = first.boot);
    await bench.remove(first);
  });
  after(() => bench[Symbol.asyncDispose]());

  test("ten clones at once are individuals before their first command", async () => {
    const clones = await Promise.all(Array.from({ length: 10 }, () => bench.launch()));
    const facts = await Promise.all(
      clones.map(async (clone) => {
        const guest = await clone.agent.info();
        return { guestMs: guest.nowMs, hostMs: Date.now() };
      }),
    );
    // The guest's answer travelled for a moment, so its clock may only be behind by that.
    for (const { guestMs, hostMs } of facts)
      assert.ok(Math.abs(hostMs - guestMs) < 1_000, `${hostMs - guestMs} ms apart`);
    const command =
      "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; cat /etc/machine-id; hostname; cat /proc/sys/kernel/random/uuid";
    const outputs = await Promise.all(clones.map((clone) => sh(clone, command)));
    const columns = outputs.map((output) => output.split("\n").map((line) => line.trim()));
    for (const column of [0, 1, 2, 3, 4]) {
      const values = columns.map((line) => line[column] ?? "");
      assert.equal(new Set(values).size, 10, `column ${column}: ${values.join(", ")}`);
      assert.ok(values.every((value) => value.length > 3));
    }
    for (const [i, clone] of clones.entries()) assert.equal(columns[i]?.[3], clone.identity.hostname);
    for (const clone of clones) assert.equal(clone.boot.path, "restored");
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  test("the clock of a quiet clone is within 50 ms of the host's", async () => {
    const clone = await bench.launch();
    await clone.agent.info();
    const sent = Date.now();
    const { nowMs } = await clone.agent.info();
    const received = Date.now();
    // What the host's time took to reach the guest is behind it for good, and on a busy host that is more than 50 ms.
    const underway = clone.boot.phases.agent ?? 0;
    assert.ok(nowMs >= sent - 50 - underway && nowMs <= received + 50, `guest ${nowMs}, host ${sent}..${received}`);
    await bench.remove(clone);
  });

  test("a write in one clone is seen neither by another nor by the snapshot", async () => {
    const one = await bench.launch();
    const two = await bench.launch();
    await sh(one, "echo mine >/workspace/secret && sync");
    assert.equal(await sh(two, "ls /workspace | wc -l"), "0");
    const three = await bench.launch();
    assert.equal(await sh(three, "ls /workspace | wc -l"), "0");
    assert.equal(await sh(one, "cat /workspace/secret"), "mine");
    for (const clone of [one, two, three]) await bench.remove(clone);
  });

  test("vCPUs, memory and disk are what was asked", async () => {
    const clone = await bench.launch({ vcpus: 2, memoryMiB: 384, diskMiB: 512 }, { mode: "restore" });
    const { cpus, memoryTotalBytes, diskTotalBytes } = await clone.agent.info();
    assert.equal(cpus, 2);
    // The kernel keeps some for itself.
    assert.ok(memoryTotalBytes > 300 * 2 ** 20 && memoryTotalBytes <= 384 * 2 ** 20, String(memoryTotalBytes));
    assert.ok(diskTotalBytes > 450 * 2 ** 20 && diskTotalBytes <= 512 * 2 ** 20, String(diskTotalBytes));
    await bench.remove(clone);
  });

  test("environment, set-up commands and their key", async () => {
    const setup = ["echo prepared >/root/marker"];
    const clone = await bench.launch({ setup }, { mode: "restore", env: { GREETING: "hello" } });
    assert.equal(await sh(clone, "cat /root/marker; echo $GREETING"), "prepared\nhello");
    assert.notEqual(clone.boot.key, key);
    await bench.remove(clone);
  });

  test("two processes' worth of callers build one snapshot", async () => {
    const other = { memoryMiB: 320 };
    const clones = await Promise.all([1, 2, 3].map(() => bench.launch(other, { mode: "restore" })));
    assert.equal(new Set(clones.map((clone) => clone.boot.key)).size, 1);
    assert.ok(clones.every((clone) => clone.boot.path === "restored"));
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  for (const [what, damage] of [
    ["a flipped byte in vmstate.bin", (dir: string) => flip(join(dir, "vmstate.bin"))],
    ["a flipped byte in memory.bin", (dir: string) => flip(join(dir, "memory.bin"))],
    ["a flipped byte in rootfs.ext4", (dir: string) => flip(join(dir, "rootfs.ext4"))],
    ["a truncated memory.bin", (dir: string) => cut(join(dir, "memory.bin"))],
    ["a truncated vmstate.bin", (dir: string) => cut(join(dir, "vmstate.bin"))],
  ] as const) {
    test(`${what} is found before a user sees it, and the sandbox boots cold`, async () => {
      const warm = await bench.launch({}, { mode: "restore" });
      await bench.remove(warm);
      await damage(bench.launcher.store.path(key));
      const clone = await bench.launch();
      assert.equal(clone.boot.path, "cold");
      assert.match(clone.boot.fallback ?? "", /damaged/);
      // It was greeted when its kernel began to boot, seconds ago.
      const behind = Date.now() - (await clone.agent.info()).nowMs;
      assert.ok(Math.abs(behind) < 1_000, `its clock is ${behind} ms behind`);
      assert.equal(await sh(clone, "echo fine"), "fine");
      await bench.remove(clone);
      await bench.launcher.settle();
      const next = await bench.launch();
      assert.equal(next.boot.path, "restored");
      await bench.remove(next);
    });
  }

  test("QEMU killed while it runs is noticed at once, with the reason", async () => {
    const clone = await bench.launch();
    process.kill(clone.machine.record.pid, "SIGKILL");
    const report = await clone.machine.exited;
    assert.equal(report.reason, "crash");
    assert.equal(report.signal, "SIGKILL");
    await bench.remove(clone);
  });

  test("QEMU killed during a cold boot is a typed error, and nothing stays", async () => {
    const before = await readdir(bench.paths.sandboxes);
    const launching = bench.launch({}, { mode: "cold" });
    launching.catch(() => {});
    let dir: string | undefined;
    while (dir === undefined) dir = (await readdir(bench.paths.sandboxes)).find((name) => !before.includes(name));
    const pid = await pidIn(join(bench.paths.sandboxes, dir));
    process.kill(pid, "SIGKILL");
    await assert.rejects(launching, { code: "machine-exited" });
    assert.deepEqual(await readdir(bench.paths.sandboxes), before);
  });

  test("QEMU killed while the golden snapshot is built is a typed error, nothing stays, and the next build works", async () => {
    const spec = { memoryMiB: 192 };
    const launching = bench.launch(spec, { mode: "restore" });
    launching.catch(() => {});
    let dir: string | undefined;
    while (dir === undefined) dir = (await names(bench.paths.tmp)).find((name) => name.startsWith("golden-"));
    process.kill(await pidIn(join(bench.paths.tmp, dir)), "SIGKILL");
    await assert.rejects(launching, { code: "machine-exited" });
    assert.deepEqual(await names(bench.paths.tmp), []);
    const clone = await bench.launch(spec, { mode: "restore" });
    assert.equal(clone.boot.path, "restored");
    await bench.remove(clone);
  });

  test("QEMU killed while it restores: the sandbox boots cold, and says why; only a second one in a row speaks against the snapshot", async (t) => {
    await bench.remove(await bench.launch({}, { mode: "restore" }));
    const rejected: string[] = [];
    const onRejected = ({ reason }: { reason: string }): void => void rejected.push(reason);
    bench.launcher.events.on("snapshot.rejected", onRejected);
    const { vmm } = bench.launcher;
    const prepareLoad = vmm.prepareLoad.bind(vmm);
    t.mock.method(vmm, "prepareLoad", async (options: Parameters<typeof prepareLoad>[0]) => {
      const idle = await prepareLoad(options);
      const load = idle.load.bind(idle);
      t.mock.method(idle, "load", (source: Parameters<typeof load>[0]) => {
        process.kill(idle.record.pid, "SIGKILL");
        return load(source);
      });
      return idle;
    });
    for (const blamed of [0, 1]) {
      const clone = await bench.launch();
      assert.equal(clone.boot.path, "cold");
      assert.match(clone.boot.fallback ?? "", /^load: QEMU ended while .* \(SIGKILL\)/);
      assert.equal(await sh(clone, "echo fine"), "fine");
      await bench.remove(clone);
      assert.equal(rejected.length, blamed);
    }
    bench.launcher.events.off("snapshot.rejected", onRejected);
    await bench.launcher.settle();
  });

  test("impossible sizes and unknown images are refused with a remedy", async () => {
    await assert.rejects(bench.launch({ memoryMiB: 1 }), { code: "invalid" });
    await assert.rejects(bench.launch({ vcpus: 99 }), { code: "invalid" });
    await assert.rejects(bench.launch({ diskMiB: 0 }), { code: "invalid" });
    await assert.rejects(bench.launch({ image: "stacyvm/nothing" }));
    await assert.rejects(bench.launch({}, { id: "../escape" }), { code: "invalid" });
  });

  test("a guest that panics gives its console's last lines", async () => {
    const target = await bench.launcher.targets.resolve({
      image: "stacyvm/busybox",
      vcpus: 1,
      memoryMiB: 256,
      diskMiB: 256,
      setup: [],
      setupEnv: {},
    });
    const { initramfs: _removed, ...config } = target.config;
    const { bootCold } = await import("../src/launcher/launch.ts");
    const { WritableTemplates } = await import("../src/launcher/writable-templates.ts");
    const { Phases } = await import("../src/host/phases.ts");
    const disk = await new WritableTemplates(bench.paths.assets).get(256);
    const dir = join(bench.paths.sandboxes, "sb-panic");
    await assert.rejects(
      bootCold(bench.launcher.vmm, { ...target, config }, disk, { dir }, undefined, new Phases()),
      (error: Error) => {
        assert.match(error.message, /panic/i);
        return true;
      },
    );
    assert.ok(!(await readdir(bench.paths.sandboxes)).includes("sb-panic"));
  });
});

test("a start command that is never ready holds up no other snapshot of its owner", async () => {
  await using bench = await Bench.create();
  const { targets } = bench.launcher;
  const gone = new AbortController();
  const spec = { image: "stacyvm/busybox", vcpus: 1, memoryMiB: 256, diskMiB: 256, setup: [], setupEnv: {} };
  let ended = 0;
  // As many as one owner has places (golden.ts).
  const places = Math.ceil(Math.max(2, Math.floor(availableParallelism() / 2)) / 2);
  const waits = Array.from({ length: places }, async (_, i) => {
    const start = { command: "sleep 1000", ready: "false", env: { N: String(i) } };
    const target = await targets.resolve({ ...spec, start });
    await bench.launcher.ensureGolden(target, gone.signal).finally(() => {
      ended += 1;
    });
  });
  const all = Promise.allSettled(waits);
  while (bench.launcher.golden.building.size < places) await new Promise((wake) => setTimeout(wake, 20));
  await bench.golden();
  assert.equal(ended, 0);
  gone.abort(new Error("enough"));
  for (const { reason } of (await all) as PromiseRejectedResult[]) assert.match(String(reason), /enough/);
});

test("a disk without room for a golden snapshot is `no-space`; a sandbox boots cold on it all the same", async (t) => {
  if (process.getuid?.() !== 0) return t.skip("mounting a small filesystem needs root");
  const paths = await scratchPaths();
  await runTool("mount", ["-t", "tmpfs", "-o", "size=80m", "tmpfs", paths.root]);
  const launcher = new Launcher({ vmm: createQemu(), images: createImages(paths), paths });
  try {
    const spec = { image: "stacyvm/busybox", vcpus: 1, memoryMiB: 256, diskMiB: 256, setup: [], setupEnv: {} };
    await assert.rejects(launcher.launch(spec, { id: "sb-full", mode: "restore" }), {
      code: "no-space",
      phase: "golden",
    });
    assert.deepEqual([await names(paths.tmp), await names(paths.snapshots)], [[], []]);
    const failed = new Promise<string>((resolve) => {
      launcher.events.once("golden.failed", ({ error }) => resolve(error.code));
    });
    const cold = await launcher.launch(spec, { id: "sb-cold" });
    assert.equal(await sh(cold, "echo fine"), "fine");
    assert.equal(await failed, "no-space");
    await cold.agent.close();
    await cold.machine.kill();
  } finally {
    await launcher.close();
    await runTool("umount", [paths.root]);
    await rm(paths.root, { recursive: true, force: true });
  }
  return undefined;
});

test("a directory deeper than a socket's path may be long works", async () => {
  const paths = await scratchPaths();
  assert.ok(Buffer.byteLength(paths.sandboxes) < 108);
  await using bench = await Bench.create();
  bench.paths.sandboxes = join(bench.paths.root, "d".repeat(120), "sandboxes");
  const clone: Launched = await bench.launch({}, { mode: "cold" });
  assert.equal(await sh(clone, "echo deep"), "deep");
});

async function cut(path: string): Promise<void> {
  await chmod(path, 0o644);
  await truncate(path, Math.floor((await stat(path)).size / 2));
}

function names(dir: string): Promise<string[]> {
  return readdir(dir).catch(() => []);
}

async function pidIn(dir: string): Promise<number> {
  for (;;) {
    const [pid] = await processesIn(dir);
    if (pid !== undefined) return pid;
  }
}
