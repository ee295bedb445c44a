/** Firecracker under its jailer. Needs root, and says so otherwise. */
import assert from "node:assert/strict";
import { readdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { exists } from "../src/host/exists.ts";
import { processesIn } from "../src/host/process.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import { confinement } from "../src/vmm/cgroup.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { FILES, type JailConfig } from "../src/vmm/vmm.ts";
import { assets, largestFile, run, savesTooMuch, World, whyNot } from "./firecracker-support.ts";

const skip =
  (await whyNot()) ?? (process.getuid?.() === 0 ? false : "the jailer needs root: run the tests as root to include it");
const jail: JailConfig = { uid: 20_001, gid: 20_001 };

describe("jailed Firecracker", { skip, timeout: 120_000 }, () => {
  test("each machine runs as its own user, in its own root, without capabilities", async () => {
    await using world = await World.create();
    const snapshot = await world.golden((agent) => run(agent, "block", "write", "0", "golden").then(() => {}));
    const clones = await Promise.all(
      [0, 1, 2].map((i) => world.restore(snapshot, { jail: { uid: 20_001 + i, gid: 20_001 + i } })),
    );
    for (const [i, { machine, agent }] of clones.entries()) {
      const status = await readFile(`/proc/${machine.record.pid}/status`, "utf8");
      assert.match(status, new RegExp(`^Uid:\\t${20_001 + i}\\t`, "m"));
      assert.match(status, /^CapEff:\t0+$/m);
      assert.match(status, /^Seccomp:\t2$/m);
      const [id] = await readdir(join(machine.dir, "jail/firecracker"));
      const root = await stat(join(machine.dir, "jail/firecracker", id ?? "", "root"));
      assert.equal((await stat(`/proc/${machine.record.pid}/root/`)).ino, root.ino);
      assert.deepEqual(await processesIn(machine.dir), [machine.record.pid], "it is found by its directory");
      assert.equal(await run(agent, "block", "read", "0"), "golden\n");
      await run(agent, "block", "write", "0", `clone ${i}`);
      const disk = await readFile(join(machine.dir, FILES.rootfs));
      assert.equal(disk.toString("utf8", 0, 7), `clone ${i}`, "the jail's disk is the machine's disk");
      assert.equal(await run(agent, "block", "read", "1"), "the shared base\n");
    }
    for (const { machine, agent } of clones) {
      await agent.close();
      const report = await machine.kill();
      assert.match(report.vmmLog.join("\n"), /Firecracker/, "its log is where every machine's is");
    }
    assert.equal((await stat(join(snapshot, "memory.bin"))).uid, 0, "the shared files change no owner");
  });

  test("all are in one network namespace with nothing in it, and no file of theirs grows beyond its bound", async () => {
    await using world = await World.create();
    const snapshot = await world.golden();
    const start = (uid: number, more = {}) => world.restore(snapshot, { jail: { uid, gid: uid, ...more } });
    const clones = await Promise.all([start(20_001, { fileMaxBytes: 512 << 20 }), start(20_002)]);
    const net = (pid: number | "self"): Promise<string> => readlink(`/proc/${pid}/ns/net`);
    const pids = clones.map(({ machine }) => machine.record.pid);
    const spaces = await Promise.all([net("self"), ...pids.map(net)]);
    assert.equal(new Set(spaces).size, 2, spaces.join(", "));
    assert.notEqual(spaces[0], spaces[1]);
    for (const pid of pids) {
      const devices = (await readFile(`/proc/${pid}/net/dev`, "utf8")).trim().split("\n").slice(2);
      assert.deepEqual(
        devices.map((line) => line.trim().split(":")[0]),
        ["lo"],
      );
    }
    assert.equal(await largestFile(pids[0] ?? 0), 512 << 20);
    await using policy = await World.create({ vmm: createFirecracker({ assets, jail: { uidBase: 20_010 } }) });
    await savesTooMuch(policy, snapshot, { ...world.config, memoryMiB: 16 });
    // One that is told to is where it is told to be.
    const elsewhere = await start(20_003, { netns: "/proc/self/ns/net" });
    assert.equal(await net(elsewhere.machine.record.pid), await net("self"));
    for (const { machine, agent } of [...clones, elsewhere]) {
      await agent.close();
      await machine.kill();
    }
  });

  test("it gets its share of the host as every machine, and its groups are removed with it", async (t) => {
    const { version } = await confinement();
    if (version !== 1) return t.skip("the groups of version 2 are divided where they are delegated");
    await using world = await World.create();
    const { machine, agent } = await world.boot({ jail });
    const { pid } = machine.record;
    const group = async (): Promise<string> => {
      const lines = (await readFile(`/proc/${pid}/cgroup`, "utf8")).split("\n");
      return lines.find((line) => line.split(":")[1] === "memory")?.split(":")[2] ?? "";
    };
    // Behind whoever waits for the machine.
    while (!(await group()).endsWith(`/stacyvm-vm-${pid}`)) await delay(10);
    const place = join("/sys/fs/cgroup/memory", await group());
    const limit = async (): Promise<number> => Number(await readFile(join(place, "memory.limit_in_bytes"), "utf8"));
    while ((await limit()) > 1 << 30) await delay(10);
    assert.equal(await limit(), (world.config.memoryMiB + 256) * 2 ** 20);
    await agent.close();
    await machine.kill();
    while (await exists(place)) await delay(10);
  });

  test("a jailed machine is saved, and its snapshot serves jailed and unjailed machines", async () => {
    await using world = await World.create();
    const golden = await world.golden((agent) => run(agent, "counter").then(() => {}));
    const source = await world.restore(golden, { jail, trackDirty: true });
    await run(source.agent, "counter");
    await run(source.agent, "dirty", "2");
    await source.agent.close();
    const saved = await world.save(source.machine);
    const memory = await stat(join(saved, "memory.bin"));
    assert.equal(memory.uid, 0);
    assert.ok((await allocatedBytes(join(saved, "memory.bin"))) < 8 << 20);
    for (const options of [{}, { jail: { uid: 20_002, gid: 20_002 } }]) {
      const { machine, agent } = await world.restore(saved, options);
      assert.equal(await run(agent, "counter"), "4\n", "counter, dirty and counter ran before");
      await agent.close();
      await machine.kill();
    }
    await source.machine.kill();
  });

  test("a jailed machine is adopted again", async () => {
    await using world = await World.create();
    const { machine, agent } = await world.boot({ jail });
    await run(agent, "counter");
    await agent.close();
    await machine.release();
    const found = await world.vmm.adopt(machine.dir, machine.record, world.config);
    assert.ok(found !== undefined && found.state === "running");
    const again = await world.greet(found);
    assert.equal(await run(again.agent, "counter"), "2\n");
    await again.agent.close();
    await found.kill();
  });
});
