/**
 * Machines ready before anybody asks, per shape: warm ones, and idle VMMs behind them. Claims take from here at no cost to
 * one another; refilling happens beside them, a few at a time, and never while a spawn is in progress.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { totalmem } from "node:os";
import { asStacyError, type StacyError } from "../host/error.ts";
import { Phases } from "../host/phases.ts";
import type { LoadableVmm, Vmm } from "../vmm/vmm.ts";
import { Demand } from "./demand.ts";
import { loadInto, machineDir, prepareIdle } from "./launch.ts";
import { removeMachineDir } from "./machine-dir.ts";
import type { Snapshot } from "./snapshot-store.ts";
import type { Target } from "./target.ts";
import { WarmMachine } from "./warm.ts";

export interface PoolLimits {
  /** Warm machines per shape, at most. */
  maxWarm: number;
  /** Idle VMMs per shape, at most. */
  maxIdle: number;
  /** Follow demand; otherwise only what is pinned is kept. */
  adaptive: boolean;
  /** Private memory of all warm machines together, bytes. */
  memoryBudget: number;
  /** A warm machine is replaced after this time, ms. */
  maxAgeMs: number;
  /** Refills under way at once. */
  parallel: number;
}

export const DEFAULT_POOL: PoolLimits = {
  maxWarm: 8,
  maxIdle: 2,
  adaptive: true,
  memoryBudget: Math.floor(totalmem() / 4),
  maxAgeMs: 30 * 60_000,
  parallel: 1,
};

/** Below this share of the host's memory, warm machines are given back. */
const PRESSURE_SHARE = 0.08;
/** Above this share they are made again: the gap keeps one from being given back and made in turns. */
const RELAXED_SHARE = 0.15;
/** A shape that nobody asked for in this time, and that keeps nothing ready, is forgotten. */
const FORGET_MS = 60 * 60_000;
const TICK_MS = 2_000;
/** After a failed refill, wait this long: a broken snapshot must not be tried in a loop. */
const RETRY_MS = 30_000;

export interface PoolEventData {
  key: string;
  image: string;
  /** Warm machines on the shelf now. */
  warm: number;
  reason?: string;
  error?: StacyError;
}

export interface PoolEnvironment {
  vmm: Vmm;
  /** Directory of machines. */
  sandboxes: string;
  snapshot(target: Target): Promise<Snapshot | undefined>;
  use(key: string): () => void;
  /** Private bytes of a process. */
  privateBytes(pid: number): Promise<number>;
  now(): number;
  /** Free memory of the host as a share of all, 0..1. */
  freeShare?(): Promise<number>;
  /** The host has memory again: what was pushed out of it may come back. */
  relaxed?(): void;
  emit(
    event: "filled" | "replaced" | "failed",
    data: { key: string; image: string; warm: number; reason?: string; error?: StacyError },
  ): void;
}

interface Waiting<T> {
  item: T;
  release: () => void;
  privateBytes: number;
}

interface Shelf {
  target: Target;
  pinned: number;
  demand: Demand;
  warm: Waiting<WarmMachine>[];
  idle: Waiting<LoadableVmm>[];
  filling: number;
  lastArrival: number;
  retryAt: number;
}

export interface ShelfStatus {
  target: Target;
  warm: number;
  idle: number;
  wanted: number;
  filling: number;
}

export class Pool {
  readonly #env: PoolEnvironment;
  readonly #limits: PoolLimits;
  readonly #shelves = new Map<string, Shelf>();
  readonly #work = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  #spawning = 0;
  /** The host is short of memory: nothing is made until it has relaxed. */
  #pressed = false;
  #closed = false;

  constructor(env: PoolEnvironment, limits: PoolLimits = DEFAULT_POOL) {
    this.#env = env;
    this.#limits = limits;
    this.#timer = setInterval(() => void this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  /** Says that a spawn of this shape has begun; refilling waits until the returned function is called. */
  arrive(target: Target): () => void {
    const now = this.#env.now();
    const shelf = this.#shelf(target);
    shelf.demand.arrive(now);
    shelf.lastArrival = now;
    this.#spawning += 1;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      this.#spawning -= 1;
      if (this.#spawning === 0) setImmediate(() => this.#refill());
    };
  }

  /** Takes a warm machine; it belongs to the caller alone from here on. */
  takeWarm(key: string): Waiting<WarmMachine> | undefined {
    // The youngest: its pages are the likeliest to be in the caches.
    return this.#shelves.get(key)?.warm.pop();
  }

  takeIdle(key: string): Waiting<LoadableVmm> | undefined {
    return this.#shelves.get(key)?.idle.pop();
  }

  /** Keeps at least `count` warm machines of this shape from now on; 0 lifts it. */
  pin(target: Target, count: number): void {
    const shelf = this.#shelf(target);
    shelf.pinned = Math.max(0, count);
    this.#trim(shelf);
    this.#refill();
  }

  status(): ShelfStatus[] {
    return [...this.#shelves.values()].map((shelf) => ({
      target: shelf.target,
      warm: shelf.warm.length,
      idle: shelf.idle.length,
      wanted: this.#wanted(shelf),
      filling: shelf.filling,
    }));
  }

  /** Processes of the warm machines of a shape, for measuring what they cost. */
  waitingPids(key: string): number[] {
    return (this.#shelves.get(key)?.warm ?? []).map(({ item }) => item.machine.record.pid);
  }

  /** Settles when every shelf has what it should have, or cannot get it. For tests and benchmarks. */
  async settled(): Promise<void> {
    this.#refill();
    while (this.#work.size > 0) {
      await Promise.allSettled([...this.#work]);
      this.#refill();
    }
  }

  /** Removes everything of one shape, for example before its snapshot is removed. */
  async empty(key: string): Promise<void> {
    const shelf = this.#shelves.get(key);
    if (shelf === undefined) return;
    this.#shelves.delete(key);
    await this.#drop(shelf);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await Promise.allSettled([...this.#work]);
    await Promise.all([...this.#shelves.keys()].map((key) => this.empty(key)));
  }

  #shelf(target: Target): Shelf {
    let shelf = this.#shelves.get(target.key);
    if (shelf === undefined) {
      const demand = new Demand();
      shelf = { target, pinned: 0, demand, warm: [], idle: [], filling: 0, lastArrival: this.#env.now(), retryAt: 0 };
      this.#shelves.set(target.key, shelf);
    }
    return shelf;
  }

  #wanted(shelf: Shelf): number {
    const adaptive = this.#limits.adaptive ? shelf.demand.target(this.#env.now()) : 0;
    return Math.max(shelf.pinned, Math.min(this.#limits.maxWarm, adaptive));
  }

  async #tick(): Promise<void> {
    const now = this.#env.now();
    for (const shelf of this.#shelves.values()) {
      const old = shelf.warm.filter(({ item }) => now - item.bornAt > this.#limits.maxAgeMs);
      // One at a time, and only when another can serve meanwhile or nobody asks for it.
      const aged = old[0];
      if (aged !== undefined && (shelf.warm.length > 1 || this.#spawning === 0)) this.#retire(shelf, aged, "age");
      this.#trim(shelf);
      const empty = shelf.warm.length + shelf.idle.length + shelf.filling === 0;
      if (empty && this.#wanted(shelf) === 0 && now - shelf.lastArrival > FORGET_MS) {
        this.#shelves.delete(shelf.target.key);
      }
    }
    await this.#relieve();
    this.#refill();
  }

  /** Ends what is more than wanted, the oldest first. */
  #trim(shelf: Shelf): void {
    const wanted = this.#wanted(shelf);
    while (shelf.warm.length > wanted) {
      const surplus = shelf.warm.shift();
      if (surplus !== undefined) this.#background(this.#end(surplus.item, surplus.release));
    }
    while (shelf.idle.length > Math.min(this.#limits.maxIdle, wanted)) {
      const surplus = shelf.idle.shift();
      if (surplus !== undefined) this.#background(this.#endIdle(surplus));
    }
  }

  /** Gives memory back when the host runs short: the shelf that was asked for longest ago first. */
  async #relieve(): Promise<void> {
    const share = await (this.#env.freeShare ?? freeShare)();
    const before = this.#pressed;
    this.#pressed = share < (before ? RELAXED_SHARE : PRESSURE_SHARE);
    if (before && !this.#pressed) this.#env.relaxed?.();
    if (!this.#pressed && this.#warmBytes() <= this.#limits.memoryBudget) return;
    const shelves = [...this.#shelves.values()]
      .filter(({ warm }) => warm.length > 0)
      .sort((a, b) => a.lastArrival - b.lastArrival);
    const victim = shelves[0]?.warm.shift();
    if (victim !== undefined) this.#background(this.#end(victim.item, victim.release));
  }

  #warmBytes(): number {
    let bytes = 0;
    for (const { warm } of this.#shelves.values()) for (const { privateBytes } of warm) bytes += privateBytes;
    return bytes;
  }

  #refill(): void {
    if (this.#closed || this.#spawning > 0 || this.#pressed) return;
    const now = this.#env.now();
    for (const shelf of this.#shelves.values()) {
      if (now < shelf.retryAt) continue;
      const wanted = this.#wanted(shelf);
      let running = [...this.#shelves.values()].reduce((sum, { filling }) => sum + filling, 0);
      while (running < this.#limits.parallel && shelf.warm.length + shelf.filling < wanted && this.#hasBudget(shelf)) {
        running += 1;
        this.#background(this.#fill(shelf, (snapshot) => this.#addWarm(shelf, snapshot)));
      }
      const idleWanted = Math.min(this.#limits.maxIdle, wanted);
      while (
        running < this.#limits.parallel &&
        shelf.warm.length >= wanted &&
        shelf.idle.length + shelf.filling < idleWanted
      ) {
        running += 1;
        this.#background(this.#fill(shelf, (snapshot) => this.#addIdle(shelf, snapshot)));
      }
    }
  }

  #hasBudget(shelf: Shelf): boolean {
    const typical = shelf.warm[0]?.privateBytes ?? 0;
    return this.#warmBytes() + typical * (shelf.filling + 1) <= this.#limits.memoryBudget;
  }

  async #fill(shelf: Shelf, add: (snapshot: Snapshot) => Promise<void>): Promise<void> {
    shelf.filling += 1;
    const start = this.#env.now();
    try {
      const snapshot = await this.#env.snapshot(shelf.target);
      if (snapshot === undefined) {
        // The golden snapshot is still being built.
        shelf.retryAt = this.#env.now() + TICK_MS;
        return;
      }
      await mkdir(this.#env.sandboxes, { recursive: true, mode: 0o700 });
      await add(snapshot);
      shelf.demand.refillTook(this.#env.now() - start);
    } catch (thrown) {
      const error = asStacyError(thrown);
      shelf.retryAt = this.#env.now() + RETRY_MS;
      this.#env.emit("failed", {
        key: shelf.target.key,
        image: shelf.target.image.reference,
        warm: shelf.warm.length,
        error,
        reason: error.message,
      });
    } finally {
      shelf.filling -= 1;
    }
    this.#refill();
  }

  async #addWarm(shelf: Shelf, snapshot: Snapshot): Promise<void> {
    const { key, image } = shelf.target;
    const release = this.#env.use(key);
    const dir = machineDir(this.#env.sandboxes, `pool-${randomBytes(4).toString("hex")}`);
    try {
      const idle = await prepareIdle(this.#env.vmm, shelf.target, snapshot, { dir }, new Phases());
      const started = await loadInto(idle, snapshot, undefined, new Phases(), { trackDirty: true });
      let warm: WarmMachine;
      try {
        warm = await WarmMachine.ready(this.#env.vmm, started, this.#env.now());
      } catch (error) {
        await started.agent.close();
        await started.machine.kill();
        await removeMachineDir(dir);
        throw error;
      }
      const privateBytes = await this.#env.privateBytes(warm.machine.record.pid);
      const waiting = { item: warm, release, privateBytes };
      if (this.#closed || this.#shelves.get(key) !== shelf) {
        await this.#end(warm, release);
        return;
      }
      shelf.warm.push(waiting);
      // One that dies while it waits is replaced before anybody meets it.
      void warm.machine.exited.then(() => this.#retire(shelf, waiting, "died"));
      // Less may be wanted by now than when this one was begun.
      this.#trim(shelf);
      this.#env.emit("filled", { key, image: image.reference, warm: shelf.warm.length });
    } catch (error) {
      release();
      throw error;
    }
  }

  async #addIdle(shelf: Shelf, snapshot: Snapshot): Promise<void> {
    const { key } = shelf.target;
    const release = this.#env.use(key);
    const dir = machineDir(this.#env.sandboxes, `pool-${randomBytes(4).toString("hex")}`);
    try {
      const idle = await prepareIdle(this.#env.vmm, shelf.target, snapshot, { dir }, new Phases());
      const waiting = { item: idle, release, privateBytes: 0 };
      if (this.#closed || this.#shelves.get(key) !== shelf) {
        await this.#endIdle(waiting);
        return;
      }
      shelf.idle.push(waiting);
      void idle.exited.then(() => {
        const at = shelf.idle.indexOf(waiting);
        if (at < 0) return;
        shelf.idle.splice(at, 1);
        this.#background(this.#endIdle(waiting));
      });
    } catch (error) {
      release();
      throw error;
    }
  }

  #retire(shelf: Shelf, waiting: Waiting<WarmMachine>, reason: string): void {
    const at = shelf.warm.indexOf(waiting);
    if (at < 0) return; // it was claimed
    shelf.warm.splice(at, 1);
    const { key, image } = shelf.target;
    this.#env.emit("replaced", { key, image: image.reference, warm: shelf.warm.length, reason });
    this.#background(this.#end(waiting.item, waiting.release).then(() => this.#refill()));
  }

  async #drop(shelf: Shelf): Promise<void> {
    await Promise.all([
      ...shelf.warm.splice(0).map(({ item, release }) => this.#end(item, release)),
      ...shelf.idle.splice(0).map((waiting) => this.#endIdle(waiting)),
    ]);
  }

  async #end(warm: WarmMachine, release: () => void): Promise<void> {
    const { dir } = warm;
    await warm.discard();
    release();
    await removeMachineDir(dir);
  }

  async #endIdle({ item, release }: Waiting<LoadableVmm>): Promise<void> {
    const { dir } = item;
    await item.kill();
    release();
    await removeMachineDir(dir);
  }

  #background(work: Promise<void>): void {
    const kept = work.catch(() => {}).finally(() => this.#work.delete(kept));
    this.#work.add(kept);
  }
}

async function freeShare(): Promise<number> {
  const text = await readFile("/proc/meminfo", "latin1");
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
  return kib("MemAvailable") / Math.max(1, kib("MemTotal"));
}
