/** A token bucket per client: `burst` at once, refilled with `requests_per_minute`. */
import type { Config } from "../config/schema.ts";

interface Bucket {
  tokens: number;
  at: number;
}

/** Beyond this many clients, those with a full bucket are forgotten: they lose nothing by it. */
const MAX_BUCKETS = 10_000;

export interface RateDecision {
  allowed: boolean;
  limit: number;
  remaining: number;
  /** Seconds until the next request fits. */
  retryAfter: number;
}

export class RateLimiter {
  readonly #perMs: number;
  readonly #limit: number;
  readonly #burst: number;
  readonly #now: () => number;
  readonly #buckets = new Map<string, Bucket>();
  #allowed = 0;
  #rejected = 0;
  #forgotten = 0;

  constructor(options: Config["rate_limit"], now: () => number = () => performance.now()) {
    this.#limit = options.requests_per_minute;
    this.#perMs = options.requests_per_minute / 60_000;
    this.#burst = options.burst;
    this.#now = now;
  }

  /** Requests since the start, and clients that have a bucket. */
  get counts(): { allowed: number; rejected: number; forgotten: number; clients: number } {
    const { size } = this.#buckets;
    return { allowed: this.#allowed, rejected: this.#rejected, forgotten: this.#forgotten, clients: size };
  }

  take(client: string): RateDecision {
    const now = this.#now();
    const bucket = this.#buckets.get(client) ?? { tokens: this.#burst, at: now };
    bucket.tokens = Math.min(this.#burst, bucket.tokens + (now - bucket.at) * this.#perMs);
    bucket.at = now;
    const allowed = bucket.tokens >= 1;
    if (allowed) {
      bucket.tokens -= 1;
      this.#allowed += 1;
    } else this.#rejected += 1;
    if (!this.#buckets.has(client) && this.#buckets.size >= MAX_BUCKETS) this.#forget(now);
    this.#buckets.set(client, bucket);
    return {
      allowed,
      limit: this.#limit,
      remaining: Math.floor(bucket.tokens),
      retryAfter: allowed ? 0 : Math.ceil((1 - bucket.tokens) / this.#perMs / 1000),
    };
  }

  #forget(now: number): void {
    const before = this.#buckets.size;
    for (const [client, bucket] of this.#buckets) {
      if (bucket.tokens + (now - bucket.at) * this.#perMs >= this.#burst) this.#buckets.delete(client);
    }
    // All of them are busy: the oldest goes.
    const oldest = this.#buckets.keys().next().value;
    if (this.#buckets.size >= MAX_BUCKETS && oldest !== undefined) this.#buckets.delete(oldest);
    this.#forgotten += before - this.#buckets.size;
  }
}
