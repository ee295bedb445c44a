/**
 * HTTP into a sandbox: a request for `/sandboxes/{id}/ports/{port}/...`, or for the host `{port}-{id}.{preview_domain}`, goes to
 * that port of the guest, WebSockets included. Each request has its own connection through the agent's channel.
 */
import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";
import { type Duplex, Readable } from "node:stream";
import { asStacyError, StacyError } from "../host/error.ts";
import { fewInterim } from "../host/few-interim.ts";
import { framing } from "../host/hop-by-hop.ts";
import { InSlices } from "../host/in-slices.ts";
import { mergeBody } from "../host/merge-body.ts";
import { printable } from "../host/printable.ts";
import { relay } from "../host/relay.ts";
import type { View } from "../sandboxes/view.ts";
import { withoutPort } from "./auth.ts";
import type { ApiContext, Upgrade } from "./endpoint.ts";
import { fromGuest, type Passing, toGuest } from "./preview-headers.ts";
import { taken } from "./socket.ts";
import type { Caller } from "./vouched.ts";

/** `{port}-{id or name}.{domain}`, whatever port either names: a proxy in front of us may have changed it. */
export function previewTarget(host: string | undefined, domain: string): { id: string; port: number } | undefined {
  const match = /^(\d{1,5})-([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)\.(.+?)(?::\d+)?$/i.exec(host ?? "");
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

/** Its maker has closed its ports, whatever the server does with those of others. @param idOrName of any sandbox, there or not */
export function isClosed(sandboxes: Pick<View, "get">, idOrName: string): boolean {
  try {
    return sandboxes.get(idOrName).record.ports?.closed === true;
  } catch (error) {
    if (error instanceof StacyError && error.code === "not-found") return false;
    throw error;
  }
}

export async function proxyPreview(c: ApiContext, sandboxes: View, target: PreviewRequest): Promise<Response> {
  const lease = await sandboxes.lease(target.id);
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
    // biome-ignore lint/suspicious/noTemplateCurlyInString: what stands for the port
    const named = lease.sandbox.record.ports?.host?.replaceAll("${PORT}", String(target.port));
    const passing: Passing = { sameOrigin: target.sameOrigin, keyHeader: keyHeader(c), named };
    if (upgrade !== undefined) {
      upgrade.taken = true;
      passThrough(upgrade, tunnel, target.path, passing, free);
      return taken();
    }
    const answer = await forward(c, tunnel, target.path, passing, signal);
    const headers = new Headers(fromGuest(answer.headers, target.sameOrigin));
    answer.once("close", () => {
      tunnel.destroy();
      free();
    });
    const status = answer.statusCode ?? 502;
    // Answers without a body, by their status (RFC 9110).
    const empty = status === 204 || status === 205 || status === 304 || c.req.method === "HEAD";
    if (empty) answer.resume();
    return new Response(empty ? null : bodyOf(answer), { status, headers });
  } catch (error) {
    free();
    throw error;
  }
}

/** @returns `undefined` where nobody had to say who asks: a public preview, or a server without keys */
function keyHeader(c: ApiContext): string | undefined {
  return (c.get("identity") as Caller | undefined)?.header;
}

/** Its reader paces it. What has come at a time is one piece, as `Readable.toWeb` does not have it. */
function bodyOf(answer: IncomingMessage): ReadableStream<Uint8Array> {
  const pieces = answer[Symbol.asyncIterator]();
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await pieces.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      },
      cancel: () => void answer.destroy(),
    },
    { highWaterMark: 0 },
  );
}

/** The request as the guest gets it. */
function ask(
  tunnel: Duplex,
  {
    method,
    path,
    headers,
    named,
    signal,
  }: { method: string; path: string; headers: IncomingHttpHeaders; named: string | undefined; signal?: AbortSignal },
): ClientRequest {
  const { host = "localhost" } = headers;
  const connection = new InSlices(tunnel);
  const asked = request({
    method,
    path,
    headers: { ...headers, host: named ?? host, "x-forwarded-host": host, "x-forwarded-proto": "http" },
    createConnection: () => connection,
    ...(signal === undefined ? {} : { signal }),
  });
  fewInterim(asked);
  asked.once("response", mergeBody);
  return asked;
}

function forward(
  c: ApiContext,
  tunnel: Duplex,
  path: string,
  passing: Passing,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const incoming = Object.fromEntries(c.req.raw.headers);
    const { body } = c.req.raw;
    const headers = {
      ...toGuest(incoming, passing),
      ...framing(incoming, body !== null),
      ...hostOf(c.req.header("host")),
      connection: "close",
    };
    const outgoing = ask(tunnel, { method: c.req.method, path, headers, named: passing.named, signal });
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
    outgoing.on("error", broke);
    if (body === null) outgoing.end();
    else
      relay(Readable.fromWeb(body as never), outgoing, (error) => {
        if (error !== undefined) broke(error);
      });
  });
}

function hostOf(host: string | undefined): IncomingHttpHeaders {
  return host === undefined ? {} : { host };
}

const HALF_CLOSED_MS = 30_000;

/** Until the guest has agreed we speak for both, so that its answer's headers are looked at; then both sides speak for themselves. */
function passThrough(
  { incoming, socket, head }: Upgrade,
  tunnel: Duplex,
  path: string,
  passing: Passing,
  free: () => void,
): void {
  const { method = "GET", headers } = incoming;
  const { upgrade } = headers;
  const outgoing = ask(tunnel, {
    method,
    path,
    named: passing.named,
    headers: {
      ...toGuest(headers, passing),
      ...hostOf(headers.host),
      connection: "Upgrade",
      ...(upgrade === undefined ? {} : { upgrade }),
    },
  });
  const begin = (answer: IncomingMessage, connection: Record<string, string>): void => {
    const lines = [...fromGuest(answer.headers, passing.sameOrigin), ...Object.entries(connection)];
    const status = `HTTP/1.1 ${answer.statusCode} ${printable(answer.statusMessage ?? "")}`;
    socket.write(`${[status, ...lines.map(([name, value]) => `${name}: ${value}`)].join("\r\n")}\r\n\r\n`, "latin1");
  };
  outgoing.once("upgrade", (answer, guest, early) => {
    if (answer.statusCode !== 101) return void tunnel.destroy();
    begin(answer, { connection: "Upgrade", upgrade: answer.headers.upgrade ?? upgrade ?? "" });
    if (early.length > 0) socket.write(early);
    if (head.length > 0) guest.write(head);
    relay(socket, guest);
    relay(guest, socket);
  });
  outgoing.once("response", (answer) => {
    begin(answer, { connection: "close" });
    relay(answer, socket);
  });
  outgoing.on("error", () => socket.destroy());
  outgoing.end();
  socket.on("error", () => {});
  socket.once("close", () => tunnel.destroy());
  // Whoever has closed its side is perhaps gone altogether; a guest that goes on does not keep us for ever.
  socket.once("end", () => void setTimeout(() => socket.destroy(), HALF_CLOSED_MS).unref());
  tunnel.once("close", () => {
    if (!socket.writableEnded) socket.destroy();
    free();
  });
}
