/** Where a new sandbox goes: of the nodes that can have it, those first where it starts fastest and that have the least to do. */
import type { FleetNode, Placement, PlacementRequest } from "./contract.ts";

/** What nodes say of loads is a heartbeat old: so much of it is left to chance, or all would go to the same one at once. */
const CHANCE = 0.15;
/** A node this full is asked after those that are not, whatever waits ready there. */
const FULL = 0.9;

/** How nodes name what they have ready. */
export function shapeKey({ image, vcpus, memoryMiB }: Pick<PlacementRequest, "image" | "vcpus" | "memoryMiB">): string {
  return `${image ?? ""} ${vcpus ?? 0} ${memoryMiB ?? 0}`;
}

/** @param random from 0 to 1 */
export function candidates(
  nodes: readonly FleetNode[],
  request: PlacementRequest,
  random: () => number = Math.random,
): FleetNode[] {
  return nodes
    .filter((node) => fits(node, request))
    .map((node) => {
      const load = fullness(node, request.count ?? 1);
      return { node, rank: load >= FULL ? READY.length : readiness(node, request), load: load + CHANCE * random() };
    })
    .sort((a, b) => a.rank - b.rank || a.load - b.load)
    .map(({ node }) => node);
}

export const placement: Placement = { candidates: (nodes, request) => candidates(nodes, request) };

/** It could have it, as far as is known here; it knows better itself. */
function fits(node: FleetNode, request: PlacementRequest): boolean {
  const { provider, architecture, hostIdentity, labels = {}, count = 1 } = request;
  if (node.role !== "node" || node.state !== "up" || node.draining) return false;
  if (provider !== undefined && provider !== "auto" && !node.providers.includes(provider)) return false;
  if (architecture !== undefined && node.architecture !== architecture) return false;
  if (hostIdentity !== undefined && node.hostIdentity !== hostIdentity) return false;
  if (Object.entries(labels).some(([name, value]) => node.labels[name] !== value)) return false;
  const { maxSandboxes, sandboxes } = node.load;
  return maxSandboxes === 0 || sandboxes + count <= maxSandboxes;
}

/** The fastest way of a start that a node has ready, fastest first. */
const READY = ["warm", "snapshots", "images", "none"] as const;

function readiness({ load }: FleetNode, request: PlacementRequest): number {
  const shape = shapeKey(request);
  const ready = { warm: load.warm.includes(shape), snapshots: load.snapshots.includes(shape) };
  if (ready.warm) return READY.indexOf("warm");
  if (ready.snapshots) return READY.indexOf("snapshots");
  return READY.indexOf(request.image !== undefined && load.images.includes(request.image) ? "images" : "none");
}

/** The scarcest of what it has, from 0 to 1 and above. */
function fullness({ load }: FleetNode, count: number): number {
  const { sandboxes, maxSandboxes, memoryMiB, freeMemoryMiB, loadAverage, vcpus } = load;
  return Math.max(
    maxSandboxes === 0 ? 0 : (sandboxes + count) / maxSandboxes,
    memoryMiB === 0 ? 0 : 1 - freeMemoryMiB / memoryMiB,
    vcpus === 0 ? 0 : loadAverage / (2 * vcpus),
  );
}
