/** What every part of the façade gets. */
import type { RouteParts } from "../api/context.ts";
import type { ImageLibrary } from "../images/image.ts";
import type { SandboxTokens } from "./sandbox-tokens.ts";

/** Without the sandboxes: a call has them from its caller, as that one may see them. */
export interface E2bParts extends RouteParts {
  tokens: SandboxTokens;
  /** Not as any owner sees them yet. */
  images: ImageLibrary;
}

/** The version of E2B's agent in the sandbox whose calls are answered here: clients choose by it what they ask for. */
export const ENVD_VERSION = "0.6.4";
export const ENVD_PORT = 49983;
export const INTERPRETER_PORT = 49999;
