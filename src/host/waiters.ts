/** Whoever waits for what happens next. Nobody's wait keeps a process alive. */
export class Waiters {
  #waiting = new Set<() => void>();

  get count(): number {
    return this.#waiting.size;
  }

  /** @returns whether `wake` came; `false`: `ms` are over, or the signal has aborted */
  wait(ms: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      const finish = (happened: boolean): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", abort);
        resolve(happened);
      };
      const wake = (): void => finish(true);
      const abort = (): void => finish(false);
      const timer = setTimeout(() => finish(false), ms).unref();
      this.#waiting.add(wake);
      signal.addEventListener("abort", abort, { once: true });
    });
  }

  /** All that wait now; who comes meanwhile waits for the next time. */
  wake(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const wake of waiting) wake();
  }
}
