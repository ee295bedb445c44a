import { setTimeout as delay } from "node:timers/promises";

/** Between two attempts, doubled each time. */
const PAUSE_MS = { first: 1_000, most: 60_000 };

/** When to try again what did not work: less and less often, until `signal`. It keeps no process alive. */
export async function* attempts(signal?: AbortSignal): AsyncGenerator<void> {
  for (let pause = PAUSE_MS.first; ; pause = Math.min(2 * pause, PAUSE_MS.most)) {
    await delay(pause, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }).catch(() => {});
    if (signal?.aborted === true) return;
    yield;
  }
}
