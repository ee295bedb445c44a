/** Firecracker in the jail of a server that is not root. As root these tests are run again as an ordinary user. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, mkdir, readdir, readFile, readlink, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { exists } from "../src/host/exists.ts";
import { processesIn, worksIn } from "../src/host/process.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import { removeMachineDir } from "../src/launcher/machine-dir.ts";
import { cellState } from "../src/vmm/cell.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { locateFirecracker } from "../src/vmm/firecracker/install.ts";
import { FILES } from "../src/vmm/vmm.ts";
import { assets, run, savesTooMuch, World, whyNot } from "./firecracker-support.ts";
import { asOrdinaryUser, whyNotOrdinary } from "./ordinary-user.ts";

const missing = await whyNot();
const isRoot = process.getuid?.() === 0;
const state = isRoot ? undefined : await cellState();
const skip = missing ?? (isRoot ? "root has the jailer" : state?.usable === false ? state.reason : false);
const jail = { uidBase: 200_000 };
const jailed = (): Promise<World> => World.create({ vmm: createFirecracker({ assets, jail }) });

test("the jail of a server that is not root, and a server with it", {
  skip: missing ?? (await whyNotOrdinary()),
  timeout: 600_000,
}, async () => {
  const said = await asOrdinaryUser(["firecracker-cell.test.ts", "server-jail.test.ts"]);
  assert.match(said, /^ok \d+ - jailed Firecracker without root$/m);
  assert.match(said, /^ok \d+ - a server whose machines are jailed: the bare guest$/m);
});

describe("jailed Firecracker without root", { skip, timeout: 300_000 }, () => {
  test("only its own files exist, what is shared can only be read, and it has no rights", async () => {
    await using world = await jailed();
    const snapshot = await world.golden((agent) => run(agent, "block", "write", "0", "golden").then(() => {}));
    const clones = await Promise.all([world.restore(snapshot), world.restore(snapshot)]);
    for (const [i, { machine, agent }] of clones.entries()) {
      const { pid } = machine.record;
      const root = join(machine.dir, "jail/firecracker/cell/root");
      const inside = (path: string): string => `/proc/${pid}/root${path}`;
      const status = await readFile(`/proc/${pid}/status`, "utf8");
      for (const rights of ["CapPrm", "CapEff", "CapAmb"]) assert.match(status, new RegExp(`^${rights}:\\t0+$`, "m"));
      assert.match(status, /^NoNewPrivs:\t1$/m);
      assert.match(status, /^Seccomp:\t2$/m);
      for (const space of ["user", "mnt", "net", "ipc", "uts"])
        assert.notEqual(await readlink(`/proc/${pid}/ns/${space}`), await readlink(`/proc/self/ns/${space}`), space);
      for (const path of ["/usr", "/etc", "/proc/self", "/sys", world.base, snapshot, join(machine.dir, "console.log")])
        assert.equal(await exists(inside(path)), false, path);
      assert.deepEqual((await readdir(inside(root))).sort(), [
        ...["api.sock", "base.img", "memory.bin", "rootfs.ext4", "v.sock", "vmm.log", "vmstate.bin"],
      ]);
      assert.deepEqual(await readdir(inside("/dev")), ["kvm", "null", "urandom", "zero"]);
      const mounts = (await readFile(`/proc/${pid}/mounts`, "utf8")).split("\n");
      for (const name of ["base.img", "memory.bin", "vmstate.bin"])
        assert.match(mounts.find((line) => line.includes(`/${name} `)) ?? "", / ro,/, name);
      assert.match(mounts.find((line) => line.split(" ")[1] === "/") ?? "", / ro,/);
      assert.deepEqual(
        await processesIn(world.root),
        clones.map((each) => each.machine.record.pid).sort((a, b) => a - b),
      );
      assert.equal(await worksIn(machine.record, machine.dir), true);
      assert.equal(await worksIn(machine.record, clones[1 - i]?.machine.dir ?? ""), false);
      assert.equal(await run(agent, "block", "read", "0"), "golden\n");
      await run(agent, "block", "write", "0", `clone ${i}`);
      assert.equal((await readFile(join(machine.dir, FILES.rootfs))).toString("utf8", 0, 7), `clone ${i}`);
      assert.equal(await run(agent, "block", "read", "1"), "the shared base\n");
    }
    for (const { machine, agent } of clones) {
      await agent.close();
      const report = await machine.kill();
      assert.match(report.vmmLog.join("\n"), /Firecracker/, "its log is where every machine's is");
    }
  });

  test("no file of its grows beyond its disk, or its memory and state", async () => {
    await using world = await jailed();
    await savesTooMuch(world, await world.golden(), { ...world.config, memoryMiB: 16 });
  });

  test("it is saved whole and by differences, and its snapshots serve jailed and other machines", async () => {
    await using world = await jailed();
    await using free = await World.create();
    const golden = await world.golden((agent) => run(agent, "counter").then(() => {}));
    const source = await world.restore(golden, { trackDirty: true });
    await run(source.agent, "counter");
    await run(source.agent, "dirty", "2");
    await source.agent.close();
    const saved = await world.save(source.machine);
    assert.ok((await allocatedBytes(join(saved, "memory.bin"))) < 8 << 20);
    for (const each of [world, free]) {
      const { machine, agent } = await each.restore(saved);
      assert.equal(await run(agent, "counter"), "4\n", "counter, dirty and counter ran before");
      await agent.close();
      await machine.kill();
    }
    await source.machine.kill();
    // Without notes of what was written it is saved whole.
    const whole = await world.restore(saved);
    await run(whole.agent, "counter");
    await whole.agent.close();
    const full = await world.save(whole.machine);
    await whole.machine.kill();
    assert.ok((await allocatedBytes(join(full, "memory.bin"))) < 32 << 20, "its zeros take no room");
    const { machine, agent } = await world.restore(full);
    assert.equal(await run(agent, "counter"), "5\n");
    await agent.close();
    await machine.kill();
  });

  test("a difference that cannot be prepared leaves no copy of the memory, and is no end of the machine", async () => {
    await using world = await jailed();
    const { machine, agent } = await world.restore(await world.golden(), { trackDirty: true });
    await agent.close();
    const root = join(machine.dir, "jail/firecracker/cell/root");
    const out = join(world.root, "out");
    await mkdir(out);
    const paused = await machine.pause();
    await chmod(root, 0o500);
    await assert.rejects(paused.save(out));
    await chmod(root, 0o700);
    assert.deepEqual(
      (await readdir(machine.dir)).filter((name) => name.startsWith("saving-")),
      [],
    );
    const again = await world.greet(await paused.resume());
    await again.agent.close();
    await machine.kill();
  });

  test("what a monitor that was taken over puts in place of what it saves is not followed", async () => {
    await using world = await jailed();
    const golden = await world.golden();
    const { machine, agent } = await world.restore(golden);
    await agent.close();
    const out = join(world.root, "out");
    await mkdir(out);
    const paused = await machine.pause();
    // Firecracker writes through it; what it leads to here would be another file on the host.
    await symlink("elsewhere", join(machine.dir, "jail/firecracker/cell/root/saving-vmstate.bin"));
    await assert.rejects(paused.save(out), { code: "corrupt" });
    await machine.kill();
  });

  test("an idle one whose snapshot was replaced meanwhile never counts on the other's memory", async () => {
    await using world = await jailed();
    const [first, second] = [await world.golden(), await world.golden()];
    const dir = await world.placeFor(first);
    const source = { dir: first, trackDirty: true };
    const idle = await world.vmm.prepareLoad({ dir, config: world.config, memory: "private", snapshot: source });
    await rename(first, `${first}.old`);
    await rename(second, first);
    const { machine, agent } = await world.greet(await idle.load(source));
    assert.equal((await stat(join(dir, "memory.ground"))).size, 0, "it has no ground");
    await agent.close();
    await machine.kill();
  });

  test("it is found again, and leaves nothing", async () => {
    await using world = await jailed();
    const { machine, agent } = await world.boot();
    await run(agent, "counter");
    await agent.close();
    await machine.release();
    const found = await world.vmm.adopt(machine.dir, machine.record, world.config);
    assert.ok(found !== undefined && found.state === "running");
    const again = await world.greet(found);
    assert.equal(await run(again.agent, "counter"), "2\n");
    await again.agent.close();
    await found.kill();
    assert.deepEqual(await processesIn(world.root), []);
    // As one that was taken over could do.
    const closed = join(machine.dir, "jail/firecracker/cell/root/closed");
    await mkdir(join(closed, "in"), { recursive: true });
    await chmod(closed, 0o000);
    await removeMachineDir(machine.dir);
    assert.equal(await exists(machine.dir), false);
  });

  test("where there can be no such jail, nothing starts without one", async () => {
    const probe = await createFirecracker({ assets, jail: { ...jail, netns: "/run/netns/none" } }).probe();
    assert.equal(probe.usable, false);
    assert.match(probe.usable ? "" : `${probe.reason}; ${probe.remedy}`, /jail_netns.*root.*leave it out/);
    // One that needs something of the host's: here a shell.
    await using world = await World.create();
    const { firecracker } = await locateFirecracker(assets);
    const script = join(world.root, "firecracker");
    await writeFile(script, `#!/bin/sh\nexec ${firecracker} "$@"\n`, { mode: 0o755 });
    const needy = await createFirecracker({ assets, firecracker: script, jail }).probe();
    assert.equal(needy.usable, false);
    assert.match(needy.usable ? "" : `${needy.reason}; ${needy.remedy}`, /does not run by itself.*linked statically/s);
    assert.equal((await createFirecracker({ assets, firecracker: script }).probe()).usable, true, "but for the jail");
  });
});

test("a program in a cell sends no signals to its user's other processes", { skip }, async (t) => {
  const { stdout } = await promisify(execFile)("uname", ["-r"]);
  const [major = 0, minor = 0] = stdout.split(".").map(Number);
  if (major < 6 || (major === 6 && minor < 12)) return t.skip("Landlock has scopes for signals from Linux 6.12 on");
  if (state?.usable !== true) return;
  const dir = await World.create();
  await using _ = dir;
  await chmod(dir.root, 0o700);
  const args = [dir.root, "-s", "/usr", "-s", "/bin", "-s", "/lib", "-s", "/lib64", "--", "/bin/bash", "-c"];
  const kill = (target: string): Promise<unknown> =>
    promisify(execFile)(state.cell.program, [...args, `kill -0 ${target}`]);
  await kill("$$");
  await assert.rejects(kill(String(process.pid)), /Operation not permitted/);
});
