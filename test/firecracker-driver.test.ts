/** The Firecracker driver on the real binary with the bare guest. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, open, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { StacyError } from "../src/host/error.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { GROUND } from "../src/vmm/firecracker/memory-file.ts";
import { FILES, type JailConfig, type RunningMachine, SNAPSHOT_FILES } from "../src/vmm/vmm.ts";
import { assets, largestFile, run, type Started, savesTooMuch, World, whyNot } from "./firecracker-support.ts";

const skip = (await whyNot()) ?? false;
/** Where the bare guest's `dirty` begins (guests/bare/commands.c), in guest memory and so in its file. */
const FIRST_DIRTY = 32 << 20;

async function codeOf(work: Promise<unknown>): Promise<StacyError> {
  try {
    await work;
  } catch (error) {
    assert.ok(error instanceof StacyError, String(error));
    return error;
  }
  assert.fail("it did not fail");
}

describe("Firecracker", { skip, timeout: 120_000 }, () => {
  test("the probe names version, path and what guests it can run", async () => {
    await using world = await World.create();
    const probe = await world.vmm.probe();
    assert.ok(probe.usable, JSON.stringify(probe));
    assert.match(probe.version, /^\d+\.\d+\.\d+/);
    assert.ok(probe.guests.includes("bare"));
    if (!probe.guests.includes("linux")) assert.match(probe.notes.join(), /only the bare guest/);
    console.log(`# guest: bare; ${probe.notes.join("; ")}`);
  });

  test("cold boot: the agent answers and knows what the handshake gave it", async () => {
    await using world = await World.create();
    const { machine, agent, identity } = await world.boot();
    assert.equal(agent.hello.guest, "bare");
    assert.equal(agent.hello.generation, 1);
    const told = await run(agent, "cat", "identity");
    assert.match(told, new RegExp(`^hostname=${identity.hostname}$`, "m"));
    assert.match(told, new RegExp(`^entropy=${Buffer.from(identity.entropy).toString("hex")}$`, "m"));
    assert.equal(await run(agent, "memory"), "128\n");
    assert.equal(await run(agent, "block", "read", "1"), "the shared base\n");
    await agent.close();
    const report = await machine.kill();
    assert.equal(report.reason, "requested");
    assert.match(report.console.join("\n"), /bare guest: ready/);
    assert.match(report.vmmLog.join("\n"), /Running Firecracker/);
  });

  test("a golden snapshot is small, and a clone goes on where it was saved", async () => {
    await using world = await World.create({ memoryMiB: 512 });
    const snapshot = await world.golden(async (agent) => {
      assert.equal(await run(agent, "counter"), "1\n");
      await run(agent, "block", "write", "0", "from the golden machine");
    });
    assert.equal((await stat(join(snapshot, "memory.bin"))).size, 512 << 20);
    assert.ok((await allocatedBytes(join(snapshot, "memory.bin"))) < 1 << 20);
    assert.ok((await stat(join(snapshot, "vmstate.bin"))).size < 64 << 10);
    const { machine, agent } = await world.restore(snapshot);
    assert.equal(agent.hello.generation, 2, "the golden's handshake and ours");
    assert.equal(await run(agent, "counter"), "2\n");
    assert.equal(await run(agent, "block", "read", "0"), "from the golden machine\n");
    assert.equal(await run(agent, "memory"), "512\n");
    await agent.close();
    await machine.kill();
  });

  for (const count of [3, 10, 32]) {
    test(`${count} clones at once: each is itself`, async () => {
      await using world = await World.create();
      const snapshot = await world.golden((agent) => run(agent, "block", "write", "0", "golden").then(() => {}));
      const clones = await Promise.all(Array.from({ length: count }, () => world.restore(snapshot)));
      await Promise.all(
        clones.map(async ({ machine, agent }, i) => {
          assert.equal(await run(agent, "block", "read", "0"), "golden\n");
          await run(agent, "block", "write", "0", `clone ${i}`);
          for (let n = 0; n < i; n++) await run(agent, "counter");
          await stat(join(machine.dir, "v.sock"));
        }),
      );
      for (const [i, { machine, agent, identity }] of clones.entries()) {
        assert.equal(await run(agent, "block", "read", "0"), `clone ${i}\n`, "another clone's write was seen");
        assert.equal(await run(agent, "counter"), `${i + 1}\n`);
        assert.match(await run(agent, "cat", "identity"), new RegExp(`^sandbox_id=${identity.sandboxId}$`, "m"));
        const disk = await readFile(join(machine.dir, FILES.rootfs));
        assert.equal(disk.toString("utf8", 0, `clone ${i}`.length), `clone ${i}`);
      }
      assert.equal(new Set(clones.map(({ machine }) => machine.record.pid)).size, count);
      const told = await Promise.all(clones.map(({ agent }) => run(agent, "cat", "identity")));
      const entropy = told.map((text) => /^entropy=(.*)$/m.exec(text)?.[1]);
      assert.equal(new Set(entropy).size, count, "two clones share entropy");
      const golden = await readFile(join(snapshot, FILES.rootfs));
      assert.equal(golden.toString("utf8", 0, 6), "golden", "the snapshot's disk was written");
      await end(clones);
    });
  }

  test("the base is shared and cannot be written from a guest", async () => {
    await using world = await World.create();
    const { machine, agent } = await world.boot();
    const result = await agent.exec({ argv: ["block", "write", "1", "mine"] });
    assert.equal(result.exitCode, 1);
    assert.match((await readFile(world.base)).toString("utf8", 0, 15), /the shared base/);
    await end([{ machine, agent }]);
  });

  test("an idle VMM waits in its directory, and loads when told", async () => {
    await using world = await World.create();
    const snapshot = await world.golden();
    const dir = await world.placeFor(snapshot);
    const source = { dir: snapshot };
    const idle = await world.vmm.prepareLoad({ dir, config: world.config, memory: "private", snapshot: source });
    assert.equal((await stat(join(dir, "api.sock"))).isSocket(), true);
    const started = await world.greet(await idle.load(source));
    assert.equal(await run(started.agent, "echo", "awake"), "awake\n");
    await end([started]);
  });

  test("no file of its grows beyond its disk, or its memory and state: booted, restored, and loaded by a process that waited", async () => {
    await using world = await World.create();
    const { config, vmm } = world;
    const most = (config.memoryMiB + 64) * 2 ** 20;
    const booted = await world.boot();
    assert.equal(await largestFile(booted.machine.record.pid), most);
    const snapshot = await world.golden();
    const dir = await world.placeFor(snapshot);
    const blank = await vmm.prepareBlank?.({ dir });
    assert.ok(blank !== undefined);
    const loaded = await world.greet(await (await blank.become(config)).load({ dir: snapshot }));
    assert.equal(await largestFile(loaded.machine.record.pid), most);
    for (const { agent, machine } of [booted, loaded]) {
      await agent.close();
      await machine.kill();
    }
    await savesTooMuch(world, snapshot, { ...config, memoryMiB: 16 });
  });

  test("data of any size passes in both directions", async () => {
    await using world = await World.create();
    const started = await world.boot();
    const sent = Buffer.alloc(600_000, "0123456789abcdef\n");
    const result = await started.agent.exec({ argv: ["cat"], stdin: sent });
    assert.ok(result.stdout.equals(sent), `${result.stdout.length} of ${sent.length} bytes came back`);
    const filled = await started.agent.exec({ argv: ["fill", "2048"] });
    assert.equal(filled.stdout.length, 2 << 20);
    await end([started]);
  });

  test("several commands run at once over one stream, and one can be cancelled", async () => {
    await using world = await World.create();
    const started = await world.boot();
    const cat = await started.agent.start({ argv: ["cat"], stdin: true });
    assert.equal(await run(started.agent, "echo", "beside it"), "beside it\n");
    await cat.write(Buffer.from("hello"));
    for await (const event of cat.output()) {
      assert.equal(event.type === "lost" ? "" : event.data.toString("utf8"), "hello");
      await cat.kill(9);
    }
    assert.deepEqual({ ...(await cat.exited) }, { exitCode: 137, signal: 9, reason: "exited" });
    await end([started]);
  });

  describe("what Firecracker taught the seed", () => {
    test("PUT /vm is refused, and the error says PATCH", async () => {
      await using world = await World.create();
      const started = await world.boot();
      const api = await apiOf(started.machine);
      const error = await codeOf(api.put("/vm", { state: "Paused" }, { phase: "pause", timeoutMs: 1000 }));
      assert.match(error.message, /PATCH \/vm, not PUT/);
      assert.match(String(error.data?.fault), /Invalid request method and\/or path: PUT vm/);
      api.close();
      await end([started]);
    });

    test("a load after configuration is refused and explained, and the process lives", async () => {
      await using world = await World.create();
      const snapshot = await world.golden();
      const dir = await world.placeFor(snapshot);
      const source = { dir: snapshot };
      const idle = await world.vmm.prepareLoad({ dir, config: world.config, memory: "private", snapshot: source });
      const api = await apiOf(idle);
      await api.put("/machine-config", { vcpu_count: 1, mem_size_mib: 128 }, { phase: "configure", timeoutMs: 1000 });
      const error = await codeOf(idle.load(source));
      assert.equal(error.code, "conflict");
      assert.equal(error.phase, "load");
      assert.match(error.message, /drives, vsock and machine size come from the snapshot/);
      api.close();
      await idle.kill();
    });

    test("a second load is refused, and the machine goes on", async () => {
      await using world = await World.create();
      const snapshot = await world.golden();
      const started = await world.restore(snapshot);
      const api = await apiOf(started.machine);
      const body = { snapshot_path: "x", mem_backend: { backend_type: "File", backend_path: "x" } };
      const error = await codeOf(api.put("/snapshot/load", body, { phase: "load", timeoutMs: 1000 }));
      assert.match(error.message, /wrong state/);
      api.close();
      assert.equal(await run(started.agent, "echo", "still here"), "still here\n");
      await end([started]);
    });

    test("a socket in the way is named", async () => {
      await using world = await World.create();
      const snapshot = await world.golden();
      const dir = await world.placeFor(snapshot);
      const source = { dir: snapshot };
      const idle = await world.vmm.prepareLoad({ dir, config: world.config, memory: "private", snapshot: source });
      await writeFile(join(dir, "v.sock"), "");
      const error = await codeOf(idle.load(source));
      assert.equal(error.code, "conflict");
      assert.match(error.message, /v\.sock exists already/);
      await idle.exited;
    });

    test("an absent drive is named", async () => {
      await using world = await World.create();
      const snapshot = await world.golden();
      const dir = await world.placeFor(snapshot);
      const source = { dir: snapshot };
      const idle = await world.vmm.prepareLoad({ dir, config: world.config, memory: "private", snapshot: source });
      await rm(join(dir, FILES.rootfs));
      const error = await codeOf(idle.load(source));
      assert.equal(error.code, "not-found");
      assert.match(error.message, /rootfs\.ext4/);
      await idle.exited;
    });
  });

  test("a state that another release has saved is told as one", async (t) => {
    if (process.env.STACYVM_LONG !== "1") return t.skip("a long form: STACYVM_LONG=1 runs it");
    await using world = await World.create();
    const other = createFirecracker({ assets, env: {} });
    const [own, theirs] = await Promise.all([world.vmm.probe(), other.probe()]);
    if (!theirs.usable || theirs.version === own.version) {
      return t.skip("STACYVM_FIRECRACKER names no other release than the one that set-up has installed");
    }
    t.diagnostic(`saved by ${theirs.version}, loaded by ${own.version}, and the other way round`);
    await using elsewhere = await World.create({ vmm: other });
    for (const [from, to] of [
      [elsewhere, world],
      [world, elsewhere],
    ] as const) {
      const [saved, loads] = [await from.vmm.probe(), await to.vmm.probe()];
      const told = await codeOf(to.vmm.checkLoadable?.(await from.vmm.identity(from.config)) ?? Promise.resolve());
      assert.equal(
        told.message,
        `it was saved by Firecracker ${saved.version}, whose snapshots ${loads.version} cannot load`,
      );
      const error = await codeOf(to.restore(await from.golden()));
      assert.equal(error.code, "corrupt");
    }
  });

  test("a Firecracker that is killed is noticed at once", async () => {
    await using world = await World.create();
    const { machine, agent } = await world.boot();
    const start = performance.now();
    process.kill(machine.record.pid, "SIGKILL");
    const [report, lost] = await Promise.all([machine.exited, agent.closed]);
    assert.ok(performance.now() - start < 1_000);
    assert.equal(report.signal, "SIGKILL");
    assert.equal(report.reason, "crash");
    assert.ok(lost instanceof Error);
  });

  test("triple fault: the guest ended, and we know", async () => {
    await using world = await World.create();
    const { machine, agent } = await world.boot();
    await assert.rejects(agent.exec({ argv: ["triple"] }));
    assert.equal((await machine.exited).reason, "guest");
  });

  test("memory.bin that shrinks under a live clone ends that clone, and only that one", async () => {
    await using world = await World.create();
    const snapshot = await world.golden();
    const { machine, agent } = await world.restore(snapshot);
    const other = await world.boot();
    await truncate(join(snapshot, "memory.bin"), 0);
    agent.exec({ argv: ["dirty", "8"] }).catch(() => {});
    const report = await machine.exited;
    // Whoever touches the lost pages first decides: the monitor meets SIGBUS (149), the guest's own code a triple fault (0).
    assert.deepEqual([report.exitCode, report.reason], report.exitCode === 149 ? [149, "crash"] : [0, "guest"]);
    assert.equal(await run(other.agent, "echo", "unharmed"), "unharmed\n");
    await end([other]);
  });

  test("pause and resume: an open connection survives, a new one works", async (t) => {
    await using world = await World.create();
    assert.ok((await world.vmm.probe()).usable);
    if (!world.vmm.abilities.pauseResume) return t.skip("this release loses vsock in a pause without a save");
    const { machine, agent } = await world.boot();
    const paused = await machine.pause();
    const waiting = agent.exec({ argv: ["echo", "later"] });
    const resumed = await paused.resume();
    assert.equal((await waiting).stdout.toString("utf8"), "later\n");
    await agent.close();
    const again = await world.greet(resumed);
    assert.equal(await run(again.agent, "echo", "new"), "new\n");
    await end([again]);
  });

  test("a running clone is saved, goes on, and its own clones go their own ways", async () => {
    await using world = await World.create();
    const golden = await world.golden((agent) => run(agent, "counter").then(() => {}));
    for (const trackDirty of [true, false]) {
      const parent = await world.restore(golden, { trackDirty });
      await run(parent.agent, "counter");
      await run(parent.agent, "dirty", "4");
      await run(parent.agent, "block", "write", "0", "before");
      await parent.agent.close();
      const first = await world.save(parent.machine);
      assert.ok((await allocatedBytes(join(first, "memory.bin"))) < 16 << 20, "sparse");
      const goesOn = await world.greet(parent.machine);
      await run(goesOn.agent, "counter");
      await run(goesOn.agent, "block", "write", "0", "after");
      await goesOn.agent.close();
      // The second difference stands on the first save, not on the golden memory.
      const second = await world.save(parent.machine);
      const clones = [await world.restore(first), await world.restore(second)];
      assert.equal(await run((clones[0] as Started).agent, "counter"), "4\n");
      assert.equal(await run((clones[1] as Started).agent, "counter"), "5\n");
      assert.equal(await run((clones[0] as Started).agent, "block", "read", "0"), "before\n");
      assert.equal(await run((clones[1] as Started).agent, "block", "read", "0"), "after\n");
      await end(clones);
      await parent.machine.kill();
    }
  });

  test("a tracked clone is saved over its own memory, whatever has the name of its snapshot by then", async () => {
    await using world = await World.create();
    /** The first MiB that `dirty` writes: each of its pages holds the count. */
    const pages = async (snapshot: string): Promise<Buffer> => {
      await using file = await open(join(snapshot, SNAPSHOT_FILES.memory));
      return (await file.read(Buffer.alloc(1 << 20), 0, 1 << 20, FIRST_DIRTY)).buffer;
    };
    const golden = await world.golden((agent) => run(agent, "dirty", "2").then(() => {}));
    const aside = `${golden}.aside`;
    const restore = (as: { jail?: JailConfig } = {}): Promise<Started> =>
      world.restore(golden, { trackDirty: true, ...as });
    const jail = process.getuid?.() === 0 ? { jail: { uid: 20_001, gid: 20_001 } } : {};
    const started = [await restore(), await restore(), await restore(jail)] as const;
    const own = await pages(golden);
    const { ino } = await stat(join(golden, SNAPSHOT_FILES.memory));
    for (const { machine, agent } of started) {
      await agent.close();
      assert.equal((await stat(join(machine.dir, GROUND))).ino, ino, "a link, not a copy");
    }
    const [first, second, third] = [started[0].machine, started[1].machine, started[2].machine];
    await rename(golden, aside);
    const saves = [await world.save(first)];
    const other = await world.golden(async (agent) => {
      await run(agent, "counter");
      await run(agent, "dirty", "2");
    });
    await rename(other, golden);
    assert.ok(!own.equals(await pages(golden)), "the two can be told apart");
    saves.push(await world.save(second));
    // Also by the next daemon, and with the first snapshot gone for good.
    await rm(aside, { recursive: true });
    await third.release();
    const found = await world.vmm.adopt(third.dir, third.record, world.config);
    assert.ok(found?.state === "running");
    saves.push(await world.save(found));
    for (const saved of saves) {
      assert.ok(own.equals(await pages(saved)), "its own memory");
      assert.ok((await allocatedBytes(join(saved, SNAPSHOT_FILES.memory))) < 8 << 20, "sparse");
      const clone = await world.restore(saved);
      assert.equal(await run(clone.agent, "counter"), "2\n");
      await end([clone]);
    }
    for (const machine of [first, second, found]) await machine.kill();
  });

  test("a pause that was not answered in time is undone when Firecracker carries it out after all", async (t) => {
    await using world = await World.create();
    assert.ok((await world.vmm.probe()).usable);
    if (!world.vmm.abilities.pauseResume) return t.skip("this release loses vsock in a pause without a save");
    const { machine, agent } = await world.boot();
    const { pid } = machine.record;
    process.kill(pid, "SIGSTOP");
    try {
      const failed = machine.pause();
      const error = await codeOf(failed);
      assert.equal(error.code, "timeout");
      await new Promise((wake) => setTimeout(wake, 6_000)); // longer than any usual limit
    } finally {
      process.kill(pid, "SIGCONT");
    }
    assert.equal(await run(agent, "echo", "running"), "running\n");
    // In order: what undoes the first pause does not undo the next one.
    const paused = await machine.pause();
    const waiting = agent.exec({ argv: ["echo", "later"] });
    assert.equal(
      await Promise.race([waiting.then(() => "ran"), new Promise((wake) => setTimeout(wake, 300, "stands still"))]),
      "stands still",
    );
    await paused.resume();
    assert.equal((await waiting).stdout.toString("utf8"), "later\n");
    await end([{ machine, agent }]);
  });

  test("a machine that the daemon lost is adopted again, running or paused, and its end is noticed", async () => {
    await using world = await World.create();
    const { machine, agent } = await world.boot();
    await run(agent, "counter");
    await agent.close();
    await machine.release();
    // Also where none is installed any more: what it can do is a matter of its own release.
    const nothing = createFirecracker({ assets: join(world.root, "nothing"), env: {} });
    assert.equal((await nothing.probe()).usable, false);
    const found = await nothing.adopt(machine.dir, machine.record, world.config);
    assert.ok(found !== undefined && found.state === "running");
    const again = await world.greet(found);
    assert.equal(await run(again.agent, "counter"), "2\n");
    await again.agent.close();
    await found.pause();
    await found.release();
    const paused = await world.vmm.adopt(machine.dir, machine.record, world.config);
    assert.ok(paused !== undefined && paused.state === "paused");
    const start = performance.now();
    process.kill(machine.record.pid, "SIGKILL");
    await paused.exited;
    assert.ok(performance.now() - start < 400, "noticed by the hang-up, before the next poll");
    assert.equal(await world.vmm.adopt(machine.dir, machine.record, world.config), undefined);
  });

  test("directories of any length work", async () => {
    await using world = await World.create();
    const deep = join(world.root, "d".repeat(100), "e".repeat(100));
    await mkdir(deep, { recursive: true });
    await using far = await World.create({ parent: deep });
    const snapshot = await far.golden();
    const started = await far.restore(snapshot);
    assert.equal(await run(started.agent, "echo", "far"), "far\n");
    await end([started]);
  });

  test("starting can be cancelled", async () => {
    await using world = await World.create();
    const dir = await world.dir();
    const signal = AbortSignal.abort(new Error("no longer wanted"));
    await assert.rejects(world.vmm.prepareBoot({ dir, config: world.config, memory: "private", signal }), /no longer/);
  });

  test("memory from 128 MiB to 2 GiB and several vCPUs are what was asked for", async () => {
    for (const [memoryMiB, vcpus] of [
      [128, 2],
      [2048, 1],
    ] as const) {
      await using world = await World.create({ memoryMiB, vcpus });
      const snapshot = await world.golden();
      assert.ok((await allocatedBytes(join(snapshot, "memory.bin"))) < 1 << 20);
      const started = await world.restore(snapshot);
      assert.equal(await run(started.agent, "memory"), `${memoryMiB}\n`);
      await end([started]);
    }
  });
});

async function end(started: Pick<Started, "machine" | "agent">[]): Promise<void> {
  await Promise.all(
    started.map(async ({ machine, agent }) => {
      await agent.close();
      await machine.kill();
    }),
  );
}

/** A second API connection of our own. */
async function apiOf(process: Pick<RunningMachine, "dir">) {
  const { FirecrackerApi } = await import("../src/vmm/firecracker/api.ts");
  const { connectUnix } = await import("../src/host/unix-socket.ts");
  const socket = await connectUnix(process.dir, "api.sock", { timeoutMs: 1000 });
  if (socket.connecting) await once(socket, "connect");
  const gone = new StacyError("machine-exited", "the second connection is gone");
  return new FirecrackerApi(socket, { reopen: () => Promise.reject(gone), why: async () => gone, gone() {} });
}
