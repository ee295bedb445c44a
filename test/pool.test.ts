import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Launched } from "../src/launcher/launcher.ts";
import type { Pool } from "../src/launcher/pool.ts";
import type { Target } from "../src/launcher/target.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { Bench, sh } from "./launcher-support.ts";

describe("warm machines under the real QEMU", () => {
  let bench: Bench;
  let pool: Pool;
  let target: Target;
  before(async () => {
    bench = await Bench.create(createQemu(), { adaptive: false, maxIdle: 2, parallel: 2 });
    pool = bench.launcher.pool as Pool;
    const spec = { image: "stacyvm/busybox", vcpus: 1, memoryMiB: 256, diskMiB: 256, setup: [], setupEnv: {} };
    target = await bench.launcher.targets.resolve(spec);
    await bench.launcher.ensureGolden(target);
  });
  after(() => bench[Symbol.asyncDispose]());

  const status = () => pool.status().find(({ target: { key } }) => key === target.key);

  test("a pinned shape is filled, and a claim is warm and an individual", async () => {
    pool.pin(target.key, target, 2);
    await pool.settled();
    assert.equal(status()?.warm, 2);
    const one = await bench.launch();
    const two = await bench.launch();
    assert.deepEqual([one.boot.path, two.boot.path], ["warm", "warm"]);
    const names = await Promise.all(
      [one, two].map((clone) => sh(clone, "hostname; cat /etc/machine-id; head -c 8 /dev/urandom | od -An -tx1")),
    );
    const [a = [], b = []] = names.map((text) => text.split("\n"));
    assert.equal(a[0], one.identity.hostname);
    assert.equal(b[0], two.identity.hostname);
    for (const row of [1, 2]) assert.notEqual(a[row], b[row]);
    const { nowMs } = await one.agent.info();
    assert.ok(Math.abs(Date.now() - nowMs) < 1_000);
    for (const clone of [one, two]) await bench.remove(clone);
  });

  test("behind the warm ones stand idle VMMs", async () => {
    pool.pin(target.key, target, 1);
    await pool.settled();
    assert.deepEqual([status()?.warm, status()?.idle], [1, 1]);
    // At once: between calls one after another the pool would refill.
    const clones = await Promise.all([bench.launch(), bench.launch(), bench.launch()]);
    assert.deepEqual(clones.map(({ boot }) => (boot.idle ? "idle" : boot.path)).sort(), ["idle", "restored", "warm"]);
    for (const clone of clones) {
      assert.equal(await sh(clone, "hostname"), clone.identity.hostname);
      await bench.remove(clone);
    }
  });

  test("a warm machine that is killed is replaced unseen", async () => {
    pool.pin(target.key, target, 1);
    await pool.settled();
    const { processesIn } = await import("../src/host/process.ts");
    const replaced = new Promise((resolve) => bench.launcher.events.once("pool.replaced", resolve));
    // Warm and idle ones alike: whatever waits.
    for (const pid of await processesIn(bench.paths.sandboxes)) process.kill(pid, "SIGKILL");
    await replaced;
    await pool.settled();
    assert.equal(status()?.warm, 1);
    const clone = await bench.launch();
    assert.equal(clone.boot.path, "warm");
    await bench.remove(clone);
  });

  test("50 callers at once share a pool of 10: all served, none twice", async () => {
    pool.pin(target.key, target, 10);
    await pool.settled();
    const clones: Launched[] = await Promise.all(Array.from({ length: 50 }, () => bench.launch()));
    assert.equal(clones.filter(({ boot }) => boot.path === "warm").length, 10);
    assert.ok(clones.every(({ boot }) => boot.path !== "cold"));
    assert.equal(new Set(clones.map(({ machine }) => machine.record.pid)).size, 50);
    const names = await Promise.all(clones.map((clone) => sh(clone, "cat /etc/machine-id")));
    assert.equal(new Set(names).size, 50);
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  test("an emptied shelf leaves no process", async () => {
    await pool.empty(target.key);
    await pool.settled();
    const { processesIn } = await import("../src/host/process.ts");
    assert.deepEqual(await processesIn(bench.paths.sandboxes), []);
  });
});
