/**
 * A limit for what a guest is to do. Before it is over the guest is asked whether it is there. One that is slow answers, and keeps its
 * channel. One from which nothing at all has come since the question is not reached over this channel any more: the channel is
 * given up with the call, so that the next one opens another.
 */
import { GUEST_BOUNDS } from "../host/bounds.ts";

export interface Questioned {
  /** Asks it. @returns whether nothing has come since */
  question(): () => boolean;
}

export class AnswerLimit {
  readonly #session: Questioned;
  readonly #late: (silent: boolean) => void;
  #timer: NodeJS.Timeout | undefined;
  #reading: NodeJS.Immediate | undefined;

  /** @param late called once, after `ms`; `silent`: the question was not answered either */
  constructor(session: Questioned, ms: number, late: (silent: boolean) => void) {
    this.#session = session;
    this.#late = late;
    const answerMs = Math.min(ms, GUEST_BOUNDS.answerMs);
    if (answerMs === ms) this.#ask(answerMs);
    else this.#timer = setTimeout(() => this.#ask(answerMs), ms - answerMs);
  }

  #ask(answerMs: number): void {
    const silent = this.#session.question();
    this.#timer = setTimeout(() => {
      // What came while this process had no time for it is read first.
      this.#reading = setImmediate(() => this.#late(silent()));
    }, answerMs);
  }

  clear(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#reading);
  }
}

/** What `work` gives, or the error of `late` when that takes longer than `ms`. */
export async function inTime<T>(
  session: Questioned,
  work: Promise<T>,
  ms: number,
  late: (silent: boolean) => Error,
): Promise<T> {
  const failed = Promise.withResolvers<never>();
  const limit = new AnswerLimit(session, ms, (silent) => failed.reject(late(silent)));
  try {
    return await Promise.race([work, failed.promise]);
  } finally {
    limit.clear();
  }
}
