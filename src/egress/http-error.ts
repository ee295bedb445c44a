/** What a program of a guest is told in HTTP where its request comes to nothing. */
import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { StacyError } from "../host/error.ts";

const STATUS: Partial<Record<StacyError["code"], number>> = {
  invalid: 400,
  permission: 403,
  "not-supported": 405,
  limit: 503,
  timeout: 504,
};

const UNFORESEEN = new StacyError("internal", "the request could not be passed on");

/** Its status by the code of the error, its text with the remedy. What nobody foresaw may have anything in its text, and is not told. */
export function answerOf(thrown: unknown): { status: number; text: string } {
  const { code, message, remedy } = thrown instanceof StacyError ? thrown : UNFORESEEN;
  const text = `stacyvm: ${message}${remedy === undefined ? "" : `\nhint: ${remedy}`}\n`;
  return { status: STATUS[code] ?? 502, text };
}

/** The same on a connection that Node's server has given up: after CONNECT, or an upgrade. It is the last that is said there. */
export function refuse(client: Duplex, thrown: unknown): void {
  client.end(rawAnswer(answerOf(thrown)));
  // What else comes is nobody's; unread it would keep the connection's end from being seen.
  client.resume();
}

function rawAnswer({ status, text }: { status: number; text: string }): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`;
}

export function fail(response: ServerResponse, thrown: unknown): void {
  if (response.headersSent) return void response.destroy();
  const { status, text } = answerOf(thrown);
  // With its reason, or the one of an answer that could not be passed on would stand there.
  response.writeHead(status, STATUS_CODES[status], { "content-type": "text/plain", connection: "close" });
  response.end(text);
}
