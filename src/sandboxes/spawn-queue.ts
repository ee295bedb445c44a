/** Spawns that wait for room: owners in turn, each owner's in order of arrival, bounded in number and in time. */
import { StacyError } from "../host/error.ts";
import type { Clock } from "./clock.ts";

interface Waiter {
  /** Takes its place if there is room now. */
  attempt(): boolean;
  settle(error?: StacyError): void;
}

/** Since the daemon started; times in ms. */
export interface QueueCounts {
  waiting: number;
  entered: number;
  left: number;
  timedOut: number;
  /** Of those that left or timed out. */
  waitedMs: number;
  longestMs: number;
}

export class SpawnQueue {
  readonly #clock: Clock;
  /** By owner, in the order of their next turn. */
  readonly #waiting = new Map<string, Waiter[]>();
  readonly #counts = { entered: 0, left: 0, timedOut: 0, waitedMs: 0, longestMs: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get length(): number {
    let length = 0;
    for (const waiters of this.#waiting.values()) length += waiters.length;
    return length;
  }

  get counts(): QueueCounts {
    return { waiting: this.length, ...this.#counts };
  }

  /**
   * Waits until `attempt` succeeds; it is called when room may have come and it is this one's turn. In a queue that is full an owner
   * who has fewer in it takes the place of the last one of whoever has most.
   * @throws StacyError `limit` when the queue is full, `timeout`, `cancelled`
   */
  wait(
    owner: string,
    attempt: () => boolean,
    options: { max: number; timeoutMs: number; signal?: AbortSignal },
  ): Promise<void> {
    const { length } = this;
    if (length >= options.max) {
      const full = new StacyError("limit", `${length} spawns are waiting already`, { remedy: "try again later" });
      const most = [...this.#waiting.values()].reduce((a, b) => (b.length > a.length ? b : a), []);
      const own = this.#waiting.get(owner)?.length ?? 0;
      // Of equals who came first stays.
      if (most.length <= own + 1) return Promise.reject(full);
      most.at(-1)?.settle(full);
    }
    return new Promise((resolve, reject) => {
      const begun = performance.now();
      const abort = (): void => waiter.settle(new StacyError("cancelled", "the spawn was cancelled while it waited"));
      const waiter: Waiter = {
        attempt,
        settle: (error) => {
          stop();
          options.signal?.removeEventListener("abort", abort);
          this.#remove(owner, waiter);
          this.#count(error, performance.now() - begun);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      const stop = this.#clock.after(options.timeoutMs, () =>
        waiter.settle(
          new StacyError("timeout", `no room for a sandbox within ${options.timeoutMs} ms`, { phase: "queue" }),
        ),
      );
      const waiters = this.#waiting.get(owner);
      if (waiters === undefined) this.#waiting.set(owner, [waiter]);
      else waiters.push(waiter);
      this.#counts.entered += 1;
      options.signal?.addEventListener("abort", abort, { once: true });
      if (options.signal?.aborted === true) abort();
    });
  }

  #count(error: StacyError | undefined, ms: number): void {
    if (error === undefined) this.#counts.left += 1;
    else if (error.code === "timeout") this.#counts.timedOut += 1;
    else return;
    this.#counts.waitedMs += ms;
    this.#counts.longestMs = Math.max(this.#counts.longestMs, ms);
  }

  #remove(owner: string, waiter: Waiter): void {
    const left = this.#waiting.get(owner)?.filter((one) => one !== waiter) ?? [];
    if (left.length === 0) this.#waiting.delete(owner);
    else this.#waiting.set(owner, left);
  }

  /** Room may have come: lets in as many as fit. Who has no room now holds up those behind, or many small ones would starve a large one. */
  advance(): void {
    for (let next = this.#next(); next?.waiter.attempt(); next = this.#next()) {
      next.waiter.settle();
      // The other owners' turn.
      const left = this.#waiting.get(next.owner);
      if (left === undefined) continue;
      this.#waiting.delete(next.owner);
      this.#waiting.set(next.owner, left);
    }
  }

  #next(): { owner: string; waiter: Waiter } | undefined {
    for (const [owner, [waiter]] of this.#waiting) if (waiter !== undefined) return { owner, waiter };
    return undefined;
  }

  /** The daemon stops: nobody waits any longer. */
  close(): void {
    const stops = new StacyError("unavailable", "the server is stopping");
    for (const waiter of [...this.#waiting.values()].flat()) waiter.settle(stops);
  }
}
