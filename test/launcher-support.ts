/** Real machines for tests: kernel, agent and images are shared with the checkout, machines and snapshots are the test's own. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sandboxId } from "../bench/spawning.ts";
import { type DataPaths, dataPaths } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { createImages } from "../src/images/store.ts";
import { type Launched, Launcher, type LaunchOptions } from "../src/launcher/launcher.ts";
import { removeMachineDir } from "../src/launcher/machine-dir.ts";
import type { PoolLimits } from "../src/launcher/pool.ts";
import type { LaunchSpec, Target } from "../src/launcher/target.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { Vmm } from "../src/vmm/vmm.ts";
import { borrowGoldens, lendGoldens } from "./goldens.ts";

export async function scratchPaths(): Promise<DataPaths> {
  const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "launcher-"));
  const shared = dataPaths();
  return { ...dataPaths(root), images: shared.images, assets: shared.assets };
}

const SPEC: LaunchSpec = {
  image: "stacyvm/busybox",
  vcpus: 1,
  memoryMiB: 256,
  diskMiB: 256,
  setup: [],
  setupEnv: {},
};

export class Bench implements AsyncDisposable {
  readonly paths: DataPaths;
  readonly launcher: Launcher;
  readonly #launched = new Set<Launched>();

  private constructor(paths: DataPaths, vmm: Vmm, pool: Partial<PoolLimits> | undefined) {
    this.paths = paths;
    this.launcher = new Launcher({ vmm, images: createImages(paths), paths, ...(pool === undefined ? {} : { pool }) });
  }

  static async create(vmm: Vmm = createQemu(), pool?: Partial<PoolLimits>): Promise<Bench> {
    const paths = await scratchPaths();
    if (vmm.name === "firecracker") await borrowGoldens(paths.snapshots);
    return new Bench(paths, vmm, pool);
  }

  /** The golden snapshot of `over`, which later tests of this run may borrow. */
  async golden(over: Partial<LaunchSpec> = {}): Promise<Target> {
    const target = await this.launcher.targets.resolve({ ...SPEC, ...over });
    await this.launcher.ensureGolden(target);
    if (this.launcher.vmm.name === "firecracker") await lendGoldens(this.paths.snapshots);
    return target;
  }

  /** Processes of the pool: warm machines, and idle monitors of a shape or of none. */
  async waiting(): Promise<number[]> {
    await this.launcher.pool?.settled();
    const { sandboxes } = this.paths;
    const dirs = (await readdir(sandboxes)).filter((name) => name.startsWith("pool-"));
    return (await Promise.all(dirs.map((name) => processesIn(join(sandboxes, name))))).flat();
  }

  async launch(over: Partial<LaunchSpec> = {}, options: Partial<LaunchOptions> = {}): Promise<Launched> {
    const spec = { ...SPEC, ...over };
    const launched = await this.launcher.launch(spec, { id: sandboxId(), ...options });
    this.#launched.add(launched);
    return launched;
  }

  async remove(launched: Launched): Promise<void> {
    this.#launched.delete(launched);
    await launched.agent.close();
    await launched.machine.kill();
    launched.releaseSnapshot();
    await removeMachineDir(launched.dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#launched].map((launched) => this.remove(launched)));
    await this.launcher.close();
    const left = await processesIn(this.paths.root);
    await rm(this.paths.root, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`left running: ${left.join(", ")}`);
  }
}

export async function sh(launched: Launched, command: string): Promise<string> {
  const { exitCode, stdout, stderr } = await launched.agent.exec({ argv: ["sh", "-c", command] });
  if (exitCode !== 0) throw new Error(`"${command}" ended with ${exitCode}: ${stderr}`);
  return stdout.toString("utf8").trim();
}
