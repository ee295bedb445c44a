/** Which images and blobs go when disk space is short. The decision only; the store carries it out. */
import type { Base, Refs } from "./bases.ts";
import type { StoredBuild } from "./builds.ts";
import type { CollectOptions } from "./image.ts";
import type { StoredBlob } from "./oci/blobs.ts";
import { readKey } from "./ref-names.ts";
import { isTemplateImage } from "./template-images.ts";

export interface CollectPlan {
  /** Keys of the table of references that mean nothing any more. */
  refs: string[];
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
/** A build is over, and its template is there, when its image is this old. */
const TEMPLATE_GRACE_MS = 2 * 3_600_000;

/**
 * Unreferenced bases and blobs first, with what builds remember of images that are gone and cannot be made again; then blobs (they can be fetched again),
 * builds (they can be made again), bases, each the oldest first.
 */
export function planCollection(
  { bases, refs, blobs, builds, now }: CollectState,
  options: CollectOptions,
): CollectPlan {
  const plan: CollectPlan = { refs: [], images: [], blobs: [], builds: [], freed: 0, kept: 0 };
  const limit = options.maxBytes ?? Number.POSITIVE_INFINITY;
  let total = [...bases, ...blobs, ...builds].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const free = (sizeBytes: number): void => {
    plan.freed += sizeBytes;
    total -= sizeBytes;
  };
  const ofTemplates = Object.entries(refs).filter(([key]) => isTemplateImage(readKey(key)?.name ?? ""));
  const forgotten = new Set(
    ofTemplates.flatMap(([key, { digest, at }]) => {
      const held = options.templates?.has(digest) ?? true;
      return held || options.inUse?.(digest) || now - at <= TEMPLATE_GRACE_MS ? [] : [key];
    }),
  );
  // A built-in image that an older recipe made, and that another one has taken the name of.
  for (const key of Object.keys(refs)) if (readKey(key) === undefined) forgotten.add(key);
  plan.refs.push(...forgotten);
  const referenced = new Set(Object.entries(refs).flatMap(([key, { digest }]) => (forgotten.has(key) ? [] : [digest])));
  // They cannot be fetched or made again by their name.
  const kept = new Set(ofTemplates.flatMap(([key, { digest }]) => (forgotten.has(key) ? [] : [digest])));
  const removable = (base: Base): boolean =>
    !options.inUse?.(base.digest) && !kept.has(base.digest) && now - base.usedAt > GRACE_MS;
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
