/**
 * Work that a peer causes by what it sends, in turns: one of them in each pass of the event loop, whoever has how much. So any number of
 * peers that keep us busy delay the others by one turn, and not by one each.
 */
import { GUEST_BOUNDS } from "./bounds.ts";

/** @returns whether there is more to do */
export type Turn = () => boolean;

export class Turns {
  readonly #waiting: Turn[] = [];
  #scheduled = false;

  add(turn: Turn): void {
    this.#waiting.push(turn);
    this.#schedule();
  }

  /** Resolves when it is the caller's turn. */
  next(): Promise<void> {
    return new Promise((resolve) =>
      this.add(() => {
        resolve();
        return false;
      }),
    );
  }

  #schedule(): void {
    if (this.#scheduled || this.#waiting.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const turn = this.#waiting.shift();
      if (turn?.() === true) this.#waiting.push(turn);
      this.#schedule();
    });
  }
}

/** Of this process: there is one event loop. */
export const turns = new Turns();

/** For loops over what a peer sent: `if (pace.over) await pace.rest()` in each round. */
export class Pace {
  #until = performance.now() + GUEST_BOUNDS.turnMs;

  get over(): boolean {
    return performance.now() >= this.#until;
  }

  async rest(): Promise<void> {
    await turns.next();
    this.#until = performance.now() + GUEST_BOUNDS.turnMs;
  }

  /** Work that says by itself where it can be left for a while. */
  async through<T>(steps: Generator<undefined, T>): Promise<T> {
    for (;;) {
      const { done, value } = steps.next();
      if (done === true) return value;
      if (this.over) await this.rest();
    }
  }
}
