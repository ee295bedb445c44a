/**
 * The one error type. Every failure that a caller can meet carries what kind it is (`code`), in which phase it happened,
 * why (`cause`, the VMM's or the kernel's own words) and, where there is one, what to do about it (`remedy`).
 */
export type ErrorCode =
  | "invalid" // the request is wrong; nothing was changed
  | "not-found"
  | "conflict" // exists already, or is in the wrong state for this
  | "limit" // a quota or a queue is full: it may work later, unless the error is `final`
  | "too-large" // this request will never fit
  | "timeout"
  | "cancelled"
  | "permission"
  | "unavailable" // the host lacks something, or is not ready
  | "no-space"
  | "not-supported"
  | "is-directory"
  | "not-directory"
  | "not-empty"
  | "corrupt" // a checksum or a format does not hold
  | "machine-exited" // the VMM or the guest ended
  | "disconnected" // the agent's channel broke
  | "protocol" // the peer sent what the format does not allow
  | "internal";

export interface ErrorDetail {
  /** The named phase of a spawn or of a build in which it happened, for example `load`. */
  phase?: string;
  cause?: unknown;
  /** One imperative sentence for the user, for example "run `stacyvm setup`". */
  remedy?: string;
  /** Of a `limit`: more was asked for than is ever given, and asking again does not help. */
  final?: true;
  /** Further facts for programs; must be JSON-serialisable and free of secrets. */
  data?: Record<string, unknown>;
}

export class StacyError extends Error {
  override readonly name = "StacyError";
  readonly code: ErrorCode;
  readonly phase: string | undefined;
  readonly remedy: string | undefined;
  readonly final: boolean;
  readonly data: Record<string, unknown> | undefined;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.phase = detail.phase;
    this.remedy = detail.remedy;
    this.final = detail.final === true;
    this.data = detail.data;
  }

  /** The same error with the phase filled in, if it has none yet: the innermost phase wins. */
  inPhase(phase: string): StacyError {
    if (this.phase !== undefined) return this;
    const error = new StacyError(this.code, this.message, {
      phase,
      cause: this.cause,
      ...(this.remedy === undefined ? {} : { remedy: this.remedy }),
      ...(this.final ? { final: true } : {}),
      ...(this.data === undefined ? {} : { data: this.data }),
    });
    if (this.stack !== undefined) error.stack = this.stack;
    return error;
  }
}

/** Gives anything thrown the shape of a `StacyError`; one that is one already passes unchanged. */
export function asStacyError(thrown: unknown, code: ErrorCode = "internal", detail: ErrorDetail = {}): StacyError {
  if (thrown instanceof StacyError) return thrown;
  const errno = (thrown as NodeJS.ErrnoException | undefined)?.code;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return new StacyError("no-space", message, {
      cause: thrown,
      remedy: "free disk space, or run `stacyvm snapshot gc` and `stacyvm image gc`",
      ...detail,
    });
  }
  if (errno === "EACCES" || errno === "EPERM")
    return new StacyError("permission", message, { cause: thrown, ...detail });
  return new StacyError(code, message, { cause: thrown, ...detail });
}

/** `error.code` of Node's system errors, or `undefined`. */
export function errno(thrown: unknown): string | undefined {
  return (thrown as NodeJS.ErrnoException | undefined)?.code;
}
