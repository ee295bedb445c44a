/** What the parts of `bench -- service` have in common: a monitor with its guest, servers of their own, and times. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Agent } from "../../src/guest/agent.ts";
import { dataPaths } from "../../src/host/paths.ts";
import { createImages } from "../../src/images/store.ts";
import { createMicrovmProvider } from "../../src/providers/microvm.ts";
import { newSandboxId } from "../../src/sandboxes/record.ts";
import type { Vmm } from "../../src/vmm/vmm.ts";
import { borrow } from "../borrow.ts";
import { type BenchDaemon, startDaemon } from "../daemon.ts";
import { type BenchContext, optionOf } from "../harness.ts";

export interface Side {
  monitor: "qemu" | "firecracker";
  spawn: { image: string; memory_mb: number };
  /** The guest is Linux: it has a shell, files and programs. */
  linux: boolean;
}

export type Part = (bench: Bench) => Promise<void>;

/** One part on one monitor. */
export class Bench {
  readonly context: BenchContext;
  readonly side: Side;
  readonly #vmm: Vmm;
  readonly #name: string;
  #directories = 0;

  constructor(context: BenchContext, side: Side, vmm: Vmm, name: string) {
    this.context = context;
    this.side = side;
    this.#vmm = vmm;
    this.#name = name;
  }

  /** `--name=N` */
  option(name: string, otherwise: number): number {
    return Number(optionOf(this.context.args, name) ?? otherwise);
  }

  progress(what: string): void {
    this.context.progress(`${this.side.monitor}: ${what}`);
  }

  sample(name: string, value: number, unit?: string): void {
    this.context.sample(`${this.side.monitor}.${name}`, value, unit);
  }

  failure(what: string, error: unknown): void {
    this.context.failure(`${this.side.monitor}.${what}`, error);
  }

  note(line: string): void {
    this.context.note(`${this.side.monitor}: ${line}`);
  }

  /** A server of this monitor with a directory of its own; both end with it. */
  async serve(parallel: number, settings: Record<string, string> = {}): Promise<BenchDaemon> {
    await using left = new AsyncDisposableStack();
    const dir = await this.#directory(left);
    const all = { STACYVM_PROVIDER: this.side.monitor, STACYVM_WARM_ADAPTIVE: "false", ...settings };
    const daemon = left.use(await startDaemon(dir, parallel, all));
    const kept = left.move();
    return { ...daemon, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  }

  /** A machine of the side's guest in this process, without a server. */
  async direct(): Promise<AsyncDisposable & { agent: Agent }> {
    await using left = new AsyncDisposableStack();
    const paths = dataPaths(await this.#directory(left));
    const provider = createMicrovmProvider({ vmm: this.#vmm, images: createImages(paths), paths });
    left.defer(() => provider.close());
    const { image, memory_mb: memoryMiB } = this.side.spawn;
    const spec = { image, memoryMiB, vcpus: 1, diskMiB: 1_024, env: {}, setup: [] };
    await provider.buildSnapshot(spec);
    const machine = await provider.spawn({ ...spec, id: newSandboxId() });
    left.defer(() => machine.destroy());
    const kept = left.move();
    return { agent: machine.agent, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  }

  async #directory(left: AsyncDisposableStack): Promise<string> {
    const dir = join(dataPaths().tmp, `bench-${this.#name}-${process.pid}-${this.#directories++}`);
    left.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
    await borrow(dir);
    return dir;
  }

  /** Adds what `work` takes to the samples. @returns its result; undefined when it failed, which is counted */
  async timed<T>(name: string, work: () => Promise<T>): Promise<{ result: T; ms: number } | undefined> {
    this.context.signal.throwIfAborted();
    const begun = performance.now();
    try {
      const result = await work();
      const ms = performance.now() - begun;
      this.sample(name, ms);
      return { result, ms };
    } catch (error) {
      this.failure(name, error);
      return undefined;
    }
  }
}

export const ECHO = { command: "echo", args: ["hello"] };

export interface Created {
  id: string;
  boot: { path: string; total_ms: number };
}

export function sleep(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}
