/** The memory half of a snapshot on disk: sparse, whole, loadable by itself. */
import { link, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../host/run.ts";
import { copySparse } from "../../host/sparse.ts";

/** Name of the hard link that a machine keeps to what it wrote last: the ground on which its next difference stands. */
export const GROUND = "memory.ground";

/** A Full snapshot holds every page, also the empty ones: gives the zeros back to the filesystem. */
export async function digHoles(path: string): Promise<void> {
  await runTool("fallocate", ["--dig-holes", path], { package: "util-linux" });
}

/** A private sparse copy that Firecracker writes a difference over. It must not exist. */
export function copyGround(from: string, to: string): Promise<void> {
  return copySparse(from, to);
}

/** Keeps what was just written, by hard link: the published file never changes and outlives its directory's removal. */
export async function keepGround(written: string, ground: string): Promise<void> {
  await rm(ground, { force: true });
  await link(written, ground);
}

/** Says that differences have no ground any more, also to a later daemon. */
export async function loseGround(ground: string): Promise<void> {
  await rm(ground, { force: true });
  await writeFile(ground, "");
}

/** What an earlier daemon left: `none` when the machine was never saved. */
export async function findGround(dir: string): Promise<"own" | "lost" | "none"> {
  const found = await stat(join(dir, GROUND)).catch(() => undefined);
  if (found === undefined) return "none";
  return found.size === 0 ? "lost" : "own";
}
