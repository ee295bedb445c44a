/**
 * Calls under way, by what their callers have shown: streams, sockets and long answers end soon after the key or the token does. The
 * connection is broken off, as it is by a client that goes away: whatever a call holds is freed on that path already.
 */
import type { Duplex, Writable } from "node:stream";
import type { Identity } from "../access/identity.ts";

/** How long a call may go on without a key that is good. */
const LOOK_MS = 1_000;

/** What a call came with: its socket was handed over (`upgrade`), or its answer is written. */
interface Connection {
  incoming?: { socket: Duplex };
  outgoing?: Writable;
  upgrade?: { socket: Duplex };
}

export class OpenCalls {
  readonly #calls = new Set<{ socket: Duplex; identity: Identity }>();
  #timer: NodeJS.Timeout | undefined;

  /** Until its answer is over. One without a connection (a program in this process) is not followed. */
  follow({ incoming, outgoing, upgrade }: Connection, identity: Identity): void {
    const socket = upgrade?.socket ?? incoming?.socket;
    const answer = upgrade?.socket ?? outgoing;
    if (identity.holds === undefined || socket === undefined || answer === undefined) return;
    if (answer.closed || socket.destroyed) return; // it left while it was looked who it is
    const call = { socket, identity };
    this.#calls.add(call);
    answer.once("close", () => {
      this.#calls.delete(call);
      if (this.#calls.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    });
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref();
  }

  #look(): void {
    for (const { socket, identity } of this.#calls) if (identity.holds?.() === false) socket.destroy();
  }
}
