/** What routes know of the fleet that this server is in: the layer above gives it. */

export interface FleetNodeView {
  id: string;
  name: string;
  url: string;
  role: string;
  state: "up" | "silent" | "lost";
  draining: boolean;
  version: string;
  labels: Readonly<Record<string, string>>;
  architecture: string;
  providers: readonly string[];
  /** ms since 1970 */
  seenAt: number;
  load: {
    sandboxes: number;
    maxSandboxes: number;
    queued: number;
    vcpus: number;
    memoryMiB: number;
    freeMemoryMiB: number;
    loadAverage: number;
  };
}

export interface FleetNodes {
  /** Id of this server. */
  readonly self: string;
  /** By name; as they were last seen while the database is away. */
  list(): Promise<readonly FleetNodeView[]>;
  /** @throws StacyError `not-found`, `unavailable` */
  drain(id: string, draining: boolean): Promise<void>;
  /** @returns ids of the sandboxes that the fleet has forgotten. @throws StacyError `not-found`, `conflict`, `unavailable` */
  remove(id: string, force: boolean): Promise<string[]>;
}
