/**
 * E2B's agent of a sandbox, answered here through our own: nothing of it is installed in any image. Files over HTTP, processes
 * and the file system over Connect (JSON and protobuf).
 */
import type { Socket } from "node:net";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import {
  type UniversalHandler,
  universalServerRequestFromFetch,
  universalServerResponseToFetch,
} from "@connectrpc/connect/protocol";
import type { RouteAccess } from "../../api/endpoint.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { connectError, notThere } from "../error.ts";
import { type E2bParts, ENVD_PORT } from "../parts.ts";
import { composeFiles } from "./compose.ts";
import { sampleEnvd } from "./envd-metrics.ts";
import { readFile, writeFiles } from "./files.ts";
import { filesystemService } from "./filesystem.ts";
import { Filesystem } from "./gen/filesystem/filesystem_pb.ts";
import { Process } from "./gen/process/process_pb.ts";
import { type Guest, openGuest, type Target, userOf } from "./guest.ts";
import { breakable, LOST } from "./lost.ts";
import { wholeMessages } from "./messages.ts";
import { processService } from "./process.ts";
import { RunningProcesses } from "./running.ts";

const SANDBOX = createContextKey<Target | undefined>(undefined);

const HEALTH = "/health";
const FILES = "/files";

/** @param owner whose sandbox it is */
type Plain = (guest: Guest, request: Request, query: URLSearchParams, owner: string) => Promise<Response>;

interface Call {
  handler: UniversalHandler;
  /** Of one message. */
  maxBytes: number;
}

/** What programs are written, whose messages may be long; of the others none is. */
const CARRIES_INPUT: ReadonlySet<unknown> = new Set([Process.method.sendInput, Process.method.streamInput]);

/** Fields that nobody knows are skipped: each would be kept as an object. */
function createRouter(readMaxBytes: number): ConnectRouter {
  return createConnectRouter({
    ...{ connect: true, grpc: false, grpcWeb: false },
    interceptors: [withCodes],
    ...{ readMaxBytes, binaryOptions: { readUnknownFields: false } },
  });
}

/** Whatever a call meets has a code: what has none would be told as `internal`, without a word. */
const withCodes: Interceptor = (next) => async (request) => {
  const told = (error: unknown): ConnectError => {
    const { reason } = request.signal;
    // The time that the client has set is over: what that breaks is no error of its own.
    const late = reason instanceof ConnectError && reason.code === Code.DeadlineExceeded;
    return late ? reason : connectError(error);
  };
  async function* each<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (error) {
      throw told(error);
    }
  }
  try {
    const answer = await next(request);
    return answer.stream ? { ...answer, message: each(answer.message) } : answer;
  } catch (error) {
    throw told(error);
  }
};

export class Envd {
  readonly #parts: E2bParts;
  /** By path. */
  readonly #calls: ReadonlyMap<string, Call>;
  /** What is no such call, by method and path. */
  readonly #plain: Readonly<Record<string, Plain>>;

  constructor(parts: E2bParts) {
    this.#parts = parts;
    const guestOf = async ({ values, requestHeader, signal }: HandlerContext): Promise<Guest> => {
      const target = values.get(SANDBOX);
      if (target === undefined) throw new StacyError("internal", "a call without its sandbox");
      return await openGuest(parts, target, signal, userOf(requestHeader)).catch((error) => {
        // It has ended since the call was let in: clients look whether it is there, and do not take a file for missing.
        const over = isGone(error) || (error instanceof StacyError && error.code === "not-found");
        throw over ? new ConnectError(error.message, Code.Unavailable) : error;
      });
    };
    const ownerOf = ({ values }: HandlerContext): string => values.get(SANDBOX)?.sandboxes.owner ?? "";
    const processes = processService(guestOf, new RunningProcesses(), ownerOf);
    const files = filesystemService(guestOf, parts.stopping);
    const { callBytes, inputBytes } = E2B_BOUNDS;
    const mostBytes = parts.config.server.max_file_json_bytes;
    const callsOf = (maxBytes: number): Call[] =>
      createRouter(maxBytes)
        .service(Process, processes)
        .service(Filesystem, files)
        .handlers.map((handler) => ({ handler, maxBytes }));
    const calls = [
      ...callsOf(Math.min(callBytes, mostBytes)).filter(({ handler }) => !CARRIES_INPUT.has(handler.method)),
      ...callsOf(Math.min(inputBytes, mostBytes)).filter(({ handler }) => CARRIES_INPUT.has(handler.method)),
    ];
    this.#calls = new Map(calls.map((call) => [call.handler.requestPath, call]));
    this.#plain = {
      [`GET ${FILES}`]: readFile,
      [`POST ${FILES}`]: (guest, request, query) => writeFiles(parts, guest, request, query),
      [`POST ${FILES}/compose`]: (guest, request, _query, owner) => composeFiles(parts, guest, request, owner),
      "GET /metrics": async ({ agent }) => Response.json(await sampleEnvd(agent)),
      "POST /init": async () => new Response(null, { status: 204 }),
    };
  }

  /** With each call, whoever may use the sandbox may do what it says there. */
  get routes(): RouteAccess[] {
    const plain = Object.keys(this.#plain).map((each) => each.split(" ") as [string, string]);
    const calls = [...this.#calls.keys()].map((path) => ["POST", path] as const);
    return [["ALL", HEALTH] as const, ...plain, ...calls].map(([method, path]) => ({
      ...{ method, path, access: "sandbox", protocol: "E2B", port: ENVD_PORT },
      ...(path === FILES ? { link: true } : {}),
    }));
  }

  /**
   * @param target a sandbox that runs, for whoever may use it
   * @param socket that the request has come by
   * @throws StacyError, E2bError
   */
  async handle(target: Target, request: Request, socket?: Socket): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === HEALTH) return new Response(null, { status: 204 });
    const call = this.#calls.get(pathname);
    if (call !== undefined) {
      const lost = new AbortController();
      const contextValues = createContextValues().set(SANDBOX, target).set(LOST, lost);
      const asked = universalServerRequestFromFetch(request, { httpVersion: "1.1" });
      const { handler, maxBytes } = call;
      const body = wholeMessages(asked.body as AsyncIterable<Uint8Array>, request.headers.get("content-type"), {
        message: handler.method.input,
        maxBytes,
        memory: new HeldInput(target.sandboxes.owner),
      });
      const answer = await handler({ ...asked, body, header: boundTimers(asked.header), contextValues });
      return breakable(universalServerResponseToFetch(answer), lost.signal, socket);
    }
    const guest = await openGuest(this.#parts, target, request.signal);
    try {
      const route = `${request.method} ${pathname}`;
      const plain = Object.hasOwn(this.#plain, route) ? this.#plain[route] : undefined;
      if (plain === undefined) throw notThere(`${route} of a sandbox's agent`);
      return await plain(guest, request, searchParams, target.sandboxes.owner);
    } finally {
      guest.free();
    }
  }
}

const LIMIT = "connect-timeout-ms";
/** What a timer takes; above it it would go off at once. */
const MOST_MS = 2 ** 31 - 1;

/** A limit of weeks is one of 24 days. */
export function boundTimers(headers: Headers): Headers {
  if (!(Number(headers.get(LIMIT)) > MOST_MS)) return headers;
  const bounded = new Headers(headers);
  bounded.set(LIMIT, String(MOST_MS));
  return bounded;
}

/** What clients take for the end of a sandbox, rather than for a mistake of theirs. */
export function gone(id: string, message = "The sandbox was not found"): Response {
  const body = { sandboxId: id, message, code: 502 };
  return new Response(JSON.stringify(body), { status: 502, headers: { "content-type": "application/json" } });
}

export function isGone(error: unknown): boolean {
  return (
    error instanceof StacyError && ["machine-exited", "disconnected", "conflict", "cancelled"].includes(error.code)
  );
}
