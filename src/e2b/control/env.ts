/** What a request to the control plane comes with. */
import type { Context } from "hono";
import type { View } from "../../sandboxes/view.ts";

/** What of the sandboxes the caller of a request may see, and whether it may use them, comes with the request. */
export interface ControlEnv {
  Bindings: { sandboxes: View; mayUse: boolean };
}
export type ControlContext = Context<ControlEnv>;
