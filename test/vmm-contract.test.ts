/** What vmm.ts promises, held against both drivers with real machines: Linux under QEMU, the bare guest and Linux under Firecracker. */
import assert from "node:assert/strict";
import { copyFile, mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { sandboxId } from "../bench/spawning.ts";
import type { Agent } from "../src/guest/agent.ts";
import { openAgent } from "../src/guest/client.ts";
import { dataPaths } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { copySparse } from "../src/host/sparse.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { makeIdentity } from "../src/launcher/identity.ts";
import { copyDisk, makeMachineDir } from "../src/launcher/machine-dir.ts";
import type { Snapshot } from "../src/launcher/snapshot-store.ts";
import type { Target } from "../src/launcher/target.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { installFirecracker } from "../src/vmm/firecracker/install.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { LoadableVmm, RunningMachine, Vmm } from "../src/vmm/vmm.ts";
import { DAMAGES } from "./damage.ts";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";
import { lendGoldens } from "./goldens.ts";
import { Bench } from "./launcher-support.ts";

const { assets } = dataPaths();
const noFirecracker = await whyNot();
const cut = DAMAGES.filter(({ name }) => name === "state cut");
const linux = { image: "stacyvm/busybox", memoryMiB: 256, diskMiB: 256, reboot: ["sh", "-c", "reboot -f"] };
const firecracker = { vmm: () => createFirecracker({ assets }), damages: DAMAGES };
const drivers = [
  { name: "qemu", vmm: () => createQemu(), damages: cut, ...linux, skip: undefined },
  {
    ...{ name: "firecracker, the bare guest", ...firecracker, skip: noFirecracker },
    ...{ image: "stacyvm/bare", memoryMiB: 128, diskMiB: 64, reboot: ["reboot"] },
  },
  { name: "firecracker, a Linux guest", ...firecracker, ...linux, skip: await whyNotLinux() },
];

for (const driver of drivers) {
  describe(`the Vmm contract: ${driver.name}`, { skip: driver.skip ?? false }, () => {
    let vmm: Vmm;
    let bench: Bench;
    let target: Target;
    let snapshot: Snapshot;

    before(async () => {
      if (driver.name.startsWith("firecracker")) {
        await installFirecracker(assets);
        await buildBareGuest(assets);
      }
      vmm = driver.vmm();
      bench = await Bench.create(vmm);
      await mkdir(bench.paths.sandboxes, { recursive: true });
      target = await bench.launcher.targets.resolve({
        ...{
          image: driver.image,
          memoryMiB: driver.memoryMiB,
          vcpus: 1,
          diskMiB: driver.diskMiB,
          setup: [],
          setupEnv: {},
        },
      });
      snapshot = await bench.launcher.ensureGolden(target);
      if (vmm.name === "firecracker") await lendGoldens(bench.paths.snapshots);
    });
    after(() => bench[Symbol.asyncDispose]());

    const place = async (): Promise<string> => {
      const dir = join(bench.paths.sandboxes, sandboxId());
      await makeMachineDir(dir, target.image.base);
      await copyDisk(dir, snapshot.disk);
      return dir;
    };
    const prepare = async (dir: string, from = snapshot.dir): Promise<LoadableVmm> =>
      vmm.prepareLoad({ dir, config: target.config, memory: "private", snapshot: { dir: from } });
    const greet = async (machine: RunningMachine): Promise<Agent> => {
      const limits = { timeoutMs: vmm.answerMs.booted.at(-1) as number };
      const identity = makeIdentity("sb-contract", target.image, {});
      return openAgent(() => machine.connectAgent(limits), { ...limits, identity });
    };
    const echo = async (agent: Agent, word: string): Promise<void> => {
      assert.equal((await agent.exec({ argv: ["echo", word] })).stdout.toString("utf8"), `${word}\n`);
    };
    const restored = async (): Promise<RunningMachine> => (await prepare(await place())).load({ dir: snapshot.dir });
    const sockets = async (dir: string): Promise<string[]> => (await readdir(dir)).filter((name) => /sock$/.test(name));

    test("the host is told about, and what belongs to the shape is the same each time", async () => {
      const probe = await vmm.probe();
      assert.ok(probe.usable);
      assert.match(probe.version, /^\d+\.\d+/);
      const [one, two] = [await vmm.identity(target.config), await driver.vmm().identity(target.config)];
      assert.deepEqual(one, two);
      assert.equal(one.version, probe.version);
    });

    test("boot, command, kill: the end is reported once, kill is idempotent, no socket stays", async () => {
      const dir = await place();
      const bootable = await vmm.prepareBoot({ dir, config: target.config, memory: "private" });
      const machine = await bootable.boot();
      const agent = await greet(machine);
      await echo(agent, "booted");
      await agent.close();
      const [first, second] = await Promise.all([machine.kill(), machine.kill()]);
      assert.equal(first.reason, "requested");
      assert.equal(second, first);
      assert.equal(await machine.exited, first);
      assert.deepEqual(await sockets(dir), []);
    });

    test("two machines of one snapshot run at once, in their own processes", async () => {
      const machines = await Promise.all([restored(), restored()]);
      const agents = await Promise.all(machines.map(greet));
      await Promise.all(agents.map((agent, i) => echo(agent, `machine-${i}`)));
      assert.equal(new Set(machines.map(({ record }) => record.pid)).size, 2);
      await Promise.all(agents.map((agent) => agent.close()));
      await Promise.all(machines.map((machine) => machine.kill()));
    });

    test("a newer stream to the agent wins, and the directory may be renamed", async () => {
      const machine = await restored();
      const first = await greet(machine);
      await echo(first, "one");
      await first.close();
      const dir = join(bench.paths.sandboxes, sandboxId());
      await rename(machine.dir, dir);
      machine.relocate(dir);
      const second = await greet(machine);
      await echo(second, "two");
      await second.close();
      await machine.kill();
      assert.deepEqual(await sockets(dir), [], "sockets under the new name go too");
    });

    test("pause stands still, resume goes on, over the same stream", async () => {
      const machine = await restored();
      let agent = await greet(machine);
      const paused = await machine.pause();
      assert.equal(paused.state, "paused");
      const { pauseResume } = vmm.abilities;
      const answer = pauseResume ? echo(agent, "late") : Promise.resolve();
      const running = await paused.resume();
      await answer;
      if (!pauseResume) {
        // Such a release saves to be able to resume, which ends the stream; the machine itself goes on.
        await agent.close();
        agent = await greet(running);
        await echo(agent, "on");
      }
      assert.equal(running.state, "running");
      await agent.close();
      await running.kill();
    });

    /** Saves it; it goes on, and what was saved runs beside it. Ends both. */
    const saveAndLoad = async (machine: RunningMachine): Promise<void> => {
      const out = await place();
      await machine.prepareSave();
      const paused = await machine.pause({ toSave: true });
      const saved = await paused.save(out);
      await copyFile(join(machine.dir, "rootfs.ext4"), join(out, "rootfs.ext4"));
      assert.ok(saved.resumable && saved.stateBytes > 0 && saved.memoryBytes > 0);
      const running = await paused.resume();
      await saved.finish();
      const again = await greet(running);
      await echo(again, "on");
      const dir = await place();
      await copyFile(join(out, "rootfs.ext4"), join(dir, "rootfs.ext4"));
      const copy = await (await prepare(dir, out)).load({ dir: out });
      const other = await greet(copy);
      await echo(other, "copy");
      await Promise.all([again.close(), other.close()]);
      await Promise.all([running.kill(), copy.kill()]);
    };

    test("a clone is saved while it runs, goes on, and the save loads", async () => {
      const machine = await restored();
      await (await greet(machine)).close();
      await saveAndLoad(machine);
    });

    test("a monitor that is stopped when it is asked to pause lets its guest go on once it goes on itself, and saves it whole after that", async () => {
      const machine = await (await prepare(await place())).load({ dir: snapshot.dir, trackDirty: true });
      await (await greet(machine)).close();
      process.kill(machine.record.pid, "SIGSTOP");
      await assert.rejects(machine.pause(), { code: "timeout" });
      process.kill(machine.record.pid, "SIGCONT");
      await machine.prepareSave();
      const agent = await greet(machine);
      await echo(agent, "on");
      await agent.close();
      await saveAndLoad(machine);
    });

    test("an idle process waits, and its own end or a kill is told", async () => {
      const idle = await prepare(await place());
      assert.equal((await idle.kill()).reason, "requested");
      const killed = await prepare(await place());
      process.kill(killed.record.pid, "SIGKILL");
      assert.equal((await killed.exited).signal, "SIGKILL");
    });

    test("a machine killed from outside is a crash with its signal", async () => {
      const machine = await restored();
      process.kill(machine.record.pid, "SIGKILL");
      const report = await machine.exited;
      assert.deepEqual([report.reason, report.signal], ["crash", "SIGKILL"]);
    });

    test("a guest that reboots has ended, which is no crash", async () => {
      const machine = await restored();
      const agent = await greet(machine);
      const lost = assert.rejects(agent.exec({ argv: driver.reboot }));
      const { reason, exitCode } = await machine.exited;
      await lost;
      assert.deepEqual([reason, exitCode], ["guest", 0]);
      assert.deepEqual(await sockets(machine.dir), []);
    });

    test("damaged files are `corrupt`, and the process is gone", async () => {
      for (const { name, damage, words } of driver.damages) {
        const bad = await place();
        for (const file of ["vmstate.bin", "memory.bin"]) await copySparse(join(snapshot.dir, file), join(bad, file));
        await damage(bad);
        const idle = await prepare(await place(), bad);
        const load = idle.load({ dir: bad });
        await assert.rejects(load, { code: "corrupt", phase: "load" }, name);
        if (vmm.name === "firecracker") await assert.rejects(load, words, name);
        await idle.exited;
      }
    });

    test("another daemon adopts it as it stands, running or paused; a dead one is nobody's", async () => {
      const machine = await restored();
      await machine.release();
      const found = await driver.vmm().adopt(machine.dir, machine.record, target.config);
      assert.equal(found?.state, "running");
      assert.equal(found?.record.pid, machine.record.pid);
      const paused = await (found as RunningMachine).pause();
      await paused.release();
      const again = await driver.vmm().adopt(machine.dir, machine.record, target.config);
      assert.equal(again?.state, "paused");
      await again?.kill();
      assert.equal(await driver.vmm().adopt(machine.dir, machine.record, target.config), undefined);
    });

    test("a start that is cancelled leaves no process", async () => {
      const dir = await place();
      const signal = AbortSignal.abort(new Error("not any more"));
      await assert.rejects(vmm.prepareBoot({ dir, config: target.config, memory: "private", signal }), /not any more/);
      assert.deepEqual(await processesIn(dir), []);
    });
  });
}
