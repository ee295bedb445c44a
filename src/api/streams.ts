/** Streaming answers that the reader paces: nothing is produced that the client has not room for. */
import { setTimeout as delay } from "node:timers/promises";
import { asStacyError, StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";

/** Clients made of web streams drop what they have not read yet when the connection breaks off: their time for the last line. */
const LAST_LINE_MS = 200;

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
          await delay(LAST_LINE_MS);
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
export async function resultOrTimeout<T>(work: Promise<T>, ms: number): Promise<T | undefined> {
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

/**
 * A body whose length is announced: not a byte more, which the client would take for the next answer on its connection, and no
 * silent end before. @throws StacyError `protocol`
 */
export async function* exactly(source: AsyncIterable<Uint8Array>, length: number): AsyncGenerator<Uint8Array> {
  let left = length;
  for await (const part of source) {
    if (part.length > left) throw new StacyError("protocol", "the sandbox sent more than it had announced");
    left -= part.length;
    yield part;
    // Its reader has all of it, and may have sent its next request by then: what becomes of the source would cut that one off.
    if (left === 0) return;
  }
  if (left > 0) throw new StacyError("protocol", "the sandbox sent less than it had announced");
}

const LIST_STEP = 256;

/** A JSON array. A long one is written in steps: at once it would keep the event loop from everybody else. */
export function jsonList<T>(items: readonly T[], encode: (item: T) => unknown): Response {
  const headers = { "content-type": "application/json" };
  const step = (from: number): string =>
    items
      .slice(from, from + LIST_STEP)
      .map((item) => JSON.stringify(encode(item)))
      .join(",");
  if (items.length <= LIST_STEP) return new Response(`[${step(0)}]\n`, { headers });
  async function* pieces(): AsyncGenerator<string> {
    const pace = new Pace();
    for (let at = 0; at < items.length; at += LIST_STEP) {
      yield `${at === 0 ? "[" : ","}${step(at)}`;
      if (pace.over) await pace.rest();
    }
    yield "]\n";
  }
  return streamed(pieces(), headers);
}

const TEXT_STEP = 64 * 1024;

/** An array whose entries are JSON already. */
export class JsonTexts {
  readonly texts: readonly string[];

  constructor(texts: readonly string[]) {
    this.texts = texts;
  }
}

type Value = string | number | boolean | readonly string[] | undefined | JsonTexts | { [name: string]: Value };

/**
 * A JSON object whose texts may be long, which are then written in steps: a guest's output can grow sixfold when it is escaped.
 * @param done once, when nothing of `value` is needed any longer
 */
export function jsonRecord(value: Record<string, Value>, done: () => void): Response {
  const headers = { "content-type": "application/json" };
  if (isShort(value)) {
    done();
    return new Response(`${JSON.stringify(value)}\n`, { headers });
  }
  async function* pieces(): AsyncGenerator<string> {
    const pace = new Pace();
    try {
      for (const piece of encoded(value)) {
        yield piece;
        if (pace.over) await pace.rest();
      }
      yield "\n";
    } finally {
      done();
    }
  }
  return streamed(begun(pieces()), headers);
}

function isShort(value: Value): boolean {
  if (typeof value === "string") return value.length <= TEXT_STEP;
  if (value instanceof JsonTexts) return false;
  return typeof value !== "object" || Array.isArray(value) || Object.values(value).every(isShort);
}

function* encoded(value: Value): Generator<string> {
  if (typeof value === "string") {
    yield '"';
    // Halves of a character stand as their numbers, and are whole again when they are read.
    for (let at = 0; at < value.length; at += TEXT_STEP) {
      yield JSON.stringify(value.slice(at, at + TEXT_STEP)).slice(1, -1);
    }
    yield '"';
  } else if (value instanceof JsonTexts) {
    yield "[";
    for (const [i, text] of value.texts.entries()) yield i === 0 ? text : `,${text}`;
    yield "]";
  } else if (typeof value !== "object" || Array.isArray(value)) yield JSON.stringify(value);
  else {
    let before = "{";
    for (const [name, each] of Object.entries(value)) {
      if (each === undefined) continue;
      yield `${before}${JSON.stringify(name)}:`;
      before = ",";
      yield* encoded(each);
    }
    yield before === "{" ? "{}" : "}";
  }
}
