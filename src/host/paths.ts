/** Where everything lives on disk (design.md, "On disk"). Pure: creates nothing. */

import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of this package: the repository's root, or where npm put it. */
export const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

export interface DataPaths {
  root: string;
  images: string;
  snapshots: string;
  sandboxes: string;
  /** What outlives sandboxes (volumes/disks.ts). */
  volumes: string;
  /** Kernel, initramfs, agent, Firecracker: what set-up put here. */
  assets: string;
  /** Half-made things; on the same filesystem, so that a rename publishes. Emptied of dead owners' leftovers at start. */
  tmp: string;
  database: string;
}

/**
 * The data directory: `STACYVM_DATA_DIR`, else `.data` in a checkout of the repository (nothing is written outside it), else
 * `~/.local/share/stacyvm` for an installed package.
 */
export function defaultDataDir(env: NodeJS.ProcessEnv = process.env): string {
  const configured = env.STACYVM_DATA_DIR;
  if (configured !== undefined && configured !== "") return resolve(configured);
  if (existsSync(join(packageRoot, ".git"))) return join(packageRoot, ".data");
  return join(env.XDG_DATA_HOME ?? join(homedir(), ".local/share"), "stacyvm");
}

export function dataPaths(root: string = defaultDataDir()): DataPaths {
  return {
    root,
    images: join(root, "images"),
    snapshots: join(root, "snapshots"),
    sandboxes: join(root, "sandboxes"),
    volumes: join(root, "volumes"),
    assets: join(root, "assets"),
    tmp: join(root, "tmp"),
    database: join(root, "stacyvm.db"),
  };
}

/** What is dear to make and belongs to no data directory: `STACYVM_CACHE_DIR`, else below the user's cache directory. */
export function defaultCacheDir(env: NodeJS.ProcessEnv = process.env): string {
  const configured = env.STACYVM_CACHE_DIR;
  if (configured !== undefined && configured !== "") return resolve(configured);
  return join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "stacyvm");
}
