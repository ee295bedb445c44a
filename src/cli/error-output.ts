/** The one way out for errors: what failed, in which phase, why, and what to do next. stdout stays untouched. */
import { StacyError as ClientError, KEY_HINT as SDK_KEY_HINT } from "../../sdk/src/errors.ts";
import { StacyError } from "../host/error.ts";
import { printableJson, printableLines } from "../host/printable.ts";
import { OutputClosed } from "./interrupt.ts";

/** Exit codes besides a command's own: documented in `stacyvm --help`. */
export const EXIT = {
  failed: 1,
  usage: 2,
  unavailable: 69,
  timeout: 124,
  /** `run` and `exec`: the command has not run, for StacyVM's own reasons. */
  own: 125,
  notExecutable: 126,
  notFound: 127,
  interrupted: 130,
} as const;

interface Report {
  code: string;
  message: string;
  phase?: string;
  hint?: string;
  causes: string[];
}

/** @param json one line of JSON on stderr instead of words */
export function printError(error: unknown, options: { verbose: boolean; json: boolean }): void {
  if (error instanceof OutputClosed) return;
  const report = reportOf(error);
  if (options.json) {
    const { causes, ...rest } = report;
    process.stderr.write(`${printableJson(JSON.stringify({ error: options.verbose ? report : rest }))}\n`);
    return;
  }
  const phase = report.phase === undefined ? "" : ` (phase: ${report.phase})`;
  process.stderr.write(`${errorLabel()} ${indented(`${report.message}${phase}`)}\n`);
  if (options.verbose) for (const cause of report.causes) process.stderr.write(`  caused by: ${indented(cause)}\n`);
  if (report.hint !== undefined) process.stderr.write(`hint: ${indented(report.hint)}\n`);
}

/** Words may be a guest's: their further lines must not look like ours. */
function indented(text: string): string {
  return printableLines(text).replaceAll("\n", "\n  ");
}

/** Of a file of this host, as other programs say it: `ENOENT: no such file or directory, stat '/x'` is Node's. */
function fileWords({ message, path }: NodeJS.ErrnoException): string | undefined {
  const words = /^E[A-Z0-9]+: (.+), [a-z]+ '/s.exec(message)?.[1];
  return words === undefined || path === undefined ? undefined : `${path}: ${words} on this host`;
}

/** Red where somebody sees it. */
export function errorLabel(): string {
  return process.stderr.isTTY && !process.env.NO_COLOR ? "\x1b[31merror:\x1b[0m" : "error:";
}

/** The SDK's own hint speaks of its options. */
const KEY_HINT = "set STACYVM_API_KEY, or name the key's file with --api-key-file";

function reportOf(error: unknown): Report {
  const causes: string[] = [];
  for (let cause = (error as Error | undefined)?.cause; cause !== undefined && causes.length < 10; ) {
    causes.push(cause instanceof Error ? cause.message : String(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  if (error instanceof StacyError || error instanceof ClientError) {
    const hint = error instanceof StacyError ? error.remedy : error.hint === SDK_KEY_HINT ? KEY_HINT : error.hint;
    return {
      code: error.code,
      message: error.message,
      ...(error.phase === undefined ? {} : { phase: error.phase }),
      ...(hint === undefined ? {} : { hint }),
      causes,
    };
  }
  // Not one of ours: whoever reports it needs the place.
  const place = error instanceof Error ? (error.stack ?? "").split("\n").slice(1, 6).join("\n") : "";
  return {
    code: "internal",
    message: error instanceof Error ? (fileWords(error) ?? error.message) : String(error),
    causes: [...causes, ...(place === "" ? [] : [`\n${place}`])],
  };
}

const chosen = new WeakMap<object, number>();

/** The same error, for which the program ends with this code. */
export function withExitCode<T>(error: T, code: number): T {
  if (typeof error === "object" && error !== null && !(error instanceof OutputClosed)) chosen.set(error, code);
  return error;
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof OutputClosed) return 0;
  const code = typeof error === "object" && error !== null ? chosen.get(error) : undefined;
  if (code !== undefined) return code;
  if (error instanceof StacyError) return BY_CODE[error.code] ?? EXIT.failed;
  if (error instanceof ClientError) return BY_CODE[error.code] ?? EXIT.failed;
  return EXIT.failed;
}

/** Of this process's own errors, and of the server's. */
const BY_CODE: Record<string, number> = {
  invalid: EXIT.usage,
  unavailable: EXIT.unavailable,
  timeout: EXIT.timeout,
  cancelled: EXIT.interrupted,
  BAD_REQUEST: EXIT.usage,
  UNAVAILABLE: EXIT.unavailable,
  CONNECTION: EXIT.unavailable,
  TIMEOUT: EXIT.timeout,
  CANCELLED: EXIT.interrupted,
};

/** For `run`, `exec` and `shell`, whose other codes are the command's: StacyVM's own failures get one that says so. */
export function asOwnFailure<T>(error: T): T {
  const code = exitCodeOf(error);
  return code === EXIT.failed || code === EXIT.unavailable ? withExitCode(error, EXIT.own) : error;
}

/** The same for the start of a command in a sandbox that is there: the shells' codes for what cannot be found or executed. */
export function asStartFailure<T>(error: T): T {
  const code = (error as { code?: string } | undefined)?.code;
  const phase = (error as { phase?: string } | undefined)?.phase;
  if (code === "not-found" || (code === "BAD_REQUEST" && phase === "start")) return withExitCode(error, EXIT.notFound);
  if (code === "FORBIDDEN" || code === "permission") return withExitCode(error, EXIT.notExecutable);
  return asOwnFailure(error);
}
