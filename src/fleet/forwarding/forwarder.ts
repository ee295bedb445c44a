/**
 * A request that another node has to answer, passed on to it as it came, and its answer as it comes: streams with the pace of whoever is
 * slower, cancellation in both directions, sockets after an upgrade. It keeps connections to each node. It knows neither whose the
 * request is nor which node is right: who does gives it the headers.
 */
import { once } from "node:events";
import { Agent, type ClientRequest, type IncomingMessage, request, type ServerResponse } from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import { connect, isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as tlsConnect } from "node:tls";
import { REFUSAL_HEADER } from "../../api/vouched.ts";
import { framing, rawEndToEnd } from "../../host/hop-by-hop.ts";
import { mergeBody } from "../../host/merge-body.ts";
import { printable } from "../../host/printable.ts";
import { relay } from "../../host/relay.ts";
import type { FleetNode } from "../contract.ts";
import type { NodeTls } from "../trust/node-tls.ts";
import { hasBody, type Upload } from "./upload.ts";

/** Names of headers that nodes say something to each other with; never a client's, and never to one. */
export const FLEET_HEADER = "x-stacyvm-node";

/** `not-mine`: it does not have that sandbox. `identify`: it has to know who calls. `full`: it does not take this one; others may. */
export type Refusal = "not-mine" | "identify" | "full";

export type Outcome =
  /** The client has the answer, or is getting it. */
  | { kind: "answered" }
  /** Nothing has reached the client. @param answer what it would have got */
  | { kind: "refused"; why: Refusal; answer: Answer }
  /** Nothing of it has reached the node. */
  | { kind: "unreached"; error: Error }
  /** It may have reached it, and what became of it nobody knows. */
  | { kind: "broken"; error: Error }
  /** The client has gone. */
  | { kind: "left" };

export interface Answer {
  status: number;
  /** Names and values in turn. */
  headers: string[];
  body: Buffer;
}

export interface Question {
  method: string;
  path: string;
  /** Names and values in turn. */
  headers: readonly string[];
  body?: Buffer;
}

/** A client's request, and where its answer goes. */
export type Call =
  | { incoming: IncomingMessage; outgoing: ServerResponse; upgrade?: undefined }
  | { incoming: IncomingMessage; outgoing?: undefined; upgrade: { socket: Duplex; head: Buffer } };

export interface ForwarderOptions {
  /** How nodes with `https` are asked. */
  tls?: NodeTls | undefined;
  /** Whether a node still answers, as far as is known: whoever waits for one that does not is told. */
  answers?: (nodeId: string) => boolean;
  /** The longest wait for a connection, ms. */
  connectMs?: number;
}

const CONNECT_MS = 3_000;
const LOOK_MS = 500;
/** A host that is gone without a word is noticed while nothing is sent. */
const PROBE_MS = 15_000;
const REFUSED_BYTES = 65_536;
/** A list of all that a node has. */
const ANSWER_BYTES = 256 * 2 ** 20;
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

export class Forwarder {
  readonly #tls: NodeTls | undefined;
  readonly #answers: (nodeId: string) => boolean;
  readonly #connectMs: number;
  /** By the node's address. */
  readonly #agents = new Map<string, { agent: Agent; generation: number }>();
  /** Without an answer yet. */
  readonly #waiting = new Map<ClientRequest, string>();
  #looking: NodeJS.Timeout | undefined;

  constructor({ tls, answers = () => true, connectMs = CONNECT_MS }: ForwarderOptions = {}) {
    this.#tls = tls;
    this.#answers = answers;
    this.#connectMs = connectMs;
  }

  /**
   * @param upload of this call, the same for each node that is asked
   * @param seal what the node is told of it, by the headers that it gets
   */
  async forward(
    call: Call,
    node: Pick<FleetNode, "id" | "url">,
    upload: Upload,
    seal: (headers: string[]) => string,
  ): Promise<Outcome> {
    const outcome = await this.#once(call, node, upload, seal);
    // A connection that was kept had been closed by the node in the same moment.
    const stale = outcome.kind === "broken" && outcome.reused === true && upload.repeatable;
    if (!stale || !IDEMPOTENT.has(call.incoming.method ?? "")) return outcome;
    return await this.#once(call, node, upload, seal, { fresh: true });
  }

  /**
   * A question of this node's own, whose answer is read whole within the time that `signal` gives.
   * @throws Error when there is none
   */
  async ask(
    node: Pick<FleetNode, "id" | "url">,
    question: Question,
    seal: (headers: string[]) => string,
    signal: AbortSignal,
  ): Promise<Answer> {
    const whole = await readAnswer(await this.open(node, question, seal, signal), ANSWER_BYTES);
    if (whole === undefined) throw new Error("its answer broke off");
    return whole;
  }

  /** The same, and its answer as it comes. */
  async open(
    node: Pick<FleetNode, "id" | "url">,
    { method, path, headers: given, body }: Question,
    seal: (headers: string[]) => string,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const url = new URL(node.url);
    const headers = ["Host", url.host, ...given];
    if (body !== undefined) headers.push("Content-Length", String(body.length));
    headers.push(FLEET_HEADER, seal(headers));
    const tls = url.protocol === "https:";
    if (this.#tls !== undefined && !tls) throw new Error("it speaks no TLS, and this node does");
    const asked = (tls ? tlsRequest : request)({
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port || (tls ? 443 : 80),
      ...{ method, path, headers, signal, agent: this.#agentOf(url, tls) },
    });
    asked.end(body);
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    return answer;
  }

  /** Connections that nobody uses; those under way end with their requests. */
  close(): void {
    for (const { agent } of this.#agents.values()) retire(agent);
    this.#agents.clear();
    clearInterval(this.#looking);
  }

  #once(
    call: Call,
    node: Pick<FleetNode, "id" | "url">,
    upload: Upload,
    seal: (headers: string[]) => string,
    { fresh = false } = {},
  ): Promise<Outcome & { reused?: boolean }> {
    const { incoming } = call;
    const gone: Duplex | ServerResponse = call.upgrade?.socket ?? (call.outgoing as ServerResponse);
    if (gone.destroyed) return Promise.resolve({ kind: "left" });
    const headers = headersOf(call);
    headers.push(FLEET_HEADER, seal(headers));
    const url = new URL(node.url);
    // What clients show would be read by whoever is between, whatever a node says of itself.
    if (this.#tls !== undefined && url.protocol !== "https:") {
      return Promise.resolve({ kind: "unreached", error: new Error("it speaks no TLS, and this node does") });
    }
    const options = {
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port || (url.protocol === "https:" ? 443 : 80),
      method: incoming.method ?? "GET",
      path: incoming.url ?? "/",
      headers: framed(call, headers),
    };
    const tls = url.protocol === "https:";
    const { promise, resolve } = Promise.withResolvers<Outcome & { reused?: boolean }>();
    let asked: ClientRequest;
    let own: Socket | undefined;
    try {
      const ask = tls ? tlsRequest : request;
      if (call.upgrade !== undefined || fresh) {
        // One of its own, whose sides end each by itself.
        const socket = this.#dial(options.host, Number(options.port), tls);
        own = socket;
        // And no agent: one that is `false` is a new one, which dials by itself.
        asked = ask({ ...options, createConnection: () => socket } as object);
      } else asked = ask({ ...options, agent: this.#agentOf(url, tls) });
    } catch (error) {
      return Promise.resolve({ kind: "unreached", error: error as Error });
    }
    let connected = false;
    let done = false;
    const settle = (outcome: Outcome & { reused?: boolean }): void => {
      if (done) return;
      done = true;
      this.#waiting.delete(asked);
      gone.off("close", left);
      resolve(outcome);
    };
    const left = (): void => {
      asked.destroy();
      settle({ kind: "left" });
    };
    gone.once("close", left);
    this.#wait(asked, node.id);
    asked.once("socket", (socket) => {
      if (!socket.connecting) {
        connected = true;
        return;
      }
      const limit = setTimeout(
        () => socket.destroy(new Error(`no connection within ${this.#connectMs} ms`)),
        this.#connectMs,
      ).unref();
      socket.once(tls ? "secureConnect" : "connect", () => {
        connected = true;
        clearTimeout(limit);
        socket.setKeepAlive(true, PROBE_MS);
      });
      socket.once("close", () => clearTimeout(limit));
    });
    asked.on("error", (error) => {
      upload.leave(asked);
      settle(connected ? { kind: "broken", error, reused: asked.reusedSocket } : { kind: "unreached", error });
    });
    asked.once("response", (answer) => {
      this.#waiting.delete(asked);
      const why = answer.headers[REFUSAL_HEADER];
      // Of a create another may have room for it is an ordinary answer; the others are told by a status of their own.
      if (typeof why === "string" && (why === "full" || answer.statusCode === 421)) {
        upload.leave(asked);
        void readAnswer(answer, REFUSED_BYTES).then((refused) => {
          own?.destroy();
          // The rest of its body goes elsewhere: nobody would ever end it.
          if (!asked.writableFinished) asked.destroy();
          if (refused === undefined) settle({ kind: "broken", error: new Error("its answer broke off") });
          else settle({ kind: "refused", why: why as Refusal, answer: refused });
        });
        return;
      }
      // One of its own that nobody keeps.
      if (own !== undefined) answer.once("close", () => own?.destroy());
      upload.settle();
      mergeBody(answer);
      if (call.upgrade !== undefined) answerPlainly(call.upgrade.socket, answer);
      else passAnswer(call.outgoing, answer, asked);
      settle({ kind: "answered" });
    });
    asked.once("upgrade", (answer, socket, early) => {
      if (call.upgrade === undefined || answer.statusCode !== 101) {
        socket.destroy();
        settle({ kind: "broken", error: new Error("it changed the protocol without being asked") });
        return;
      }
      splice(call.upgrade, answer, socket, early);
      settle({ kind: "answered" });
    });
    upload.sendTo(asked);
    return promise;
  }

  #agentOf(url: URL, tls: boolean): Agent {
    const generation = tls ? (this.#tls?.generation ?? 0) : 0;
    const kept = this.#agents.get(url.href);
    if (kept?.generation === generation) return kept.agent;
    if (kept !== undefined) retire(kept.agent);
    const options = { keepAlive: true, maxFreeSockets: 256, scheduling: "lifo" as const };
    const agent = tls ? new TlsAgent({ ...options, ...this.#tls?.client() }) : new Agent(options);
    this.#agents.set(url.href, { agent, generation });
    return agent;
  }

  #dial(host: string, port: number, tls: boolean): Socket {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
    if (!tls) return socket;
    // An address is no name that a server could be asked for by; its certificate is held against it all the same.
    const named = isIP(host) === 0 ? { servername: host } : {};
    return tlsConnect({ ...this.#tls?.client(), ...named, host, socket, allowHalfOpen: true } as object);
  }

  #wait(asked: ClientRequest, nodeId: string): void {
    this.#waiting.set(asked, nodeId);
    this.#looking ??= setInterval(() => {
      for (const [each, id] of this.#waiting) {
        if (!this.#answers(id)) each.destroy(new Error("its node is silent"));
      }
      if (this.#waiting.size > 0) return;
      clearInterval(this.#looking);
      this.#looking = undefined;
    }, LOOK_MS).unref();
  }
}

/** As they came, without what is for this connection alone and what only nodes say. */
function headersOf({ incoming }: Call): string[] {
  const passed = rawEndToEnd(incoming.rawHeaders, incoming.headers.connection);
  const kept: string[] = [];
  for (let i = 0; i + 1 < passed.length; i += 2) {
    const [name = "", value = ""] = [passed[i], passed[i + 1]];
    // Whoever asked for it has been told to go on by our own server.
    if (!/^(?:expect|x-stacyvm-(?:node|refused))$/i.test(name)) kept.push(name, value);
  }
  if (incoming.headers.host === undefined) kept.push("Host", "localhost");
  return kept;
}

function framed({ incoming, upgrade }: Call, headers: string[]): string[] {
  if (upgrade !== undefined) return [...headers, "Connection", "Upgrade", "Upgrade", incoming.headers.upgrade ?? ""];
  const frame = Object.entries(framing(incoming.headers, hasBody(incoming))).flatMap(([name, value]) => [
    name,
    String(value),
  ]);
  return [...headers, ...frame];
}

function answerHeaders(answer: IncomingMessage): string[] {
  return rawEndToEnd(answer.rawHeaders, answer.headers.connection);
}

function passAnswer(outgoing: ServerResponse, answer: IncomingMessage, asked: ClientRequest): void {
  outgoing.sendDate = false;
  outgoing.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? "", answerHeaders(answer));
  // With the first piece, where that is there already; a stream that has nothing to say yet has begun all the same.
  setImmediate(() => {
    if (!outgoing.destroyed && !outgoing.writableEnded) outgoing.flushHeaders();
  });
  relay(answer, outgoing);
  outgoing.once("close", () => {
    // Answered before all of the body was sent: the rest is nobody's, and the connection with it.
    if (!asked.writableFinished) asked.destroy();
  });
}

function headOf(answer: IncomingMessage, more: string[]): string {
  const raw = [...answerHeaders(answer), ...more];
  const lines = [`HTTP/1.1 ${answer.statusCode} ${printable(answer.statusMessage ?? "")}`];
  for (let i = 0; i + 1 < raw.length; i += 2) lines.push(`${raw[i]}: ${raw[i + 1]}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** An upgrade was asked for and there is none: the answer lasts until its connection closes. */
function answerPlainly(socket: Duplex, answer: IncomingMessage): void {
  socket.write(headOf(answer, ["connection", "close"]), "latin1");
  socket.resume(); // what the client still sends is nothing to us, but its end is
  relay(answer, socket);
}

function splice(
  { socket, head }: { socket: Duplex; head: Buffer },
  answer: IncomingMessage,
  node: Socket,
  early: Buffer,
): void {
  node.setTimeout(0);
  node.setKeepAlive(true, PROBE_MS);
  socket.write(headOf(answer, ["connection", "Upgrade", "upgrade", answer.headers.upgrade ?? ""]), "latin1");
  if (early.length > 0) socket.write(early);
  if (head.length > 0) node.write(head);
  relay(socket, node);
  relay(node, socket);
}

/** @returns `undefined`: it broke off, or is larger than it can be */
async function readAnswer(answer: IncomingMessage, most: number): Promise<Answer | undefined> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const piece of answer as AsyncIterable<Buffer>) {
      bytes += piece.length;
      if (bytes > most) return undefined;
      pieces.push(piece);
    }
  } catch {
    return undefined;
  }
  const headers = answerHeaders(answer);
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]?.toLowerCase() !== REFUSAL_HEADER) kept.push(headers[i] ?? "", headers[i + 1] ?? "");
  }
  return { status: answer.statusCode ?? 503, headers: kept, body: Buffer.concat(pieces) };
}

/** Those in use go on until their requests are over. */
function retire(agent: Agent): void {
  (agent as { keepAlive?: boolean }).keepAlive = false;
  for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
}
