/**
 * Golden snapshots that the tests of one run hand on to one another: where a kernel is interpreted each costs a minute. Copies, so
 * that a test may damage its own.
 */
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../src/host/exists.ts";
import { copySparse } from "../src/host/sparse.ts";
import type { Manifest } from "../src/launcher/manifest.ts";

const FILES = ["vmstate.bin", "memory.bin", "rootfs.ext4", "manifest.json"];
const run = process.env.STACYVM_TEST_DIR;
const common = run === undefined || run === "" ? undefined : join(run, "goldens");

export interface Wanted {
  image: string;
  vcpus?: number | undefined;
  memoryMiB?: number | undefined;
  diskMiB?: number | undefined;
}

/** Brings what earlier tests built into `snapshots`. @param wanted only those of such a shape; absent: all */
export async function borrowGoldens(snapshots: string, wanted?: Wanted): Promise<void> {
  if (common !== undefined) await copyGoldens(common, snapshots, wanted);
}

/** Leaves what was built in `snapshots` for later tests. */
export async function lendGoldens(snapshots: string): Promise<void> {
  if (common !== undefined) await copyGoldens(snapshots, common);
}

/** Copies what `to` has not. */
export async function copyGoldens(from: string, to: string, wanted?: Wanted): Promise<void> {
  for (const key of await readdir(from).catch(() => [])) {
    if (!/^[0-9a-f]{64}$/.test(key) || (await exists(join(to, key)))) continue;
    const text = await readFile(join(from, key, "manifest.json"), "utf8").catch(() => "{}");
    const manifest = JSON.parse(text) as Partial<Manifest>;
    if (manifest.kind !== "golden" || (wanted !== undefined && !fits(manifest as Manifest, wanted))) continue;
    const work = join(to, `.copy-${process.pid}`);
    await mkdir(work, { recursive: true, mode: 0o700 });
    for (const name of FILES) {
      const [source, target] = [join(from, key, name), join(work, name)];
      await (name === "manifest.json" ? copyFile(source, target) : copySparse(source, target));
      await chmod(target, (await stat(source)).mode);
    }
    await rename(work, join(to, key)).catch(() => rm(work, { recursive: true }));
  }
}

function fits({ image, shape }: Manifest, wanted: Wanted): boolean {
  const { vcpus = 1, memoryMiB = shape.memoryMiB, diskMiB = shape.diskMiB } = wanted;
  const same = shape.vcpus === vcpus && shape.memoryMiB === memoryMiB && shape.diskMiB === diskMiB;
  return same && image === wanted.image;
}
