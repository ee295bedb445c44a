/** Which directories of the host sandboxes may have. */
import { realpath, stat } from "node:fs/promises";
import { isAbsolute, relative } from "node:path";
import { errno, StacyError } from "../host/error.ts";

export interface DirectoryPolicy {
  /** Absolute paths (`mounts.allow`); what is below them, too. Empty: none. */
  allow: readonly string[];
}

/**
 * The directory that is meant, without links in its path.
 * @param anything who asks may read this user's files anyway: a command of its own
 * @throws StacyError `invalid`, `permission`
 */
export async function permitted(
  policy: DirectoryPolicy,
  source: string,
  { anything }: { anything: boolean },
): Promise<string> {
  if (!isAbsolute(source) || source.includes("\0")) {
    throw new StacyError("invalid", `mounts: ${JSON.stringify(source.slice(0, 80))} is no absolute path`, {
      remedy: "name a directory of the server's host from / on",
    });
  }
  const real = await realpath(source).catch((error: unknown) => {
    // Whether there is something that they may not have nobody is told, and a guest can make links that lead there.
    throw anything ? missing(source, error) : refused(source);
  });
  const allowed = await Promise.all(policy.allow.map((each) => realpath(each).catch(() => undefined)));
  if (!anything && !isBelow(allowed, real)) throw refused(source);
  const found = await stat(real).catch((error: unknown) => Promise.reject(missing(source, error)));
  if (!found.isDirectory()) {
    throw new StacyError("invalid", `mounts: ${source} is not a directory`, { remedy: "mount the directory it is in" });
  }
  return real;
}

/** Whether a path is one of these, or below one. */
export function isBelow(directories: readonly (string | undefined)[], path: string): boolean {
  return directories.some((each) => {
    if (each === undefined) return false;
    const way = relative(each, path);
    return way === "" || !(way === ".." || way.startsWith("../") || isAbsolute(way));
  });
}

function missing(source: string, error: unknown): StacyError {
  const why = errno(error) === "ENOENT" ? "is not there" : `cannot be opened (${errno(error) ?? "error"})`;
  return new StacyError("invalid", `mounts: ${source} ${why}`, {
    remedy: "name a directory of the server's host that its user can read",
  });
}

function refused(source: string): StacyError {
  return new StacyError("permission", `mounts: this server does not give sandboxes ${source}, or it is not there`, {
    remedy:
      "see whether it is there, and ask the operator to name it, or a directory above it, in `mounts.allow`. On the server's own machine its own user's commands may give any directory, if they find the server by its data directory: without STACYVM_URL, --server and a key",
  });
}
