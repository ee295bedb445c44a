/** What routes know of the fleet that this server is in: the layer above gives it. */

/** 0 in a limit: none. */
export interface FleetLoadView {
  /** Sandboxes that hold or are getting a machine, and how many there may be. */
  sandboxes: number;
  maxSandboxes: number;
  /** Waiting for a place. */
  queued: number;
  vcpus: number;
  memoryMiB: number;
  freeMemoryMiB: number;
  /** Of the last minute, as the host's kernel says. */
  loadAverage: number;
  /** Its clock is so much ahead of the fleet's database's, ms, to a tenth of a second; absent: it has not been compared yet. */
  clockOffsetMs?: number;
}

export interface FleetNodeView {
  /** A uuid, kept in its data directory. */
  id: string;
  name: string;
  /** How others reach it: `https://...` or `http://...`, without a path. */
  url: string;
  role: string;
  /** `up`: its heartbeat is fresh. `silent`: it is not; its sandboxes are unreachable. `lost`: nor was it for `fleet.lost_after`. */
  state: "up" | "silent" | "lost";
  /** It takes no new sandboxes; those that it has go on. */
  draining: boolean;
  version: string;
  labels: Readonly<Record<string, string>>;
  /** As `process.arch`. */
  architecture: string;
  /** That work there; the first is the default. */
  providers: readonly string[];
  /** Saved machines wake where this is the same. */
  hostIdentity: string;
  /** Its last heartbeat, ms since 1970. */
  seenAt: number;
  load: FleetLoadView;
}

/** A sandbox that has moved. */
export interface MovedView {
  id: string;
  /** Names of nodes. */
  node: string;
  formerNode: string;
  state: string;
  /** ms that its programs stood still; 0: it was there already. */
  stoppedMs: number;
  totalMs: number;
  /** That went over the network, and that the other node had already. */
  bytes: number;
  known: number;
}

/** How far a node is that gives away what it has. */
export interface DrainView {
  /** It is at it. */
  moving: boolean;
  /** Since it began. */
  moved: number;
  /** What it still has, with why. */
  left: { id: string; reason: string }[];
}

export interface FleetNodes {
  /** Id of this server. */
  readonly self: string;
  /** By name; as they were last seen while the database is away. */
  list(): Promise<readonly FleetNodeView[]>;
  /**
   * @param move it gives away what it has, beside this
   * @throws StacyError `not-found`, `unavailable`
   */
  drain(id: string, draining: boolean, move?: boolean): Promise<void>;
  /** @throws StacyError `not-found`, `unavailable` while that node does not answer */
  drained(id: string): Promise<DrainView>;
  /** @returns ids of the sandboxes that the fleet has forgotten. @throws StacyError `not-found`, `conflict`, `unavailable` */
  remove(id: string, force: boolean): Promise<string[]>;
  /**
   * A sandbox of this node goes on at another one.
   * @param to name or id of that; absent: wherever it fits
   * @throws StacyError `conflict` saying what differs there, `not-found`, `unavailable`
   */
  move(id: string, to: string | undefined): Promise<MovedView>;
}
