/**
 * Failures that say only that the host was short of something at the moment: descriptors, memory, processes, disk. They are no answer to what was
 * asked, and must not be kept as one.
 */
import { errno } from "./error.ts";

const SHORT = new Set(["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EAGAIN", "ENOSPC", "EDQUOT", "EIO"]);

/** Also when it is the cause of what was thrown. */
export function isShortage(thrown: unknown): boolean {
  return causes(thrown).some((error) => SHORT.has(errno(error) ?? "") || errno(error) === "no-space");
}

/** Of a program (`runTool`): it was ended by its time limit, or by a host that had no memory, and did not answer. */
export function wasEnded(thrown: unknown): boolean {
  return causes(thrown).some((error) => ["SIGTERM", "SIGKILL"].includes((error as { signal?: string }).signal ?? ""));
}

function causes(thrown: unknown): Error[] {
  return thrown instanceof Error ? [thrown, ...causes(thrown.cause)] : [];
}

/** What the failure of a question means, unless it was a shortage. @throws what it was given then */
export function unlessShort<T>(value: T): (error: unknown) => T {
  return (error) => {
    if (isShortage(error)) throw error;
    return value;
  };
}
