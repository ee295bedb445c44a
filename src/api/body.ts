/** Reading request bodies within limits of size and of silence. */
import type { IncomingMessage } from "node:http";
import { setImmediate as nextTurn } from "node:timers/promises";
import { HeldInput } from "../guest/held-input.ts";
import { StacyError } from "../host/error.ts";
import { JsonBoundError, parseClientJson } from "../host/json-bounds.ts";
import { Pace } from "../host/turns.ts";
import { httpError } from "./problem.ts";

export interface BodyLimits {
  /** 0: no limit. */
  maxBytes: number;
  /** The longest wait for the next piece, ms. */
  timeoutMs: number;
}

/**
 * The body piece by piece; the reader sets the pace. @throws HTTPException 413, 408 when the client is silent for too long
 */
export async function* bodyStream(request: Request, limits: BodyLimits): AsyncGenerator<Uint8Array> {
  if (limits.maxBytes > 0 && Number(request.headers.get("content-length") ?? "0") > limits.maxBytes) {
    throw tooLarge(limits.maxBytes);
  }
  if (request.body === null) return;
  const reader = request.body.getReader();
  let total = 0;
  let [reading, late] = [false, false];
  // One for all pieces: a client decides how many there are.
  const silence = setTimeout(() => {
    late = reading;
    if (late) reader.cancel().catch(() => {}); // which ends the wait
  }, limits.timeoutMs);
  const pace = new Pace();
  try {
    for (;;) {
      reading = true;
      silence.refresh();
      const { done, value } = await reader.read();
      reading = false;
      if (late) throw tooSlow();
      if (done) return;
      total += value.byteLength;
      if (limits.maxBytes > 0 && total > limits.maxBytes) throw tooLarge(limits.maxBytes);
      yield value;
      if (pace.over) await pace.rest();
    }
  } finally {
    clearTimeout(silence);
    reader.cancel().catch(() => {}); // it ended, or nobody wants the rest
  }
}

/**
 * A body that has come whole by the time that it is asked for, as small ones do: taken as it is. A stream of the web's would have to be made for it,
 * which costs more than all else that is done with such a body.
 * @returns `undefined` when it is still to come, or somebody reads it already
 */
async function arrived(incoming: IncomingMessage | undefined, { maxBytes }: BodyLimits): Promise<Buffer | undefined> {
  if (incoming === undefined) return undefined;
  // What came in one piece with the request's head is there in the next turn.
  if (!incoming.complete) await nextTurn();
  if (!incoming.complete || incoming.destroyed || incoming.readableDidRead) return undefined;
  if (incoming.listenerCount("data") + incoming.listenerCount("readable") > 0) return undefined;
  if (maxBytes > 0 && incoming.readableLength > maxBytes) throw tooLarge(maxBytes);
  // In the pieces that it came in: one read gives one of them (Node 26), or all (Node 20).
  const parts: Buffer[] = [];
  for (let part: Buffer | null = incoming.read(); part !== null; part = incoming.read()) parts.push(part);
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}

/** @param held what it takes of memory. @throws StacyError `limit`; HTTPException 413, 408 */
export async function readBody(
  request: Request,
  limits: BodyLimits,
  held: HeldInput,
  incoming?: IncomingMessage,
): Promise<Buffer> {
  const whole = await arrived(incoming, limits);
  if (whole !== undefined) {
    held.add(whole.length);
    return whole;
  }
  const parts: Uint8Array[] = [];
  // The whole body has a limit too: one byte every few seconds would keep it open for ever.
  const deadline = performance.now() + limits.timeoutMs;
  for await (const part of bodyStream(request, limits)) {
    held.add(part.length);
    parts.push(part);
    if (performance.now() > deadline) throw tooSlow();
  }
  return Buffer.concat(parts);
}

/** The same, for as long as its holder has a use for it. @throws as `readBody` */
export async function holdBody(
  request: Request,
  limits: BodyLimits,
  owner: string,
  incoming: IncomingMessage,
): Promise<{ body: Buffer } & Disposable> {
  const held = new HeldInput(owner);
  try {
    const body = await readBody(request, limits, held, incoming);
    return { body, [Symbol.dispose]: () => held[Symbol.dispose]() };
  } catch (error) {
    held[Symbol.dispose]();
    throw error;
  }
}

/**
 * The body as JSON, whatever its Content-Type says (curl's default is a form). `undefined` when it is empty.
 * @param held what it takes of memory, for the caller to give back
 * @param incoming what the request came as, where it came over a connection
 * @throws StacyError `invalid`, `limit`; HTTPException 413, 408
 */
export async function readJson(
  request: Request,
  limits: BodyLimits,
  held: HeldInput,
  incoming?: IncomingMessage,
): Promise<unknown> {
  const bytes = await readBody(request, limits, held, incoming);
  if (bytes.length === 0) return undefined;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new StacyError("invalid", "the body is not valid UTF-8");
  }
  if (text.trim() === "") return undefined;
  try {
    return parseClientJson(text);
  } catch (error) {
    throw new StacyError(
      "invalid",
      `the body is ${error instanceof JsonBoundError ? error.message : "not valid JSON"}`,
    );
  }
}

function tooLarge(limit: number): Error {
  return httpError(413, `the body is over the limit of ${limit} bytes`);
}

function tooSlow(): Error {
  return httpError(408, "the request's body came too slowly");
}
