/**
 * Places for requests to one host. Node's own queue keeps a request whose client has gone until its turn comes, and any number of them;
 * here who waits can leave, and few may wait.
 */
import { StacyError } from "../../host/error.ts";

export class Places {
  readonly #mostWaiting: number;
  /** In the order of their coming. */
  readonly #waiting = new Set<() => void>();
  #free: number;

  constructor(places: number, mostWaiting: number) {
    this.#free = places;
    this.#mostWaiting = mostWaiting;
  }

  /** @returns gives it back, once @throws StacyError `limit` when too many wait, `cancelled` when the signal aborts first */
  async take(signal: AbortSignal): Promise<() => void> {
    const cancelled = (): StacyError => new StacyError("cancelled", "whoever asked has gone");
    if (signal.aborted) throw cancelled();
    if (this.#free > 0) this.#free -= 1;
    else if (this.#waiting.size >= this.#mostWaiting) {
      throw new StacyError("limit", "too many requests to this host wait for its answers");
    } else {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const leave = (): void => {
        // At once: a place that is given back in this moment is for somebody who is there.
        this.#waiting.delete(resolve);
        reject(cancelled());
      };
      this.#waiting.add(resolve);
      signal.addEventListener("abort", leave, { once: true });
      try {
        await promise;
      } finally {
        signal.removeEventListener("abort", leave);
      }
    }
    let given = false;
    return () => {
      if (given) return;
      given = true;
      const [next] = this.#waiting;
      if (next === undefined) this.#free += 1;
      else {
        this.#waiting.delete(next);
        next();
      }
    };
  }
}
