/**
 * An HTTP proxy for connections that do not come from a listener of ours: what a guest's programs open to a loopback port there.
 * `CONNECT host:port` becomes a tunnel; a request with an absolute `http:` URL is passed on. Node's own HTTP server reads the
 * requests, because what a guest sends is hostile.
 */
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asStacyError, StacyError } from "../host/error.ts";
import { fewInterim } from "../host/few-interim.ts";
import { endToEnd, framing } from "../host/hop-by-hop.ts";
import { InSlices } from "../host/in-slices.ts";
import { mergeBody } from "../host/merge-body.ts";
import { relay } from "../host/relay.ts";
import { closing } from "./closing.ts";
import type { Connections, Target } from "./connections.ts";
import { headBytes } from "./head-bytes.ts";
import { fail, refuse } from "./http-error.ts";
import type { Meter } from "./meter.ts";
import type { Broker } from "./secrets/broker.ts";

export interface ProxyOptions {
  connections: Connections;
  meter: Meter;
  broker: Broker;
  /** @throws StacyError `permission` */
  assertPermitted(target: Target): void;
  /** @throws StacyError; its code becomes the proxy's status, its message the answer's text */
  dial(target: Target): Promise<Socket>;
  /** Told after each attempt. */
  tell(target: Target, failure?: StacyError): void;
}

const ESTABLISHED = "HTTP/1.1 200 Connection established\r\n\r\n";

export class EgressProxy {
  readonly #options: ProxyOptions;
  readonly #server: Server;
  /** Settled when the last request of a client is answered, with how many wait for that. */
  readonly #turns = new WeakMap<Duplex, { answered: Promise<void>; waiting: number }>();

  constructor(options: ProxyOptions) {
    this.#options = options;
    // It never listens, so it has no timers; a guest that sends nothing holds one of its own connections.
    this.#server = createServer({ keepAlive: false, insecureHTTPParser: false });
    // A program that has sent its request may close its side and wait for the answer.
    Object.assign(this.#server, { httpAllowHalfOpen: true });
    this.#server.on("request", (request, response) => {
      mergeBody(request);
      void this.#forward(request, response);
    });
    this.#server.on("connect", (request, client, head) => {
      void this.#tunnel(request, client instanceof InSlices ? client.release() : client, head);
    });
    this.#server.on("clientError", (_error, client) => client.destroy());
  }

  serve(client: Duplex): void {
    this.#server.emit("connection", new InSlices(client));
  }

  async #dial(target: Target, client: Duplex): Promise<Socket> {
    try {
      const socket = await this.#options.dial(target);
      this.#options.tell(target);
      this.#options.connections.join(client, socket, target);
      return socket;
    } catch (thrown) {
      const failure = asStacyError(thrown);
      this.#options.tell(target, failure);
      throw failure;
    }
  }

  async #tunnel(request: IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    let socket: Socket | undefined;
    try {
      const { meter, broker, assertPermitted } = this.#options;
      const target = authority(request.url ?? "");
      const scheme = broker.scheme(target);
      if (scheme !== undefined) {
        assertPermitted(target);
        client.write(ESTABLISHED);
        if (head.length > 0) client.unshift(head);
        return await broker.serve(client, target, scheme);
      }
      socket = await this.#dial(target, client);
      meter.sent(head.length);
      client.write(ESTABLISHED);
      if (head.length > 0) socket.write(head);
      // Each direction ends by itself; an error in one ends both.
      relay(client, socket, undefined, meter.sent);
      relay(socket, client, undefined, meter.received);
    } catch (thrown) {
      socket?.destroy();
      refuse(client, thrown);
    }
  }

  /**
   * One request of a client at a time: each would be a connection to a host, and a guest can send any number of them ahead.
   * @returns whether it is this one's turn now; else the client is gone
   */
  async #turn(client: Duplex, response: ServerResponse): Promise<boolean> {
    const last = this.#turns.get(client);
    const waiting = last === undefined ? 0 : last.waiting + 1;
    if (waiting > AHEAD) {
      client.destroy();
      return false;
    }
    const turn = { answered: new Promise<void>((settle) => response.once("close", settle)), waiting };
    this.#turns.set(client, turn);
    await last?.answered;
    turn.waiting = 0;
    return !client.destroyed;
  }

  async #forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const client = request.socket;
    if (!(await this.#turn(client, response))) return;
    let dialled: Socket | undefined;
    try {
      const url = absolute(request.url ?? "");
      const target = { host: url.hostname, port: Number(url.port || 80) };
      const { broker } = this.#options;
      if (broker.scheme(target) === "http") return await broker.pass(target, request, response);
      const { meter } = this.#options;
      const frame = framing(request.headers);
      await meter.paced(headBytes(request.headers, request.url), closing(response));
      if (response.closed) return; // it left meanwhile
      const socket = await this.#dial(target, client);
      dialled = socket;
      const outgoing = httpRequest({
        // Without an agent: it would make connections of its own.
        createConnection: () => new InSlices(socket),
        method: request.method,
        path: `${url.pathname}${url.search}`,
        headers: { ...endToEnd(request.headers), ...frame, host: url.host, connection: "close" },
        setHost: false,
      });
      const broke = (cause: Error): void => {
        const message = `${target.host} does not answer as HTTP has it: ${cause.message}`;
        fail(response, new StacyError("unavailable", message, { cause }));
        socket.destroy();
      };
      fewInterim(outgoing);
      outgoing.once("response", (answer) => {
        mergeBody(answer);
        try {
          meter.received(headBytes(answer.headers));
          // What was parsed is not always what may be written: a status of 99, say.
          response.writeHead(answer.statusCode ?? 502, answer.statusMessage, endToEnd(answer.headers));
        } catch (thrown) {
          broke(thrown as Error);
          return;
        }
        relay(answer, response, () => socket.destroy(), meter.received);
      });
      outgoing.once("upgrade", () => broke(new Error("it changes the protocol without being asked")));
      outgoing.on("error", broke);
      response.once("close", () => socket.destroy());
      relay(request, outgoing, undefined, meter.sent); // its errors are the request's own, above
    } catch (thrown) {
      dialled?.destroy();
      fail(response, thrown);
    }
  }
}

/** Requests that a client may send ahead of the answer to its last one. */
const AHEAD = 1;

/** `host:port`, as CONNECT has it. */
function authority(text: string): Target {
  const match = /^(\[[0-9a-f:.]+\]|[^:@/?#\s]+):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port < 1 || port > 65_535) {
    throw new StacyError("invalid", `CONNECT needs host:port, not ${JSON.stringify(text.slice(0, 300))}`);
  }
  return { host: match[1], port };
}

function absolute(text: string): URL {
  if (!URL.canParse(text)) {
    throw new StacyError("invalid", "this is the sandbox's HTTP proxy: it takes requests with a whole http: URL");
  }
  const url = new URL(text);
  if (url.protocol !== "http:") throw new StacyError("invalid", `the proxy does not pass on ${url.protocol} requests`);
  return url;
}
