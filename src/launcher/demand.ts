/**
 * How many machines of one shape to keep ready: as many as were asked for in the busiest stretch that one refill takes,
 * forgetting by half every five minutes. A burst of ten raises the target to ten at once; ten minutes later it is three;
 * half an hour of silence brings it to nothing. Time is given by the caller.
 */
export class Demand {
  readonly #halfLifeMs: number;
  #windowMs: number;
  /** Arrival times inside the window, oldest first. */
  readonly #recent: number[] = [];
  #peak = 0;
  #peakAt = 0;

  /** @param windowMs what one refill takes; adjusted by `refillTook` */
  constructor(options: { windowMs?: number; halfLifeMs?: number } = {}) {
    this.#windowMs = options.windowMs ?? 5_000;
    this.#halfLifeMs = options.halfLifeMs ?? 300_000;
  }

  arrive(now: number): void {
    this.#recent.push(now);
    while (this.#recent.length > 0 && (this.#recent[0] as number) <= now - this.#windowMs) this.#recent.shift();
    const decayed = this.#decayed(now);
    if (this.#recent.length >= decayed) {
      this.#peak = this.#recent.length;
      this.#peakAt = now;
    }
  }

  /** A slower refill must be preceded by more stock. Never below one second, so that a pair of calls counts as a pair. */
  refillTook(ms: number): void {
    this.#windowMs = Math.max(1_000, 0.8 * this.#windowMs + 0.2 * ms);
  }

  /** Machines to keep ready now. */
  target(now: number): number {
    return Math.floor(this.#decayed(now) + 0.5);
  }

  #decayed(now: number): number {
    return this.#peak * 2 ** (-Math.max(0, now - this.#peakAt) / this.#halfLifeMs);
  }
}
