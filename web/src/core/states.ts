/** What may be done with a sandbox in each state; the server refuses the rest, so it is not offered. */
import type { SandboxInfo } from "../../../sdk/src/index.ts";

type State = SandboxInfo["state"];

export const VERBS = ["pause", "suspend", "resume", "fork", "checkpoint", "extend", "remove"] as const;
export type Verb = (typeof VERBS)[number];

const ALLOWED: Record<State, readonly Verb[]> = {
  creating: ["remove"],
  running: ["pause", "suspend", "fork", "checkpoint", "extend", "remove"],
  paused: ["suspend", "resume", "checkpoint", "extend", "remove"],
  suspended: ["resume", "extend", "remove"],
  error: ["extend", "remove"],
  expired: [],
  destroyed: [],
};

export function allows({ state, unreachable }: SandboxInfo, verb: Verb): boolean {
  // Its machine does not answer: only its end and its time are the server's own to decide.
  if (unreachable !== undefined && verb !== "remove" && verb !== "extend") return false;
  return ALLOWED[state].includes(verb);
}

/** What people call it: its name where it has one, else its id. */
export function nameOf(info: SandboxInfo): string {
  return info.name ?? info.id;
}
