/** Passing HTTP messages on: which headers are meant for one connection only (RFC 9110, 7.6.1), and how a body is framed. */
import type { IncomingHttpHeaders } from "node:http";
import { StacyError } from "./error.ts";

const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/** Without these a message means something else; whoever names them in `Connection` wants just that. */
const ESSENTIAL = new Set(["content-length", "content-type", "content-encoding", "content-range", "host"]);

/** The others; what `Connection` names is left out as well. */
export function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const dropped = droppedBy(headers.connection);
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !dropped.has(name)));
}

/** The same of names and values in turn, as they came: in their order, and each as often as it was there. */
export function rawEndToEnd(raw: readonly string[], connection: string | undefined): string[] {
  const dropped = droppedBy(connection);
  const passed: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = "", value = ""] = [raw[i], raw[i + 1]];
    if (!dropped.has(name.toLowerCase())) passed.push(name, value);
  }
  return passed;
}

function droppedBy(connection = ""): ReadonlySet<string> {
  const named = connection
    .split(",")
    .map((name) => name.trim().toLowerCase())
    .filter((name) => !ESSENTIAL.has(name));
  return new Set([...HOP_BY_HOP, ...named]);
}

/**
 * What makes the body of a request that is passed on end where it ended here. Node frames one without a length only for some methods, and
 * what a GET or DELETE carried would be read as the next request.
 * @throws StacyError `invalid` for a body that is coded otherwise as well: its bytes would be taken for what they stand for
 */
export function framing(
  headers: IncomingHttpHeaders,
  hasBody = headers["transfer-encoding"] !== undefined,
): IncomingHttpHeaders {
  const coding = headers["transfer-encoding"];
  if (coding !== undefined && !/^\s*chunked\s*$/i.test(coding)) {
    throw new StacyError("invalid", "a body is passed on in chunks or with a length, in no other transfer coding");
  }
  return hasBody && headers["content-length"] === undefined ? { "transfer-encoding": "chunked" } : {};
}
