/** Which base images the machines and snapshots of a data directory need, whichever process started them: from the disk. */
import { readdir, readlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { errno } from "../host/error.ts";
import type { DataPaths } from "../host/paths.ts";
import type { ImageUse } from "../images/care.ts";
import { FILES, type VmmName } from "../vmm/vmm.ts";
import { readRecord } from "./machine-dir.ts";
import type { SnapshotStore } from "./snapshot-store.ts";

/**
 * @param vmm list only its golden snapshots: whoever runs machines from one must be the one that removes it. Absent: all
 * @throws when something of it cannot be seen
 */
export async function imageUse(paths: DataPaths, snapshots: SnapshotStore, vmm?: VmmName): Promise<ImageUse> {
  const needed = new Set<string>();
  // Half-made machines (golden boots, saves) are in the temporary directory.
  for (const root of [paths.sandboxes, paths.tmp]) {
    for (const name of await readdir(root).catch(absent([]))) {
      for (const digest of await digestsOf(join(root, name))) needed.add(digest);
    }
  }
  const golden: ImageUse["golden"] = [];
  for (const { manifest } of await snapshots.list()) {
    const { imageDigest: digest, guest, vmm: owner } = manifest.shape;
    if (manifest.kind !== "golden") needed.add(digest);
    else if (guest === "linux" && (vmm === undefined || vmm === owner)) golden.push({ key: manifest.key, digest });
  }
  return { needed, golden };
}

/** Not there, a file in the place of a directory, or something else in the place of a link. */
const ABSENT: ReadonlySet<string> = new Set(["ENOENT", "ENOTDIR", "EINVAL"]);

/** By the record, and by the link that every machine's directory has from its first moment. */
async function digestsOf(dir: string): Promise<string[]> {
  const link = await readlink(join(dir, FILES.base)).catch(absent(undefined));
  const linked = link === undefined ? "" : basename(dirname(link));
  // One that cannot be read does not say; the link does.
  const record = await readRecord(dir).catch(() => undefined);
  return [
    ...(record === undefined ? [] : [record.imageDigest]),
    ...(/^[0-9a-f]{64}$/.test(linked) ? [`sha256:${linked}`] : []),
  ];
}

/** What is not there needs nothing; what cannot be seen, for example for want of descriptors, may need anything. */
function absent<T>(value: T): (error: unknown) => T {
  return (error) => {
    if (!ABSENT.has(errno(error) ?? "")) throw error;
    return value;
  };
}
