/** What the application is made of, and what of it every group of routes gets. */
import type { Logger } from "pino";
import type { Access } from "../access/access.ts";
import type { Audit } from "../access/audit.ts";
import type { Tenants } from "../access/tenants.ts";
import type { Config } from "../config/schema.ts";
import type { Environments } from "../environments/environments.ts";
import type { ImageUsers } from "../images/care.ts";
import type { ImageLibrary } from "../images/image.ts";
import type { Limits } from "../sandboxes/limits.ts";
import type { Policies } from "../sandboxes/policies.ts";
import type { Providers } from "../sandboxes/providers.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import type { Store } from "../sandboxes/store.ts";
import type { FleetNodes } from "./fleet-nodes.ts";
import type { Metrics } from "./metrics.ts";
import type { RateLimiter } from "./rate-limit.ts";

/** Something that this host has, or lacks. */
export interface HostFinding {
  name: string;
  /** `missing`: a sandbox cannot start. `note`: it can, but something is worth knowing. */
  state: "ok" | "note" | "missing";
  detail: string;
  /** What it is needed for. */
  meaning: string;
  remedy?: string | undefined;
}

export interface ServerParts {
  sandboxes: Sandboxes;
  images: ImageLibrary;
  config: Config;
  /** What free disk is about. */
  dataDir: string;
  /** Where `PATCH /config` writes. */
  configPath: string;
  access: Access;
  audit: Audit;
  tenants: Tenants;
  environments: Environments;
  rateLimiter: RateLimiter | undefined;
  metrics: Metrics;
  log: Logger;
  version: string;
  /** Examines the host; where nobody can, it is absent. */
  doctor?: () => Promise<HostFinding[]>;
  /** The fleet that this server is in; absent: it is alone. */
  fleet?: FleetNodes | undefined;
  /** ms since 1970 */
  startedAt: number;
  /** Aborted when the server stops: ends streams that would never end by themselves. */
  stopping: AbortSignal;
}

/** Without sandboxes and images: a route has them from its call, as the caller may see them. */
export interface RouteParts extends Omit<ServerParts, "sandboxes" | "images"> {
  /** What belongs to nobody. */
  providers: Providers;
  limits: Limits;
  /** Who needs images: machines, their snapshots, and templates. */
  imageUsers: readonly ImageUsers[];
  /** Of an owner; a view's spawn asks them. */
  policies: Policies;
  /** How the database is, not what is in it. */
  store: Pick<Store, "check" | "counts" | "failure">;
}
