/** The application on a socket: limits of headers and time, upgrades, and a stop that lets requests finish. */
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { type Duplex, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { getRequestListener } from "@hono/node-server";
import type { Config } from "../config/schema.ts";
import { errno, StacyError } from "../host/error.ts";
import { mergeBody } from "../host/merge-body.ts";
import type { Api, Upgrade } from "./endpoint.ts";

const MAX_HEADER_BYTES = 16_384;
/** Longer than clients keep a connection that nobody uses (Go and reqwest 90 s, E2B's for Python 300 s): who ends it first cuts no request. */
const KEEP_ALIVE_MS = 310_000;
/** Clients that ask for it hear so often that their answer is being made. */
const PROCESSING_MS = 60_000;
/** For the rest of a body that nobody reads. */
const DROP_MS = 500;
/** For the last lines of answers that the server's stop has ended. */
const LAST_WORDS_MS = 3_000;

export interface RunningServer {
  readonly host: string;
  readonly port: number;
  readonly url: string;
  /** When somebody last used it, ms of `performance.now()`; the present while a request or an upgraded connection is open. */
  readonly usedAt: number;
  /**
   * Takes no new requests, waits for those under way at most `graceMs`, then breaks off.
   * @param endCalls when that time is over: ends what the requests wait for, so that streams can still say why they end
   */
  close(graceMs: number, endCalls?: () => void): Promise<void>;
}

/**
 * What is left of a body that was answered before its end: nobody reads it, and whoever did holds it up still, by a listener that pauses it.
 * The next request on the connection stands behind it, and would wait until the listener's own end (half a second) cuts both.
 */
function dropRest(incoming: IncomingMessage): void {
  if (incoming.complete || incoming.destroyed) return;
  incoming.removeAllListeners("data");
  incoming.resume();
  // Who goes on sending is not listened to for longer than that, whoever has answered.
  const limit = setTimeout(() => incoming.destroy(), DROP_MS).unref();
  for (const over of ["end", "close"]) incoming.once(over, () => clearTimeout(limit));
}

/** Looks at each request before the application does. Whoever takes one answers it, whatever becomes of it. */
export interface Front {
  /** @returns whether it takes it: it never rejects, and is no promise where nothing had to be waited for */
  request(incoming: IncomingMessage, outgoing: ServerResponse): boolean | Promise<boolean>;
  upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): boolean | Promise<boolean>;
}

export interface ListenOptions {
  /** See `sayProcessing`. */
  processingMs?: number;
  front?: Front | undefined;
  /** Speaks TLS, with these of `node:tls`; the others are told by `changed` when they are new. */
  tls?: { options: object; changed(listener: (options: object) => void): void } | undefined;
  maxHeaderBytes?: number;
}

/** @throws StacyError `unavailable` when the address is taken or not ours */
export async function listen(
  app: Pick<Api, "fetch">,
  config: Config["server"],
  { processingMs = PROCESSING_MS, front, tls, maxHeaderBytes = MAX_HEADER_BYTES }: ListenOptions = {},
): Promise<RunningServer> {
  const listener = getRequestListener((request, env) => app.fetch(request, env as never), {
    overrideGlobalObjects: false,
  });
  const options: ServerOptions = {
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: config.header_timeout,
    // The whole request may take as long as an upload takes; silence in its middle is limited where it is read (body.ts).
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 1_000,
    // Any other protocol is an offer that may be left alone (RFC 9110, 7.8): curl and Java's client offer h2c with each request,
    // whose body would otherwise be taken for the new protocol.
    shouldUpgradeCallback: isWebSocket,
  };
  const answer = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    mergeBody(incoming);
    outgoing.once("finish", () => dropRest(incoming));
    sayProcessing(incoming, outgoing, processingMs);
    const taken = front?.request(incoming, outgoing) ?? false;
    if (taken === false) void listener(incoming, outgoing);
    else if (taken !== true) void taken.then((was) => was || void listener(incoming, outgoing));
  };
  const secure =
    tls === undefined
      ? undefined
      : createTlsServer({ ...options, ...tls.options, allowHalfOpen: true } as object, answer);
  if (secure !== undefined) tls?.changed((changed) => secure.setSecureContext(changed));
  const server: Server = secure ?? createServer(options, answer);
  server.maxConnections = config.max_connections;
  server.timeout = 0; // streams are never cut
  server.on("upgrade", (incoming, socket, head) => {
    socket.on("error", () => socket.destroy());
    const taken = front?.upgrade(incoming, socket, head) ?? false;
    if (taken === false) void upgrade(app, incoming, socket, head);
    else if (taken !== true) void taken.then((was) => was || void upgrade(app, incoming, socket, head));
  });
  const sockets = trackUpgraded(server);
  const use = trackUse(server);
  await new Promise<void>((resolve, reject) => {
    // Stays: a connection that the system could not hand over is told like this, and would end the process.
    server.on("error", (error) => {
      const taken = errno(error) === "EADDRINUSE";
      reject(
        new StacyError("unavailable", `cannot listen on ${config.host}:${config.port}: ${error.message}`, {
          phase: "listen",
          cause: error,
          remedy: taken ? "stop what uses the port, or choose another with --port" : "choose another --host",
        }),
      );
    });
    server.listen(config.port, config.host, resolve);
  });
  const { port, address, family } = server.address() as AddressInfo;
  const host = family === "IPv6" ? `[${address}]` : address;
  return {
    host: address,
    port,
    url: `${secure === undefined ? "http" : "https"}://${host}:${port}`,
    get usedAt() {
      return use.at;
    },
    async close(graceMs, endCalls) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const idle = setInterval(() => server.closeIdleConnections(), 50);
      const cut = (): void => {
        server.closeAllConnections();
        for (const socket of sockets) socket.destroy();
      };
      let limit = setTimeout(() => {
        limit = setTimeout(cut, LAST_WORDS_MS);
        endCalls?.();
      }, graceMs);
      await closed;
      clearInterval(idle);
      clearTimeout(limit);
    },
  };
}

/**
 * A `fetch` of Node gives an answer up that has not begun after five minutes, and has no setting for that; a command, a pull or a build may take
 * longer. With `Prefer: processing` such a client is told 102 meanwhile. Not unasked: not every client's library reads on behind it.
 */
function sayProcessing(incoming: IncomingMessage, outgoing: ServerResponse, everyMs: number): void {
  const prefers = String(incoming.headers.prefer ?? "").split(",");
  if (!prefers.some((each) => each.trim() === "processing")) return;
  const saying = setInterval(() => {
    if (outgoing.headersSent || outgoing.destroyed) clearInterval(saying);
    else outgoing.writeProcessing();
  }, everyMs);
  outgoing.once("close", () => clearInterval(saying));
}

/** Sockets that were handed over by an upgrade: the HTTP server no longer knows them. */
function trackUpgraded(server: Server): Set<Duplex> {
  const sockets = new Set<Duplex>();
  server.on("upgrade", (_incoming, socket: Duplex) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  return sockets;
}

function trackUse(server: Server): { readonly at: number } {
  let open = 0;
  let last = performance.now();
  const during = (use: ServerResponse | Duplex): void => {
    open += 1;
    use.once("close", () => {
      open -= 1;
      last = performance.now();
    });
  };
  server.on("request", (_incoming, outgoing) => during(outgoing));
  server.on("upgrade", (_incoming, socket) => during(socket));
  return {
    get at() {
      return open > 0 ? performance.now() : last;
    },
  };
}

/** An upgrade goes through the same application as any request: same keys, limits and errors. */
async function upgrade(
  app: Pick<Api, "fetch">,
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const state: Upgrade = { incoming, socket, head, taken: false };
  let response: Response;
  try {
    const headers = new Headers();
    for (const [name, value] of Object.entries(incoming.headers)) {
      for (const each of Array.isArray(value) ? value : [value]) if (each !== undefined) headers.append(name, each);
    }
    const gone = new AbortController();
    socket.once("close", () => gone.abort());
    const url = new URL(incoming.url ?? "/", `http://${incoming.headers.host ?? "localhost"}`);
    const request = new Request(url, { method: incoming.method ?? "GET", headers, signal: gone.signal });
    response = await app.fetch(request, { incoming, upgrade: state });
  } catch {
    response = new Response("bad request\n", { status: 400 });
  }
  if (!state.taken) await writeResponse(socket, response);
}

/** An upgrade was asked for and there is none: an ordinary answer, which may be a stream without an end. It lasts until its connection closes. */
export async function writeResponse(socket: Duplex, response: Response): Promise<void> {
  const lines = [`HTTP/1.1 ${response.status} ${response.statusText || (response.ok ? "OK" : "Error")}`];
  for (const [name, value] of response.headers) lines.push(`${name}: ${value}`);
  socket.resume(); // what the client still sends is nothing to us, but its end is
  socket.write(`${lines.join("\r\n")}\r\nconnection: close\r\n\r\n`);
  const body = response.body === null ? Readable.from([]) : Readable.fromWeb(response.body as never);
  await pipeline(body, socket).catch(() => socket.destroy());
}

function isWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && headers.upgrade?.toLowerCase() === "websocket";
}
