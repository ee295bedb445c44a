/** How the end of a VMM's process is told: by its report, in one form, whichever of its sockets broke first. */
import { StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { ExitReport } from "./vmm.ts";

/** A process's sockets hang up a moment before its exit is known; on a busy host that moment is longer. */
const REPORT_WAIT_MS = 1_000;

/** @param words what the VMM or the guest said last, or "" */
export function exitError(vmm: string, report: ExitReport, doing: string, words: string): StacyError {
  const how = report.signal ?? (report.exitCode === undefined ? "" : `exit code ${report.exitCode}`);
  return new StacyError(
    "machine-exited",
    `${vmm} ended while ${doing}${how === "" ? "" : ` (${how})`}${words === "" ? "" : `: ${words}`}`,
    { data: { report } },
  );
}

/** Why a socket of the VMM hung up: its end, or `otherwise` where none is reported in time. Never rejects. */
export function hangUpError(ended: Promise<StacyError>, otherwise: StacyError): Promise<StacyError> {
  return withTimeLimit(ended, REPORT_WAIT_MS, () => otherwise).catch(() => otherwise);
}

/** The report of the end that the error tells of. */
export function exitReport(error: unknown): ExitReport | undefined {
  return error instanceof StacyError ? (error.data?.report as ExitReport | undefined) : undefined;
}

const FROM_OUTSIDE = new Set<NodeJS.Signals | undefined>(["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"]);

/** The VMM was ended by somebody else, such as the kernel when memory is short: no fault of what it ran. */
export function endedFromOutside(error: unknown): boolean {
  return FROM_OUTSIDE.has(exitReport(error)?.signal);
}
