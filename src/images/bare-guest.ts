/** Builds the bare guest (guests/bare) with the host's C compiler; a fraction of a second, once per source. */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../host/exists.ts";
import { packageRoot } from "../host/paths.ts";
import { runTool } from "../host/run.ts";
import type { Progress } from "./image.ts";

const BUILD_LIMIT_MS = 120_000;

export interface BuildBareGuestOptions {
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** Where the built guest is. */
export function bareGuestPath(assetsDir: string): string {
  return join(assetsDir, "bare", "guest.elf");
}

/**
 * Builds `guest.elf` when it is missing or its sources changed. Safe to call from several processes at once.
 * @throws StacyError `unavailable` without make or gcc
 */
export async function buildBareGuest(
  assetsDir: string,
  options: BuildBareGuestOptions = {},
): Promise<{ path: string; built: boolean }> {
  const sources = join(packageRoot, "guests", "bare");
  const target = bareGuestPath(assetsDir);
  const stamp = `${target}.sources`;
  const digest = await sourcesDigest(sources);
  const built = await exists(target);
  if (built && (await readFile(stamp, "utf8").catch(() => "")) === digest) return { path: target, built: false };
  options.progress?.({ step: "building the bare guest" });
  await mkdir(join(assetsDir, "bare"), { recursive: true });
  const work = `${target}.${process.pid}`;
  try {
    await runTool("make", ["-s", "-B", "-C", sources, `OUT=${work}`], {
      timeoutMs: BUILD_LIMIT_MS,
      package: "make and gcc",
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    await rename(work, target);
    await writeFile(stamp, digest);
  } finally {
    await rm(work, { force: true });
  }
  return { path: target, built: true };
}

async function sourcesDigest(dir: string): Promise<string> {
  const hash = createHash("sha256");
  for (const name of (await readdir(dir)).sort()) {
    if (!/^Makefile$|\.(c|h|S)$/.test(name)) continue;
    hash.update(`${name}\n`).update(await readFile(join(dir, name)));
  }
  return hash.digest("hex");
}
