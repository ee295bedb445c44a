/**
 * Golden snapshots that the tests of one run hand on to one another: where a kernel is interpreted each costs a minute. Copies, so
 * that a test may damage its own.
 */
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../src/host/exists.ts";
import { copySparse } from "../src/host/sparse.ts";

const FILES = ["vmstate.bin", "memory.bin", "rootfs.ext4", "manifest.json"];
const run = process.env.STACYVM_TEST_DIR;
const common = run === undefined || run === "" ? undefined : join(run, "goldens");

/** Brings what earlier tests built into `snapshots`. */
export async function borrowGoldens(snapshots: string): Promise<void> {
  if (common !== undefined) await copyMissing(common, snapshots);
}

/** Leaves what was built in `snapshots` for later tests. */
export async function lendGoldens(snapshots: string): Promise<void> {
  if (common !== undefined) await copyMissing(snapshots, common);
}

async function copyMissing(from: string, to: string): Promise<void> {
  for (const key of await readdir(from).catch(() => [])) {
    if (!/^[0-9a-f]{64}$/.test(key) || (await exists(join(to, key)))) continue;
    const manifest = await readFile(join(from, key, "manifest.json"), "utf8").catch(() => "{}");
    if ((JSON.parse(manifest) as { kind?: string }).kind !== "golden") continue;
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
