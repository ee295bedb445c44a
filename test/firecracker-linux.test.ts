/**
 * Linux guests under the real Firecracker, through the launcher: many at once, each an individual; commands, files and tunnels;
 * damage and fall-back; the jail. `STACYVM_LONG=1` adds 10 and 32 at once. Where KVM interprets the guest's kernel all of it is slow, and nothing here looks at a clock.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import type { Agent, Command } from "../src/guest/agent.ts";
import type { Launched } from "../src/launcher/launcher.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { flip } from "./damage.ts";
import { assets, whyNotLinux } from "./firecracker-support.ts";
import { copyGoldens } from "./goldens.ts";
import { Bench, sh } from "./launcher-support.ts";

/** 10 at once keep an interpreting KVM busy for two minutes, 32 for more than ten; firecracker-linux-restores has 10 in each run. */
const AT_ONCE = [3, ...(process.env.STACYVM_LONG === "1" ? [10, 32] : [])];

describe("Linux under the real Firecracker", { skip: (await whyNotLinux()) ?? false }, () => {
  let bench: Bench;
  const failed: string[] = [];
  before(async () => {
    bench = await Bench.create(createFirecracker({ assets }), { adaptive: false, maxBlank: 2 });
    bench.launcher.events.on("restore.failed", ({ phase, reason }) => failed.push(`${phase}: ${reason}`));
    await bench.golden();
  });
  after(() => bench[Symbol.asyncDispose]());

  test("a spawn on demand is loaded by a Firecracker that was idle before it, of no shape", async () => {
    // The first one shows that Firecracker is used here.
    await bench.remove(await bench.launch());
    const idle = await bench.waiting();
    assert.equal(idle.length, 2);
    const clone = await bench.launch();
    assert.deepEqual([clone.boot.path, clone.boot.idle], ["restored", undefined]);
    assert.ok(idle.includes(clone.machine.record.pid), `${clone.machine.record.pid} is none of ${idle}`);
    assert.equal(await sh(clone, "hostname"), clone.identity.hostname);
    await bench.remove(clone);
    assert.equal((await bench.waiting()).length, 2, "another one has taken its place");
  });

  for (const count of AT_ONCE) {
    test(`${count} clones at once are individuals, and the first command of each answers`, async () => {
      const clones = await Promise.all(Array.from({ length: count }, () => bench.launch()));
      assert.deepEqual([...new Set(clones.map(({ boot }) => boot.path))], ["restored"]);
      const told = await Promise.all(
        clones.map((clone) =>
          sh(
            clone,
            "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1",
          ),
        ),
      );
      const rows = told.map((answer) => answer.split("\n"));
      assert.deepEqual(
        rows.map(([hostname]) => hostname),
        clones.map(({ identity }) => identity.hostname),
      );
      for (const row of [0, 1, 2, 3]) assert.equal(new Set(rows.map((each) => each[row])).size, count);
      assert.deepEqual(failed, []);
      await Promise.all(clones.map((clone) => bench.remove(clone)));
    });
  }

  test("what the shape says is there: kernel, processor, memory, disk, base, clock", async () => {
    const clone = await bench.launch({ vcpus: 1 });
    const facts = await sh(
      clone,
      "uname -s; grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo | tr -dc 0-9; echo; df -m / | tail -1 | tr -s ' ' | cut -d' ' -f2; date +%s",
    );
    const [system, processors, kib = "", diskMiB = "", seconds = ""] = facts.split("\n");
    assert.deepEqual([system, processors], ["Linux", "1"]);
    assert.ok(Number(kib) > 190 * 1024 && Number(kib) <= 256 * 1024, kib);
    assert.ok(Number(diskMiB) > 200 && Number(diskMiB) <= 256, diskMiB);
    assert.ok(Math.abs(Date.now() / 1000 - Number(seconds)) < 60, seconds);
    assert.equal(await sh(clone, "cat /sys/block/vd*/ro | sort"), "0\n1", "its own disk, and everybody's");
    // Where the kernel is interpreted it saves few registers, and programs must know: those that do not die at a task switch.
    assert.doesNotMatch(await sh(clone, "dmesg"), /segfault/);
    await bench.remove(clone);
  });

  test("commands with input, errors and signals", async () => {
    const clone = await bench.launch();
    const { agent } = clone;
    const sleeper = await agent.start({ argv: ["sleep", "1000"] });
    // Beside it.
    const echoed = await agent.exec({ argv: ["cat"], stdin: Buffer.from("in and out") });
    assert.equal(echoed.stdout.toString("utf8"), "in and out");
    const failing = await agent.exec({ argv: ["sh", "-c", "echo wrong >&2; exit 7"] });
    assert.deepEqual([failing.exitCode, failing.stderr.toString("utf8")], [7, "wrong\n"]);
    await agent.signal(sleeper.id, 15);
    assert.equal((await sleeper.exited).signal, 15);
    await bench.remove(clone);
  });

  test("files of more than a window of the channel; tunnels in both directions", async () => {
    const clone = await bench.launch();
    const { agent } = clone;
    const content = randomBytes(300_000);
    await agent.writeFile("/data", content);
    assert.ok((await agent.readFile("/data")).equals(content));
    assert.match(await sh(clone, "wc -c < /data; sync"), /300000/);
    // In: a program of the guest listens. Out: one connects to a port that we take.
    const server = await agent.start({ argv: ["sh", "-c", "echo hello from inside | nc -l -p 8080"] });
    await listening(agent, 8080, server);
    const inward = await agent.tunnel(8080);
    inward.end();
    assert.equal(await text(inward), "hello from inside\n");
    assert.equal((await server.exited).exitCode, 0);
    const waiting = agent.accept(9090);
    const client = await agent.start({ argv: ["sh", "-c", "echo out | nc 127.0.0.1 9090"] });
    const outward = await waiting;
    outward.end("bye");
    assert.equal(await text(outward), "out\n");
    assert.equal((await client.exited).exitCode, 0);
    await bench.remove(clone);
  });

  test("a jailed one is its own user, and an individual as well", async (t) => {
    if (process.getuid?.() !== 0) return t.skip("the jailer needs root");
    if (!bench.launcher.vmm.abilities.jail) return t.skip("there is no jailer beside this Firecracker");
    const clones = await Promise.all([20_001, 20_002].map((uid) => bench.launch({}, { jail: { uid, gid: uid } })));
    for (const [i, clone] of clones.entries()) {
      assert.equal(clone.boot.path, "restored");
      const status = await readFile(`/proc/${clone.machine.record.pid}/status`, "utf8");
      assert.match(status, new RegExp(`^Uid:\\t${20_001 + i}\\t`, "m"));
      assert.equal(await sh(clone, "hostname"), clone.identity.hostname);
    }
    await Promise.all(clones.map((clone) => bench.remove(clone)));
  });

  test("kill -9 of a machine is noticed, and harms no other one of the same snapshot", async () => {
    const [victim, other] = (await Promise.all([bench.launch(), bench.launch()])) as [Launched, Launched];
    process.kill(victim.machine.record.pid, "SIGKILL");
    assert.equal((await victim.machine.exited).signal, "SIGKILL");
    assert.equal(await sh(other, "echo fine"), "fine");
    await bench.remove(victim);
    await bench.remove(other);
  });

  describe("damage", () => {
    let snapshot: string;
    let kept: string;
    before(async () => {
      const good = await bench.launch();
      snapshot = bench.launcher.store.path(good.boot.key);
      kept = join(bench.paths.root, "kept");
      await bench.remove(good);
      await copyGoldens(bench.paths.snapshots, kept);
    });

    test("memory that is gone under a clone ends that clone, and only that one", async () => {
      const victim = await bench.launch();
      await truncate(join(snapshot, "memory.bin"), 0);
      const lost = assert.rejects(victim.agent.exec({ argv: ["cat", "/etc/passwd", "/proc/meminfo"] }));
      const report = await victim.machine.exited;
      await lost;
      assert.ok(report.reason === "crash" || report.reason === "guest", JSON.stringify(report));
      await bench.remove(victim);
      await rm(snapshot, { recursive: true });
      await copyGoldens(kept, bench.paths.snapshots);
      const other = await bench.launch();
      assert.deepEqual([other.boot.path, await sh(other, "echo fine")], ["restored", "fine"]);
      await bench.remove(other);
    });

    test("each file that is short, missing or changed is found before a guest runs from it", async () => {
      const { events } = bench.launcher;
      for (const name of ["vmstate.bin", "memory.bin", "rootfs.ext4"]) {
        for (const damage of [flip, (path: string) => truncate(path, 100), (path: string) => rm(path)]) {
          await damage(join(snapshot, name));
          // The cold boot that would come next is the last test's.
          const seen = new AbortController();
          const told = once(events, "restore.failed");
          events.once("restore.failed", () => seen.abort(new Error("it was found")));
          await assert.rejects(bench.launch({}, { signal: seen.signal }), /it was found/);
          const [{ reason }] = await told;
          assert.match(reason, /damaged/);
          await copyGoldens(kept, bench.paths.snapshots);
        }
      }
      const good = await bench.launch();
      assert.equal(good.boot.path, "restored");
      await bench.remove(good);
    });

    test("and it ends in a working sandbox", async () => {
      await flip(join(snapshot, "vmstate.bin"));
      const clone = await bench.launch();
      assert.equal(clone.boot.path, "cold");
      assert.match(clone.boot.fallback ?? "", /damaged/);
      assert.equal(await sh(clone, "echo fine"), "fine");
      await bench.remove(clone);
    });
  });
});

/** Until `program` listens. One that ends instead is an error, not a wait without end. */
async function listening(agent: Agent, port: number, program: Command): Promise<void> {
  let ended: string | undefined;
  void program.exited.then((exit) => {
    ended = JSON.stringify(exit);
  });
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")} `;
  while (ended === undefined) {
    for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
      if ((await agent.readFile(table)).includes(local)) return;
    }
  }
  assert.fail(`it ended and never listened at ${port}: ${ended}`);
}
