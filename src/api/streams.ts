/** Streaming answers that the reader paces: nothing is produced that the client has not room for. */
import { asStacyError } from "../host/error.ts";

/**
 * An answer made of what `source` yields. Pulled one piece at a time; a client that goes away ends the generator (its `finally`
 * runs).
 */
export function streamed(
  source: AsyncGenerator<Uint8Array | string>,
  headers: Record<string, string>,
  status = 200,
): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await source.next();
          if (done === true) controller.close();
          else controller.enqueue(typeof value === "string" ? encoder.encode(value) : value);
        } catch (error) {
          controller.error(asStacyError(error)); // too late for a status: the connection breaks off
        }
      },
      async cancel() {
        await source.return(undefined).catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { status, headers });
}

export const NDJSON_HEADERS = {
  "content-type": "application/x-ndjson",
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
};

export const SSE_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
};

/** Takes the first step of a generator now: one that was never started would end without running its `finally`. */
export function begun<T>(source: AsyncGenerator<T>): AsyncGenerator<T> {
  const first = source.next();
  first.catch(() => {});
  let taken = false;
  const next = source.next.bind(source);
  source.next = () => {
    if (taken) return next();
    taken = true;
    return first;
  };
  return source;
}

/** What `work` gives, or `undefined` when it takes longer than `ms` (it goes on). */
export async function within<T>(work: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
    timer.unref();
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
