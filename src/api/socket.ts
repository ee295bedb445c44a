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

/** What may lie here until it is taken; the client waits with the rest. */
const MOST_MESSAGES = 64;
const MOST_BYTES = 1024 * 1024;

export class Socket {
  readonly #ws: WebSocket;
  /** Aborted when the peer is gone. */
  readonly closed: AbortSignal;
  readonly #incoming: Message[] = [];
  #bytes = 0;
  #wake: () => void = () => {};
  /** Something came or went since the last ping. */
  #alive = true;

  constructor(ws: WebSocket) {
    this.#ws = ws;
    const gone = new AbortController();
    this.closed = gone.signal;
    ws.on("message", (raw: RawData, binary: boolean) => {
      if (ws.readyState !== ws.OPEN) return; // nobody takes it any longer
      const data = Buffer.isBuffer(raw) ? raw : Buffer.concat(raw as Buffer[]);
      this.#alive = true;
      this.#incoming.push({ data, binary });
      this.#bytes += data.length;
      if (this.#incoming.length >= MOST_MESSAGES || this.#bytes >= MOST_BYTES) ws.pause();
      this.#wake();
    });
    ws.on("pong", () => {
      this.#alive = true;
    });
    ws.on("error", () => {}); // `close` follows
    const ping = setInterval(() => {
      // While it is paused, its pongs lie unread with all else.
      if (!this.#alive && !ws.isPaused) return ws.terminate();
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
        this.#bytes -= next.data.length;
        if (this.#ws.isPaused && this.#incoming.length < MOST_MESSAGES / 4 && this.#bytes < MOST_BYTES) {
          this.#alive = true; // its pongs are read only from now on
          this.#ws.resume();
        }
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
    return new Promise((resolve) => {
      this.#ws.send(data, (error) => {
        const sent = error === undefined || error === null;
        if (sent) this.#alive = true; // a slow peer reads our ping after all that was sent before it
        resolve(sent);
      });
    });
  }

  json(value: unknown): Promise<boolean> {
    return this.send(JSON.stringify(value));
  }

  close(code = 1000, reason = ""): void {
    this.#ws.close(code, Buffer.from(reason).subarray(0, 120).toString());
    if (this.#ws.isPaused) this.#ws.resume(); // else the peer's close would never be read
    // A peer that does not answer the close would keep the socket for ever.
    const timer = setTimeout(() => this.#ws.terminate(), 5_000);
    timer.unref();
    this.#ws.once("close", () => clearTimeout(timer));
  }
}

/** Takes the request's socket. The answer that the handler returns afterwards is not written. @throws HTTPException 400 */
export function acceptSocket(c: ApiContext): Socket {
  const { upgrade } = c.env;
  if (upgrade === undefined || upgrade.incoming.headers.upgrade?.toLowerCase() !== "websocket") {
    throw httpError(400, "this is a WebSocket endpoint");
  }
  let socket: Socket | undefined;
  upgrade.taken = true;
  // Calls back at once, or not at all: then it has answered what is wrong with the handshake, and closes.
  server.handleUpgrade(upgrade.incoming, upgrade.socket, upgrade.head, (ws) => {
    socket = new Socket(ws);
  });
  if (socket === undefined) throw httpError(400, "this is no WebSocket handshake");
  return socket;
}

/** What a handler of a taken socket returns. */
export function taken(): Response {
  return new Response(null, { status: 204 });
}
