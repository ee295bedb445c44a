/** The server's layers below HTTP, in this process, over real machines: what a fault did to them can be looked at. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { borrow } from "../../bench/borrow.ts";
import { validateConfig } from "../../src/config/load.ts";
import { limitsOf } from "../../src/config/options.ts";
import { type DataPaths, dataPaths } from "../../src/host/paths.ts";
import { processesIn } from "../../src/host/process.ts";
import { createImages } from "../../src/images/store.ts";
import { createMicrovmProvider, type MicrovmProvider } from "../../src/providers/microvm.ts";
import { systemClock } from "../../src/sandboxes/clock.ts";
import { silentLog, silentObserver } from "../../src/sandboxes/observer.ts";
import type { SpawnInput } from "../../src/sandboxes/resolve.ts";
import { Sandboxes } from "../../src/sandboxes/sandboxes.ts";
import { Store } from "../../src/sandboxes/store.ts";
import { createFirecracker } from "../../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../../src/vmm/qemu/qemu.ts";
import type { Vmm } from "../../src/vmm/vmm.ts";
import { borrowGoldens, lendGoldens, type Wanted } from "../goldens.ts";

const firecracker = (): Vmm => createFirecracker({ assets: dataPaths().assets });
export const MONITORS = {
  firecracker: { create: firecracker, spec: { image: "stacyvm/bare", memoryMiB: 128, diskMiB: 64 } },
  "firecracker-linux": { create: firecracker, spec: { image: "stacyvm/busybox", memoryMiB: 256, diskMiB: 256 } },
  qemu: { create: createQemu, spec: { image: "stacyvm/busybox", memoryMiB: 128, diskMiB: 64 } },
} satisfies Record<string, { create(): Vmm; spec: SpawnInput }>;
export type Monitor = keyof typeof MONITORS;

/** What a failed end needs until it is tried again, and more. */
const SETTLE_MS = 60_000;
const COMMAND_LIMIT_MS = 60_000;

export class World implements AsyncDisposable {
  readonly paths: DataPaths;
  readonly spec: SpawnInput;
  readonly #vmm: Vmm;
  #store!: Store;
  #provider!: MicrovmProvider;
  sandboxes!: Sandboxes;
  #bystander = "";

  private constructor(paths: DataPaths, vmm: Vmm, spec: SpawnInput) {
    this.paths = paths;
    this.#vmm = vmm;
    this.spec = spec;
  }

  static async create(monitor: Monitor): Promise<World> {
    const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "faults-"));
    await borrow(root);
    const world = World.at(root, monitor);
    await world.#begin();
    return world;
  }

  /** On a data directory that is there; not open yet. */
  static at(root: string, monitor: Monitor): World {
    const { create, spec } = MONITORS[monitor];
    return new World(dataPaths(root), create(), spec);
  }

  /** A daemon's start. What fails leaves nothing open, and may be tried again. */
  async open(): Promise<void> {
    const store = new Store(this.paths.database);
    try {
      const images = createImages(this.paths, {});
      this.#provider = createMicrovmProvider({ vmm: this.#vmm, images, paths: this.paths });
      const { limits } = { limits: limitsOf(validateConfig({}, "")) };
      const parts = { limits, clock: systemClock, observer: silentObserver, log: silentLog };
      const sandboxes = new Sandboxes({ store, providers: [this.#provider], volumes: this.paths.volumes, ...parts });
      try {
        await sandboxes.open();
      } catch (error) {
        await sandboxes.close({ destroy: false });
        throw error;
      }
      this.#store = store;
      this.sandboxes = sandboxes;
    } catch (error) {
      store.close();
      throw error;
    }
  }

  /** Its end; machines go on. */
  async close(): Promise<void> {
    await this.sandboxes.close({ destroy: false });
    this.#store.close();
  }

  async spawn(): Promise<string> {
    return (await this.sandboxes.spawn(this.spec)).id;
  }

  /** A sandbox that nothing is done to; it must not notice anything. */
  async bystander(): Promise<string> {
    const there = this.sandboxes.list().find(({ id }) => id === this.#bystander);
    // It lives longer than a run does.
    if (there === undefined) this.#bystander = (await this.sandboxes.spawn({ ...this.spec, ttlMs: 86_400_000 })).id;
    return this.#bystander;
  }

  /** Everything but the bystander goes. */
  async clear(): Promise<void> {
    for (const { id } of this.sandboxes.list()) if (id !== this.#bystander) await this.sandboxes.destroy(id);
    for (const { id } of this.sandboxes.checkpoints.list()) await this.sandboxes.checkpoints.remove(id);
  }

  /** After a failed point: as at the beginning, so that the next one is judged by itself. */
  async reset(): Promise<void> {
    await this.sandboxes.close({ destroy: true }).catch(() => {});
    this.#store.close();
    for (const pid of await processesIn(this.paths.sandboxes)) process.kill(pid, "SIGKILL");
    for (const dir of [this.paths.sandboxes, this.paths.tmp, this.paths.snapshots, this.paths.database]) {
      await rm(dir, { recursive: true, force: true });
    }
    await this.#begin();
  }

  /** With its golden snapshot, which costs a minute where KVM interprets a guest's kernel. */
  async #begin(): Promise<void> {
    const { snapshots } = this.paths;
    const shared = this.#vmm.name === "firecracker";
    if (shared) await borrowGoldens(snapshots, this.spec as Wanted);
    await this.open();
    await this.sandboxes.buildSnapshot(this.spec, new AbortController().signal);
    if (shared) await lendGoldens(snapshots);
  }

  /** What the guest answers to `echo`. */
  async echo(id: string, text: string): Promise<void> {
    assert.equal(await this.#run(id, "echo", text), `${text}\n`);
  }

  /** A file; on the bare guest, which has none, the first sector of its disk. */
  async write(id: string, text: string): Promise<void> {
    if (this.#bare) return void (await this.#run(id, "block", "write", "0", text));
    using lease = await this.sandboxes.lease(id);
    await lease.agent.writeFile("/written", Buffer.from(text), { signal: AbortSignal.timeout(COMMAND_LIMIT_MS) });
  }

  async read(id: string): Promise<string> {
    return (await (this.#bare ? this.#run(id, "block", "read", "0") : this.#run(id, "cat", "/written"))).trim();
  }

  get #bare(): boolean {
    return this.spec.image === "stacyvm/bare";
  }

  async #run(id: string, command: string, ...args: string[]): Promise<string> {
    using lease = await this.sandboxes.lease(id);
    const request = { command, args, mode: "argv", env: {} };
    using result = await this.sandboxes.executions.run(lease, request, AbortSignal.timeout(COMMAND_LIMIT_MS));
    assert.equal(result.exitCode, 0, result.stderr.toString());
    return result.stdout.toString();
  }

  /** Waits until every machine that a start could not reach at once has been taken over. */
  async reached(): Promise<void> {
    const until = performance.now() + SETTLE_MS;
    while (this.sandboxes.list().some(({ unreachable }) => unreachable !== undefined)) {
      assert.ok(performance.now() < until, "a machine was not taken over");
      await new Promise((wake) => setTimeout(wake, 50));
    }
  }

  /** Waits until what is on the host is what the sandboxes say, in directories, processes, temporary files and rows. */
  async settled(): Promise<void> {
    await this.#provider.launcher.settle();
    const until = performance.now() + SETTLE_MS;
    let wrong: string;
    do {
      wrong = await this.#difference();
      if (wrong === "") return;
      await new Promise((wake) => setTimeout(wake, 20));
    } while (performance.now() < until);
    assert.fail(wrong);
  }

  async #difference(): Promise<string> {
    const list = this.sandboxes.list();
    const ids = list.map(({ id }) => id).sort();
    const names = async (dir: string): Promise<string[]> => readdir(dir).catch(() => []);
    const directories = (await names(this.paths.sandboxes)).sort();
    if (directories.join() !== ids.join()) return `directories ${directories} of sandboxes ${ids}`;
    const alive = list.filter(({ state }) => state === "running" || state === "paused").length;
    const processes = await processesIn(this.paths.sandboxes);
    if (processes.length !== alive) return `${processes.length} processes of ${alive} machines`;
    const temporary = await names(this.paths.tmp);
    if (temporary.length > 0) return `left in tmp: ${temporary}`;
    if (this.#store.failure !== undefined) return `rows unwritten: ${this.#store.failure.message}`;
    const rows = this.#store
      .liveSandboxes()
      .map(({ id, state }) => `${id} ${state}`)
      .sort();
    const said = list.map(({ id, state }) => `${id} ${state}`).sort();
    return rows.join() === said.join() ? "" : `rows ${rows}, sandboxes ${said}`;
  }

  /** After `clear`: of forks and checkpoints nothing is left on disk. */
  async nothingSaved(): Promise<void> {
    const keys = (await readdir(this.paths.snapshots)).filter((name) => /^[0-9a-f]{64}$/.test(name));
    assert.ok(keys.length <= 1, `saved machines beside the golden one: ${keys}`);
  }

  /** Keys of what is saved. */
  async snapshots(): Promise<string[]> {
    return (await this.#provider.snapshots()).map(({ key }) => key).sort();
  }

  async removeSnapshot(key: string): Promise<void> {
    await this.#provider.removeSnapshot(key);
  }

  async openFiles(): Promise<number> {
    return (await readdir("/proc/self/fd")).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandboxes.close({ destroy: true });
    this.#store.close();
    const left = await processesIn(this.paths.root);
    for (const pid of left) process.kill(pid, "SIGKILL");
    await rm(this.paths.root, { recursive: true, force: true, maxRetries: 5 });
    assert.deepEqual(left, [], "left running");
  }
}
