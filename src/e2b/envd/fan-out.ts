/**
 * One source of events for any number of readers that come and go. Each sees what comes from its begin on; what nobody reads is
 * lost, and a reader that stops reading holds the source back until it goes.
 */
export class FanOut<T> {
  readonly #readers = new Set<Reader<T>>();
  #ended = false;
  #error: unknown;

  /** Resolves when every reader has room for more. */
  async publish(event: T): Promise<void> {
    await Promise.all([...this.#readers].map((reader) => reader.push(event)));
  }

  /** No more events. @param error what readers meet instead of an end */
  end(error?: unknown): void {
    this.#ended = true;
    this.#error = error;
    for (const reader of this.#readers) reader.end(error);
  }

  /** Reading begins now, not with the first step. Ends early when the signal does. */
  read(signal: AbortSignal): AsyncGenerator<T> {
    const reader = new Reader<T>();
    if (this.#ended) reader.end(this.#error);
    else this.#readers.add(reader);
    const stop = (): void => {
      this.#readers.delete(reader);
      reader.end();
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    const readers = this.#readers;
    return (async function* () {
      try {
        yield* reader.events();
      } finally {
        signal.removeEventListener("abort", stop);
        readers.delete(reader);
        reader.end();
      }
    })();
  }
}

const ROOM = 64;

class Reader<T> {
  readonly #queue: T[] = [];
  #ended = false;
  #error: unknown;
  #wake: (() => void) | undefined;
  #room = Promise.withResolvers<void>();

  push(event: T): Promise<void> {
    if (this.#ended) return Promise.resolve();
    this.#queue.push(event);
    this.#wake?.();
    if (this.#queue.length < ROOM) return Promise.resolve();
    this.#room = Promise.withResolvers();
    return this.#room.promise;
  }

  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
    this.#room.resolve();
  }

  async *events(): AsyncGenerator<T> {
    for (;;) {
      while (this.#queue.length > 0) {
        yield this.#queue.shift() as T;
        if (this.#queue.length < ROOM / 2) this.#room.resolve();
      }
      if (this.#ended) {
        if (this.#error !== undefined) throw this.#error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
