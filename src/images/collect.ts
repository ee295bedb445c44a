/** Which images and blobs go when disk space is short. The decision only; the store carries it out. */
import type { Base, Refs } from "./bases.ts";
import type { StoredBuild } from "./builds.ts";
import type { CollectOptions } from "./image.ts";
import type { StoredBlob } from "./oci/blobs.ts";

export interface CollectPlan {
  images: string[];
  blobs: string[];
  builds: string[];
  freed: number;
  kept: number;
}

export interface CollectState {
  bases: Base[];
  refs: Refs;
  blobs: StoredBlob[];
  builds: StoredBuild[];
  /** ms since 1970 */
  now: number;
}

/** What was used this recently is about to be used: a machine that starts has its image, but is not listed yet. */
const GRACE_MS = 60_000;

/**
 * Unreferenced bases and blobs first, with what builds remember of images that are gone and cannot be made again; then blobs (they can be fetched again),
 * builds (they can be made again), bases, each the oldest first.
 */
export function planCollection(
  { bases, refs, blobs, builds, now }: CollectState,
  options: CollectOptions,
): CollectPlan {
  const plan: CollectPlan = { images: [], blobs: [], builds: [], freed: 0, kept: 0 };
  const limit = options.maxBytes ?? Number.POSITIVE_INFINITY;
  let total = [...bases, ...blobs, ...builds].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const free = (sizeBytes: number): void => {
    plan.freed += sizeBytes;
    total -= sizeBytes;
  };
  const referenced = new Set(Object.values(refs).map(({ digest }) => digest));
  const removable = (base: Base): boolean => !options.inUse?.(base.digest) && now - base.usedAt > GRACE_MS;
  const byAge = <T extends { usedAt: number }>(items: T[]): T[] => [...items].sort((a, b) => a.usedAt - b.usedAt);

  const keptBases = bases.filter((base) => {
    if (referenced.has(base.digest) || !removable(base)) return true;
    plan.images.push(base.digest);
    free(base.sizeBytes);
    return false;
  });
  const needed = new Set(keptBases.flatMap((base) => base.blobs));
  const keptBlobs = blobs.filter((blob) => {
    if (needed.has(blob.digest) || now - blob.usedAt <= GRACE_MS) return true;
    plan.blobs.push(blob.digest);
    free(blob.sizeBytes);
    return false;
  });
  const present = new Set(keptBases.map(({ digest }) => digest));
  addRemade(present, builds);
  const keptBuilds = builds.filter((build) => {
    const whole =
      (build.base === undefined || present.has(build.base)) && (build.image === undefined || present.has(build.image));
    if (whole || now - build.usedAt <= GRACE_MS) return true;
    plan.builds.push(build.key);
    free(build.sizeBytes);
    return false;
  });
  for (const blob of byAge(keptBlobs)) {
    if (total <= limit) break;
    plan.blobs.push(blob.digest);
    free(blob.sizeBytes);
  }
  for (const build of byAge(keptBuilds)) {
    if (total <= limit) break;
    plan.builds.push(build.key);
    free(build.sizeBytes);
  }
  for (const base of byAge(keptBases)) {
    if (total <= limit) break;
    if (!removable(base)) continue;
    plan.images.push(base.digest);
    free(base.sizeBytes);
  }
  plan.kept = total;
  return plan;
}

/** Stages of builds need not be here: they are made again from what they began with, which may be another stage. */
function addRemade(present: Set<string>, builds: readonly StoredBuild[]): void {
  for (let before = -1; before !== present.size; ) {
    before = present.size;
    for (const { base, image, stage } of builds) {
      if (stage === true && image !== undefined && (base === undefined || present.has(base))) present.add(image);
    }
  }
}
