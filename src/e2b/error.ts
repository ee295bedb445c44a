/** Errors as E2B's clients read them: `{code, message}`, where the code is the HTTP status. */
import { Code, ConnectError } from "@connectrpc/connect";
import { mayFitElsewhere, problemOf } from "../api/problem.ts";
import { asStacyError, type ErrorCode, StacyError } from "../host/error.ts";

/** An answer with a status that no error of ours has. */
export class E2bError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** What is not there, by name: clients show it, and nobody searches for it. */
export function notThere(what: string): E2bError {
  return new E2bError(501, `${what}: this server does not have it (docs/e2b.md)`);
}

export function errorResponse(thrown: unknown): Response {
  const { status, message } =
    thrown instanceof E2bError ? thrown : { status: statusOf(thrown), message: messageOf(thrown) };
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (status === 429 || status === 503) headers["retry-after"] = "1";
  const response = new Response(JSON.stringify({ code: status, message }), { status, headers });
  if (mayFitElsewhere(thrown)) refusals.add(response);
  return response;
}

/** Answers to what another node of the fleet may still do. */
const refusals = new WeakSet<Response>();

export function isRefusal(response: Response): boolean {
  return refusals.has(response);
}

/** Clients ask again after a 429, and tell their users of a rate. */
function statusOf(thrown: unknown): number {
  if (thrown instanceof ConnectError && thrown.code === Code.Unauthenticated) return 401;
  return thrown instanceof StacyError && thrown.final ? 400 : problemOf(thrown).status;
}

/** With the remedy, for which E2B's shape has no place. */
function messageOf(thrown: unknown): string {
  if (thrown instanceof ConnectError && thrown.code === Code.Unauthenticated) return thrown.rawMessage;
  const { message, remedy } = problemOf(thrown).body;
  return remedy === undefined ? message : `${message} (${remedy})`;
}

const CODES: Record<ErrorCode, Code> = {
  invalid: Code.InvalidArgument,
  "not-found": Code.NotFound,
  conflict: Code.FailedPrecondition,
  limit: Code.ResourceExhausted,
  "too-large": Code.InvalidArgument,
  timeout: Code.DeadlineExceeded,
  cancelled: Code.Canceled,
  permission: Code.PermissionDenied,
  unavailable: Code.Unavailable,
  "no-space": Code.ResourceExhausted,
  "not-supported": Code.Unimplemented,
  "is-directory": Code.InvalidArgument,
  "not-directory": Code.InvalidArgument,
  "not-empty": Code.FailedPrecondition,
  corrupt: Code.Internal,
  "machine-exited": Code.Unavailable,
  disconnected: Code.Unavailable,
  protocol: Code.Internal,
  internal: Code.Internal,
};

export function connectError(thrown: unknown): ConnectError {
  if (thrown instanceof ConnectError) return thrown;
  const error = asStacyError(thrown);
  const code = error.final ? Code.InvalidArgument : CODES[error.code];
  return new ConnectError(thrown instanceof StacyError ? messageOf(thrown) : "internal error", code);
}
