/** Calls to a sandbox that is about to move wait until it has somewhere to answer them. */
import { setTimeout as delay } from "node:timers/promises";
import type { Transits } from "../../sandboxes/transits.ts";

/** A call waits for so long, ms; then it is told that it may ask again. */
const WAIT_MS = 30_000;

/** @returns `undefined`: it does not move now. Never rejects */
export function arrived(transits: Pick<Transits, "settled">, id: string): Promise<unknown> | undefined {
  const settled = transits.settled(id);
  if (settled === undefined) return undefined;
  const late = new AbortController();
  const limit = delay(WAIT_MS, undefined, { signal: late.signal, ref: false }).catch(() => {});
  return Promise.race([settled, limit]).finally(() => late.abort());
}
