/**
 * What nodes ask each other for themselves, beside the calls that they pass on: over the nodes' listener, signed as those are. A question's
 * body is small, and its digest is signed with it.
 *
 *     POST /fleet/NAME   X-Stacyvm-Body: sha256 of the body (hex)   {...}   ->   200 {...}, 200 bytes, or {code, message, ...}
 */
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import { z } from "zod";
import { problemOf } from "../api/problem.ts";
import { FLEET_BOUNDS } from "../host/bounds.ts";
import { sha256 } from "../host/digest.ts";
import { asStacyError, type ErrorCode, StacyError } from "../host/error.ts";
import type { Directory, FleetNode } from "./contract.ts";
import type { Forwarder } from "./forwarding/forwarder.ts";
import type { Assertions, Claim } from "./trust/assertions.ts";

const BASE = "/fleet/";
const BODY_HEADER = "x-stacyvm-body";

const Said = z.object({
  error: z.string(),
  message: z.string(),
  phase: z.string().optional(),
  remedy: z.string().optional(),
  data: z.record(z.string(), z.unknown()).optional(),
});

/** @returns what is said as JSON, or bytes as they come */
export type Answering = (
  body: unknown,
  about: { from: FleetNode; signal: AbortSignal },
) => Promise<object> | AsyncGenerator<Buffer>;

export interface BetweenParts {
  directory: Directory;
  forwarder: Forwarder;
  assertions: Assertions;
}

export class Between {
  readonly #parts: BetweenParts;
  readonly #answers = new Map<string, Answering>();

  constructor(parts: BetweenParts) {
    this.#parts = parts;
  }

  /** How this node answers to that name. */
  on(name: string, answering: Answering): void {
    this.#answers.set(name, answering);
  }

  /** Whether it is a node's own question, and no call that it passes on: a client may give any path, and a guest may serve it. */
  static isOwn({ own }: Claim): boolean {
    return own === true;
  }

  /** @param claim checked */
  async answer(incoming: IncomingMessage, outgoing: ServerResponse, claim: Claim): Promise<true> {
    const gone = new AbortController();
    outgoing.once("close", () => gone.abort(new StacyError("cancelled", "the node that asked has gone")));
    try {
      const said = await this.#answer(incoming, claim, gone.signal);
      if (!(Symbol.asyncIterator in said)) sayJson(outgoing, 200, said);
      else await sayBytes(outgoing, said as AsyncGenerator<Buffer>);
    } catch (thrown) {
      const { code, message, phase, remedy, data } = asStacyError(thrown);
      if (outgoing.headersSent) outgoing.destroy();
      else sayJson(outgoing, problemOf(thrown, "").status, { error: code, message, phase, remedy, data });
    }
    return true;
  }

  async #answer(incoming: IncomingMessage, { from: id }: Claim, signal: AbortSignal): Promise<object> {
    const { url = "" } = incoming;
    const answering = url.startsWith(BASE) ? this.#answers.get(url.slice(BASE.length)) : undefined;
    const from = this.#parts.directory.nodes().find((node) => node.id === id);
    if (answering === undefined || incoming.method !== "POST" || from === undefined) {
      throw new StacyError("not-supported", "this node knows no such question", {
        phase: "fleet",
        remedy: "run one version on all nodes",
      });
    }
    const body = await readBody(incoming);
    if (incoming.headers[BODY_HEADER] !== sha256(body)) {
      throw new StacyError("permission", "the question's body is not what its node has signed", { phase: "fleet" });
    }
    return await answering(JSON.parse(body.toString("utf8")), { from, signal });
  }

  /** @throws StacyError what the node says; `unavailable` when it says nothing */
  async ask<T>(node: FleetNode, name: string, body: object, schema: z.ZodType<T>, signal: AbortSignal): Promise<T> {
    const answer = await this.#open(node, name, body, signal);
    const text = await buffer(answer).catch((error: unknown) => Promise.reject(this.#silent(node, error, signal)));
    return schema.parse(JSON.parse(text.toString("utf8")));
  }

  /** The same, of an answer in bytes. */
  async bytes(node: FleetNode, name: string, body: object, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
    return await this.#open(node, name, body, signal);
  }

  async #open(node: FleetNode, name: string, asked: object, signal: AbortSignal): Promise<IncomingMessage> {
    const { forwarder, assertions } = this.#parts;
    const [method, path] = ["POST", `${BASE}${name}`];
    const body = Buffer.from(JSON.stringify(asked));
    const headers = ["Content-Type", "application/json", BODY_HEADER, sha256(body)];
    const seal = (sealed: string[]): string =>
      assertions.sign({ to: node.id, address: "", own: true }, { method, path, headers: sealed });
    const answer = await forwarder
      .open(node, { method, path, headers, body }, seal, signal)
      .catch((error: unknown) => Promise.reject(this.#silent(node, error, signal)));
    if (answer.statusCode === 200) return answer;
    const text = (await buffer(answer).catch(() => Buffer.of())).toString("utf8");
    throw saidBy(node, text, answer.statusCode ?? 0);
  }

  #silent({ name }: FleetNode, cause: unknown, signal: AbortSignal): StacyError {
    if (signal.aborted && signal.reason instanceof StacyError) return signal.reason;
    return new StacyError("unavailable", `the node ${name} does not answer: ${asStacyError(cause).message}`, {
      phase: "fleet",
      cause,
      remedy: "`stacyvm node ls` shows whether it is there",
    });
  }
}

function saidBy({ name }: FleetNode, text: string, status: number): StacyError {
  try {
    const { error, message, ...more } = Said.parse(JSON.parse(text));
    const given = Object.entries(more).filter(([, value]) => value !== undefined);
    return new StacyError(error as ErrorCode, message, Object.fromEntries(given));
  } catch {
    return new StacyError("unavailable", `the node ${name} answers ${status}, which says nothing`, { phase: "fleet" });
  }
}

async function readBody(incoming: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of incoming as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > FLEET_BOUNDS.questionBytes) throw new StacyError("too-large", "the question is too long");
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function sayJson(outgoing: ServerResponse, status: number, said: object): void {
  const body = Buffer.from(JSON.stringify(said));
  outgoing.writeHead(status, { "content-type": "application/json", "content-length": body.length });
  outgoing.end(body);
}

async function sayBytes(outgoing: ServerResponse, said: AsyncGenerator<Buffer>): Promise<void> {
  let begun = false;
  for await (const bytes of said) {
    if (outgoing.destroyed) return;
    if (!begun) outgoing.writeHead(200, { "content-type": "application/octet-stream" });
    begun = true;
    if (!outgoing.write(bytes)) await drained(outgoing);
  }
  if (!begun) outgoing.writeHead(200);
  outgoing.end();
}

/** Or closed. */
async function drained(outgoing: ServerResponse): Promise<void> {
  const over = new AbortController();
  const { signal } = over;
  await Promise.race([once(outgoing, "drain", { signal }), once(outgoing, "close", { signal })]).finally(() =>
    over.abort(),
  );
}
