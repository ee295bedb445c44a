import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Launched } from "../src/launcher/launcher.ts";
import type { Pool } from "../src/launcher/pool.ts";
import type { Target } from "../src/launcher/target.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { Vmm } from "../src/vmm/vmm.ts";
import { assets, whyNotLinux } from "./firecracker-support.ts";
import { Bench, sh } from "./launcher-support.ts";

/** @param callers at once, of which a fifth finds a warm machine */
function warmMachines(vmm: () => Vmm, callers: number, clockMs: number): void {
  let bench: Bench;
  let pool: Pool;
  let target: Target;
  const stock = callers / 5;
  before(async () => {
    bench = await Bench.create(vmm(), { adaptive: false, maxIdle: 2, parallel: 2 });
    pool = bench.launcher.pool as Pool;
    target = await bench.golden();
  });
  after(() => bench[Symbol.asyncDispose]());

  const status = () => pool.status().find(({ target: { key } }) => key === target.key);
  /** Waits for so many warm machines and an end of refilling. On a busy host one may take longer than it may, and is tried again in half a minute. */
  const kept = async (warm: number): Promise<void> => {
    let why = "";
    const failed = ({ reason = "" }: { reason?: string }) => {
      why = reason;
    };
    bench.launcher.events.on("pool.failed", failed);
    try {
      pool.pin(target.key, target, warm);
      const until = performance.now() + 240_000;
      for (;;) {
        await pool.settled();
        if (status()?.warm === warm && status()?.idle === Math.min(2, warm)) return;
        assert.ok(performance.now() < until, `${status()?.warm} warm and ${status()?.idle} idle of ${warm}: ${why}`);
        await sleep(100);
      }
    } finally {
      bench.launcher.events.off("pool.failed", failed);
    }
  };

  test("a pinned shape is filled, and a claim is warm and an individual", async () => {
    await kept(2);
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
    assert.ok(Math.abs(Date.now() - nowMs) < clockMs);
    for (const clone of [one, two]) await bench.remove(clone);
  });

  test("behind the warm ones stand idle VMMs", async () => {
    await kept(1);
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
    await kept(1);
    const { processesIn } = await import("../src/host/process.ts");
    const replaced = once(bench.launcher.events, "pool.replaced");
    // The machines' processes alone do not keep this one waiting.
    const given = new AbortController();
    const late = sleep(120_000, "late", { signal: given.signal }).catch(() => "in time");
    // Warm and idle ones alike: whatever waits.
    for (const pid of await processesIn(bench.paths.sandboxes)) process.kill(pid, "SIGKILL");
    assert.notEqual(await Promise.race([replaced, late]), "late");
    given.abort();
    await kept(1);
    const clone = await bench.launch();
    assert.equal(clone.boot.path, "warm");
    await bench.remove(clone);
  });

  test(`${callers} callers at once share a pool of ${stock}: all served, none twice`, async () => {
    await kept(stock);
    const clones: Launched[] = await Promise.all(Array.from({ length: callers }, () => bench.launch()));
    assert.equal(clones.filter(({ boot }) => boot.path === "warm").length, stock);
    assert.ok(clones.every(({ boot }) => boot.path !== "cold"));
    assert.equal(new Set(clones.map(({ machine }) => machine.record.pid)).size, callers);
    const names = await Promise.all(clones.map((clone) => sh(clone, "cat /etc/machine-id")));
    assert.equal(new Set(names).size, callers);
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  test("a closed pool leaves no process", async () => {
    await pool.close();
    const { processesIn } = await import("../src/host/process.ts");
    assert.deepEqual(await processesIn(bench.paths.sandboxes), []);
  });
}

describe("warm machines under the real QEMU", () => warmMachines(() => createQemu(), 50, 1_000));

describe(
  "warm machines under the real Firecracker, with Linux",
  { skip: (await whyNotLinux({ long: true })) ?? false },
  () => warmMachines(() => createFirecracker({ assets }), 10, 5_000),
);
