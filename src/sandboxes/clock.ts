/** Time, for the rules that depend on it (TTL, idle time, queue time). Tests bring their own. */
export interface Clock {
  /** ms since 1970 */
  now(): number;
  /** Calls once after `ms`. @returns cancels it. Does not keep the process alive. */
  after(ms: number, call: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, call) {
    const timer = setTimeout(call, Math.min(ms, 2 ** 31 - 1));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
