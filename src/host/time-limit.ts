/**
 * What `work` gives, or the error of `late` when that takes longer than `ms`; the work itself goes on. The wait keeps our
 * process alive: whoever waits wants to know.
 */
export async function withTimeLimit<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), ms);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The same for work that ends when it is told to: it gets a signal that is aborted then, and with `signal`.
 * @param late the error, of what the work ended with
 */
export async function endedAfter<T>(
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
  late: (cause: unknown) => Error,
): Promise<T> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), ms);
  try {
    return await work(AbortSignal.any([signal, limit.signal]));
  } catch (cause) {
    throw limit.signal.aborted && !signal.aborted ? late(cause) : cause;
  } finally {
    clearTimeout(timer);
  }
}
