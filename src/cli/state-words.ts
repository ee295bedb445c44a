import type { SandboxInfo } from "../../sdk/src/index.ts";

/**
 * Its state, and whether a use brings it back: one that was paused or suspended by hand waits for `resume`. The state of one whose
 * machine does not answer is what it was when it last did.
 */
export function stateWords({
  state,
  resumeOnUse,
  unreachable,
}: Pick<SandboxInfo, "state" | "resumeOnUse" | "unreachable">): string {
  if (unreachable !== undefined) return `unreachable, was ${state}`;
  return resumeOnUse === true ? `${state}, wakes on use` : state;
}
