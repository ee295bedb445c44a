/** Signs of life in a stream that has nothing to tell: clients say how often they want one. */
import { resultOrTimeout } from "../../api/streams.ts";

const HEADER = "keepalive-ping-interval";
const DEFAULT_MS = 90_000;
const LEAST_MS = 1_000;
/** Above what a timer takes (2^31 ms) it would go off at once, again and again. */
const MOST_MS = 3_600_000;

/** Yields `undefined` where a sign of life is due. */
export async function* withKeepAlive<T>(source: AsyncGenerator<T>, headers: Headers): AsyncGenerator<T | undefined> {
  const asked = Number(headers.get(HEADER) ?? Number.NaN) * 1000;
  const everyMs = asked > 0 ? Math.min(Math.max(asked, LEAST_MS), MOST_MS) : DEFAULT_MS;
  try {
    let next = source.next();
    for (;;) {
      const result = await resultOrTimeout(next, everyMs);
      if (result === undefined) yield undefined;
      else if (result.done === true) return;
      else {
        yield result.value;
        next = source.next();
        next.catch(() => {}); // met in the next round
      }
    }
  } finally {
    source.return(undefined).catch(() => {});
  }
}
