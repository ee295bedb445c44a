/**
 * Pulls and builds of images take disk, processors and a registry's patience: few are done at a time, owners in turn, and each image once,
 * however many ask for it. One library's own; each command that works without a server has its own too.
 */
import { StacyError } from "../host/error.ts";
import { FairQueue } from "../host/fair-queue.ts";
import { SharedWork } from "../host/shared-work.ts";
import { endedAfter } from "../host/time-limit.ts";
import type { Progress } from "./image.ts";

/** Of all owners at a time; one has half of them at most. */
const AT_A_TIME = 4;
/** A registry that sends slowly must not keep its place for ever. */
const MOST_MS = 3_600_000;

export interface Asking {
  /** Whose turn it is. */
  party: string;
  signal: AbortSignal | undefined;
  progress: ((progress: Progress) => void) | undefined;
}

type Work<T> = (signal: AbortSignal, progress: (progress: Progress) => void) => Promise<T>;

/** One that is asked for: whoever of those who ask has a turn first does it for all of them, and nobody else holds a turn for it. */
interface Pull {
  begin(): Promise<void>;
  readonly begun: boolean;
  readonly told: Set<(progress: Progress) => void>;
}

export class PullTurns<T> {
  readonly #queue = new FairQueue(AT_A_TIME);
  readonly #shared = new SharedWork<T>();
  readonly #pulls = new Map<string, Pull>();

  /**
   * @param wants asking the registry again is another thing than having the image
   * @param work one caller's serves all, so it must be anybody's. Its signal says that nobody waits for it any longer
   * @throws StacyError `timeout` when it takes longer than an hour from its turn on
   */
  async run(name: string, wants: "missing" | "always", { party, signal, progress }: Asking, work: Work<T>): Promise<T> {
    const gone = new AbortController();
    const wanted = signal === undefined ? gone.signal : AbortSignal.any([signal, gone.signal]);
    // Who cannot be told any more does not wait any more; the others do.
    const tell = (step: Progress): void => {
      try {
        progress?.(step);
      } catch (error) {
        gone.abort(error);
      }
    };
    const key = `${wants} ${name}`;
    // It begins in this very call.
    const result = this.#shared.join(key, wanted, (cancelled) => this.#open(key, cancelled, work));
    const pull = this.#pulls.get(key);
    if (pull === undefined) return result;
    const { begun } = pull;
    if (progress !== undefined) pull.told.add(tell);
    if (begun) tell({ step: `waiting for another pull or build of ${name}` });
    else {
      this.#queue.run(party, wanted, () => pull.begin()).catch(() => {}); // it left, which the result tells
      const waiting = this.#queue.waiting(party);
      if (!pull.begun && waiting > 0) tell({ step: `waiting for other pulls (${waiting} of yours)` });
    }
    return result.finally(() => {
      pull.told.delete(tell);
    });
  }

  #open(key: string, cancelled: AbortSignal, work: Work<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const told: Pull["told"] = new Set();
    const progress = (step: Progress): void => {
      for (const tell of told) tell(step);
    };
    let begun = false;
    const pull: Pull = {
      told,
      get begun() {
        return begun;
      },
      async begin() {
        if (begun) return;
        begun = true;
        await endedAfter(MOST_MS, cancelled, (signal) => work(signal, progress), late).then(resolve, reject);
      },
    };
    this.#pulls.set(key, pull);
    // Nobody waits for it any longer, and nobody had a turn.
    cancelled.addEventListener("abort", () => !begun && reject(cancelled.reason), { once: true });
    return promise.finally(() => {
      begun = true;
      if (this.#pulls.get(key) === pull) this.#pulls.delete(key);
    });
  }
}

function late(cause: unknown): StacyError {
  return new StacyError("timeout", "the image was not here within an hour", {
    cause,
    remedy: "pull it again: layers that have come are kept; or import it with `stacyvm image import`",
  });
}
