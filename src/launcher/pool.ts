/**
 * How many machines wait ready, per shape: as many as were asked for lately, and what templates want at least. Claims take them at no
 * cost to one another; refilling happens beside them, a few at a time, and gives way to spawns as long as that is not for ever.
 */
import type { EventEmitter } from "node:events";
import { totalmem } from "node:os";
import { asStacyError, type StacyError } from "../host/error.ts";
import type { HostMemory } from "../host/host-memory.ts";
import type { BlankVmm, LoadableVmm, Vmm } from "../vmm/vmm.ts";
import { Blanks } from "./blanks.ts";
import { endIdle, endWarm, Shelf, type Waiting } from "./shelf.ts";
import type { Snapshot, SnapshotStore } from "./snapshot-store.ts";
import type { Target } from "./target.ts";
import type { WarmMachine } from "./warm.ts";

export interface PoolLimits {
  /** Warm machines per shape, at most. */
  maxWarm: number;
  /** Idle VMMs per shape, at most. */
  maxIdle: number;
  /** Idle VMMs of no shape, where the VMM can be started so. */
  maxBlank: number;
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
  maxBlank: 4,
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
/** So long a refill gives way to spawns: under a steady load there is always one, and that load most of all needs warm machines. */
const GIVE_WAY_MS = 1_000;
/** A refill begins so long after a spawn: until then whoever asked for it is still being answered, and a process's start would hold that up. */
const AFTER_SPAWN_MS = 10;

export interface PoolEventData {
  key: string;
  image: string;
  /** Warm machines on the shelf now. */
  warm: number;
  reason?: string;
  error?: StacyError;
}

export interface PoolEvents {
  "pool.filled": [PoolEventData];
  "pool.replaced": [PoolEventData];
  "pool.failed": [PoolEventData];
}

export interface PoolParts {
  vmm: Vmm;
  /** Directory of machines. */
  sandboxes: string;
  store: Pick<SnapshotStore, "get" | "use">;
  memory: HostMemory;
  events: Pick<EventEmitter<PoolEvents>, "emit">;
  /** Builds the snapshot of a pinned shape that has none any more. */
  build(target: Target): Promise<unknown>;
  /** The host has memory again: what was pushed out of it may come back. */
  relaxed(): void;
  /** ms */
  now(): number;
}

export interface ShelfStatus {
  target: Target;
  warm: number;
  idle: number;
  wanted: number;
  filling: number;
}

export class Pool {
  readonly #parts: PoolParts;
  readonly #limits: PoolLimits;
  readonly #shelves = new Map<string, Shelf>();
  /** What is kept ready at least, by who wants it. */
  readonly #pins = new Map<string, { target: Target; count: number }>();
  readonly #blanks: Blanks;
  readonly #work = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #spawning = 0;
  #refilling: NodeJS.Timeout | undefined;
  #lastArrival = Number.NEGATIVE_INFINITY;
  #addingBlank = false;
  #blankRetryAt = 0;
  /** Since when a refill gives way to spawns. */
  #givingWaySince: number | undefined;
  /** The host is short of memory: nothing is made until it has relaxed. */
  #pressed = false;

  constructor(parts: PoolParts, limits: PoolLimits = DEFAULT_POOL) {
    this.#parts = parts;
    this.#limits = limits;
    this.#timer = setInterval(() => void this.#tick(), TICK_MS);
    this.#timer.unref();
    this.#blanks = new Blanks(parts.vmm, parts.sandboxes, limits.maxBlank);
  }

  /** Says that a spawn of this shape has begun; refilling gives way until the returned function is called, or for a while. */
  arrive(target: Target): () => void {
    const now = this.#parts.now();
    const shelf = this.#shelf(target);
    shelf.demand.arrive(now);
    shelf.lastArrival = now;
    this.#lastArrival = now;
    this.#spawning += 1;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      this.#spawning -= 1;
      // Also when another spawn is in progress: it may be time to give way no longer.
      this.#refilling ??= setTimeout(() => {
        this.#refilling = undefined;
        this.#refill();
      }, AFTER_SPAWN_MS).unref();
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

  /** A started VMM of no shape, for a restore. */
  takeBlank(): BlankVmm | undefined {
    return this.#blanks.take();
  }

  /** Keeps at least `count` warm machines of this shape from now on. @param owner whose earlier wish this replaces */
  pin(owner: string, target: Target, count: number): void {
    this.#pins.set(owner, { target, count });
    this.#shelf(target);
    this.#trim();
    this.#refill();
  }

  unpin(owner: string): void {
    this.#pins.delete(owner);
    this.#trim();
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

  /** Ends everything of one shape, for example before its snapshot is removed. What is pinned is made anew. */
  async empty(key: string): Promise<void> {
    const shelf = this.#shelves.get(key);
    if (shelf === undefined) return;
    this.#shelves.delete(key);
    await shelf.clear();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    clearTimeout(this.#refilling);
    this.#closing.abort(new Error("the pool is closed"));
    // What waits does not wait for what is still being made.
    await Promise.allSettled([this.#blanks.close(), ...[...this.#shelves.keys()].map((key) => this.empty(key))]);
    while (this.#work.size > 0) await Promise.allSettled([...this.#work]);
    await this.#blanks.close();
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  #shelf(target: Target): Shelf {
    let shelf = this.#shelves.get(target.key);
    if (shelf === undefined) {
      const { vmm, sandboxes, store, memory, now } = this.#parts;
      const { signal } = this.#closing;
      shelf = new Shelf(target, {
        ...{ vmm, sandboxes, store, now, signal },
        privateBytes: (pid) => memory.privateBytes(pid),
      });
      this.#shelves.set(target.key, shelf);
    }
    return shelf;
  }

  #pinned(key: string): number {
    let count = 0;
    for (const pin of this.#pins.values()) if (pin.target.key === key) count += pin.count;
    return count;
  }

  #wanted(shelf: Shelf): number {
    const adaptive = this.#limits.adaptive ? shelf.demand.target(this.#parts.now()) : 0;
    return Math.max(this.#pinned(shelf.target.key), Math.min(this.#limits.maxWarm, adaptive));
  }

  async #tick(): Promise<void> {
    try {
      const now = this.#parts.now();
      // One whose snapshot was removed is set up again.
      for (const { target } of this.#pins.values()) this.#shelf(target);
      for (const shelf of this.#shelves.values()) {
        const aged = shelf.warm.find(({ item }) => now - item.bornAt > this.#limits.maxAgeMs);
        // One at a time, and only when another can serve meanwhile or nobody asks for it.
        if (aged !== undefined && (shelf.warm.length > 1 || this.#spawning === 0)) this.#retire(shelf, aged, "age");
        if (shelf.empty && this.#wanted(shelf) === 0 && now - shelf.lastArrival > FORGET_MS) {
          this.#shelves.delete(shelf.target.key);
        }
      }
      if (now - this.#lastArrival > FORGET_MS && this.#blanks.count > 0) this.#background(this.#blanks.empty());
      this.#trim();
      await this.#relieve();
    } catch {
      // The host did not say how much memory is free, for example for want of descriptors: the next tick asks again.
    }
    this.#refill();
  }

  /** Ends what is more than wanted, the oldest first. */
  #trim(): void {
    for (const shelf of this.#shelves.values()) {
      const wanted = this.#wanted(shelf);
      for (const surplus of shelf.warm.splice(0, shelf.warm.length - wanted)) this.#background(endWarm(surplus));
      const idle = shelf.idle.length - Math.min(this.#limits.maxIdle, wanted);
      if (idle > 0) for (const surplus of shelf.idle.splice(0, idle)) this.#background(endIdle(surplus));
    }
  }

  /** Gives memory back when the host runs short: the shelf that was asked for longest ago first. */
  async #relieve(): Promise<void> {
    const share = await this.#parts.memory.freeShare();
    const before = this.#pressed;
    this.#pressed = share < (before ? RELAXED_SHARE : PRESSURE_SHARE);
    if (before && !this.#pressed) this.#parts.relaxed();
    if (!this.#pressed && this.#warmBytes() <= this.#limits.memoryBudget) return;
    const shelves = [...this.#shelves.values()]
      .filter(({ warm }) => warm.length > 0)
      .sort((a, b) => a.lastArrival - b.lastArrival);
    const victim = shelves[0]?.warm.shift();
    if (victim !== undefined) this.#background(endWarm(victim));
  }

  #warmBytes(): number {
    let bytes = 0;
    for (const shelf of this.#shelves.values()) bytes += shelf.warmBytes;
    return bytes;
  }

  #refill(): void {
    if (this.#closed || this.#pressed) return;
    const now = this.#parts.now();
    let running = 0;
    for (const { filling } of this.#shelves.values()) running += filling;
    for (const shelf of this.#shelves.values()) {
      if (now < shelf.retryAt || shelf.building) continue;
      const wanted = this.#wanted(shelf);
      const idleWanted = Math.min(this.#limits.maxIdle, wanted);
      while (running < this.#limits.parallel) {
        const needsWarm = shelf.warm.length + shelf.filling < wanted && this.#hasBudget(shelf);
        const needsIdle = shelf.warm.length >= wanted && shelf.idle.length + shelf.filling < idleWanted;
        if (!needsWarm && !needsIdle) break;
        if (this.#givesWay(now)) return;
        running += 1;
        this.#background(
          this.#fill(shelf, (snapshot) =>
            needsWarm ? this.#addWarm(shelf, snapshot) : this.#addIdle(shelf, snapshot),
          ),
        );
      }
    }
    // Only where this VMM is used: the first spawn shows it.
    const used = now - this.#lastArrival <= FORGET_MS;
    if (!used || !this.#blanks.lacking || this.#addingBlank || now < this.#blankRetryAt || this.#givesWay(now)) return;
    this.#background(this.#addBlank());
  }

  async #addBlank(): Promise<void> {
    this.#addingBlank = true;
    try {
      await this.#blanks.add();
    } catch (thrown) {
      this.#blankRetryAt = this.#parts.now() + RETRY_MS;
      const error = asStacyError(thrown);
      this.#parts.events.emit("pool.failed", { key: "", image: "", warm: 0, error, reason: error.message });
    } finally {
      this.#addingBlank = false;
    }
    this.#refill();
  }

  /** While spawns are in progress, but not for ever; then one refill at a time has its turn. */
  #givesWay(now: number): boolean {
    if (this.#spawning > 0) {
      this.#givingWaySince ??= now;
      if (now - this.#givingWaySince < GIVE_WAY_MS) return true;
    }
    this.#givingWaySince = undefined;
    return false;
  }

  #hasBudget(shelf: Shelf): boolean {
    const typical = shelf.warm[0]?.privateBytes ?? 0;
    return this.#warmBytes() + typical * (shelf.filling + 1) <= this.#limits.memoryBudget;
  }

  async #fill(shelf: Shelf, add: (snapshot: Snapshot) => Promise<void>): Promise<void> {
    shelf.filling += 1;
    const { key } = shelf.target;
    const { store, now } = this.#parts;
    const start = now();
    try {
      const snapshot = await store.get(key).catch(() => undefined);
      if (snapshot === undefined) {
        // It is still being built, unless somebody removed it; what is promised is built again.
        shelf.retryAt = now() + TICK_MS;
        if (this.#pinned(key) > 0) this.#build(shelf);
        return;
      }
      await add(snapshot);
      shelf.demand.refillTook(now() - start);
    } catch (thrown) {
      this.#failed(shelf, thrown);
    } finally {
      shelf.filling -= 1;
    }
    this.#refill();
  }

  /** Beside the refills: it may take minutes, in which the other shapes need theirs. */
  #build(shelf: Shelf): void {
    if (shelf.building) return;
    shelf.building = true;
    const work = async (): Promise<void> => {
      try {
        await this.#parts.build(shelf.target);
      } catch (thrown) {
        this.#failed(shelf, thrown);
      } finally {
        shelf.building = false;
      }
      this.#refill();
    };
    this.#background(work());
  }

  #failed(shelf: Shelf, thrown: unknown): void {
    if (this.#closed) return;
    const { key, image } = shelf.target;
    const error = asStacyError(thrown);
    shelf.retryAt = this.#parts.now() + RETRY_MS;
    const data = { key, image: image.reference, warm: shelf.warm.length, error, reason: error.message };
    this.#parts.events.emit("pool.failed", data);
  }

  async #addWarm(shelf: Shelf, snapshot: Snapshot): Promise<void> {
    const waiting = await shelf.makeWarm(snapshot);
    if (this.#isGone(shelf)) return endWarm(waiting);
    shelf.warm.push(waiting);
    // One that dies while it waits is replaced before anybody meets it.
    void waiting.item.machine.exited.then(() => this.#retire(shelf, waiting, "died"));
    // Less may be wanted by now than when this one was begun.
    this.#trim();
    const { key, image } = shelf.target;
    this.#parts.events.emit("pool.filled", { key, image: image.reference, warm: shelf.warm.length });
  }

  async #addIdle(shelf: Shelf, snapshot: Snapshot): Promise<void> {
    const waiting = await shelf.makeIdle(snapshot);
    if (this.#isGone(shelf)) return endIdle(waiting);
    shelf.idle.push(waiting);
    void waiting.item.exited.then(() => {
      if (shelf.remove(shelf.idle, waiting)) this.#background(endIdle(waiting));
    });
  }

  #isGone(shelf: Shelf): boolean {
    return this.#closed || this.#shelves.get(shelf.target.key) !== shelf;
  }

  #retire(shelf: Shelf, waiting: Waiting<WarmMachine>, reason: string): void {
    if (!shelf.remove(shelf.warm, waiting)) return; // it was claimed
    const { key, image } = shelf.target;
    this.#parts.events.emit("pool.replaced", { key, image: image.reference, warm: shelf.warm.length, reason });
    this.#background(endWarm(waiting).then(() => this.#refill()));
  }

  #background(work: Promise<void>): void {
    const kept = work.catch(() => {}).finally(() => this.#work.delete(kept));
    this.#work.add(kept);
  }
}
