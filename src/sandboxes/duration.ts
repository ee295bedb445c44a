/**
 * Go's durations, the form in which every client of StacyVM writes and reads times: `300ms`, `1.5h`, `2h45m`, `-1s`, `0`.
 * Grammar and output form are those of Go's package `time` (ParseDuration, Duration.String).
 */
import { StacyError } from "../host/error.ts";

const UNIT_NS: Record<string, bigint> = {
  ns: 1n,
  us: 1_000n,
  "\u00b5s": 1_000n, // micro sign
  "\u03bcs": 1_000n, // Greek mu
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
};
const MAX_NS = 2n ** 63n - 1n;
const PART = /(\d*)(?:\.(\d*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/y;

/** @returns nanoseconds. @throws StacyError `invalid`: a bare number other than 0, an unknown unit, or more than 292 years */
export function parseDurationNs(text: string): bigint {
  const wrong = (): StacyError =>
    new StacyError("invalid", `${JSON.stringify(text.slice(0, 64))} is not a duration`, {
      remedy: 'write it as Go does, for example "90s", "30m" or "1h30m"',
    });
  const negative = text.startsWith("-");
  const body = text.replace(/^[+-]/, "");
  if (body === "0") return 0n;
  if (body === "" || body.length > 128) throw wrong();
  let total = 0n;
  PART.lastIndex = 0;
  while (PART.lastIndex < body.length) {
    const match = PART.exec(body);
    const unit = match === null ? undefined : UNIT_NS[match[3] ?? ""];
    if (match === null || unit === undefined) throw wrong();
    const whole = match[1] ?? "";
    const fraction = match[2] ?? "";
    if (whole === "" && fraction === "") throw wrong();
    total += BigInt(whole || "0") * unit;
    if (fraction !== "") total += (BigInt(fraction) * unit) / 10n ** BigInt(fraction.length);
    if (total > MAX_NS) throw wrong();
  }
  return negative ? -total : total;
}

/** @returns ms, with fractions. @throws StacyError `invalid` */
export function parseDuration(text: string): number {
  return Number(parseDurationNs(text)) / 1e6;
}

/** Go's output form: `24h0m0s`, `1m30s`, `1.234567ms`, `0s`. @param ms may have fractions, kept down to 1 ns */
export function formatDuration(ms: number): string {
  let ns = BigInt(Math.round(ms * 1e6));
  if (ns === 0n) return "0s";
  const sign = ns < 0n ? "-" : "";
  if (ns < 0n) ns = -ns;
  if (ns < 1_000n) return `${sign}${ns}ns`;
  if (ns < 1_000_000n) return `${sign}${decimal(ns, 1_000n)}\u00b5s`;
  if (ns < 1_000_000_000n) return `${sign}${decimal(ns, 1_000_000n)}ms`;
  const hours = ns / 3_600_000_000_000n;
  const minutes = (ns / 60_000_000_000n) % 60n;
  const seconds = decimal(ns % 60_000_000_000n, 1_000_000_000n);
  if (hours > 0n) return `${sign}${hours}h${minutes}m${seconds}s`;
  if (minutes > 0n) return `${sign}${minutes}m${seconds}s`;
  return `${sign}${seconds}s`;
}

function decimal(ns: bigint, unit: bigint): string {
  const rest = (ns % unit)
    .toString()
    .padStart(unit.toString().length - 1, "0")
    .replace(/0+$/, "");
  return rest === "" ? `${ns / unit}` : `${ns / unit}.${rest}`;
}
