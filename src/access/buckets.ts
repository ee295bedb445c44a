/** Token buckets by name: so many at once, refilled steadily. Constant time and bounded memory, whatever names come. */

interface Bucket {
  tokens: number;
  /** ms */
  at: number;
}

/** Beyond this many, the one that was used longest ago is forgotten: it has had the most time to fill up again. */
const MAX_BUCKETS = 10_000;

export class Buckets {
  readonly #burst: number;
  readonly #perMs: number;
  readonly #now: () => number;
  /** How many had to give way. */
  forgotten = 0;
  /** In the order of their last use. */
  readonly #all = new Map<string, Bucket>();

  constructor(options: { burst: number; perMinute: number }, now: () => number = () => performance.now()) {
    this.#burst = options.burst;
    this.#perMs = options.perMinute / 60_000;
    this.#now = now;
  }

  get size(): number {
    return this.#all.size;
  }

  /** How many the bucket holds now, without taking one. */
  level(name: string): number {
    const bucket = this.#all.get(name);
    if (bucket === undefined) return this.#burst;
    return Math.min(this.#burst, bucket.tokens + (this.#now() - bucket.at) * this.#perMs);
  }

  /** Takes one if there is one. @returns whether there was, what is left, and the ms until the next */
  take(name: string): { taken: boolean; left: number; waitMs: number } {
    const level = this.level(name);
    const taken = level >= 1;
    const tokens = taken ? level - 1 : level;
    this.#all.delete(name);
    if (this.#all.size >= MAX_BUCKETS) {
      const oldest = this.#all.keys().next().value;
      if (oldest !== undefined) this.#all.delete(oldest);
      this.forgotten += 1;
    }
    this.#all.set(name, { tokens, at: this.#now() });
    return { taken, left: Math.floor(tokens), waitMs: taken ? 0 : (1 - tokens) / this.#perMs };
  }
}
