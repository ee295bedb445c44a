/** Requests to one host of a secret: over a few connections that are kept, each to an address that the rules permit, its certificate verified. */
import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from "node:http";
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from "node:http2";
import { isIP, type Socket } from "node:net";
import type { Duplex, Readable, Writable } from "node:stream";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { StacyError } from "../../host/error.ts";
import { fewInterim } from "../../host/few-interim.ts";
import { endToEnd, framing } from "../../host/hop-by-hop.ts";
import { InSlices } from "../../host/in-slices.ts";
import { mergeBody } from "../../host/merge-body.ts";
import type { Target } from "../connections.ts";
import { Places } from "./places.ts";
import type { Scheme } from "./secret.ts";

/** So many requests to one host at once; the others wait. */
const MOST_SOCKETS = 64;
const MOST_WAITING = 256;
/** Of connections that nothing is asked over, and for how long. */
const MOST_FREE = 8;
const FREE_MS = 30_000;
const HANDSHAKE_MS = 15_000;
/** RFC 9110, 9.2.2. */
const REPEATABLE = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

export interface UpstreamOptions {
  target: Target;
  scheme: Scheme;
  /** Certificates of authorities, PEM. */
  trusted: readonly string[];
  dial(target: Target): Promise<Socket>;
}

/** A request, after the secrets were put in. Of `headers` only the end-to-end ones go further. */
export interface Asked {
  method: string;
  path: string;
  authority: string;
  headers: IncomingHttpHeaders;
  /** Absent: none. */
  body: Readable | undefined;
  /** The client speaks HTTP/2. */
  http2: boolean;
}

export interface Answer {
  status: number;
  /** End-to-end ones. */
  headers: IncomingHttpHeaders;
  body: Readable;
  /** There is no body at all. */
  empty: boolean;
  /** After the body's end. */
  trailers(): IncomingHttpHeaders;
}

/** What carries a request's body; destroyed to give it up. */
export interface Exchange {
  answer: Promise<Answer>;
  request: Writable;
}

export interface Upgraded {
  answer: IncomingMessage;
  socket: Duplex;
  early: Buffer;
}

export class Upstream {
  readonly #options: UpstreamOptions;
  readonly #agent: Agent;
  readonly #sockets = new Set<Socket>();
  readonly #places = new Places(MOST_SOCKETS, MOST_WAITING);
  #session: Promise<ClientHttp2Session | undefined> | undefined;
  /** It was asked for HTTP/2 and does not speak it. */
  #onlyHttp1 = false;
  #closed = false;

  constructor(options: UpstreamOptions) {
    this.#options = options;
    this.#agent = new DialAgent(() => this.#connect(["http/1.1"]));
  }

  /**
   * @param gone whoever asked has gone: while it waits for its turn nothing else would end it
   * @throws StacyError when the host cannot or may not be reached, `limit` when too many wait for it
   */
  async ask(asked: Asked, gone: AbortSignal): Promise<Exchange> {
    const free = await this.#places.take(gone);
    try {
      const session = asked.http2 ? await this.#http2() : undefined;
      const exchange = session === undefined ? this.#askHttp1(asked) : this.#askHttp2(session, asked);
      exchange.request.once("close", free);
      return exchange;
    } catch (thrown) {
      free();
      throw thrown;
    }
  }

  /**
   * Asks for a WebSocket.
   * @param gone as of `ask`
   * @returns what became of it: the other protocol, or an ordinary answer
   * @throws StacyError as `ask`
   */
  async upgrade(asked: Asked, gone: AbortSignal): Promise<Upgraded | Answer> {
    const free = await this.#places.take(gone);
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest({
        ...{ agent: this.#agent, method: asked.method, path: asked.path, setHost: false, signal: gone },
        headers: {
          ...endToEnd(asked.headers),
          host: asked.authority,
          connection: "Upgrade",
          upgrade: "websocket",
        },
      });
      fewInterim(outgoing);
      outgoing.once("close", free);
      outgoing.once("upgrade", (answer, socket, early) => {
        resolve({ answer, socket: socket instanceof InSlices ? socket.release() : socket, early });
      });
      outgoing.once("response", (answer) => {
        mergeBody(answer);
        resolve(http1Answer(answer));
      });
      // Stays: Node may tell one request of several failures, and one that nobody hears ends the process.
      outgoing.on("error", (cause) => reject(this.#broken(cause)));
      outgoing.end();
    });
  }

  /** Of the host, where it is connected to now. */
  get addresses(): string[] {
    return [...this.#sockets].flatMap(({ remoteAddress }) => remoteAddress ?? []);
  }

  close(): void {
    this.#closed = true;
    this.#agent.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  #askHttp1(asked: Asked): Exchange {
    const { method, path, authority, headers, body } = asked;
    const outgoing = httpRequest({
      ...{ agent: this.#agent, method, path, setHost: false },
      headers: { ...endToEnd(headers), ...framing(headers, body !== undefined), host: authority },
    });
    fewInterim(outgoing);
    let answered = false;
    const answer = new Promise<Answer>((resolve, reject) => {
      outgoing.once("response", (incoming) => {
        answered = true;
        mergeBody(incoming);
        resolve(http1Answer(incoming));
      });
      outgoing.once("upgrade", (_answer, socket) => {
        socket.destroy();
        reject(this.#broken(new Error("it changes the protocol without being asked")));
      });
      // Stays: one that comes later is the relay's.
      outgoing.on("error", (cause: NodeJS.ErrnoException) => {
        if (answered) return;
        // The host had closed a connection that was kept: most likely nobody has seen this request, and twice is no harm.
        const again = outgoing.reusedSocket && body === undefined && REPEATABLE.has(method);
        if (again && cause.code === "ECONNRESET" && !this.#closed) {
          this.#askHttp1(asked).answer.then(resolve, reject);
        } else reject(this.#broken(cause));
      });
    });
    if (body === undefined) outgoing.end();
    return { answer, request: outgoing };
  }

  #askHttp2(session: ClientHttp2Session, { method, path, authority, headers, body }: Asked): Exchange {
    const { host: _host, expect: _expect, ...rest } = endToEnd(headers);
    const stream = session.request(
      {
        ...rest,
        ...(headers.te?.toString().toLowerCase() === "trailers" ? { te: "trailers" } : {}),
        ...{ ":method": method, ":path": path, ":scheme": "https", ":authority": authority },
      },
      { endStream: body === undefined },
    );
    fewInterim(stream);
    const answer = new Promise<Answer>((resolve, reject) => {
      stream.once("response", (head, flags) => resolve(http2Answer(stream, head, flags)));
      stream.on("error", (cause) => reject(this.#broken(cause)));
      stream.once("close", () => reject(this.#broken(new Error("it ended the request without an answer"))));
    });
    return { answer, request: stream };
  }

  /** The connection that HTTP/2 requests share; `undefined` when the host does not speak it. */
  #http2(): Promise<ClientHttp2Session | undefined> | undefined {
    if (this.#onlyHttp1 || this.#options.scheme === "http") return undefined;
    if (this.#session === undefined) {
      const opening = this.#openHttp2();
      const forget = (): void => {
        if (this.#session === opening) this.#session = undefined;
      };
      this.#session = opening;
      // "goaway" too: what is under way goes on, the next request needs another one.
      opening.then((session) => session?.once("close", forget).once("goaway", forget) ?? forget(), forget);
    }
    return this.#session;
  }

  async #openHttp2(): Promise<ClientHttp2Session | undefined> {
    const socket = (await this.#connect(["h2", "http/1.1"])) as TLSSocket;
    if (socket.alpnProtocol !== "h2") {
      this.#onlyHttp1 = true;
      socket.destroy();
      return undefined;
    }
    const session = connectHttp2("https://upstream.invalid", {
      createConnection: () => new InSlices(socket),
      settings: { enablePush: false },
    });
    session.on("error", () => socket.destroy()); // each request tells its own
    return session;
  }

  async #connect(protocols: string[]): Promise<Socket> {
    const { target, scheme, trusted, dial } = this.#options;
    const raw = await dial(target);
    if (scheme === "http") return this.#keep(raw);
    const socket = connectTls({
      socket: raw,
      host: target.host,
      ...(isIP(target.host) === 0 ? { servername: target.host } : {}),
      ALPNProtocols: protocols,
      ...(trusted.length === 0 ? {} : { ca: [...trusted] }),
      rejectUnauthorized: true,
      minVersion: "TLSv1.2",
    });
    try {
      await handshake(socket);
    } catch (cause) {
      raw.destroy();
      throw this.#broken(cause as Error);
    }
    return this.#keep(socket);
  }

  #keep(socket: Socket): Socket {
    if (this.#closed) socket.destroy();
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => this.#sockets.delete(socket));
    return socket;
  }

  #broken(cause: Error): StacyError {
    if (cause instanceof StacyError) return cause;
    const { host, port } = this.#options.target;
    return new StacyError("unavailable", `${host}:${port} does not answer as it should: ${cause.message}`, { cause });
  }
}

function handshake(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => socket.destroy(new Error("its TLS handshake takes too long")), HANDSHAKE_MS).unref();
    socket.once("secureConnect", () => {
      clearTimeout(late);
      resolve();
    });
    socket.on("error", (error) => {
      clearTimeout(late);
      reject(error);
    });
    socket.once("close", () => {
      clearTimeout(late);
      reject(new Error("it closed the connection during the TLS handshake"));
    });
  });
}

/** With what Node's agent wants of a socket. */
class SlicedSocket extends InSlices<Socket> {
  constructor(socket: Socket) {
    super(socket);
    socket.on("timeout", () => this.emit("timeout"));
  }

  setTimeout(ms: number): this {
    this.connection.setTimeout(ms);
    return this;
  }

  setKeepAlive(on?: boolean, firstMs?: number): this {
    this.connection.setKeepAlive(on, firstMs);
    return this;
  }

  ref(): this {
    this.connection.ref();
    return this;
  }

  unref(): this {
    this.connection.unref();
    return this;
  }
}

class DialAgent extends Agent {
  readonly #open: () => Promise<Socket>;
  /** How long each may be idle while it is in use, ms. */
  readonly #idleMs = new WeakMap<Duplex, number>();

  constructor(open: () => Promise<Socket>) {
    super({ keepAlive: true, maxSockets: MOST_SOCKETS, maxFreeSockets: MOST_FREE, timeout: FREE_MS });
    this.#open = open;
  }

  override createConnection(_options: unknown, done?: (error: Error | null, socket: Duplex) => void): undefined {
    this.#open().then(
      (socket) => {
        const sliced = new SlicedSocket(socket);
        this.#idleMs.set(sliced, socket.timeout ?? 0);
        done?.(null, sliced);
      },
      (error: Error) => done?.(error, undefined as never),
    );
  }

  /** Node leaves it the time of one that is free: a long wait for an answer would be its end. */
  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    super.reuseSocket(socket, request);
    (socket as Socket).setTimeout(this.#idleMs.get(socket) ?? 0);
  }
}

function http1Answer(incoming: IncomingMessage): Answer {
  const { statusCode: status = 502 } = incoming;
  return {
    status,
    headers: endToEnd(incoming.headers),
    body: incoming,
    empty: false,
    trailers: () => incoming.trailers as IncomingHttpHeaders,
  };
}

function http2Answer(stream: ClientHttp2Stream, head: IncomingHttpHeaders, flags: number): Answer {
  let last: IncomingHttpHeaders = {};
  stream.once("trailers", (trailers) => {
    last = trailers as IncomingHttpHeaders;
  });
  const named = Object.entries(head).filter(([name]) => !name.startsWith(":"));
  return {
    status: Number((head as Record<string, unknown>)[":status"] ?? 502),
    headers: endToEnd(Object.fromEntries(named)),
    body: stream,
    empty: (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0,
    trailers: () => last,
  };
}
