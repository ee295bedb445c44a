/** How fast bytes may go, over everything that asks: who takes more than there is waits for its time. */
import { setTimeout as delay } from "node:timers/promises";

/** So much may go at once after a rest, ms of the rate. */
const BURST_MS = 250;

export class Rate {
  readonly #perMs: number;
  /** When what was given until now has gone, ms of `performance.now()`. */
  #free = 0;

  /** @param perSecond bytes; 0: no bound */
  constructor(perSecond: number) {
    this.#perMs = perSecond / 1000;
  }

  /** Resolves when `bytes` may go. @throws the signal's reason */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    if (this.#perMs === 0) return;
    const now = performance.now();
    this.#free = Math.max(this.#free, now - BURST_MS) + bytes / this.#perMs;
    if (this.#free > now) await delay(this.#free - now, undefined, signal === undefined ? {} : { signal });
  }
}
