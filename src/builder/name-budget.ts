/** Names that builds keep in memory, all builds together: one build may have half a gigabyte of them. */
import { StacyError } from "../host/error.ts";

export class NameBudget {
  readonly #most: number;
  #held = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** What one build has of it. */
  share(): NameShare {
    let mine = 0;
    return {
      set: (names) => {
        this.#held += names - mine;
        mine = names;
        if (names === 0 || this.#held <= this.#most) return;
        throw new StacyError("limit", "the builds that run now have more files than this server keeps at once", {
          remedy: "try again when one of them has ended",
        });
      },
    };
  }
}

export interface NameShare {
  /** From now on the build has so many, in the end none. @throws StacyError `limit` */
  set(names: number): void;
}
