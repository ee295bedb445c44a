/** Real Firecracker machines for tests: the binary, the bare guest, directories, a golden snapshot. */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, open, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Agent, Identity } from "../src/guest/agent.ts";
import { connectAgent } from "../src/guest/client.ts";
import { kvmState } from "../src/host/kvm.ts";
import { dataPaths } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { copySparse } from "../src/host/sparse.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { makeIdentity } from "../src/launcher/identity.ts";
import { makeMachineDir } from "../src/launcher/machine-dir.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { installFirecracker } from "../src/vmm/firecracker/install.ts";
import {
  FILES,
  type JailConfig,
  type MachineConfig,
  type RunningMachine,
  SNAPSHOT_FILES,
  type SnapshotSource,
  type Vmm,
} from "../src/vmm/vmm.ts";

/** The assets of the checkout: set-up puts them there, and what is missing is fetched. */
export const assets = dataPaths().assets;
const DISK_BYTES = 16 << 20;
const GUEST_LIMIT_MS = 10_000;

/** Why no machine can be started here, or `undefined`. Tests skip with it, so that nothing is skipped silently. */
export async function whyNot(): Promise<string | undefined> {
  const kvm = await kvmState();
  if (!kvm.device) return `needs /dev/kvm: ${kvm.reason}`;
  return undefined;
}

/** The same for a Linux guest. @param options.long minutes where KVM interprets the guest's kernel: a long form there */
export async function whyNotLinux(options: { long?: boolean } = {}): Promise<string | undefined> {
  const probe = await createFirecracker({ assets }).probe();
  if (!probe.usable) return `needs Firecracker: ${probe.reason}`;
  if (!probe.guests.includes("linux")) return `needs a KVM that runs Linux guests: ${probe.notes[0]}`;
  const slow = options.long === true && (await kvmState()).mode === "interpreted" && process.env.STACYVM_LONG !== "1";
  return slow ? "a long form where KVM interprets the guest's kernel: STACYVM_LONG=1 runs it" : undefined;
}

export interface Started {
  machine: RunningMachine;
  agent: Agent;
  identity: Identity;
}

/** A scratch world with its own directories; disposing it proves that no process is left. */
export class World implements AsyncDisposable {
  readonly root: string;
  readonly vmm: Vmm;
  readonly config: MachineConfig;
  readonly base: string;
  #count = 0;

  private constructor(root: string, vmm: Vmm, config: MachineConfig) {
    this.root = root;
    this.vmm = vmm;
    this.config = config;
    this.base = join(root, "images", "base.img");
  }

  static async create(
    options: { memoryMiB?: number; vcpus?: number; parent?: string; vmm?: Vmm } = {},
  ): Promise<World> {
    await installFirecracker(assets);
    const { path: kernel } = await buildBareGuest(assets);
    const root = await mkdtemp(join(options.parent ?? process.env.STACYVM_TEST_DIR ?? tmpdir(), "fc-"));
    const config = { vcpus: options.vcpus ?? 1, memoryMiB: options.memoryMiB ?? 128, kernel };
    const world = new World(root, options.vmm ?? createFirecracker({ assets }), config);
    await mkdir(join(root, "images"));
    const file = await open(world.base, "wx");
    await file.write("the shared base");
    await file.truncate(1 << 20);
    await file.close();
    await chmod(world.base, 0o444);
    return world;
  }

  /** A machine's directory with base and, unless told otherwise, an empty disk. */
  async dir(options: { disk?: boolean } = {}): Promise<string> {
    const dir = join(this.root, `m${this.#count++}`);
    await makeMachineDir(dir, this.base);
    if (options.disk !== false) {
      const file = await open(join(dir, FILES.rootfs), "wx");
      await file.truncate(DISK_BYTES);
      await file.close();
    }
    return dir;
  }

  async boot(options: { memory?: "private" | "shared"; jail?: JailConfig; dir?: string } = {}): Promise<Started> {
    const dir = options.dir ?? (await this.dir());
    const { config } = this;
    const jail = options.jail === undefined ? {} : { jail: options.jail };
    const vmm = await this.vmm.prepareBoot({ dir, config, memory: options.memory ?? "private", ...jail });
    return this.greet(await vmm.boot());
  }

  async greet(machine: RunningMachine): Promise<Started> {
    const identity = makeIdentity(`sb-${this.#count++}`, { config: { env: [] } } as never, {});
    const stream = await machine.connectAgent({ timeoutMs: GUEST_LIMIT_MS });
    const agent = await connectAgent(stream, { timeoutMs: GUEST_LIMIT_MS, identity });
    return { machine, agent, identity };
  }

  /** Boots, runs `prepare`, saves. @returns the snapshot's directory with `rootfs.ext4` */
  async golden(prepare?: (agent: Agent) => Promise<void>): Promise<string> {
    const { machine, agent } = await this.boot({ memory: "shared" });
    await prepare?.(agent);
    await agent.close();
    const snapshot = await this.save(machine);
    await machine.kill();
    return snapshot;
  }

  async save(machine: RunningMachine): Promise<string> {
    const out = join(this.root, `snapshot${this.#count++}`);
    await mkdir(out);
    const paused = await machine.pause();
    const saved = await paused.save(out);
    await copySparse(join(machine.dir, FILES.rootfs), join(out, FILES.rootfs));
    await saved.finish();
    // As publication does; a jailed machine reads it as another user.
    for (const name of Object.values(SNAPSHOT_FILES)) await chmod(join(out, name), 0o444);
    if (saved.resumable) await paused.resume();
    return out;
  }

  /** A directory and its disk copied from the snapshot. */
  async placeFor(snapshot: string): Promise<string> {
    const dir = await this.dir({ disk: false });
    await copySparse(join(snapshot, FILES.rootfs), join(dir, FILES.rootfs));
    return dir;
  }

  async restore(snapshot: string, options: Omit<SnapshotSource, "dir"> & { jail?: JailConfig } = {}): Promise<Started> {
    const { jail, ...rest } = options;
    const dir = await this.placeFor(snapshot);
    const source = { dir: snapshot, ...rest };
    const { config } = this;
    const idle = await this.vmm.prepareLoad({
      dir,
      config,
      memory: "private",
      snapshot: source,
      ...(jail === undefined ? {} : { jail }),
    });
    return this.greet(await idle.load(source));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const left = await processesIn(this.root);
    for (const pid of left) process.kill(pid, "SIGKILL");
    await rm(this.root, { recursive: true, force: true, maxRetries: 5 });
    if (left.length === 0) return;
    // Not thrown: it would hide the test's own error.
    console.error(`left running: ${left.join(" ")}`);
    process.exitCode = 1;
  }
}

/** The largest size of a file that a process may write, bytes. */
export async function largestFile(pid: number): Promise<number> {
  return Number(/^Max file size +(\d+) +\1 /m.exec(await readFile(`/proc/${pid}/limits`, "utf8"))?.[1]);
}

/**
 * A machine that would write more than it can have by rights: its directory is that of a smaller one, so a save of its memory comes to the
 * bound of its files.
 */
export async function savesTooMuch(world: World, snapshot: string, small: MachineConfig): Promise<void> {
  const dir = await world.placeFor(snapshot);
  const source = { dir: snapshot };
  const idle = await world.vmm.prepareLoad({ dir, config: small, memory: "private", snapshot: source });
  const { machine, agent } = await world.greet(await idle.load(source));
  assert.equal(await largestFile(machine.record.pid), (small.memoryMiB + 64) * 2 ** 20);
  await agent.close();
  const out = await mkdtemp(join(world.root, "much-"));
  const paused = await machine.pause();
  await assert.rejects(paused.save(out));
  assert.deepEqual(await readdir(out), [], "nothing is left of it");
  await machine.kill();
}

/** The standard output of one command. */
export async function run(agent: Agent, ...argv: string[]): Promise<string> {
  const result = await agent.exec({ argv });
  assert.equal(result.exitCode, 0, `${argv.join(" ")}: ${result.stderr.toString("utf8")}`);
  return result.stdout.toString("utf8");
}
