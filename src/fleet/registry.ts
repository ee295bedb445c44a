/**
 * This server's sandboxes in the fleet's table: claimed beside their making, published as they change, released at their end. Claims are
 * statements of their own; what changes goes together, a few times a second, and waits here while the database is away. What the table
 * says and what is here are compared when the database comes (back): what is here counts, except where another node has a sandbox
 * under a newer epoch. That takes the sandbox's calls away from this server, and nothing else: its machine stays as it is.
 */
import { setTimeout as delay } from "node:timers/promises";
import { asStacyError, StacyError } from "../host/error.ts";
import type { Log } from "../sandboxes/observer.ts";
import type { SandboxRecord } from "../sandboxes/record.ts";
import { isTaken, type MostTaken, type Registry, type Taken } from "../sandboxes/registry.ts";
import { isVisible } from "../sandboxes/state.ts";
import type { FleetNode, Ownership } from "./contract.ts";
import type { Claim, Ownerships, Published } from "./database/ownerships.ts";

/** So long changes are gathered, ms. */
const GATHER_MS = 100;
/** Between two attempts of what the database did not take, at most. */
const MOST_WAIT_MS = 5_000;
/** For the end of another sandbox, of that name or within that limit, to be in the table. */
const END_WAIT_MS = 2 * GATHER_MS;
/** So long after a claim was refused for its owner's limit, the next ones are made before anything else is, ms. */
const DOUBT_MS = 10_000;
const MOST_DOUBTS = 10_000;
/** Claims at once when what is here is compared with the table. */
const AT_ONCE = 8;
/** What a client is told that should ask again. */
const AGAIN_MS = 2_000;

interface Held {
  epoch?: number;
  /** While it is being claimed: never rejects. */
  claiming?: Promise<unknown>;
  /** What the table says, as far as this server knows. */
  published?: string;
  /** Its end has come. */
  released?: true;
}

export interface FleetRegistryParts {
  ownerships: Pick<Ownerships, "claim" | "reclaim" | "taken" | "publish" | "release" | "of" | "all" | "renew" | "take">;
  nodeId: string;
  /** @throws StacyError `unavailable` while this node takes no new ones */
  assertOpen(): void;
  /** As they were last seen. */
  nodes(): readonly FleetNode[];
  log: Log;
}

export class FleetRegistry implements Registry, AsyncDisposable {
  readonly #parts: FleetRegistryParts;
  readonly #held = new Map<string, Held>();
  readonly #changed = new Map<string, SandboxRecord>();
  /** Sandboxes that are another node's now, by id. */
  readonly #lost = new Map<string, Ownership>();
  /** Owners that have met their limits, and until when (ms of `performance.now()`) that is remembered. */
  readonly #doubts = new Map<string, number>();
  #records: (() => readonly SandboxRecord[]) | undefined;
  #onItsWay: (id: string) => boolean = () => false;
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(parts: FleetRegistryParts) {
    this.#parts = parts;
  }

  /** Whether another node has it now, under a newer epoch. */
  lost(id: string): boolean {
    return this.#lost.has(id);
  }

  assertOpen(): void {
    this.#parts.assertOpen();
  }

  async claim(record: SandboxRecord, most?: MostTaken): Promise<void> {
    this.#parts.assertOpen();
    await this.#claimed(record, (claim) => this.#new(claim, most));
  }

  doubts(owner: string): boolean {
    return (this.#doubts.get(owner) ?? 0) > performance.now();
  }

  async taken(owner: string, user: string | undefined): Promise<{ user?: Taken; all: Taken }> {
    return this.#parts.ownerships.taken(owner, user);
  }

  async #claimed(record: SandboxRecord, write: (claim: Claim) => Promise<Ownership>): Promise<void> {
    const held: Held = {};
    this.#held.set(record.id, held);
    const claiming = this.#claim(record, held, write);
    held.claiming = claiming.catch(() => {});
    await claiming;
  }

  async #claim(record: SandboxRecord, held: Held, write: (claim: Claim) => Promise<Ownership>): Promise<void> {
    const claim = claimOf(record);
    try {
      const { epoch } = await write(claim);
      held.epoch = epoch;
      held.published = stamp(claim);
    } finally {
      delete held.claiming;
      if (held.released === true || this.#changed.has(record.id)) this.#soon();
    }
  }

  /** What is in its way may have ended a moment ago, here or elsewhere. */
  async #new(claim: Claim, most: MostTaken | undefined): Promise<Ownership> {
    const { ownerships } = this.#parts;
    try {
      return await ownerships.claim(claim, most);
    } catch (error) {
      const { code } = asStacyError(error);
      if (code !== "conflict" && code !== "limit") throw error;
      if (code === "limit") this.#doubt(claim.owner);
      await this.flush();
      await delay(END_WAIT_MS);
      return ownerships.claim(claim, most);
    }
  }

  #doubt(owner: string): void {
    if (this.#doubts.size >= MOST_DOUBTS) this.#doubts.clear();
    this.#doubts.set(owner, performance.now() + DOUBT_MS);
  }

  elsewhere(): { sandboxes: number; maxSandboxes: number | undefined } {
    const { nodes, nodeId } = this.#parts;
    const others = nodes().filter(({ id, role, state, draining }) => {
      return id !== nodeId && role === "node" && state === "up" && !draining;
    });
    const limited = others.every(({ load }) => load.maxSandboxes > 0);
    return {
      sandboxes: others.reduce((sum, { load }) => sum + load.sandboxes, 0),
      maxSandboxes: limited ? others.reduce((sum, { load }) => sum + load.maxSandboxes, 0) : undefined,
    };
  }

  publish(record: SandboxRecord): void {
    const held = this.#held.get(record.id);
    if (held === undefined || held.released === true) return;
    // Its row here says that it has ended: nobody sees it any more, and its name is free.
    if (!isVisible(record.state)) {
      this.release(record.id);
      return;
    }
    if (held.published === stamp(claimOf(record))) return;
    this.#changed.set(record.id, record);
    this.#soon();
  }

  release(id: string): void {
    this.#changed.delete(id);
    this.#lost.delete(id);
    const held = this.#held.get(id);
    if (held === undefined) return;
    held.released = true;
    if (held.claiming === undefined) this.#soon();
  }

  /**
   * From now on these are what this server has.
   * @param onItsWay whether it is looked after elsewhere whose a sandbox is (moving/)
   */
  follow(records: () => readonly SandboxRecord[], onItsWay: (id: string) => boolean): void {
    this.#records = records;
    this.#onItsWay = onItsWay;
  }

  /** Under which epoch it is this server's. @throws StacyError `unavailable` while that is not known */
  epochOf(id: string): number {
    const epoch = this.#held.get(id)?.epoch;
    if (epoch !== undefined) return epoch;
    throw closed(`the fleet does not know yet that this server has the sandbox ${id}`, "try again in a moment");
  }

  /** Nobody else can take it any more. @returns false: another node has it, or nobody. @throws StacyError `unavailable` */
  async renew(id: string): Promise<boolean> {
    const row = await this.#parts.ownerships.renew(id);
    if (row === undefined) return false;
    this.#held.set(id, { epoch: row.epoch, published: stamp(row) });
    return true;
  }

  /** As the table has it. @throws StacyError `unavailable` */
  owners(ids: readonly string[]): Promise<Ownership[]> {
    return this.#parts.ownerships.of(ids);
  }

  /** What another node has offered. @returns false: it cannot be had any more. @throws StacyError `unavailable`: nobody knows */
  async take(record: SandboxRecord, from: Pick<Ownership, "nodeId" | "epoch">): Promise<boolean> {
    const row = await this.#parts.ownerships.take(record.id, from);
    if (row === undefined) return false;
    this.#lost.delete(record.id);
    this.#held.set(record.id, { epoch: row.epoch, published: stamp(row) });
    this.publish(record);
    return true;
  }

  /** Compares what is here with the table. @throws StacyError `unavailable` */
  async reconcile(): Promise<void> {
    if (this.#records === undefined) return;
    const { ownerships, nodeId, log } = this.#parts;
    const rows = new Map((await ownerships.all({ nodeId })).map((row) => [row.sandboxId, row]));
    // Read after the table: one that came to be since is here, and its claim is its own.
    const records = this.#records().filter(({ state }) => isVisible(state));
    const here = new Set(records.map(({ id }) => id));
    const missing = records.filter(({ id, state }) => !rows.has(id) && state !== "creating" && !this.#busy(id));
    const elsewhere = new Map((await ownerships.of(missing.map(({ id }) => id))).map((row) => [row.sandboxId, row]));
    // Ended while the database was away, or before the last start: first, since their names may be others' by now.
    const left = [...rows.values()].filter(({ sandboxId }) => !here.has(sandboxId) && !this.#busy(sandboxId));
    if (left.length > 0) await ownerships.release(left);
    for (const { sandboxId } of left) this.#held.delete(sandboxId);
    const claims: SandboxRecord[] = [];
    for (const record of records) {
      const row = rows.get(record.id);
      // It may have ended since it was read.
      if (row === undefined || this.#held.get(record.id)?.released === true) continue;
      if (!isVisible(record.state)) {
        this.#held.set(record.id, { epoch: row.epoch, released: true });
        continue;
      }
      this.#lost.delete(record.id);
      // A version that knew nothing of sizes has written it.
      if (row.memoryMiB === 0 && record.memoryMiB > 0 && !this.#busy(record.id)) {
        claims.push(record);
        continue;
      }
      const held: Held = this.#held.get(record.id) ?? {};
      held.epoch = row.epoch;
      held.published = stamp(row);
      this.#held.set(record.id, held);
      this.publish(record);
    }
    for (const record of missing) {
      const other = elsewhere.get(record.id);
      if (other !== undefined && other.nodeId !== nodeId) {
        this.#lose(record.id, other);
        continue;
      }
      claims.push(record);
    }
    // The table was made anew, or set back to a backup: they are still here, also on a node that is drained.
    while (claims.length > 0) {
      await Promise.all(
        claims.splice(0, AT_ONCE).map(async (record) => {
          if (!isVisible(record.state)) return;
          await this.#claimed(record, (claim) => ownerships.reclaim(claim)).catch((error: unknown) => {
            // One whose id another node has taken meanwhile holds up no other.
            if (asStacyError(error).code === "unavailable" && !isTaken(error)) throw error;
            log.warn({ sandbox: record.id, phase: "fleet", err: error }, "the fleet does not take this sandbox");
          });
          if (!isVisible(record.state)) this.release(record.id);
        }),
      );
    }
    this.#soon();
  }

  #busy(id: string): boolean {
    return this.#held.get(id)?.claiming !== undefined || this.#onItsWay(id);
  }

  #lose(id: string, other: Ownership): void {
    if (this.#lost.has(id)) return;
    this.#lost.set(id, other);
    this.#held.delete(id);
    this.#changed.delete(id);
    this.#parts.log.error(
      { sandbox: id, phase: "fleet", node: other.nodeId, epoch: other.epoch },
      "another node has this sandbox now; its machine here is left alone until it is destroyed or its time is over",
    );
  }

  #soon(waitMs = GATHER_MS): void {
    if (this.#closed || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const again = (): void => this.#soon(Math.min(2 * waitMs, MOST_WAIT_MS));
      void this.flush().catch(again);
    }, waitMs).unref();
  }

  /** Writes what waits, now. @throws StacyError `unavailable`: it waits on */
  flush(): Promise<void> {
    const work = this.#flushing.then(() => this.#flush());
    this.#flushing = work.catch(() => {});
    return work;
  }

  async #flush(): Promise<void> {
    const { ownerships, nodeId } = this.#parts;
    const ended = [...this.#held].filter(([, held]) => held.released === true && held.claiming === undefined);
    const known = ended.flatMap(([sandboxId, { epoch }]) => (epoch === undefined ? [] : [{ sandboxId, epoch }]));
    // A claim that was not answered may have been made.
    const unknown = ended.flatMap(([id, { epoch }]) => (epoch === undefined ? [id] : []));
    if (unknown.length > 0) known.push(...(await ownerships.of(unknown)).filter((row) => row.nodeId === nodeId));
    if (known.length > 0) await ownerships.release(known);
    for (const [id, held] of ended) if (this.#held.get(id) === held) this.#held.delete(id);
    const writes: { write: Published; record: SandboxRecord; held: Held }[] = [];
    for (const [id, record] of this.#changed) {
      const held = this.#held.get(id);
      if (held?.epoch === undefined) continue; // its claim is under way
      const { state, expiresAt } = claimOf(record);
      writes.push({ write: { sandboxId: id, epoch: held.epoch, state, expiresAt }, record, held });
    }
    if (writes.length === 0) return;
    for (const { write, held } of writes) {
      this.#changed.delete(write.sandboxId);
      delete held.published; // whatever it becomes meanwhile is written after this
    }
    let done: Set<string>;
    try {
      done = await this.#publish(writes.map(({ write }) => write));
    } catch (error) {
      for (const { record } of writes) if (!this.#changed.has(record.id)) this.#changed.set(record.id, record);
      throw error;
    }
    for (const { write, held } of writes) if (done.has(write.sandboxId)) held.published = stamp(write);
    if (writes.some(({ write, held }) => !done.has(write.sandboxId) && held.released !== true)) await this.reconcile();
  }

  /** What the database does not take of one must not hold up the others. */
  async #publish(all: readonly Published[]): Promise<Set<string>> {
    const { ownerships, log } = this.#parts;
    try {
      return await ownerships.publish(all);
    } catch (error) {
      if (asStacyError(error).code === "unavailable") throw error;
      if (all.length > 1) {
        const each = await Promise.all(all.map((one) => this.#publish([one])));
        return new Set(each.flatMap((ids) => [...ids]));
      }
      const [one] = all;
      log.error({ sandbox: one?.sandboxId, phase: "fleet", err: error }, "the fleet does not take what became of it");
      return new Set(all.map(({ sandboxId }) => sandboxId));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await Promise.all([...this.#held.values()].map(({ claiming }) => claiming));
    await this.flush().catch(() => {}); // the next start compares
  }
}

/** What others see of one. */
function claimOf(record: SandboxRecord): Claim {
  const { id, owner, name, state, image, createdAt, expiresAt, unreachable } = record;
  const { ownerId, memoryMiB, vcpus, diskMiB, request } = record;
  return {
    // Durations of clients may have fractions of a millisecond, and be for ever.
    ...{ sandboxId: id, owner, image, createdAt: whole(createdAt), expiresAt: whole(expiresAt) },
    ...{ state: unreachable === undefined ? state : "unreachable" },
    ...(name === undefined ? {} : { name }),
    ...{ memoryMiB: whole(memoryMiB), vcpus: Math.ceil(vcpus), diskMiB: whole(diskMiB) },
    ...(ownerId === undefined ? {} : { ownerId }),
    ...(request === undefined ? {} : { requestKey: request.key }),
  };
}

function whole(ms: number): number {
  return Math.min(Math.round(ms), Number.MAX_SAFE_INTEGER);
}

function stamp({ state, expiresAt }: Pick<Claim, "state" | "expiresAt">): string {
  return `${state} ${expiresAt}`;
}

/** This server takes no new sandboxes. */
export function closed(message: string, remedy: string): StacyError {
  return new StacyError("unavailable", message, { remedy, data: { retryAfterMs: AGAIN_MS } });
}
