/** The server's events as they come, read with nothing but `fetch`. */
export interface ServerEvent {
  id: string;
  type: string;
  sandbox_id?: string;
  data?: Record<string, unknown>;
}

export class EventStream implements AsyncDisposable {
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #abort: AbortController;
  #text = "";

  private constructor(reader: ReadableStreamDefaultReader<string>, abort: AbortController) {
    this.#reader = reader;
    this.#abort = abort;
  }

  /** Follows from now on, or from after the event `lastId`. */
  static async open(url: string, filter: Record<string, string> = {}, lastId?: string): Promise<EventStream> {
    const abort = new AbortController();
    const response = await fetch(`${url}/api/v1/events?${new URLSearchParams(filter)}`, {
      signal: abort.signal,
      ...(lastId === undefined ? {} : { headers: { "last-event-id": lastId } }),
    });
    if (response.body === null) throw new Error(`no stream: ${response.status}`);
    const stream = new EventStream(response.body.pipeThrough(new TextDecoderStream()).getReader(), abort);
    await stream.#block((block) => block.startsWith(": connected"));
    return stream;
  }

  /** The next event that is meant; others before it are passed over. */
  async next(wanted: (event: ServerEvent) => boolean): Promise<ServerEvent> {
    let found: ServerEvent | undefined;
    await this.#block((block) => {
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (data === undefined) return false;
      const event = JSON.parse(data) as ServerEvent;
      if (wanted(event)) found = event;
      return found !== undefined;
    });
    return found as ServerEvent;
  }

  heartbeat(): Promise<void> {
    return this.#block((block) => block.startsWith(": heartbeat"));
  }

  async #block(wanted: (block: string) => boolean): Promise<void> {
    for (;;) {
      const end = this.#text.indexOf("\n\n");
      if (end >= 0) {
        const block = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 2);
        if (wanted(block)) return;
        continue;
      }
      const { done, value } = await this.#reader.read();
      if (done) throw new Error("the stream of events has ended");
      this.#text += value;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.#reader.cancel().catch(() => {});
  }
}
