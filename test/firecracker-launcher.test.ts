import assert from "node:assert/strict";
import { chmod, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { dataPaths } from "../src/host/paths.ts";
import { mapSparse } from "../src/host/sparse-map.ts";
import type { Launched } from "../src/launcher/launcher.ts";
import type { Pool } from "../src/launcher/pool.ts";
import type { LaunchSpec } from "../src/launcher/target.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { flip } from "./damage.ts";
import { whyNot } from "./firecracker-support.ts";
import { Bench } from "./launcher-support.ts";

const SPEC = { image: "stacyvm/bare", memoryMiB: 128, diskMiB: 64 };
const WHOLE: LaunchSpec = { ...SPEC, vcpus: 1, setup: [], setupEnv: {} };

/** One of the bare guest's commands. */
async function run(launched: Launched, ...argv: string[]): Promise<string> {
  const { exitCode, stdout } = await launched.agent.exec({ argv });
  assert.equal(exitCode, 0, argv.join(" "));
  return stdout.toString("utf8");
}

describe("the launcher over the real Firecracker, with the bare guest", { skip: (await whyNot()) ?? false }, () => {
  let bench: Bench;
  before(async () => {
    bench = await Bench.create(createFirecracker({ assets: dataPaths().assets }), { adaptive: false, maxIdle: 2 });
    await bench.remove(await bench.launch(SPEC, { mode: "restore" }));
  });
  after(() => bench[Symbol.asyncDispose]());

  test("32 clones at once are individuals", async () => {
    const clones = await Promise.all(Array.from({ length: 32 }, () => bench.launch(SPEC)));
    assert.ok(clones.every(({ boot }) => boot.path === "restored"));
    const identities = await Promise.all(clones.map((clone) => run(clone, "cat", "identity")));
    assert.equal(new Set(identities).size, 32);
    for (const [i, clone] of clones.entries()) assert.ok(identities[i]?.includes(clone.identity.hostname));
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  for (const name of ["vmstate.bin", "memory.bin", "rootfs.ext4"]) {
    for (const [what, damage] of [
      ["flipped", flip],
      ["short", (path: string) => truncate(path, 100)],
      ["missing", (path: string) => rm(path)],
    ] as const) {
      test(`a ${what} ${name} is found before a user sees it, and ends in a working sandbox`, async () => {
        const good = await bench.launch(SPEC, { mode: "restore" });
        const path = join(bench.launcher.store.path(good.boot.key), name);
        await bench.remove(good);
        await chmod(path, 0o644);
        await damage(path);
        const clone = await bench.launch(SPEC);
        assert.equal(clone.boot.path, "cold");
        assert.match(clone.boot.fallback ?? "", /damaged/);
        assert.equal(await run(clone, "echo", "fine"), "fine\n");
        await bench.remove(clone);
        await bench.launcher.settle();
      });
    }
  }

  test("a state of another version, checksum and all, fails in the load: set aside, told, and a working sandbox", async () => {
    const good = await bench.launch(SPEC, { mode: "restore" });
    const { key } = good.boot;
    await bench.remove(good);
    const dir = bench.launcher.store.path(key);
    await chmod(join(dir, "manifest.json"), 0o644);
    await flip(join(dir, "vmstate.bin"), 8);
    const manifest = JSON.parse(await readFile(join(dir, "manifest.json"), "utf8"));
    manifest.files["vmstate.bin"] = await mapSparse(join(dir, "vmstate.bin"));
    await writeFile(join(dir, "manifest.json"), JSON.stringify(manifest));
    const told: string[] = [];
    bench.launcher.events.once("restore.failed", ({ id, phase }) => told.push(`${id} failed in ${phase}`));
    bench.launcher.events.once("snapshot.rejected", ({ key: which }) => told.push(`${which} rejected`));
    const clone = await bench.launch(SPEC);
    assert.equal(clone.boot.path, "cold");
    assert.match(clone.boot.fallback ?? "", /vmstate\.bin/);
    assert.deepEqual(told.sort(), [`${key} rejected`, `${basename(clone.dir)} failed in load`].sort());
    assert.equal(await run(clone, "echo", "fine"), "fine\n");
    await bench.remove(clone);
    await bench.launcher.settle();
    const next = await bench.launch(SPEC);
    assert.equal(next.boot.path, "restored");
    await bench.remove(next);
  });

  test("warm and idle Firecrackers serve before a restore", async () => {
    const target = await bench.launcher.targets.resolve(WHOLE);
    await bench.launcher.ensureGolden(target);
    bench.launcher.pool?.pin(target.key, target, 1);
    await bench.launcher.pool?.settled();
    // At once: between calls one after another the pool would refill.
    const clones = await Promise.all([bench.launch(SPEC), bench.launch(SPEC), bench.launch(SPEC)]);
    assert.deepEqual(clones.map(({ boot }) => (boot.idle ? "idle" : boot.path)).sort(), ["idle", "restored", "warm"]);
    const identities = await Promise.all(clones.map((clone) => run(clone, "cat", "identity")));
    assert.equal(new Set(identities).size, 3);
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  test("no two of 200 warm claims share anything of an identity", async () => {
    const pool = bench.launcher.pool as Pool;
    const target = await bench.launcher.targets.resolve(WHOLE);
    /** Values by field, as the guests themselves tell what they were given. */
    const seen = new Map<string, Set<string>>();
    const processes = new Set<number>();
    for (let round = 0; round < 20; round++) {
      pool.pin(target.key, target, 10);
      await pool.settled();
      const clones = await Promise.all(Array.from({ length: 10 }, () => bench.launch(SPEC)));
      assert.ok(clones.every(({ boot }) => boot.path === "warm"));
      for (const clone of clones) {
        processes.add(clone.machine.record.pid);
        for (const line of (await run(clone, "cat", "identity")).trim().split("\n")) {
          const [field = "", value = ""] = line.split("=");
          seen.set(field, (seen.get(field) ?? new Set()).add(value));
        }
      }
      await Promise.all(clones.map((clone) => bench.remove(clone)));
    }
    pool.pin(target.key, target, 0);
    assert.equal(processes.size, 200);
    for (const field of ["sandbox_id", "hostname", "machine_id", "boot_id", "entropy"]) {
      assert.equal(seen.get(field)?.size, 200, field);
    }
  });

  test("with nothing ready of its shape, a Firecracker that was idle and of no shape loads it", async () => {
    const idle = await bench.waiting();
    const clone = await bench.launch(SPEC);
    assert.deepEqual([clone.boot.path, clone.boot.idle], ["restored", undefined]);
    assert.ok(idle.includes(clone.machine.record.pid), `${clone.machine.record.pid} is none of ${idle}`);
    await bench.remove(clone);
  });

  test("kill -9 of a Firecracker is noticed at once", async () => {
    const clone = await bench.launch(SPEC);
    process.kill(clone.machine.record.pid, "SIGKILL");
    assert.equal((await clone.machine.exited).signal, "SIGKILL");
    await bench.remove(clone);
  });
});
