/** Ctrl-C as cancellation: the work cleans up behind itself; a second one leaves at once, and the next start sweeps up. */
import { StacyError } from "../host/error.ts";

export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    if (abort.signal.aborted) process.exit(130);
    abort.abort(new StacyError("cancelled", `interrupted by ${signal}`));
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  try {
    return await work(abort.signal);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}
