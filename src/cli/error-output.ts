/** The one way out for errors: what failed, in which phase, why, and what to do next. stdout stays untouched. */
import { StacyError } from "../host/error.ts";

/** Exit codes besides a command's own: documented in `stacyvm --help`. */
export const EXIT = { failed: 1, usage: 2, unavailable: 69, interrupted: 130 } as const;

export function printError(error: unknown, verbose: boolean): void {
  const out = process.stderr;
  const red =
    out.isTTY && !process.env.NO_COLOR
      ? (text: string): string => `\x1b[31m${text}\x1b[0m`
      : (text: string): string => text;
  if (!(error instanceof StacyError)) {
    out.write(`${red("error:")} ${error instanceof Error ? (verbose ? error.stack : error.message) : String(error)}\n`);
    return;
  }
  out.write(`${red("error:")} ${error.message}${error.phase === undefined ? "" : ` (phase: ${error.phase})`}\n`);
  if (verbose) {
    for (let cause = error.cause; cause !== undefined; cause = cause instanceof Error ? cause.cause : undefined) {
      out.write(`  caused by: ${cause instanceof Error ? cause.message : String(cause)}\n`);
    }
  }
  if (error.remedy !== undefined) out.write(`hint: ${error.remedy}\n`);
}

export function exitCodeOf(error: unknown): number {
  if (!(error instanceof StacyError)) return EXIT.failed;
  if (error.code === "invalid") return EXIT.usage;
  if (error.code === "unavailable") return EXIT.unavailable;
  if (error.code === "cancelled") return EXIT.interrupted;
  return EXIT.failed;
}
