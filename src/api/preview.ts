/**
 * HTTP into a sandbox: a request for `/sandboxes/{id}/ports/{port}/...`, or for the host `{port}-{id}.{preview_domain}`, goes to
 * that port of the guest, WebSockets included. Each request has its own connection through the agent's channel.
 */
import { type IncomingMessage, request } from "node:http";
import { type Duplex, Readable } from "node:stream";
import { asStacyError, StacyError } from "../host/error.ts";
import { endToEnd } from "../host/hop-by-hop.ts";
import { type Identity, withoutPort } from "./auth.ts";
import type { ServerParts } from "./context.ts";
import type { ApiContext } from "./endpoint.ts";
import { taken } from "./socket.ts";

/** What is said to us rather than to the guest; the header that had the key goes the same way. */
const OURS = ["host", "expect", "x-api-key", "x-admin-api-key"];

/** `{port}-{id}.{domain}`, whatever port either names: a proxy in front of us may have changed it. */
export function previewTarget(host: string | undefined, domain: string): { id: string; port: number } | undefined {
  const match = /^(\d{1,5})-(sb-[0-9a-f]{8})\.(.+?)(?::\d+)?$/i.exec(host ?? "");
  const port = Number(match?.[1]);
  if (match?.[2] === undefined || match[3]?.toLowerCase() !== withoutPort(domain) || port < 1 || port > 65_535) {
    return undefined;
  }
  return { id: match[2].toLowerCase(), port };
}

export interface PreviewRequest {
  id: string;
  port: number;
  /** With the query. */
  path: string;
  /** Under our own host name: the guest's page must not act as ours in a browser. */
  sameOrigin: boolean;
}

export async function proxyPreview(c: ApiContext, parts: ServerParts, target: PreviewRequest): Promise<Response> {
  const lease = await parts.sandboxes.lease(target.id);
  const abort = new AbortController();
  const free = (): void => {
    abort.abort();
    lease[Symbol.dispose]();
  };
  try {
    const signal = AbortSignal.any([c.req.raw.signal, abort.signal]);
    const tunnel = await lease.agent.tunnel(target.port, { signal }).catch((error: unknown) => {
      const cause = asStacyError(error);
      if (cause.code === "disconnected" || cause.code === "machine-exited") throw cause;
      throw new StacyError("unavailable", `nothing listens on port ${target.port} of ${target.id}`, {
        phase: "tunnel",
        cause,
        remedy: "start the program in the sandbox first, on 127.0.0.1 or on all addresses",
      });
    });
    tunnel.on("error", () => {});
    const { upgrade } = c.env;
    if (upgrade !== undefined) {
      upgrade.taken = true;
      passThrough(upgrade.incoming, upgrade.socket, upgrade.head, tunnel, target.path, keyHeader(c), free);
      return taken();
    }
    const answer = await forward(c, tunnel, target.path, signal);
    const headers = new Headers();
    for (const [name, value] of Object.entries(endToEnd(answer.headers))) {
      if (value === undefined) continue;
      for (const each of Array.isArray(value) ? value : [value]) headers.append(name, each);
    }
    if (target.sameOrigin) headers.set("content-security-policy", "sandbox allow-scripts allow-forms allow-popups");
    answer.once("close", () => {
      tunnel.destroy();
      free();
    });
    const status = answer.statusCode ?? 502;
    const empty = status === 204 || status === 304 || c.req.method === "HEAD";
    if (empty) answer.resume();
    return new Response(empty ? null : (Readable.toWeb(answer) as ReadableStream), { status, headers });
  } catch (error) {
    free();
    throw error;
  }
}

/** @returns `undefined` where nobody had to say who asks: a public preview, or a server without keys */
function keyHeader(c: ApiContext): string | undefined {
  return (c.get("identity") as Identity | undefined)?.header;
}

function forward(c: ApiContext, tunnel: Duplex, path: string, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = endToEnd(Object.fromEntries(c.req.raw.headers));
    for (const name of [...OURS, keyHeader(c)]) if (name !== undefined) delete headers[name];
    const outgoing = request({
      method: c.req.method,
      path,
      headers: {
        ...headers,
        host: c.req.header("host") ?? "localhost",
        connection: "close",
        "x-forwarded-host": c.req.header("host") ?? "",
        "x-forwarded-proto": "http",
      },
      createConnection: () => tunnel,
      signal,
    });
    const broke = (cause: Error): void =>
      reject(new StacyError("unavailable", "the program in the sandbox broke off", { phase: "preview", cause }));
    const nonsense = (what: string): void => {
      tunnel.destroy();
      broke(new Error(what));
    };
    outgoing.once("response", (answer) => {
      const { statusCode = 0 } = answer;
      if (statusCode < 200 || statusCode > 599) nonsense(`it answered with the status ${statusCode}`);
      else resolve(answer);
    });
    outgoing.once("upgrade", () => nonsense("it changed the protocol without being asked"));
    outgoing.once("error", broke);
    if (c.req.raw.body === null) outgoing.end();
    else
      Readable.fromWeb(c.req.raw.body as never)
        .on("error", (error) => outgoing.destroy(error))
        .pipe(outgoing);
  });
}

/** After the request line and headers, both sides speak for themselves. */
function passThrough(
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  tunnel: Duplex,
  path: string,
  key: string | undefined,
  free: () => void,
): void {
  const lines = [`${incoming.method} ${path} HTTP/1.1`];
  for (let i = 0; i + 1 < incoming.rawHeaders.length; i += 2) {
    const name = incoming.rawHeaders[i] ?? "";
    const lower = name.toLowerCase();
    if (lower === key || lower === "x-api-key" || lower === "x-admin-api-key") continue;
    lines.push(`${name}: ${incoming.rawHeaders[i + 1]}`);
  }
  tunnel.write(`${lines.join("\r\n")}\r\n\r\n`);
  if (head.length > 0) tunnel.write(head);
  socket.on("error", () => {});
  socket.pipe(tunnel);
  tunnel.pipe(socket);
  socket.once("close", () => tunnel.destroy());
  tunnel.once("close", () => {
    socket.destroy();
    free();
  });
}
