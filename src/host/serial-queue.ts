/**
 * Work on one thing, one piece after another, its end included: `close` refuses what waits, tells the piece under way by its
 * signal, and settles when that has settled. So nothing ever runs beside another piece, and an end leaves nothing behind it.
 */
export class SerialQueue {
  readonly #closing = new AbortController();
  #tail: Promise<void> = Promise.resolve();
  #length = 0;

  /** Something waits or is under way. */
  get busy(): boolean {
    return this.#length > 0;
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** @param work gets the signal of the end: after each of its waits it looks whether it still counts */
  run<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = this.#closing;
    this.#length += 1;
    const piece = this.#tail.then(() => {
      signal.throwIfAborted();
      return work(signal);
    });
    const settled = (): void => {
      this.#length -= 1;
    };
    this.#tail = piece.then(settled, settled);
    return piece;
  }

  /** Idempotent. @param reason what refused pieces reject with. @returns settles when nothing is under way any more; never rejects */
  close(reason: Error): Promise<void> {
    this.#closing.abort(reason);
    return this.#tail;
  }
}
