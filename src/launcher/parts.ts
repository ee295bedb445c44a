/** The files that a saved machine is made of: on disk for good, with checksums, and looked at again before they are trusted. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { syncPath } from "../host/durable.ts";
import { hostBootId } from "../host/process.ts";
import { mapSparse, type SparseMap } from "../host/sparse.ts";
import { FILES, SNAPSHOT_FILES } from "../vmm/vmm.ts";

export const PARTS: readonly string[] = [SNAPSHOT_FILES.state, SNAPSHOT_FILES.memory, FILES.rootfs];

/** Brings the parts to the disk and gives their checksums. */
export async function sealParts(dir: string): Promise<Record<string, SparseMap>> {
  const files: Record<string, SparseMap> = {};
  for (const name of PARTS) {
    files[name] = await mapSparse(join(dir, name));
    await syncPath(join(dir, name));
  }
  return files;
}

/** The first part that is not what was sealed, or `undefined`. */
export async function damagedPart(dir: string, files: Record<string, SparseMap>): Promise<string | undefined> {
  for (const name of PARTS) {
    const sealed = files[name];
    if (sealed === undefined) return name;
    const found = await mapSparse(join(dir, name));
    if (found.size !== sealed.size || found.sha256 !== sealed.sha256) return name;
  }
  return undefined;
}

/** Inode, size and modification time of files in one line. Not the change time: a jail's hard links touch that. */
export async function stampOf(dir: string, names: readonly string[]): Promise<string> {
  const stats = await Promise.all(names.map((name) => stat(join(dir, name), { bigint: true })));
  return stats.map((s) => `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}`).join(" ");
}

/** That files with this stamp were found good: it holds for this run of the host. */
export async function proofOf(stamp: string): Promise<string> {
  return `${await hostBootId()} ${stamp}`;
}
