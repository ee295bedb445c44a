/** The files that a saved machine is made of: on disk for good, with checksums, and looked at again before they are trusted. */
import { join } from "node:path";
import { syncPath } from "../host/durable.ts";
import { hostBootId } from "../host/process.ts";
import { mapSparse, type SparseMap } from "../host/sparse-map.ts";
import { stampOf as stampOfFiles } from "../host/stamp.ts";
import { FILES, SNAPSHOT_FILES } from "../vmm/vmm.ts";

export const PARTS: readonly string[] = [SNAPSHOT_FILES.state, SNAPSHOT_FILES.memory, FILES.rootfs];

/** Brings the parts to the disk and gives their checksums. */
export async function sealParts(dir: string, parts = PARTS): Promise<Record<string, SparseMap>> {
  const files: Record<string, SparseMap> = {};
  for (const name of parts) {
    files[name] = await mapSparse(join(dir, name));
    await syncPath(join(dir, name));
  }
  return files;
}

/** The first part that is not what was sealed, or `undefined`. */
export async function damagedPart(
  dir: string,
  files: Record<string, SparseMap>,
  parts = PARTS,
): Promise<string | undefined> {
  for (const name of parts) {
    const sealed = files[name];
    if (sealed === undefined) return name;
    const found = await mapSparse(join(dir, name));
    if (found.size !== sealed.size || found.sha256 !== sealed.sha256) return name;
  }
  return undefined;
}

/** Of files of one directory (host/stamp.ts). */
export function stampOf(dir: string, names: readonly string[]): Promise<string> {
  return stampOfFiles(names.map((name) => join(dir, name)));
}

/** That files with this stamp were found good: it holds for this run of the host. */
export async function proofOf(stamp: string): Promise<string> {
  return `${await hostBootId()} ${stamp}`;
}
