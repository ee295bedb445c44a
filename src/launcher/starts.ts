/**
 * Restores that are under way: a few at a time, and owners in turn. A host does so many in a second and no more, however many it is given at
 * once; those that wait for their turn leave the first ones to be done early.
 */
import { availableParallelism } from "node:os";
import { FairQueue } from "../host/fair-queue.ts";

/** For each processor of the host: measured with a hundred at once (docs/measurements.md). */
const PLACES = 2;
/** A place is given back after this time, ms, whether or not the guest has answered: one that is silent holds up nobody for longer. */
export const HELD_MS = 1_000;

const NEVER = new AbortController().signal;

export class Starts {
  readonly #queue: FairQueue;

  constructor(places = PLACES * availableParallelism()) {
    this.#queue = new FairQueue(places, places);
  }

  /** Waits for a place, which is the caller's until it is disposed of. @param signal ends the wait @throws its reason */
  enter(owner: string, signal: AbortSignal = NEVER): Promise<Disposable> {
    return new Promise((resolve, reject) => {
      const begin = (): Promise<void> => {
        const { promise, resolve: leave } = Promise.withResolvers<void>();
        const held = setTimeout(leave, HELD_MS).unref();
        resolve({
          [Symbol.dispose]() {
            clearTimeout(held);
            leave();
          },
        });
        return promise;
      };
      this.#queue.run(owner, signal, begin).catch(reject);
    });
  }
}
