/** What a request to the control plane comes with. */
import type { Context } from "hono";
import type { Credential, Scope } from "../../access/identity.ts";
import type { RouteAccess } from "../../api/endpoint.ts";
import type { View } from "../../sandboxes/view.ts";

/** Keys have scopes; what is a sandbox's own is not in the control plane. */
export interface ControlRoute extends RouteAccess {
  access: Scope;
}

export interface ControlEnv {
  Bindings: {
    /** Work for a caller that may call the route. @param credential of one that may use what it sees, too */
    admit(
      route: ControlRoute,
      work: (sandboxes: View, credential: Credential | undefined) => Promise<Response>,
    ): Promise<Response>;
  };
  /** Of an admitted caller. */
  Variables: { sandboxes: View; credential: Credential | undefined };
}
export type ControlContext = Context<ControlEnv>;
