/** Where the program is that serves a directory of the host to a guest (`directory/`, in Rust). */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./paths.ts";

/** What the published package brings along. */
const PREBUILT = join(packageRoot, "prebuilt", "stacyvm-directory");

/** The package's own, else where set-up puts it. */
export function directoryHelperPath(assets: string): string {
  return existsSync(PREBUILT) ? PREBUILT : join(assets, "directory", "stacyvm-directory");
}
