/** What can go wrong, as types. Each error has the server's code, its words, and a hint where there is something to do. */

export interface ErrorDetails {
  /** HTTP status, when there was an answer. */
  status?: number | undefined;
  /** The phase of a spawn or a build in which it happened, for example `load`. */
  phase?: string | undefined;
  /** What to do about it. */
  hint?: string | undefined;
  /** Names the request in the server's log. */
  requestId?: string | undefined;
  /** Why the sandbox is gone: `ttl`, `idle`, `requested`, `crash`, `server-stop`, ... */
  ended?: string | undefined;
  /** Of a command whose time was over: what it had put out, its last 256 KiB of each. */
  output?: { stdout: string; stderr: string } | undefined;
  cause?: unknown;
}

export class StacyError extends Error {
  override readonly name: string = "StacyError";
  /** The server's code (`NOT_FOUND`, `RESOURCE_LIMIT`, ...), or one of the SDK's: `CONNECTION`, `BAD_REPLY`, `CANCELLED`. */
  readonly code: string;
  readonly status: number | undefined;
  readonly phase: string | undefined;
  readonly hint: string | undefined;
  readonly requestId: string | undefined;
  readonly ended: string | undefined;
  readonly output: { stdout: string; stderr: string } | undefined;

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.status = details.status;
    this.phase = details.phase;
    this.hint = details.hint;
    this.requestId = details.requestId;
    this.ended = details.ended;
    this.output = details.output;
  }
}

/** The sandbox, file, template, ... is not there, or not any more. */
export class NotFoundError extends StacyError {
  override readonly name = "NotFoundError";
}
/** The request is wrong; nothing was changed. */
export class InvalidError extends StacyError {
  override readonly name = "InvalidError";
}
/** The key is missing, wrong, or may not do this. */
export class AuthError extends StacyError {
  override readonly name = "AuthError";
}
/** In the wrong state for this, or there already. */
export class ConflictError extends StacyError {
  override readonly name = "ConflictError";
}
/** A quota, a rate or a size. */
export class LimitError extends StacyError {
  override readonly name = "LimitError";
}
/** The command, or the call, took longer than was allowed. */
export class TimeoutError extends StacyError {
  override readonly name = "TimeoutError";
}
/** The `AbortSignal` was aborted. */
export class CancelledError extends StacyError {
  override readonly name = "CancelledError";
}
/** No answer: nobody listens, the name is unknown, the connection broke. */
export class ConnectionError extends StacyError {
  override readonly name = "ConnectionError";
}
/** The answer is not what the interface says: another version, or not a StacyVM at all. */
export class ReplyError extends StacyError {
  override readonly name = "ReplyError";
}
/** With `check: true`: the command ended with another exit code than 0. */
export class ExecError extends StacyError {
  override readonly name = "ExecError";
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;

  constructor(command: string, result: { exitCode: number; stdout: string; stderr: string }) {
    const last = result.stderr.trimEnd().split("\n").at(-1) ?? "";
    super("EXEC_FAILED", `\`${command}\` ended with exit code ${result.exitCode}${last === "" ? "" : `: ${last}`}`);
    this.exitCode = result.exitCode;
    this.stdout = result.stdout;
    this.stderr = result.stderr;
  }
}

const BY_STATUS: Record<number, new (code: string, message: string, details: ErrorDetails) => StacyError> = {
  400: InvalidError,
  401: AuthError,
  403: AuthError,
  404: NotFoundError,
  408: TimeoutError,
  409: ConflictError,
  413: LimitError,
  416: InvalidError,
  429: LimitError,
  507: LimitError,
};

/** Where the server says nothing of what to do: it was sent no key. */
export const KEY_HINT = "set the key: `apiKey`, or STACYVM_API_KEY";

/** The error that an answer with this status means. `body` is what the server wrote: `{code, message, phase?, remedy?}`. */
export function errorOf(status: number, body: unknown, requestId?: string): StacyError {
  const problem = (typeof body === "object" && body !== null ? body : {}) as Record<string, unknown>;
  const text = (name: string): string | undefined => {
    const value = problem[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const Kind = BY_STATUS[status] ?? StacyError;
  return new Kind(
    text("code") ?? `HTTP_${status}`,
    text("message") ?? text("error") ?? `the server answered ${status}`,
    {
      status,
      phase: text("phase"),
      hint: text("remedy") ?? (status === 401 ? KEY_HINT : undefined),
      requestId: text("request_id") ?? requestId,
      ended: text("ended"),
      output:
        typeof problem.stdout === "string" && typeof problem.stderr === "string"
          ? { stdout: problem.stdout, stderr: problem.stderr }
          : undefined,
    },
  );
}

/** The HTTP status that belongs to a code in a frame or a line. */
export function statusOf(code: string): number {
  const known: Record<string, number> = {
    BAD_REQUEST: 400,
    FORBIDDEN: 403,
    NOT_FOUND: 404,
    TIMEOUT: 408,
    CONFLICT: 409,
    TOO_LARGE: 413,
    RESOURCE_LIMIT: 429,
    UNAVAILABLE: 503,
    NO_SPACE: 507,
  };
  return known[code] ?? 500;
}
