/**
 * After a start of the host (or a time of little memory) the snapshots' files are on the disk only, their checksums are to be
 * computed again, and nothing is known yet of their images: this is done beside the first spawns, for those that were used last.
 */
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Manifest } from "./manifest.ts";
import type { SnapshotStore } from "./snapshot-store.ts";

/** More than this is not read: it would push out what others need. */
const LIMIT_BYTES = 1 << 30;
/** What was not used for so long is not expected back at once. */
const RECENT_MS = 7 * 24 * 3_600_000;
const WINDOW = 1 << 20;

/** @returns bytes read. Never rejects for a bad snapshot: the spawn that meets it says so. */
export async function readAhead(
  store: SnapshotStore,
  wanted: (manifest: Manifest) => boolean,
  /** Finds out all that a spawn of the same shape has to know. */
  resolve: (manifest: Manifest) => Promise<unknown>,
  signal: AbortSignal,
): Promise<number> {
  const recent = (await store.list())
    .filter(({ manifest, lastUsedAt }) => wanted(manifest) && Date.now() - lastUsedAt < RECENT_MS)
    .sort((a, b) => b.lastUsedAt - a.lastUsedAt);
  let bytes = 0;
  for (const { manifest, bytes: size } of recent) {
    if (signal.aborted || bytes + size > LIMIT_BYTES) break;
    await resolve(manifest).catch(() => {});
    const checked = await store.get(manifest.key).catch(() => undefined);
    if (checked !== undefined) bytes += await readData(checked.dir, manifest, signal);
  }
  return bytes;
}

/** Reads the files' data, which leaves it in the host's page cache, where clones map it from. */
async function readData(dir: string, manifest: Manifest, signal: AbortSignal): Promise<number> {
  const buffer = Buffer.allocUnsafe(WINDOW);
  let bytes = 0;
  for (const [name, { extents }] of Object.entries(manifest.files)) {
    const file = await open(join(dir, name)).catch(() => undefined);
    if (file === undefined) continue; // it was removed meanwhile
    try {
      for (const { start, length } of extents) {
        for (let done = 0; done < length && !signal.aborted; done += WINDOW) {
          bytes += (await file.read(buffer, 0, Math.min(WINDOW, length - done), start + done)).bytesRead;
        }
      }
    } finally {
      await file.close();
    }
  }
  return bytes;
}
