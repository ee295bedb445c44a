/**
 * A stop of the guest that was not answered may still be carried out, whenever the monitor gets to it. What was not answered has not
 * happened, so the guest is let go on, as often as it takes until the monitor confirms that. Whoever means to stop it next waits for it:
 * the two would meet in the middle of a save.
 */
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";

/** Between two attempts, doubled each time. */
const PAUSE_MS = { first: 50, most: 5_000 };
/** So long the next change waits; the attempts go on. Longer than one that nobody answers. */
const WAIT_LIMIT_MS = 60_000;

export class Undoing {
  readonly #over = new AbortController();
  #done: Promise<void> | undefined;

  /** @param goOn one attempt to let the guest go on: resolves when that is confirmed */
  begin(goOn: () => Promise<unknown>): void {
    this.#done ??= this.#try(goOn).finally(() => {
      this.#done = undefined;
    });
  }

  /** Resolves at once where nothing is undone. @throws StacyError `timeout` */
  async settled(): Promise<void> {
    if (this.#done === undefined) return;
    const late = (): StacyError =>
      new StacyError("timeout", "the monitor has not confirmed yet that the guest goes on after a pause that failed", {
        phase: "pause",
        remedy: "it is asked again and again; try it later",
      });
    await withTimeLimit(this.#done, WAIT_LIMIT_MS, late);
  }

  /** The machine has ended, or is the next daemon's. */
  end(): void {
    this.#over.abort();
  }

  async #try(goOn: () => Promise<unknown>): Promise<void> {
    const { signal } = this.#over;
    for (let pause = PAUSE_MS.first; !signal.aborted; pause = Math.min(2 * pause, PAUSE_MS.most)) {
      try {
        await goOn();
        return;
      } catch {} // the pause's own error says more
      await delay(pause, undefined, { ref: false, signal }).catch(() => {});
    }
  }
}
