/** A TCP port inside a sandbox: HTTP through the server, or a raw connection. */
import { Channel } from "./streams.ts";
import type { Transport } from "./transport.ts";

export interface Tunnel extends AsyncIterable<Uint8Array>, Disposable {
  /** Resolves when the bytes are on their way; waits for a slow peer. */
  write(data: Uint8Array): Promise<void>;
  /** Nothing more comes from this side; the program's answer still does. */
  end(): void;
  close(): void;
}

export class Port {
  readonly port: number;
  /** For a browser: `http://{port}-{id}.{domain}`, when the server's preview domain leads to it. */
  readonly previewUrl: string;
  readonly #transport: Transport;
  readonly #id: string;

  constructor(transport: Transport, id: string, port: number, domain: string) {
    this.#transport = transport;
    this.#id = id;
    this.port = port;
    const { protocol, port: own } = new URL(transport.url);
    this.previewUrl = `${protocol}//${port}-${id}.${domain}${own === "" ? "" : `:${own}`}`;
  }

  /** An HTTP request to the program that listens on the port. */
  fetch(path = "/", init: RequestInit = {}): Promise<Response> {
    const below = path.startsWith("/") ? path : `/${path}`;
    return this.#transport.fetchPath(`/sandboxes/${encodeURIComponent(this.#id)}/ports/${this.port}${below}`, init);
  }

  /** A TCP connection. */
  async connect(signal?: AbortSignal): Promise<Tunnel> {
    const socket = await this.#transport.socket(
      "/sandboxes/{id}/tunnel/{port}",
      { id: this.#id, port: this.port },
      signal,
    );
    const incoming = new Channel<Uint8Array>({
      pause: () => socket.readyState === 1 && socket.pause?.(),
      resume: () => socket.readyState === 1 && socket.resume?.(),
    });
    socket.onmessage = ((event: { data: string | ArrayBuffer }) => {
      if (typeof event.data !== "string") incoming.push(new Uint8Array(event.data));
      // The only text frame is the server's error: nobody listens there.
      else incoming.end(new Error(String((JSON.parse(event.data) as { message?: string }).message ?? event.data)));
    }) as never;
    socket.onclose = (() => incoming.end()) as never;
    socket.onerror = (() => {}) as never;
    const close = (): void => socket.close(1000);
    return {
      [Symbol.asyncIterator]: () => incoming[Symbol.asyncIterator](),
      async write(data) {
        // An empty message is this side's end.
        if (data.length > 0) socket.send(data);
        while (socket.bufferedAmount > 1 << 20 && socket.readyState === 1) {
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
      end: () => void (socket.readyState === 1 && socket.send(new Uint8Array(0))),
      close,
      [Symbol.dispose]: close,
    };
  }
}
