/**
 * Ctrl-C as cancellation. The first one cancels the work, which cleans up behind itself; the second one tells the cleaning to
 * skip what can wait; a third one leaves at once, and the next start sweeps up.
 */
import { StacyError } from "../host/error.ts";

export interface Interrupts {
  readonly signal: AbortSignal;
  /** Aborted by a second interrupt. */
  readonly hurry: AbortSignal;
  /** Hands the first interrupt to this until disposed, for example to pass it on to a command; the second one cancels. */
  divert(handler: (signal: NodeJS.Signals) => void): Disposable;
}

/** The reader of our output has gone (`| head`): no error, but a reason to stop. */
export class OutputClosed extends Error {}

export async function interruptible<T>(work: (signal: AbortSignal, interrupts: Interrupts) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const hurry = new AbortController();
  let diverted: ((signal: NodeJS.Signals) => void) | undefined;
  const stop = (signal: NodeJS.Signals): void => {
    if (hurry.signal.aborted) process.exit(130);
    const handler = diverted;
    diverted = undefined;
    if (handler !== undefined) handler(signal);
    else if (abort.signal.aborted) hurry.abort();
    else abort.abort(new StacyError("cancelled", `interrupted by ${signal}`));
  };
  const closed = (error: NodeJS.ErrnoException): void => {
    if (error.code === "EPIPE") abort.abort(new OutputClosed());
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, stop);
  process.stdout.on("error", closed);
  try {
    return await work(abort.signal, {
      signal: abort.signal,
      hurry: hurry.signal,
      divert(handler) {
        diverted = handler;
        return {
          [Symbol.dispose]() {
            if (diverted === handler) diverted = undefined;
          },
        };
      },
    });
  } catch (error) {
    // Whatever an aborted call says: this is why.
    throw abort.signal.aborted ? abort.signal.reason : error;
  } finally {
    for (const signal of signals) process.off(signal, stop);
    process.stdout.off("error", closed);
  }
}
