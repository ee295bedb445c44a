/**
 * The service around the restore: what a client waits for over HTTP beside what the machine takes, on both monitors. `outside` is the
 * answer's time less the launcher's own, in the same request.
 *
 *     --n=N       rounds (default 50)
 *     --storm=N   creates at once (default 100)
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { dataPaths } from "../src/host/paths.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { borrow } from "./borrow.ts";
import { type BenchDaemon, startDaemon } from "./daemon.ts";
import { type BenchContext, barChart, type Suite } from "./harness.ts";

const HEALTH_EVERY_MS = 10;
const SIDES = [
  { name: "qemu", image: "stacyvm/busybox" },
  { name: "firecracker", image: "stacyvm/bare" },
] as const;

interface Created {
  id: string;
  boot: { path: string; total_ms: number };
}

export const suite: Suite = {
  name: "service",
  about: "what clients wait for over HTTP: spawn, exec, run, delete, health under a storm",
  async run(context) {
    const option = (name: string, otherwise: number): number =>
      Number(new RegExp(`--${name}=(\\d+)`).exec(context.args.join(" "))?.[1] ?? otherwise);
    const paths = dataPaths();
    const monitors = { qemu: createQemu(), firecracker: createFirecracker({ assets: paths.assets }) };
    for (const { name, image } of SIDES) {
      const probe = await monitors[name].probe();
      if (!probe.usable) {
        context.note(`${name} is left out: ${probe.reason}`);
        continue;
      }
      context.versions[name] = `${probe.version}, ${probe.accelerator}`;
      if (name === "firecracker") await buildBareGuest(paths.assets);
      const root = join(paths.tmp, `bench-service-${process.pid}`);
      await borrow(root);
      try {
        const storm = option("storm", 100);
        const settings = { STACYVM_PROVIDER: name, STACYVM_WARM_ADAPTIVE: "false" };
        await using daemon = await startDaemon(root, storm + 2, settings);
        const service = new Service(context, daemon, `${name}.`, { image, memory_mb: 256 });
        await service.rounds(option("n", 50));
        await service.storm(storm);
      } finally {
        await rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
      }
    }
  },
  render: ({ results }) =>
    SIDES.flatMap(({ name }) =>
      barChart(
        `${name}: p50 of what a client waits for`,
        ["create", "warm.create", "run", "warm.run", "exec", "delete"].map((what): [string, number] => [
          what,
          results[`${name}.${what}`]?.p50 ?? 0,
        ]),
      ),
    ),
};

class Service {
  readonly #context: BenchContext;
  readonly #daemon: BenchDaemon;
  readonly #prefix: string;
  readonly #spawn: { image: string; memory_mb: number };

  constructor(context: BenchContext, daemon: BenchDaemon, prefix: string, spawn: { image: string; memory_mb: number }) {
    this.#context = context;
    this.#daemon = daemon;
    this.#prefix = prefix;
    this.#spawn = spawn;
  }

  async rounds(n: number): Promise<void> {
    const { ok } = this.#daemon;
    this.#context.progress(`${this.#prefix.slice(0, -1)}: on demand, n = ${n}`);
    await ok("POST", "/snapshots", this.#spawn);
    for (let i = 0; i < n; i++) {
      await this.#life("", "restored");
      await this.#timed("run", () => this.#run("restored"));
    }
    // A pool of the default size, pinned; each claim waits until it is full again, as in a server that is not busy.
    this.#context.progress(`${this.#prefix.slice(0, -1)}: warm, n = ${n}`);
    await ok("POST", "/templates", { ...this.#spawn, name: "bench", pool_size: 2 });
    for (let i = 0; i < n; i++) {
      await this.#filled();
      await this.#life("warm.", "warm");
      await this.#filled();
      await this.#timed("warm.run", () => this.#run("warm"));
    }
    await ok("DELETE", "/templates/bench");
  }

  /** Creates, runs two commands, deletes. */
  async #life(kind: string, path: string): Promise<void> {
    const { ok } = this.#daemon;
    const exec = (id: string) => ok("POST", `/sandboxes/${id}/exec`, { command: "echo", args: ["hello"] });
    const created = await this.#timed(`${kind}create`, async () =>
      JSON.parse(await ok("POST", "/sandboxes", this.#spawn)),
    );
    if (created === undefined) return;
    const { result, ms } = created as { result: Created; ms: number };
    this.#context.sample(`${this.#prefix}${kind}create.outside`, ms - result.boot.total_ms);
    if (result.boot.path !== path) this.#context.failure(kind, new Error(`it came ${result.boot.path}`));
    await this.#timed(`${kind}exec.first`, () => exec(result.id));
    await this.#timed(`${kind}exec`, () => exec(result.id));
    await this.#timed(`${kind}delete`, () => ok("DELETE", `/sandboxes/${result.id}`));
  }

  async #run(path: string): Promise<void> {
    const answer = await this.#daemon.ok("POST", "/run", { ...this.#spawn, command: "echo", args: ["hello"] });
    const { stdout, boot } = JSON.parse(answer) as { stdout: string; boot: { path: string } };
    // The bare guest has no shell that takes the quotes off.
    if (!/^'?hello'?\n$/.test(stdout)) throw new Error(answer);
    if (boot.path !== path) throw new Error(`it came ${boot.path}`);
  }

  async #filled(): Promise<void> {
    while ((JSON.parse(await this.#daemon.ok("GET", "/pool/status")) as { vms?: number }).vms !== 2) {
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }

  /** Many at once, each to its first output, while somebody else asks for the server's health. */
  async storm(count: number): Promise<void> {
    this.#context.progress(`${this.#prefix.slice(0, -1)}: ${count} at once`);
    let over = false;
    const health = (async () => {
      while (!over) {
        await this.#timed(`storm-${count}.health`, () => this.#daemon.ok("GET", "/health"));
        await new Promise((wake) => setTimeout(wake, HEALTH_EVERY_MS));
      }
    })();
    const { ok } = this.#daemon;
    const ids: string[] = [];
    const begun = performance.now();
    await Promise.all(
      Array.from({ length: count }, async () => {
        try {
          const { id } = JSON.parse(await ok("POST", "/sandboxes", this.#spawn)) as Created;
          ids.push(id);
          await ok("POST", `/sandboxes/${id}/exec`, { command: "echo", args: ["hello"] });
          this.#context.sample(`${this.#prefix}storm-${count}.each`, performance.now() - begun);
        } catch (error) {
          this.#context.failure(`${this.#prefix}storm`, error);
        }
      }),
    );
    this.#context.sample(`${this.#prefix}storm-${count}`, performance.now() - begun);
    over = true;
    await health;
    await Promise.all(ids.map((id) => ok("DELETE", `/sandboxes/${id}`)));
  }

  async #timed<T>(name: string, work: () => Promise<T>): Promise<{ result: T; ms: number } | undefined> {
    const begun = performance.now();
    try {
      const result = await work();
      const ms = performance.now() - begun;
      this.#context.sample(`${this.#prefix}${name}`, ms);
      return { result, ms };
    } catch (error) {
      this.#context.failure(`${this.#prefix}${name}`, error);
      return undefined;
    }
  }
}
