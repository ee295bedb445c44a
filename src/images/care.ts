/**
 * Looks after the images of a host together with what was made from them: an image that a machine or a checkpoint needs
 * stays, and a golden snapshot goes with its image. Whoever knows the machines says who needs what (`ImageUsers`).
 */
import type { Collected, CollectOptions, ImageLibrary } from "./image.ts";

export interface ImageUse {
  /** Digests that machines (running, suspended, warm), checkpoints and forks need. */
  needed: Set<string>;
  /** Golden snapshots of Linux images: they can be built again, so they need nothing. */
  golden: { key: string; digest: string }[];
  /** Those of template images (template-images.ts) that a template names; absent: this one does not know them. */
  templates?: Set<string>;
}

export interface ImageUsers {
  imageUse(): Promise<ImageUse>;
  /** @throws StacyError `conflict` when a machine was just started from it */
  removeSnapshot(key: string): Promise<void>;
}

export interface CaredFor extends Collected {
  /** Keys of golden snapshots that went with their images. */
  snapshots: string[];
}

/** Removes what nobody needs, then the least recently used down to `maxBytes`; never what is in use. */
export async function collectImages(
  library: ImageLibrary,
  users: readonly ImageUsers[],
  options: Pick<CollectOptions, "maxBytes" | "dryRun"> = {},
): Promise<CaredFor> {
  const use = await useOf(users);
  const { needed, templates } = use;
  const known = templates === undefined ? {} : { templates };
  const collected = await library.collect({ ...options, ...known, inUse: (digest) => needed.has(digest) });
  const gone = new Set(collected.images);
  // What cannot be seen now is not gone.
  const present = (digest: string): Promise<boolean> =>
    library.has(digest).then(
      (here) => here && !gone.has(digest),
      () => true,
    );
  const snapshots: string[] = [];
  for (const { key, digest, owner } of use.golden) {
    if (await present(digest)) continue;
    if (options.dryRun !== true && !(await dropped(owner, key))) continue;
    snapshots.push(key);
  }
  return { ...collected, snapshots };
}

/**
 * Removes a reference, and with the last one the image and its golden snapshots.
 * @throws StacyError `not-found`, `conflict` when a machine or checkpoint needs it
 */
export async function removeImage(library: ImageLibrary, users: readonly ImageUsers[], name: string): Promise<void> {
  const use = await useOf(users);
  const { digest } = await library.inspect(name);
  await library.remove(name, { inUse: (candidate) => use.needed.has(candidate) });
  if (await library.has(digest)) return;
  for (const { key, owner } of use.golden.filter((one) => one.digest === digest)) await dropped(owner, key);
}

/** The same for an image that nobody will start from: its golden snapshots go first, and with them machines that only wait. */
export async function retireImage(library: ImageLibrary, users: readonly ImageUsers[], name: string): Promise<void> {
  const { digest } = await library.inspect(name);
  // Names that this owner does not see count too: the same bytes may be another one's template.
  const { golden } = (await library.isLast(name)) ? await useOf(users) : { golden: [] };
  for (const { key, owner } of golden.filter((one) => one.digest === digest)) await dropped(owner, key);
  await removeImage(library, users, name);
}

interface TotalUse {
  needed: Set<string>;
  golden: { key: string; digest: string; owner: ImageUsers }[];
  templates?: Set<string>;
}

async function useOf(users: readonly ImageUsers[]): Promise<TotalUse> {
  const total: TotalUse = { needed: new Set(), golden: [] };
  for (const owner of users) {
    const { needed, golden, templates } = await owner.imageUse();
    if (templates !== undefined) total.templates = templates.union(total.templates ?? new Set());
    for (const digest of needed) total.needed.add(digest);
    total.golden.push(...golden.map((one) => ({ ...one, owner })));
  }
  return total;
}

/** A snapshot that somebody started from in between stays; the next collection looks again. */
function dropped(owner: ImageUsers, key: string): Promise<boolean> {
  return owner.removeSnapshot(key).then(
    () => true,
    () => false,
  );
}
