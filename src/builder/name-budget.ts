/** Memory for the names of files that builds keep, all builds together. Clients decide how many there are. */
import { getHeapStatistics } from "node:v8";
import { OutputBudget } from "../guest/output-budget.ts";
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";

export class NameBudget {
  readonly #budget: OutputBudget;

  /** @param most bytes */
  constructor(most: number) {
    this.#budget = new OutputBudget(most, most);
  }

  /** What one build has of it, given back when this is disposed of. @param party whose build it is: its builds never have more than is left free */
  share(party?: string): NameShare {
    const part = this.#budget.open(party);
    return {
      take: (bytes) => {
        if (part.take(bytes) === bytes) return;
        throw new StacyError("limit", "the builds that run now have more files than this server keeps in memory", {
          remedy: "leave files out, or try again when other builds have ended",
        });
      },
      [Symbol.dispose]: () => part[Symbol.dispose](),
    };
  }
}

export interface NameShare extends Disposable {
  /** @param bytes more than before @throws StacyError `limit` */
  take(bytes: number): void;
}

/** Of this process. A small host has less. */
export const buildNames = new NameBudget(Math.min(BUILD_BOUNDS.nameBytes, getHeapStatistics().heap_size_limit / 4));
