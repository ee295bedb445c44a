/**
 * What the parts of the fleet know of one another: nodes, who owns a sandbox, and where a new one goes. Times are ms since 1970 as the
 * database's clock has them, sizes MiB. The truth of all of it is in PostgreSQL (database/); what is asked here is answered from memory
 * first.
 */

import type { FleetLoadView, FleetNodeView } from "../api/fleet-nodes.ts";

/** `entrance`: takes every call, and has no machines. */
export type NodeRole = "node" | "entrance";

export type NodeState = FleetNodeView["state"];

/** What a node says of itself with each heartbeat. */
export interface NodeLoad extends FleetLoadView {
  /** Shapes of which machines wait ready, of which there is a golden snapshot, and images that are there (placement.ts, `shapeKey`). */
  warm: readonly string[];
  snapshots: readonly string[];
  images: readonly string[];
}

export interface FleetNode extends FleetNodeView {
  role: NodeRole;
  load: NodeLoad;
}

/** Who has a sandbox, and what a list shows of it when its node does not answer. */
export interface Ownership {
  sandboxId: string;
  nodeId: string;
  /** Grows with every new owner, over all sandboxes; a write under an older one changes nothing. */
  epoch: number;
  /** Whose it is. */
  owner: string;
  /** What its owner calls it; no two of an owner in the whole fleet have the same. */
  name?: string;
  /** As its node has published it last. */
  state: string;
  image: string;
  memoryMiB: number;
  vcpus: number;
  diskMiB: number;
  createdAt: number;
  expiresAt: number;
}

export interface OwnershipFilter {
  /** Absent: everybody's. */
  owner?: string;
  nodeId?: string;
}

/** Where things are. What it says may be a moment old: the node that is named so says "not mine", and `mistaken` corrects it. */
export interface Directory {
  readonly self: FleetNode;
  /** From memory, itself included, also those that are silent or lost. */
  nodes(): readonly FleetNode[];
  /** Reads them anew. @throws StacyError `unavailable` */
  refresh(): Promise<void>;
  /**
   * @param whose absent: whoever's; needed for a name
   * @throws StacyError `unavailable` when it is not known here, and the database is away
   */
  ownerOf(idOrName: string, whose?: string): Promise<Ownership | undefined>;
  /** What was made for a request, by its owner and the key that its client has chosen. @throws StacyError `unavailable` */
  requested(owner: string, key: string): Promise<Ownership | undefined>;
  /** That node said that it does not have it: the next `ownerOf` asks the database. */
  mistaken(sandboxId: string, nodeId: string): void;
  /** Newest first, all of the table. @throws StacyError `unavailable` */
  all(filter?: OwnershipFilter): Promise<Ownership[]>;
}

/** What is asked of a node that shall make a sandbox; absent: anything will do. */
export interface PlacementRequest {
  provider?: string;
  architecture?: string;
  /** Of the checkpoint or the saved machine that it starts from. */
  hostIdentity?: string;
  /** That a node must have. */
  labels?: Readonly<Record<string, string>>;
  /** As the node resolves it. */
  image?: string;
  memoryMiB?: number;
  vcpus?: number;
  /** Copies that are made at once. */
  count?: number;
}

export interface Placement {
  /** Nodes to ask, best first; the node that is asked admits or refuses. Empty: none fits. */
  candidates(nodes: readonly FleetNode[], request: PlacementRequest): FleetNode[];
}
