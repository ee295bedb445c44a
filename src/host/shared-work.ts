/**
 * Work that several may ask for at once and that is done once. Each of them leaves by its own signal and harms no other; when nobody
 * waits any longer, the work is cancelled.
 */
import { StacyError } from "./error.ts";

interface Running<T> {
  result: Promise<T>;
  cancel: AbortController;
  waiting: number;
  settled: boolean;
}

export class SharedWork<T> {
  readonly #running = new Map<string, Running<T>>();

  /** Of what there is work under way. */
  get keys(): ReadonlySet<string> {
    return new Set(this.#running.keys());
  }

  /** @throws the reason of `signal`, or what the work throws */
  async join(key: string, signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal?.throwIfAborted();
    const running = this.#running.get(key) ?? this.#begin(key, work);
    running.waiting += 1;
    const left = Promise.withResolvers<never>();
    const leave = (): void => left.reject(signal?.reason);
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([running.result, left.promise]);
    } finally {
      signal?.removeEventListener("abort", leave);
      running.waiting -= 1;
      if (running.waiting === 0 && !running.settled) {
        // Whoever comes now must not join what is being cancelled.
        if (this.#running.get(key) === running) this.#running.delete(key);
        running.cancel.abort(new StacyError("cancelled", "nobody waits for it any longer"));
        // The last one leaves nothing behind.
        await running.result.catch(() => {});
      }
    }
  }

  #begin(key: string, work: (signal: AbortSignal) => Promise<T>): Running<T> {
    const cancel = new AbortController();
    const result = work(cancel.signal);
    const running: Running<T> = { result, cancel, waiting: 0, settled: false };
    const settled = (): void => {
      running.settled = true;
      if (this.#running.get(key) === running) this.#running.delete(key);
    };
    result.then(settled, settled);
    this.#running.set(key, running);
    return running;
  }
}
