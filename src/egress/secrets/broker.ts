/**
 * Ends the TLS of a sandbox's connections to the hosts of its secrets, and of those alone, and passes their requests on with the values
 * put in. The guest trusts the certificates (authority.ts), the real host's is verified. Each request is for the very host that the
 * connection was opened to, whatever it says of itself, and is written anew: what a guest sends is hostile.
 */
import {
  createServer as createHttp1,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { performServerHandshake, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer as createTls, type TLSSocket, type TlsOptions } from "node:tls";
import { StacyError } from "../../host/error.ts";
import { endToEnd } from "../../host/hop-by-hop.ts";
import { InSlices } from "../../host/in-slices.ts";
import { mergeBody } from "../../host/merge-body.ts";
import { relay } from "../../host/relay.ts";
import { closing } from "../closing.ts";
import type { Permit, Target } from "../connections.ts";
import { headBytes } from "../head-bytes.ts";
import { normaliseHost } from "../host-rules.ts";
import { answerOf, fail, refuse } from "../http-error.ts";
import type { Meter } from "../meter.ts";
import type { Authority } from "./authority.ts";
import { Certificates } from "./certificates.ts";
import { type KeptSecret, type Placed, place, type Scheme } from "./secret.ts";
import { type Asked, type Exchange, Upstream } from "./upstream.ts";

/** Hosts of one sandbox that are spoken for at once; the one asked for longest ago goes. */
const MOST_HOSTS = 64;
/** Requests of one HTTP/1.1 connection that may come ahead of their answers. */
const MOST_AHEAD = 8;
const MOST_STREAMS = 64;

export interface BrokerOptions {
  /** Absent: the sandbox was given no secret when it was made. */
  authority: Authority | undefined;
  /** As they are now; `undefined`: nobody knows yet. */
  secrets(): readonly KeptSecret[] | undefined;
  /** Certificates of authorities that hosts may have theirs from, PEM; empty: those that Node knows. */
  trusted: readonly string[];
  meter: Meter;
  /** A connection of the guest over which nothing went for so long is closed. */
  idleMs: number;
  /** @throws StacyError when the host cannot or may not be reached */
  dial(target: Target): Promise<Socket>;
}

interface Host {
  target: Target;
  scheme: Scheme;
  upstream: Upstream;
  /** Takes a connection of the guest. */
  accept(client: Duplex): void;
  clients: Set<Duplex>;
}

export class Broker {
  readonly #options: BrokerOptions;
  /** The one asked for longest ago first. */
  readonly #hosts = new Map<string, Promise<Host>>();
  readonly #certificates: Certificates | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    const { authority } = options;
    this.#certificates = authority === undefined ? undefined : new Certificates(authority);
  }

  /**
   * How a connection there is opened here; `undefined`: not at all.
   * @throws StacyError `unavailable` while nobody knows
   */
  scheme({ host, port }: Target): Scheme | undefined {
    if (this.#options.authority === undefined) return undefined;
    for (const { hosts } of this.#secrets) {
      const scheme = hosts.scheme(normaliseHost(host), port);
      if (scheme !== undefined) return scheme;
    }
    return undefined;
  }

  get #secrets(): readonly KeptSecret[] {
    const secrets = this.#options.secrets();
    if (secrets === undefined) throw new StacyError("unavailable", "the secrets of this sandbox are not known yet");
    return secrets;
  }

  /** Takes a guest's connection over. */
  async serve(client: Duplex, target: Target, scheme: Scheme): Promise<void> {
    client.on("error", () => {});
    try {
      const host = await this.#host(target, scheme);
      host.clients.add(client);
      client.once("close", () => host.clients.delete(client));
      if (!client.destroyed) host.accept(client);
    } catch {
      client.destroy();
    }
  }

  /** A request that came to the proxy with a whole `http:` URL. */
  async pass(target: Target, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const host = await this.#host(target, "http");
    await this.#http1(host, request, response, [new URL(request.url ?? "").host]);
  }

  /** Cuts what is open to hosts that `permit` no longer permits, or that no secret has any more. */
  cut(permit: Permit): void {
    for (const [name, opened] of this.#hosts) {
      const judge = (host: Host): void => {
        const { target, upstream } = host;
        const may = permit(target, undefined) && upstream.addresses.every((address) => permit(target, address));
        if (may && this.#still(host)) return;
        if (this.#hosts.get(name) === opened) this.#hosts.delete(name);
        end(host);
      };
      void opened.then(judge, () => {}); // told to whoever asked for it
    }
  }

  #still({ target, scheme }: Host): boolean {
    try {
      return this.scheme(target) === scheme;
    } catch {
      return false;
    }
  }

  close(): void {
    for (const opened of this.#hosts.values()) void opened.then(end, () => {});
    this.#hosts.clear();
  }

  #host(target: Target, scheme: Scheme): Promise<Host> {
    const host = normaliseHost(target.host);
    const name = `${scheme} ${host} ${target.port}`;
    const known = this.#hosts.get(name);
    if (known !== undefined) {
      this.#hosts.delete(name);
      this.#hosts.set(name, known);
      return known;
    }
    const [oldest] = this.#hosts;
    if (oldest !== undefined && this.#hosts.size >= MOST_HOSTS) {
      this.#hosts.delete(oldest[0]);
      void oldest[1].then(end, () => {});
    }
    const opened = this.#open({ host, port: target.port }, scheme);
    this.#hosts.set(name, opened);
    opened.catch(() => this.#hosts.delete(name));
    return opened;
  }

  async #open(target: Target, scheme: Scheme): Promise<Host> {
    const { trusted, dial } = this.#options;
    const certificates = this.#certificates;
    if (certificates === undefined) throw new StacyError("internal", "a secret's host without an authority");
    const upstream = new Upstream({ target, scheme, trusted, dial });
    const host: Host = { target, scheme, upstream, accept: () => {}, clients: new Set() };
    const http1 = this.#http1Server(host);
    if (scheme === "http") host.accept = (client) => void http1.emit("connection", new InSlices(client));
    else {
      const tls = createTls({ ...(await certificates.of(target.host)), ...tlsOptions(target) });
      tls.on("secureConnection", (socket: TLSSocket) => {
        socket.setTimeout(this.#options.idleMs, () => socket.destroy());
        const slices = new InSlices(socket);
        if (socket.alpnProtocol === "h2") this.#http2Session(host, slices);
        else http1.emit("connection", slices);
      });
      tls.on("tlsClientError", () => {}); // the guest's own doing; Node has closed it
      host.accept = (client) => void tls.emit("connection", client);
    }
    return host;
  }

  /** It never listens: connections are handed to it. */
  #http1Server(host: Host): Server {
    const server = createHttp1({ insecureHTTPParser: false });
    // A program that has sent its request may close its side and wait for the answer.
    Object.assign(server, { httpAllowHalfOpen: true });
    server.on("request", (request, response) => {
      mergeBody(request);
      void this.#http1(host, request, response);
    });
    server.on("upgrade", (request, socket, head) => {
      // Of a request with a body it is something of Node's own.
      void this.#upgrade(host, request, socket instanceof InSlices ? socket.release() : socket, head);
    });
    server.on("clientError", (_error, socket) => socket.destroy());
    return server;
  }

  #http2Session(host: Host, socket: Duplex): void {
    const session = performServerHandshake(socket, { settings: { maxConcurrentStreams: MOST_STREAMS } });
    session.on("error", () => socket.destroy());
    session.on("stream", (stream, headers) => void this.#http2(host, stream, headers));
  }

  async #http1(
    host: Host,
    request: IncomingMessage,
    response: ServerResponse,
    authorities = hostHeaders(request),
  ): Promise<void> {
    const ahead = waiting(request.socket, response);
    if (ahead > MOST_AHEAD) return void request.socket.destroy();
    let exchange: Exchange | undefined;
    try {
      const { method = "GET", headers } = request;
      const path = pathOf(request.url ?? "", host);
      assertFor(host, authorities);
      const hasBody = headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
      const gone = closing(response);
      await this.#options.meter.paced(headBytes(headers, path), gone);
      const placed = await this.#place(host, method, path, headers);
      const asked = askedOf(host, method, placed, hasBody ? request : undefined, false);
      exchange = await host.upstream.ask(asked, gone);
      const { answer, request: outgoing } = exchange;
      answer.catch(() => {});
      if (response.closed) return void outgoing.destroy(); // it left meanwhile
      response.once("close", () => void (response.writableFinished || outgoing.destroy()));
      if (hasBody) relay(request, outgoing, undefined, this.#options.meter.sent);
      const { status, headers: told, body, trailers } = await answer;
      this.#options.meter.received(headBytes(told));
      response.writeHead(status, masked(told, placed));
      // Before `relay`'s own end of it, which comes in the same event.
      body.once("end", () => quietly(response, () => response.addTrailers(masked(trailers(), placed) as never)));
      relay(body, response, undefined, this.#options.meter.received);
    } catch (thrown) {
      // An answer that cannot be passed on is not read any further.
      exchange?.request.destroy();
      fail(response, thrown);
    }
  }

  async #http2(host: Host, stream: ServerHttp2Stream, all: IncomingHttpHeaders): Promise<void> {
    stream.on("error", () => {});
    let exchange: Exchange | undefined;
    try {
      const pseudo = (name: string): string => String((all as Record<string, unknown>)[name] ?? "");
      const method = pseudo(":method");
      const path = pathOf(pseudo(":path"), host);
      const authorities = [(all as Record<string, unknown>)[":authority"], all.host].filter(
        (each) => each !== undefined,
      );
      assertFor(host, authorities.map(String));
      const headers = Object.fromEntries(Object.entries(all).filter(([name]) => !name.startsWith(":")));
      const gone = closing(stream);
      await this.#options.meter.paced(headBytes(headers, path), gone);
      const placed = await this.#place(host, method, path, headers);
      const hasBody = !stream.endAfterHeaders;
      const asked = askedOf(host, method, placed, hasBody ? stream : undefined, true);
      exchange = await host.upstream.ask(asked, gone);
      const { answer, request: outgoing } = exchange;
      answer.catch(() => {});
      if (stream.closed) return void outgoing.destroy(); // it left meanwhile
      stream.once("close", () => void outgoing.destroy());
      if (hasBody) relay(stream, outgoing, undefined, this.#options.meter.sent);
      const { status, headers: told, body, empty, trailers } = await answer;
      if (stream.closed) return;
      this.#options.meter.received(headBytes(told));
      const head = { ":status": status, ...masked(told, placed) };
      if (empty) return stream.respond(head, { endStream: true });
      stream.respond(head, { waitForTrailers: true });
      stream.once("wantTrailers", () => quietly(stream, () => stream.sendTrailers(masked(trailers(), placed))));
      relay(body, stream, undefined, this.#options.meter.received);
    } catch (thrown) {
      exchange?.request.destroy();
      if (stream.closed || stream.headersSent) return void stream.destroy();
      const { status, text } = answerOf(thrown);
      quietly(stream, () => {
        stream.respond({ ":status": status, "content-type": "text/plain" });
        stream.end(text);
      });
    }
  }

  /** WebSockets; other protocols have no requests that we could read. */
  async #upgrade(host: Host, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on("error", () => {});
    try {
      const { method = "GET", headers } = request;
      const path = pathOf(request.url ?? "", host);
      assertFor(host, hostHeaders(request));
      if (headers.upgrade?.toLowerCase() !== "websocket" || method !== "GET") {
        throw new StacyError("not-supported", "where secrets are put in, the only other protocol is websocket");
      }
      // Nobody would send it on, so the host would take the next request over this connection for it.
      if (headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0) {
        throw new StacyError("invalid", "a request for a WebSocket has no body");
      }
      const placed = await this.#place(host, method, path, headers);
      const { gone, stay } = leaving(socket);
      const became = await this.#options.meter
        .paced(headBytes(headers, path), gone)
        .then(() => host.upstream.upgrade(askedOf(host, method, placed, undefined, false), gone))
        .finally(stay);
      const theirs = "socket" in became ? became.socket : became.body;
      if (gone.aborted) return void theirs.destroy();
      try {
        this.#options.meter.received(headBytes("socket" in became ? became.answer.headers : became.headers));
      } catch (thrown) {
        theirs.destroy();
        throw thrown;
      }
      const begin = (status: number, told: IncomingHttpHeaders): void => {
        const lines = Object.entries(told).flatMap(([name, value]) =>
          [value ?? []].flat().map((each) => `${name}: ${each}`),
        );
        socket.write(`${[`HTTP/1.1 ${status} `, ...lines].join("\r\n")}\r\n\r\n`, "latin1");
      };
      if (!("socket" in became)) {
        begin(became.status, { ...masked(became.headers, placed), connection: "close" });
        return relay(became.body, socket, undefined, this.#options.meter.received);
      }
      const { answer, socket: far, early } = became;
      begin(101, { ...masked(endToEnd(answer.headers), placed), connection: "Upgrade", upgrade: "websocket" });
      if (early.length > 0) socket.write(early);
      if (head.length > 0) far.write(head);
      relay(socket, far, undefined, this.#options.meter.sent);
      relay(far, socket, undefined, this.#options.meter.received);
    } catch (thrown) {
      refuse(socket, thrown);
    }
  }

  async #place({ target, scheme }: Host, method: string, path: string, headers: IncomingHttpHeaders): Promise<Placed> {
    // The answer to these is the request.
    if (/^(TRACE|TRACK|CONNECT)$/i.test(method)) {
      throw new StacyError("not-supported", `${method} is not passed on where secrets are put in`);
    }
    const meant = this.#secrets.filter(({ hosts }) => hosts.scheme(target.host, target.port) === scheme);
    const secrets = await Promise.all(meant.map(async (secret) => ({ ...secret, ...(await secret.read()) })));
    return place(path, headers, secrets);
  }
}

/** Aborted when it closes or has nothing more to say: a WebSocket needs both ways. @returns `stay`: it is read by somebody else from now on */
function leaving(client: Duplex): { gone: AbortSignal; stay: () => void } {
  const left = new AbortController();
  const leave = (): void => left.abort();
  // Its end is told to who reads. What it says before it was answered stays for later.
  const look = (): void => void (client.readableLength === 0 && client.read());
  client.on("readable", look).on("end", leave).on("close", leave);
  if (client.destroyed || client.readableEnded) leave();
  return { gone: left.signal, stay: () => void client.off("readable", look).off("end", leave).off("close", leave) };
}

function tlsOptions(target: Target): TlsOptions {
  return {
    ALPNProtocols: ["h2", "http/1.1"],
    allowHalfOpen: true,
    minVersion: "TLSv1.2",
    // A client that asks for another name than it connected to gets no further.
    SNICallback: (name, done) => {
      if (normaliseHost(name) === target.host) done(null);
      else done(new Error("another name than the one that was connected to"));
    },
  };
}

function end({ upstream, clients }: Host): void {
  upstream.close();
  for (const client of clients) client.destroy();
}

const ahead = new WeakMap<object, number>();

/** How many requests of its connection wait for their answers, this one included. */
function waiting(connection: object, response: ServerResponse): number {
  const count = (ahead.get(connection) ?? 0) + 1;
  ahead.set(connection, count);
  response.once("close", () => ahead.set(connection, (ahead.get(connection) ?? 1) - 1));
  return count;
}

/** All of them: Node keeps the first. */
function hostHeaders({ rawHeaders }: IncomingMessage): string[] {
  return rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === "host");
}

/** @throws StacyError `permission` */
function assertFor({ target, scheme }: Host, authorities: readonly string[]): void {
  const usual = scheme === "https" ? 443 : 80;
  const isIt = (authority: string): boolean => {
    const [, name = "", port = String(usual)] = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(authority.trim()) ?? [];
    return normaliseHost(name) === target.host && Number(port) === target.port;
  };
  if (authorities.length > 0 && authorities.every(isIt)) return;
  throw new StacyError("permission", `the request is for another host than ${target.host}:${target.port}, or for none`);
}

/** A path and nothing else. @throws StacyError `invalid` */
function pathOf(text: string, { target, scheme }: Host): string {
  if (text.startsWith("/") || text === "*") return text;
  // What came to the proxy with a whole URL was looked at there.
  if (scheme === "http" && URL.canParse(text)) {
    const url = new URL(text);
    if (
      url.protocol === "http:" &&
      normaliseHost(url.hostname) === target.host &&
      Number(url.port || 80) === target.port
    )
      return `${url.pathname}${url.search}`;
  }
  throw new StacyError("invalid", "where secrets are put in, a request has a path alone");
}

function askedOf(
  { target, scheme }: Host,
  method: string,
  { path, headers }: Placed,
  body: Asked["body"],
  http2: boolean,
): Asked {
  const name = target.host.includes(":") ? `[${target.host}]` : target.host;
  const authority = target.port === (scheme === "https" ? 443 : 80) ? name : `${name}:${target.port}`;
  const { host: _host, expect: _expect, ...rest } = headers;
  return { method, path, authority, headers: rest, body, http2 };
}

/** What a host sends last may be nothing that can be passed on. */
function quietly(to: { destroy(): unknown }, work: () => void): void {
  try {
    work();
  } catch {
    to.destroy();
  }
}

/** Without what offers another way than this one. */
function masked(headers: IncomingHttpHeaders, { mask }: Placed): IncomingHttpHeaders {
  const out: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(endToEnd(headers))) {
    if (name === "alt-svc" || value === undefined) continue;
    out[mask(name)] = Array.isArray(value) ? value.map(mask) : mask(value);
  }
  return out;
}
