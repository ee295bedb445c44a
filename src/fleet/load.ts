/** What a node says of itself with its heartbeats: how much it has to do, and what it has ready. */
import { availableParallelism, freemem, loadavg, totalmem } from "node:os";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import type { NodeLoad } from "./contract.ts";
import { shapeKey } from "./placement.ts";

const MIB = 2 ** 20;
/** Rounded, so that a node that does nothing says nothing new. */
const MEMORY_STEP = 64;
const MOST_NAMES = 200;

export const NO_LOAD: NodeLoad = {
  ...{ sandboxes: 0, maxSandboxes: 0, queued: 0, vcpus: 0, memoryMiB: 0, freeMemoryMiB: 0, loadAverage: 0 },
  ...{ warm: [], snapshots: [], images: [] },
};

export function loadOf(sandboxes: Sandboxes): NodeLoad {
  const shelves = sandboxes.providers.all().flatMap((provider) => provider.pool());
  const names = (all: typeof shelves): string[] =>
    [...new Set(all.map(({ image, vcpus, memoryMiB }) => shapeKey({ image, vcpus, memoryMiB })))]
      .sort()
      .slice(0, MOST_NAMES);
  return {
    sandboxes: sandboxes.activeOf("", undefined).active,
    maxSandboxes: sandboxes.limits.maxSandboxes,
    queued: sandboxes.queue.waiting,
    vcpus: availableParallelism(),
    memoryMiB: Math.floor(totalmem() / MIB),
    freeMemoryMiB: Math.floor(freemem() / MIB / MEMORY_STEP) * MEMORY_STEP,
    loadAverage: Math.round((loadavg()[0] ?? 0) * 2) / 2,
    warm: names(shelves.filter(({ warm }) => warm > 0)),
    // A shape that is on a shelf has been started from its snapshot.
    snapshots: names(shelves),
    images: [...new Set(shelves.map(({ image }) => image))].sort().slice(0, MOST_NAMES),
  };
}
