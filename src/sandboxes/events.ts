/**
 * Events: numbered for good, kept in the database, replayable. A reader follows by number (`next`), so a slow one holds no
 * memory: what it has not read yet is in the ring, or in the database.
 */

import { Waiters } from "../host/waiters.ts";
import type { Store } from "./store.ts";

export type EventType =
  | "sandbox.created"
  | "sandbox.running"
  | "sandbox.paused"
  | "sandbox.suspended"
  | "sandbox.resumed"
  | "sandbox.restored"
  | "sandbox.extended"
  | "sandbox.forked"
  | "sandbox.network"
  | "sandbox.moved"
  | "volume.attached"
  | "volume.detached"
  | "secret.saved"
  | "secret.deleted"
  | "sandbox.expired"
  | "sandbox.destroyed"
  | "sandbox.error"
  | "exec.started"
  | "exec.completed"
  | "exec.failed"
  | "exec.timeout"
  | "file.written"
  | "file.read"
  | "operation.failed"
  | "resource.limit"
  | "provider.failed"
  | "reconcile.action"
  | "spawn.queued"
  | "spawn.dequeued"
  | "spawn.queue_timeout"
  | "quota.saved"
  | "quota.deleted"
  | "template.saved"
  | "template.deleted"
  | "checkpoint.created"
  | "checkpoint.deleted"
  | "snapshot.built"
  | "snapshot.rejected"
  | "snapshot.removed"
  | "restore.failed"
  | "pool.filled"
  | "pool.replaced"
  | "network.refused"
  | "directory.failed"
  | "volume.failed";

export interface SandboxEvent {
  number: number;
  type: EventType;
  sandboxId?: string;
  /** Whose it is about; absent: the server's own, for administrators. */
  owner?: string;
  /** ms since 1970 */
  at: number;
  data?: Record<string, unknown>;
}

/** Where events are read: this server's own, or those of all servers. Numbers grow; those of a place are of that place alone. */
export interface EventLog {
  /** The newest number that can be read. @throws StacyError `unavailable` */
  newest(): number | Promise<number>;
  /** Events after `number`, at most 256, oldest first; empty when there is none yet. With an owner, only that one's. */
  after(number: number, owner?: string): SandboxEvent[] | Promise<SandboxEvent[]>;
  /** Events before `number`, at most 256, newest first; empty when there is none left. With an owner, only that one's. */
  before(number: number, owner?: string): SandboxEvent[] | Promise<SandboxEvent[]>;
  /** Waits for an event after now, at most `ms`. Resolves `true` when there is one; at once `false` when aborted. */
  wait(ms: number, signal: AbortSignal): Promise<boolean>;
}

const RING = 4_096;
/** Numbers are reserved in blocks, so that events lost with a killed daemon never give theirs to others. */
const BLOCK = 1_000;
const BATCH = 256;

export class Events implements EventLog {
  readonly #store: Store;
  readonly #now: () => number;
  readonly #ownerOf: (sandboxId: string) => string | undefined;
  readonly #ring: SandboxEvent[] = [];
  #last: number;
  readonly #first: number;
  #reserved: number;
  #reserving = false;
  readonly #waiters = new Waiters();

  constructor(store: Store, now: () => number, ownerOf: (sandboxId: string) => string | undefined) {
    this.#store = store;
    this.#now = now;
    this.#ownerOf = ownerOf;
    this.#last = Number(store.meta("events.reserved") ?? "0");
    this.#first = this.#last;
    this.#reserved = this.#last;
  }

  /** The number of the newest event. */
  get last(): number {
    return this.#last;
  }

  newest(): number {
    return this.#last;
  }

  /** Since the daemon started. */
  get published(): number {
    return this.#last - this.#first;
  }

  /** In memory. */
  get kept(): number {
    return this.#ring.length;
  }

  get followers(): number {
    return this.#waiters.count;
  }

  /** @param owner default: whose the sandbox is */
  emit(type: EventType, sandboxId?: string, data?: Record<string, unknown>, owner?: string): void {
    const whose = owner ?? (sandboxId === undefined ? undefined : this.#ownerOf(sandboxId));
    const event: SandboxEvent = {
      number: ++this.#last,
      type,
      at: this.#now(),
      ...(sandboxId === undefined ? {} : { sandboxId }),
      ...(whose === undefined ? {} : { owner: whose }),
      ...(data === undefined ? {} : { data }),
    };
    if (this.#last + BLOCK / 2 > this.#reserved && !this.#reserving) this.#reserve();
    this.#ring.push(event);
    if (this.#ring.length > RING) this.#ring.splice(0, RING / 4);
    this.#store.addEvent({
      id: event.number,
      data: JSON.stringify(event),
      ...(whose === undefined ? {} : { owner: whose }),
    });
    this.#waiters.wake();
  }

  /** Long before the block is used up: a database that refuses it for a while is asked again with the next event. */
  #reserve(): void {
    const until = this.#last + BLOCK;
    this.#reserving = true;
    this.#store
      .putMeta("events.reserved", String(until))
      .then(
        () => (this.#reserved = until),
        () => {}, // the store says so
      )
      .finally(() => (this.#reserving = false));
  }

  after(number: number, owner?: string): SandboxEvent[] {
    const first = this.#ring[0];
    if (number >= this.#last) return [];
    if (first === undefined || number < first.number - 1) {
      const stored = this.#store.eventsAfter(number, BATCH, owner).map((row) => JSON.parse(row.data) as SandboxEvent);
      if (stored.length > 0) return stored;
    }
    const from = this.#ring.findIndex((event) => event.number > number);
    if (from < 0) return [];
    if (owner === undefined) return this.#ring.slice(from, from + BATCH);
    const theirs: SandboxEvent[] = [];
    for (let at = from; at < this.#ring.length && theirs.length < BATCH; at++) {
      const event = this.#ring[at];
      if (event?.owner === owner) theirs.push(event);
    }
    return theirs;
  }

  before(number: number, owner?: string): SandboxEvent[] {
    const theirs: SandboxEvent[] = [];
    for (let at = this.#ring.length - 1; at >= 0 && theirs.length < BATCH; at--) {
      const event = this.#ring[at];
      if (event !== undefined && event.number < number && (owner === undefined || event.owner === owner))
        theirs.push(event);
    }
    if (theirs.length === BATCH) return theirs;
    // What is older than the ring, or than this daemon.
    const oldest = Math.min(number, this.#ring[0]?.number ?? number);
    const stored = this.#store.eventsBefore(oldest, BATCH - theirs.length, owner);
    return [...theirs, ...stored.reverse().map((row) => JSON.parse(row.data) as SandboxEvent)];
  }

  wait(ms: number, signal: AbortSignal): Promise<boolean> {
    return this.#waiters.wait(ms, signal);
  }
}
