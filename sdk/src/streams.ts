/** Streams of lines: NDJSON and server-sent events, as async iterators that end their request when they are left. */
import { ConnectionError } from "./errors.ts";

/** Pieces of a body. Leaving the loop cancels the request. */
export async function* bytesOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw new ConnectionError("CONNECTION", "the connection broke off in the middle of an answer", {
          cause: error,
        });
      });
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {}); // it has ended, or broke
  }
}

export async function* linesOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of bytesOf(body)) {
    const lines = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
  }
  rest += decoder.decode();
  if (rest !== "") yield rest;
}

/** One JSON value per line. */
export async function* ndjson(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Record<string, unknown>> {
  for await (const line of linesOf(body)) {
    if (line.trim() !== "") yield JSON.parse(line) as Record<string, unknown>;
  }
}

/**
 * `data` of each server-sent event, parsed.
 * @param seen told the `id` of each block, also of one without data: from there a broken stream is taken up again
 */
export async function* serverSent(
  body: ReadableStream<Uint8Array> | null,
  seen: (id: string) => void = () => {},
): AsyncGenerator<Record<string, unknown>> {
  let data = "";
  let id: string | undefined;
  for await (const line of linesOf(body)) {
    if (line.startsWith("data:")) data += line.slice(5).trimStart();
    else if (line.startsWith("id:")) id = line.slice(3).trim();
    else if (line === "") {
      if (id !== undefined) seen(id);
      if (data !== "") yield JSON.parse(data) as Record<string, unknown>;
      data = "";
      id = undefined;
    }
  }
}

/** A queue between callbacks and an async iterator, with a say in when to stop the sender. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  readonly #pause: () => void;
  readonly #resume: () => void;
  #wake: (() => void) | undefined;
  #ended = false;
  #error: unknown;
  #paused = false;

  constructor(flow: { pause(): void; resume(): void } = { pause() {}, resume() {} }) {
    this.#pause = flow.pause;
    this.#resume = flow.resume;
  }

  push(item: T): void {
    if (this.#ended) return;
    this.#items.push(item);
    if (this.#items.length > 64 && !this.#paused) {
      this.#paused = true;
      this.#pause();
    }
    this.#wake?.();
  }

  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#items.length > 0) {
        const item = this.#items.shift() as T;
        if (this.#paused && this.#items.length < 16) {
          this.#paused = false;
          this.#resume();
        }
        yield item;
      }
      if (this.#ended) {
        if (this.#error !== undefined) throw this.#error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
