/** What a machine needs before its first sandbox, beside the distribution's packages: fetched or compiled once, when it is missing. */
import { mkdir } from "node:fs/promises";
import { exists } from "../host/exists.ts";
import { lock } from "../host/lock.ts";
import type { DataPaths } from "../host/paths.ts";
import { agentPath } from "../images/guest-files.ts";
import { findKernel } from "../images/kernel.ts";
import { makeDataDir } from "./data-dir.ts";
import { ProgressLine } from "./progress-line.ts";

/** @throws StacyError `unavailable` with the remedy */
export async function ensureGuest(paths: DataPaths, signal?: AbortSignal): Promise<void> {
  const { assets } = paths;
  const complete = async (): Promise<boolean> => (await findKernel(assets)) !== undefined && (await hasAgent(assets));
  if (await complete()) return;
  await makeDataDir(paths);
  await mkdir(assets, { recursive: true, mode: 0o700 });
  await using _held = await lock(assets, "setup", signal);
  if (await complete()) return;
  using line = new ProgressLine("first run: ");
  const options = { progress: line.show, ...(signal === undefined ? {} : { signal }) };
  const [{ installKernel }, { buildAgent }] = await Promise.all([
    import("../images/kernel.ts"),
    import("../images/crate-build.ts"),
  ]);
  await installKernel(assets, options);
  await buildAgent(assets, options);
}

function hasAgent(assets: string): Promise<boolean> {
  return exists(agentPath(assets));
}
