/**
 * Saved machines on both monitors through the provider: suspend and resume again and again, forks, checkpoints in chains,
 * going back in place. `STACYVM_LONG=1` runs the 50 cycles of the slow monitor too.
 */
import assert from "node:assert/strict";
import { readdir, rm } from "node:fs/promises";
import { after, before, describe, type TestContext, test } from "node:test";
import { sandboxId } from "../bench/spawning.ts";
import { exists } from "../src/host/exists.ts";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider, type MicrovmProvider } from "../src/providers/microvm.ts";
import { checkpointKey, type SandboxMachine, type SandboxSpec } from "../src/providers/provider.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { installFirecracker } from "../src/vmm/firecracker/install.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { Vmm } from "../src/vmm/vmm.ts";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";
import { borrowGoldens, lendGoldens } from "./goldens.ts";
import { scratchPaths } from "./launcher-support.ts";

const LONG = process.env.STACYVM_LONG === "1";

class Home implements AsyncDisposable {
  readonly paths: Awaited<ReturnType<typeof scratchPaths>>;
  readonly #vmm: () => Vmm;
  readonly #over: Partial<SandboxSpec>;
  provider: MicrovmProvider;

  private constructor(paths: Home["paths"], vmm: () => Vmm, over: Partial<SandboxSpec>) {
    this.paths = paths;
    this.#vmm = vmm;
    this.#over = over;
    this.provider = this.#open();
  }

  static async create(vmm: (paths: Home["paths"]) => Vmm, over: Partial<SandboxSpec>): Promise<Home> {
    const paths = await scratchPaths();
    if (vmm(paths).name === "firecracker") await borrowGoldens(paths.snapshots);
    return new Home(paths, () => vmm(paths), over);
  }

  #open(): MicrovmProvider {
    return createMicrovmProvider({ vmm: this.#vmm(), images: createImages(this.paths), paths: this.paths });
  }

  spec(over: Partial<SandboxSpec> = {}): SandboxSpec {
    return {
      ...{ id: sandboxId(), image: "stacyvm/busybox", memoryMiB: 256, vcpus: 1, diskMiB: 256, env: {}, setup: [] },
      ...this.#over,
      ...over,
    };
  }

  spawn(over: Partial<SandboxSpec> = {}): Promise<SandboxMachine> {
    return this.provider.spawn(this.spec(over));
  }

  /** A new daemon in place of this one; machines go on. */
  async reopen(ids: string[]): Promise<SandboxMachine[]> {
    await this.provider.close();
    this.provider = this.#open();
    const { adopted } = await this.provider.adopt(new Set(ids));
    return ids.map((id) => adopted.find((machine) => machine.id === id) as SandboxMachine);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.reopen([]);
    await this.provider.close();
    const left = await processesIn(this.paths.root);
    await rm(this.paths.root, { recursive: true, force: true });
    assert.deepEqual(left, []);
  }
}

async function run(machine: SandboxMachine, ...argv: string[]): Promise<string> {
  const result = await machine.agent.exec({ argv });
  assert.equal(result.exitCode, 0, `${argv.join(" ")}: ${result.stderr}`);
  return result.stdout.toString("utf8").trim();
}

/** The statements that hold for each monitor, in the words of its guest. */
function saved(about: {
  create(): Promise<Home>;
  cycles: number;
  /** State in the memory of a process or of the guest: counts up and tells. */
  count(machine: SandboxMachine): Promise<number>;
  /** How many forks at once. */
  forks: number;
  write(machine: SandboxMachine, text: string): Promise<unknown>;
  read(machine: SandboxMachine): Promise<string>;
  prepare(machine: SandboxMachine): Promise<unknown>;
}): void {
  const { count, write, read } = about;
  let home: Home;
  let goldens: string[];
  before(async () => {
    home = await about.create();
    await home.provider.buildSnapshot(home.spec());
    if (home.provider.vmm.name === "firecracker") await lendGoldens(home.paths.snapshots);
    goldens = await snapshots();
  });
  after(() => home[Symbol.asyncDispose]());

  const snapshots = async (): Promise<string[]> =>
    (await readdir(home.paths.snapshots)).filter((name) => /^[0-9a-f]{64}$/.test(name)).sort();
  const ready = async (over: Partial<SandboxSpec> = {}): Promise<SandboxMachine> => {
    const machine = await home.spawn(over);
    await about.prepare(machine);
    return machine;
  };

  /** What a release cannot do is told, in the words of its row. */
  const pauses = async (t: TestContext): Promise<boolean> => {
    const probe = await home.provider.vmm.probe();
    if (home.provider.vmm.abilities.pauseResume) return true;
    t.diagnostic(`left out, ${probe.version}: ${probe.usable ? probe.notes.join("; ") : probe.reason}`);
    return false;
  };

  test(`${about.cycles} suspends and as many pauses lose nothing, also over a new daemon`, async (t) => {
    const pausable = await pauses(t);
    let machine = await ready();
    let wanted = 0;
    for (let i = 0; i < about.cycles; i++) {
      await write(machine, `cycle ${i}`);
      await machine.suspend();
      assert.equal(machine.process, undefined);
      // In between, somebody else looks after it.
      if (i % 3 === 1) [machine] = (await home.reopen([machine.id])) as [SandboxMachine];
      await machine.resume();
      if (pausable) {
        await machine.pause();
        await machine.resume();
      }
      wanted += 1;
      assert.equal(await count(machine), wanted);
      assert.equal(await read(machine), `cycle ${i}`);
    }
    await machine.destroy();
  });

  test("forks go on from where the source is, each its own way, and leave no files behind", async () => {
    const source = await ready();
    await write(source, "before");
    const base = await count(source);
    const ids = Array.from({ length: about.forks }, sandboxId);
    const { machines, stoppedMs } = await source.fork(ids);
    assert.ok(stoppedMs > 0);
    for (const [i, machine] of machines.entries()) {
      assert.equal(await read(machine), "before");
      await write(machine, `fork ${i}`);
      for (let n = 0; n < i; n++) await count(machine);
      assert.equal(await count(machine), base + i + 1);
      assert.equal(await run(machine, "hostname"), machine.id);
    }
    assert.equal(await read(source), "before");
    assert.equal(await count(source), base + 1);
    // A fork of a fork, whose ancestors go first.
    const [middle] = machines as [SandboxMachine];
    const { machines: grandchildren } = await middle.fork([sandboxId()]);
    await Promise.all([source, ...machines].map((machine) => machine.destroy()));
    const [last] = grandchildren as [SandboxMachine];
    assert.equal(await read(last), "fork 0");
    assert.equal(await count(last), base + 2);
    await last.destroy();
    await home.provider.adopt(new Set());
    assert.deepEqual(await snapshots(), goldens, "only golden ones are left");
  });

  test("a chain of checkpoints, deleted in any order, harms no machine and no other checkpoint", async () => {
    const orders = [
      [0, 1, 2],
      [0, 2, 1],
      [1, 0, 2],
      [1, 2, 0],
      [2, 0, 1],
      [2, 1, 0],
    ];
    for (const order of LONG || about.cycles >= 50 ? orders : orders.slice(0, 1)) {
      const names = order.map(() => `cp-${sandboxId()}`);
      const machines = [await ready()];
      for (const [i, name] of names.entries()) {
        const machine = machines[i] as SandboxMachine;
        await write(machine, name);
        await machine.checkpoint(name);
        machines.push(await home.spawn({ checkpoint: name }));
      }
      const counts = await Promise.all(machines.map(count));
      for (const i of order) {
        await home.provider.removeSnapshot(checkpointKey(names[i] as string));
        for (const [n, machine] of machines.entries()) {
          assert.equal(await read(machine), names[Math.min(n, names.length - 1)] as string);
          counts[n] = (counts[n] as number) + 1;
          assert.equal(await count(machine), counts[n]);
        }
        await assert.rejects(home.spawn({ checkpoint: names[i] as string }), { code: "not-found" });
      }
      await Promise.all(machines.map((machine) => machine.destroy()));
    }
  });

  test("a disk without room for a fork or a checkpoint: an error, and the sandbox goes on as it was, running or paused", async (t) => {
    if (process.getuid?.() !== 0) return t.skip("mounting a small filesystem needs root");
    const machine = await ready();
    const at = await count(machine);
    await runTool("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", home.paths.tmp]);
    try {
      await assert.rejects(machine.checkpoint(`cp-${sandboxId()}`));
      assert.equal(await count(machine), at + 1);
      await assert.rejects(machine.fork([sandboxId(), sandboxId()]));
      assert.equal(await count(machine), at + 2);
      if (await pauses(t)) {
        await machine.pause();
        await assert.rejects(machine.checkpoint(`cp-${sandboxId()}`));
        assert.equal(machine.state, "paused");
      }
      assert.deepEqual(await readdir(home.paths.tmp), []);
    } finally {
      await runTool("umount", [home.paths.tmp]);
    }
    await machine.resume();
    assert.equal(await count(machine), at + 3);
    await machine.checkpoint(`cp-${sandboxId()}`);
    assert.equal(await count(machine), at + 4);
    return machine.destroy();
  });

  test("back to a checkpoint in place: the same sandbox, as it was then", async (t) => {
    const pausable = await pauses(t);
    let machine = await ready();
    await write(machine, "then");
    const at = await count(machine);
    const name = `cp-${sandboxId()}`;
    await machine.checkpoint(name);
    const hostname = await run(machine, "hostname");
    for (const state of ["running", "paused", "suspended"] as const) {
      if (state === "paused" && !pausable) continue;
      await write(machine, "later");
      await count(machine);
      if (state === "paused") await machine.pause();
      if (state === "suspended") await machine.suspend();
      await machine.restore(name);
      assert.equal(machine.state, "running");
      assert.equal(await read(machine), "then");
      assert.equal(await count(machine), at + 1);
      assert.equal(await run(machine, "hostname"), hostname);
    }
    [machine] = (await home.reopen([machine.id])) as [SandboxMachine];
    assert.equal(await count(machine), at + 2);
    await assert.rejects(machine.restore("cp-none"), { code: "corrupt" }); // that there is one, its row says
    assert.equal(await read(machine), "then", "a failure leaves it as it is");
    await machine.destroy();
    await home.provider.removeSnapshot(checkpointKey(name));
    assert.equal(await exists(home.provider.dir(`${machine.id}-next`)), false);
  });
}

const reason = await whyNot();
describe("saved machines under the real Firecracker", { skip: reason ?? false }, () => {
  saved({
    create: async () => {
      const home = await Home.create(({ assets }) => createFirecracker({ assets }), {
        image: "stacyvm/bare",
        memoryMiB: 128,
        diskMiB: 64,
      });
      await installFirecracker(home.paths.assets);
      await buildBareGuest(home.paths.assets);
      return home;
    },
    cycles: 50,
    forks: 3,
    prepare: async () => {},
    count: async (machine) => Number(await run(machine, "counter")),
    write: (machine, text) => run(machine, "block", "write", "0", text),
    read: (machine) => run(machine, "block", "read", "0"),
  });
});

const linux = {
  // A shell that holds its number in memory, and answers over two pipes.
  prepare: (machine: SandboxMachine) =>
    machine.agent.start({
      argv: ["sh", "-c", "mkfifo /ask /say; n=0; while read -r _ </ask; do n=$((n+1)); echo $n >/say; done"],
    }),
  count: async (machine: SandboxMachine) =>
    Number(await run(machine, "sh", "-c", "while [ ! -p /say ]; do sleep 0.1; done; echo >/ask; cat /say")),
  write: (machine: SandboxMachine, text: string) => machine.agent.writeFile("/note", Buffer.from(text)),
  read: (machine: SandboxMachine) => run(machine, "cat", "/note"),
};

describe("saved machines under the real QEMU", () => {
  saved({ create: () => Home.create(() => createQemu(), {}), cycles: LONG ? 50 : 4, forks: 3, ...linux });
});

describe("saved machines under the real Firecracker, with Linux", {
  skip: (await whyNotLinux({ long: true })) ?? false,
}, () => {
  saved({
    create: () => Home.create(({ assets }) => createFirecracker({ assets }), {}),
    cycles: LONG ? 10 : 2,
    forks: 2,
    ...linux,
  });
});
