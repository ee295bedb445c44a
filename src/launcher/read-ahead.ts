/**
 * After a start of the host (or a time of little memory) the snapshots' files are on the disk only, their checksums are to be
 * computed again, and nothing is known yet of their images: this is done beside the first spawns, for those that were used last.
 */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { readExtents } from "../host/extents.ts";
import type { Manifest } from "./manifest.ts";
import type { SnapshotStore } from "./snapshot-store.ts";

/** More than this is not read: it would push out what others need. */
const LIMIT_BYTES = 1 << 30;
/** What was not used for so long is not expected back at once. */
const RECENT_MS = 7 * 24 * 3_600_000;

/** Never rejects for a bad snapshot: the spawn that meets it says so. */
export async function readAhead(
  store: SnapshotStore,
  wanted: (manifest: Manifest) => boolean,
  /** Finds out all that a spawn of the same shape has to know. */
  resolve: (manifest: Manifest) => Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  const recent = (await store.list())
    .filter(({ manifest, lastUsedAt }) => wanted(manifest) && Date.now() - lastUsedAt < RECENT_MS)
    .sort((a, b) => b.lastUsedAt - a.lastUsedAt);
  let left = LIMIT_BYTES;
  for (const { manifest, bytes } of recent) {
    if (signal.aborted || bytes > left) break;
    await resolve(manifest).catch(() => {});
    const checked = await store.get(manifest.key, manifest.kind).catch(() => undefined);
    if (checked === undefined) continue;
    left -= await readData(checked.dir, manifest, left, signal);
  }
}

/**
 * Reads the files' data, which leaves it in the host's page cache, where clones map it from.
 * @param most bytes: of a file that is scattered, holes are read too
 * @returns how many were read
 */
async function readData(dir: string, manifest: Manifest, most: number, signal: AbortSignal): Promise<number> {
  let read = 0;
  for (const [name, { extents }] of Object.entries(manifest.files)) {
    const file = await open(join(dir, name)).catch(() => undefined);
    if (file === undefined) continue; // it was removed meanwhile
    try {
      for await (const { data } of readExtents(file, extents)) {
        read += data.length;
        if (signal.aborted || read >= most) return read;
      }
    } finally {
      await file.close();
    }
  }
  return read;
}
