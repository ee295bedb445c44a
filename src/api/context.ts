/** What every group of routes gets. */
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import type { ImageLibrary } from "../images/image.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import type { Authenticator } from "./auth.ts";
import type { Metrics } from "./metrics.ts";
import type { RateLimiter } from "./rate-limit.ts";

export interface ServerParts {
  sandboxes: Sandboxes;
  images: ImageLibrary;
  config: Config;
  /** What free disk is about. */
  dataDir: string;
  /** Where `PATCH /config` writes. */
  configPath: string;
  auth: Authenticator;
  rateLimiter: RateLimiter | undefined;
  metrics: Metrics;
  log: Logger;
  version: string;
  /** ms since 1970 */
  startedAt: number;
  /** Aborted when the server stops: ends streams that would never end by themselves. */
  stopping: AbortSignal;
}
