/** What each tab of a sandbox's page is given. */
import type { Sandbox, SandboxInfo } from "../../../sdk/src/index.ts";
import type { Live } from "../core/live.ts";

export interface TabProps {
  live: Live;
  sandbox: Sandbox;
  info: SandboxInfo;
  /** What the tab begins with, from the address. */
  of?: string | undefined;
}
