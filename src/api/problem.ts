/** From an error to the answer that clients know: `{code, message}`, with what else is known beside it. */
import { randomUUID } from "node:crypto";
import { HTTPException } from "hono/http-exception";
import { asStacyError, type ErrorCode, StacyError } from "../host/error.ts";

const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;

export type Status = 400 | 401 | 403 | 404 | 405 | 408 | 409 | 413 | 416 | 429 | 500 | 501 | 503 | 507;

const STATUS: Record<ErrorCode, Status> = {
  invalid: 400,
  "not-found": 404,
  conflict: 409,
  limit: 429,
  "too-large": 413,
  timeout: 408,
  cancelled: 408,
  permission: 403,
  unavailable: 503,
  "no-space": 507,
  "not-supported": 501,
  "is-directory": 400,
  "not-directory": 400,
  "not-empty": 409,
  corrupt: 500,
  "machine-exited": 503,
  disconnected: 503,
  protocol: 500,
  internal: 500,
};

const NAME: Record<Status, string> = {
  400: "BAD_REQUEST",
  401: "UNAUTHORIZED",
  403: "FORBIDDEN",
  404: "NOT_FOUND",
  405: "METHOD_NOT_ALLOWED",
  408: "TIMEOUT",
  409: "CONFLICT",
  413: "TOO_LARGE",
  416: "RANGE_NOT_SATISFIABLE",
  429: "RESOURCE_LIMIT",
  500: "INTERNAL_ERROR",
  501: "NOT_SUPPORTED",
  503: "UNAVAILABLE",
  507: "NO_SPACE",
};

export interface Problem {
  status: Status;
  body: {
    code: string;
    message: string;
    phase?: string;
    remedy?: string;
    /** Why the sandbox is gone: `ttl`, `idle`, `requested`, `crash`, ... */
    ended?: string;
    stdout?: string;
    stderr?: string;
    request_id?: string;
  };
}

export function problemOf(thrown: unknown, requestId?: string): Problem {
  const id = requestId === undefined ? {} : { request_id: requestId };
  if (thrown instanceof HTTPException) {
    const status = thrown.status in NAME ? (thrown.status as Status) : 500;
    const remedy = thrown instanceof HttpError && thrown.remedy !== undefined ? { remedy: thrown.remedy } : {};
    return { status, body: { code: NAME[status], message: thrown.message, ...remedy, ...id } };
  }
  const error = asStacyError(thrown);
  const status = STATUS[error.code];
  // What we did not foresee may say more about the host than a client should know; the log has it.
  const message =
    thrown instanceof StacyError
      ? error.message
      : error.code === "no-space"
        ? "there is no space left on a disk of the server"
        : "the server met an error; see its log";
  return {
    status,
    body: {
      code: NAME[status],
      message,
      ...(error.phase === undefined ? {} : { phase: error.phase }),
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
      ...(typeof error.data?.ended === "string" ? { ended: error.data.ended } : {}),
      ...output(error.data),
      ...id,
    },
  };
}

/** By what a request is found in the logs: the client's own word for it, where that can stand in a header. */
export function requestIdOf(given: string | undefined): string {
  return given !== undefined && REQUEST_ID.test(given) ? given : randomUUID();
}

/** Of a create: another node may have room for what this one has none for. What its owner may have at most it may have nowhere. */
export function mayFitElsewhere(thrown: unknown): boolean {
  if (!(thrown instanceof StacyError) || thrown.final || thrown.data?.reason === "max_sandboxes_per_owner")
    return false;
  return thrown.code === "limit" || thrown.code === "unavailable" || thrown.code === "no-space";
}

/** Whole seconds after which it may be otherwise, where the error knows. */
export function retryAfterOf(thrown: unknown): string | undefined {
  const ms = thrown instanceof StacyError ? thrown.data?.retryAfterMs : undefined;
  return typeof ms === "number" ? String(Math.max(1, Math.ceil(ms / 1_000))) : undefined;
}

/** What a command had put out before its time was over. */
function output(data: Record<string, unknown> | undefined): { stdout?: string; stderr?: string } {
  if (typeof data?.stdout !== "string" || typeof data.stderr !== "string") return {};
  return { stdout: data.stdout, stderr: data.stderr };
}

class HttpError extends HTTPException {
  readonly remedy: string | undefined;

  constructor(status: Status, message: string, remedy?: string) {
    super(status, { message });
    this.remedy = remedy;
  }
}

export function httpError(status: Status, message: string, remedy?: string): HTTPException {
  return new HttpError(status, message, remedy);
}
