/**
 * The states of a sandbox and the ways between them.
 *
 *     creating --> running <--> paused
 *        |            ^  \        |
 *        |            |   v       v
 *        |            suspended (on disk, no process)
 *        |
 *        +--> error      the machine never came up, or died; the record says why
 *     any --> expired    its time is over; it is being removed
 *     any --> destroyed  final
 */
import { StacyError } from "../host/error.ts";

export type SandboxState = "creating" | "running" | "paused" | "suspended" | "error" | "expired" | "destroyed";

const NEXT: Record<SandboxState, readonly SandboxState[]> = {
  creating: ["running", "error", "expired", "destroyed"],
  running: ["paused", "suspended", "error", "expired", "destroyed"],
  paused: ["running", "suspended", "error", "expired", "destroyed"],
  suspended: ["running", "error", "expired", "destroyed"],
  error: ["expired", "destroyed"],
  expired: ["destroyed"],
  destroyed: [],
};

export function mayBecome(from: SandboxState, to: SandboxState): boolean {
  return NEXT[from].includes(to);
}

/** @throws StacyError `conflict` that names both states; `not-found` when it is gone already */
export function assertMayBecome(id: string, from: SandboxState, to: SandboxState): void {
  if (mayBecome(from, to)) return;
  if (from === "destroyed" || from === "expired") throw new StacyError("not-found", `sandbox ${id} is gone`);
  throw new StacyError("conflict", `sandbox ${id} is ${from} and cannot become ${to}`, { remedy: REMEDIES[from] });
}

/** What to do with a sandbox in this state that is to have another one. */
const REMEDIES: Record<Exclude<SandboxState, "expired" | "destroyed">, string> = {
  creating: "wait until it runs",
  running: "pause or suspend it first",
  paused: "resume it first",
  suspended: "it stands still and takes no memory already; to have it paused instead, resume it first",
  error: "destroy it; its console is kept under /logs",
};

/** States in which a machine belongs to the sandbox, or is about to. */
export function holdsMachine(state: SandboxState): boolean {
  return state === "creating" || state === "running" || state === "paused" || state === "suspended";
}

/** States that clients still see. */
export function isVisible(state: SandboxState): boolean {
  return state !== "destroyed" && state !== "expired";
}
