import type { SandboxInfo } from "../../sdk/src/index.ts";

/** Its state, and whether a use brings it back: one that was paused or suspended by hand waits for `resume`. */
export function stateWords({ state, resumeOnUse }: Pick<SandboxInfo, "state" | "resumeOnUse">): string {
  return resumeOnUse === true ? `${state}, wakes on use` : state;
}
