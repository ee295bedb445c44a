/** Requests per caller: a token bucket each, `burst` at once, refilled with `requests_per_minute`. */
import { Buckets } from "../access/buckets.ts";
import type { Config } from "../config/schema.ts";

export interface RateDecision {
  allowed: boolean;
  limit: number;
  remaining: number;
  /** Seconds until the next request fits. */
  retryAfter: number;
}

export class RateLimiter {
  readonly #limit: number;
  readonly #buckets: Buckets;
  #allowed = 0;
  #rejected = 0;

  constructor(options: Config["rate_limit"], now?: () => number) {
    this.#limit = options.requests_per_minute;
    this.#buckets = new Buckets({ burst: options.burst, perMinute: options.requests_per_minute }, now);
  }

  /** Requests since the start, and clients that have a bucket. */
  get counts(): { allowed: number; rejected: number; forgotten: number; clients: number } {
    const { size, forgotten } = this.#buckets;
    return { allowed: this.#allowed, rejected: this.#rejected, forgotten, clients: size };
  }

  take(client: string): RateDecision {
    const { taken, left, waitMs } = this.#buckets.take(client);
    if (taken) this.#allowed += 1;
    else this.#rejected += 1;
    return { allowed: taken, limit: this.#limit, remaining: left, retryAfter: Math.ceil(waitMs / 1000) };
  }
}
