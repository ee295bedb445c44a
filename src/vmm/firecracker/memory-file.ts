/** The memory half of a snapshot on disk: sparse, whole, loadable by itself. */
import { link, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../host/run.ts";
import { copySparse } from "../../host/sparse.ts";

/** Name of the hard link that a machine keeps to what it was loaded from or wrote last: its next difference stands on it. */
export const GROUND = "memory.ground";

/** A Full snapshot holds every page, also the empty ones: gives the zeros back to the filesystem. */
export async function digHoles(path: string): Promise<void> {
  await runTool("fallocate", ["--dig-holes", path], { package: "util-linux" });
}

/** A private sparse copy that Firecracker writes a difference over. It must not exist. */
export function copyGround(from: string, to: string): Promise<void> {
  return copySparse(from, to);
}

/** Keeps a memory file by hard link: what is published never changes, and outlives its directory's removal. */
export async function keepGround(written: string, ground: string): Promise<void> {
  await rm(ground, { force: true });
  await link(written, ground);
}

/** Says that differences have no ground any more, also to a later daemon. */
export async function loseGround(ground: string): Promise<void> {
  await rm(ground, { force: true });
  await writeFile(ground, "");
}

/** What an earlier daemon left. */
export async function findGround(dir: string): Promise<"own" | "unknown"> {
  const found = await stat(join(dir, GROUND)).catch(() => undefined);
  return found === undefined || found.size === 0 ? "unknown" : "own";
}
