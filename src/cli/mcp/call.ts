/** One request of a model's program: how it is cancelled, and what it is told meanwhile. */
import type { ServerContext } from "@modelcontextprotocol/server";

/** Clients give up on a call of which they hear nothing, the official one after 60 s; whoever asked for news waits on. */
const NEWS_EVERY_MS = 2_000;
const SHOWN_CHARACTERS = 200;

export class Call implements Disposable {
  /** Aborted when the client cancels the request, or goes away. */
  readonly signal: AbortSignal;
  readonly #send: ((message: string) => void) | undefined;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #begun = performance.now();
  #words = (): string => "";
  #sent = Number.NEGATIVE_INFINITY;

  constructor({ mcpReq }: Pick<ServerContext, "mcpReq">) {
    this.signal = mcpReq.signal;
    const progressToken = mcpReq._meta?.progressToken;
    if (progressToken === undefined) return;
    let progress = 0;
    this.#send = (message) => {
      const params = { progressToken, progress: ++progress, message };
      // News that cannot be told is no failure of the work.
      mcpReq.notify({ method: "notifications/progress", params }).catch(() => {});
    };
    this.#timer = setInterval(() => this.#tell(), NEWS_EVERY_MS).unref();
  }

  /** What it is doing now; a function is asked each time. The first words go out at once, later ones with the next news. */
  readonly say = (words: string | (() => string)): void => {
    this.#words = typeof words === "string" ? () => words : words;
    if (performance.now() - this.#sent >= NEWS_EVERY_MS) this.#tell();
  };

  #tell(): void {
    this.#sent = performance.now();
    const seconds = Math.round((this.#sent - this.#begun) / 1_000);
    const words = this.#words().slice(0, SHOWN_CHARACTERS);
    this.#send?.(words === "" ? `running for ${seconds} s` : `${words} (${seconds} s)`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
