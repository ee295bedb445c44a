/**
 * Pulls and builds of images take disk, processors and a registry's patience: few are done at a time, owners in turn. One library's own;
 * each command that works without a server has its own too.
 */
import { StacyError } from "../host/error.ts";
import { FairQueue } from "../host/fair-queue.ts";
import { endedAfter } from "../host/time-limit.ts";

/** Of all owners at a time; one has half of them at most. */
const AT_A_TIME = 4;
/** A registry that sends slowly must not keep its place for ever. */
const MOST_MS = 3_600_000;

export class PullTurns {
  readonly #queue = new FairQueue(AT_A_TIME);

  /**
   * @param party whose turn it is
   * @param waits told when it is not yet, with how many of the party's are waiting
   * @throws StacyError `timeout` when it takes longer than an hour from its turn on
   */
  run<T>(
    party: string,
    signal: AbortSignal | undefined,
    waits: (count: number) => void,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const wanted = signal ?? new AbortController().signal;
    const done = this.#queue.run(party, wanted, () => endedAfter(MOST_MS, wanted, work, late));
    const waiting = this.#queue.waiting(party);
    if (waiting > 0) waits(waiting);
    return done;
  }
}

function late(cause: unknown): StacyError {
  return new StacyError("timeout", "the image was not here within an hour", {
    cause,
    remedy: "pull it again: layers that have come are kept; or import it with `stacyvm image import`",
  });
}
