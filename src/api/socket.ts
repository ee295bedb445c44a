/** WebSockets on the server's side: the upgrade inside the ordinary request pipeline, and a paced way to send. */
import { type RawData, type WebSocket, WebSocketServer } from "ws";
import type { ApiContext } from "./endpoint.ts";
import { httpError } from "./problem.ts";

const server = new WebSocketServer({ noServer: true, maxPayload: 4 * 1024 * 1024, perMessageDeflate: false });
/** A peer that answers no ping in this time is gone. */
const PING_MS = 30_000;

export interface Message {
  data: Buffer;
  binary: boolean;
}

export class Socket {
  readonly #ws: WebSocket;
  /** Aborted when the peer is gone. */
  readonly closed: AbortSignal;
  readonly #incoming: Message[] = [];
  #wake: () => void = () => {};
  #alive = true;

  constructor(ws: WebSocket) {
    this.#ws = ws;
    const gone = new AbortController();
    this.closed = gone.signal;
    ws.on("message", (data: RawData, binary: boolean) => {
      this.#incoming.push({ data: Buffer.isBuffer(data) ? data : Buffer.concat(data as Buffer[]), binary });
      // The client waits until its messages are taken: nothing piles up here.
      if (this.#incoming.length >= 64) ws.pause();
      this.#wake();
    });
    ws.on("pong", () => {
      this.#alive = true;
    });
    ws.on("error", () => {}); // `close` follows
    const ping = setInterval(() => {
      if (!this.#alive) return ws.terminate();
      this.#alive = false;
      ws.ping();
    }, PING_MS);
    ping.unref();
    ws.on("close", () => {
      clearInterval(ping);
      gone.abort(new Error("the client went away"));
      this.#wake();
    });
  }

  /** Messages in order; ends when the peer is gone. */
  async *messages(): AsyncGenerator<Message> {
    for (;;) {
      const next = this.#incoming.shift();
      if (next !== undefined) {
        if (this.#ws.isPaused && this.#incoming.length < 16) this.#ws.resume();
        yield next;
      } else if (this.closed.aborted) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  /** Settles when the bytes have left this process, so that a slow peer slows the sender. Resolves `false` when it is gone. */
  send(data: string | Uint8Array): Promise<boolean> {
    if (this.closed.aborted) return Promise.resolve(false);
    return new Promise((resolve) => this.#ws.send(data, (error) => resolve(error === undefined || error === null)));
  }

  json(value: unknown): Promise<boolean> {
    return this.send(JSON.stringify(value));
  }

  close(code = 1000, reason = ""): void {
    this.#ws.close(code, Buffer.from(reason).subarray(0, 120).toString());
    // A peer that does not answer the close would keep the socket for ever.
    const timer = setTimeout(() => this.#ws.terminate(), 5_000);
    timer.unref();
    this.#ws.once("close", () => clearTimeout(timer));
  }
}

/** Takes the request's socket. The answer that the handler returns afterwards is not written. @throws HTTPException 400 */
export async function acceptSocket(c: ApiContext): Promise<Socket> {
  const { upgrade } = c.env;
  if (upgrade === undefined || upgrade.incoming.headers.upgrade?.toLowerCase() !== "websocket") {
    throw httpError(400, "this is a WebSocket endpoint");
  }
  return new Promise((resolve) => {
    upgrade.taken = true;
    server.handleUpgrade(upgrade.incoming, upgrade.socket, upgrade.head, (ws) => resolve(new Socket(ws)));
  });
}

/** What a handler of a taken socket returns. */
export function taken(): Response {
  return new Response(null, { status: 204 });
}
