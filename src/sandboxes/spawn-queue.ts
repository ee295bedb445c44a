/** Spawns that wait for room: first come, first served, bounded in number and in time. */
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
  readonly #waiting: Waiter[] = [];
  readonly #counts = { entered: 0, left: 0, timedOut: 0, waitedMs: 0, longestMs: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get length(): number {
    return this.#waiting.length;
  }

  get counts(): QueueCounts {
    return { waiting: this.#waiting.length, ...this.#counts };
  }

  /**
   * Waits until `attempt` succeeds; it is called when room may have come, in order of arrival.
   * @throws StacyError `limit` when the queue is full, `timeout`, `cancelled`
   */
  wait(attempt: () => boolean, options: { max: number; timeoutMs: number; signal?: AbortSignal }): Promise<void> {
    if (this.#waiting.length >= options.max) {
      return Promise.reject(
        new StacyError("limit", `${this.#waiting.length} spawns are waiting already`, { remedy: "try again later" }),
      );
    }
    return new Promise((resolve, reject) => {
      const begun = performance.now();
      const abort = (): void => waiter.settle(new StacyError("cancelled", "the spawn was cancelled while it waited"));
      const waiter: Waiter = {
        attempt,
        settle: (error) => {
          stop();
          options.signal?.removeEventListener("abort", abort);
          const at = this.#waiting.indexOf(waiter);
          if (at >= 0) this.#waiting.splice(at, 1);
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
      this.#waiting.push(waiter);
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

  /** Room may have come: lets in as many as fit, in order. */
  advance(): void {
    for (let first = this.#waiting[0]; first?.attempt(); first = this.#waiting[0]) first.settle();
  }

  /** The daemon stops: nobody waits any longer. */
  close(): void {
    for (const waiter of [...this.#waiting]) waiter.settle(new StacyError("unavailable", "the server is stopping"));
  }
}
