/** Machines of one shape that are ready before anybody asks: warm ones, and idle VMMs behind them. How many is the pool's to say. */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { Phases } from "../host/phases.ts";
import type { LoadableVmm, Vmm } from "../vmm/vmm.ts";
import { Demand } from "./demand.ts";
import { discard, endedBy, loadInto, machineDir, prepareIdle } from "./launch.ts";
import type { Snapshot, SnapshotStore } from "./snapshot-store.ts";
import type { Target } from "./target.ts";
import { WarmMachine } from "./warm.ts";

/** One that waits. Whoever takes it owns it, and gives the snapshot back when the machine is gone. */
export interface Waiting<T> {
  item: T;
  release: () => void;
  privateBytes: number;
}

/** What a shelf's machines are made with. */
export interface Workshop {
  vmm: Vmm;
  /** Directory of machines. */
  sandboxes: string;
  store: Pick<SnapshotStore, "use">;
  /** ms */
  now(): number;
  /** Private bytes of a process. */
  privateBytes(pid: number): Promise<number>;
  /** Nothing is made any longer. */
  signal: AbortSignal;
}

export class Shelf {
  readonly target: Target;
  readonly demand = new Demand();
  readonly warm: Waiting<WarmMachine>[] = [];
  readonly idle: Waiting<LoadableVmm>[] = [];
  /** Machines that are being made for it. */
  filling = 0;
  /** Its snapshot is being built. */
  building = false;
  /** ms, on the workshop's clock */
  lastArrival: number;
  retryAt = 0;
  readonly #workshop: Workshop;

  constructor(target: Target, workshop: Workshop) {
    this.target = target;
    this.#workshop = workshop;
    this.lastArrival = workshop.now();
  }

  get empty(): boolean {
    return this.warm.length + this.idle.length + this.filling === 0;
  }

  get warmBytes(): number {
    return this.warm.reduce((sum, { privateBytes }) => sum + privateBytes, 0);
  }

  /** Makes a warm machine; it is not on the shelf yet. */
  async makeWarm(snapshot: Snapshot): Promise<Waiting<WarmMachine>> {
    const { vmm, signal, now, privateBytes } = this.#workshop;
    return this.#make(async (dir) => {
      const idle = await prepareIdle(vmm, this.target, snapshot, { dir, signal }, new Phases());
      const started = await loadInto(vmm, idle, snapshot, undefined, new Phases(), { trackDirty: true, signal });
      using _watch = endedBy(signal, started.machine);
      try {
        const item = await WarmMachine.ready(vmm, started, now());
        return { item, privateBytes: await privateBytes(item.machine.record.pid) };
      } catch (error) {
        await started.agent.close();
        await discard(dir, started.machine);
        throw error;
      }
    });
  }

  /** Starts an idle VMM; it is not on the shelf yet. */
  async makeIdle(snapshot: Snapshot): Promise<Waiting<LoadableVmm>> {
    const { vmm, signal } = this.#workshop;
    return this.#make(async (dir) => ({
      item: await prepareIdle(vmm, this.target, snapshot, { dir, signal }, new Phases()),
      privateBytes: 0,
    }));
  }

  async #make<T>(make: (dir: string) => Promise<Omit<Waiting<T>, "release">>): Promise<Waiting<T>> {
    const { sandboxes, store } = this.#workshop;
    await mkdir(sandboxes, { recursive: true, mode: 0o700 });
    const release = store.use(this.target.key);
    try {
      return { ...(await make(machineDir(sandboxes, `pool-${randomBytes(4).toString("hex")}`))), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Takes one off, if nobody has taken it yet. */
  remove<T>(from: Waiting<T>[], waiting: Waiting<T>): boolean {
    const at = from.indexOf(waiting);
    if (at >= 0) from.splice(at, 1);
    return at >= 0;
  }

  /** Ends everything on it. */
  async clear(): Promise<void> {
    await Promise.all([...this.warm.splice(0).map(endWarm), ...this.idle.splice(0).map(endIdle)]);
  }
}

export async function endWarm({ item, release }: Waiting<WarmMachine>): Promise<void> {
  await item.discard();
  release();
}

export async function endIdle({ item, release }: Waiting<LoadableVmm>): Promise<void> {
  await discard(item.dir, item);
  release();
}
