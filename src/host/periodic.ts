/** Work that is done from time to time and on demand, never twice at once. */

export interface PeriodicOptions<T> {
  /** ms between two rounds; 0: only when asked. */
  everyMs: number;
  work(signal: AbortSignal): Promise<T>;
  /** What it did, or why it could not. */
  report(done: T | { error: unknown }): void;
}

/** Runs until disposed of; a round under way is cancelled and waited for. */
export class Periodic<T> implements AsyncDisposable {
  readonly #options: PeriodicOptions<T>;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: PeriodicOptions<T>) {
    this.#options = options;
    if (options.everyMs > 0) this.#timer = setInterval(() => void this.now(), options.everyMs).unref();
  }

  /** One round, after the one that is under way. Never rejects. */
  now(): Promise<void> {
    const { work, report } = this.#options;
    this.#running = this.#running.then(async () => {
      if (this.#stop.signal.aborted) return;
      try {
        report(await work(this.#stop.signal));
      } catch (error) {
        if (!this.#stop.signal.aborted) report({ error });
      }
    });
    return this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#stop.abort();
    await this.#running;
  }
}
