/** Directories of the host in sandboxes: from what a spawn asks for to what its machine gets. */
import type { HostDirectory } from "../directories/directory.ts";
import { type DirectoryPolicy, isBelow, permitted } from "../directories/policy.ts";
import { StacyError } from "../host/error.ts";
import type { SandboxRecord, VolumeMount } from "./record.ts";

/** Each costs a process of the host. */
const MOST = 8;
/** What the guest's system keeps in its own places. */
const TAKEN = /^\/(?:proc|sys|dev|run|etc)?(?:\/|$)/;

export interface DirectoryInput {
  /** Absolute, on the server's host. */
  source: string;
  /** In the guest. */
  target: string;
  readOnly?: boolean;
}

/** Who asks for directories, as far as it matters here. */
export interface DirectoryCaller {
  administrator: boolean;
  /** A command of the server's own user: it may mount whatever that user can read. */
  ownUser: boolean;
}

export interface DirectoryRules extends DirectoryPolicy {
  /** The server's own data, which no guest may see. */
  hidden: string;
}

/**
 * In the order in which they are mounted.
 * @param caller absent: nobody who may have any
 * @throws StacyError `invalid`, `permission`
 */
export async function resolveDirectories(
  rules: DirectoryRules,
  asked: readonly DirectoryInput[],
  volumes: readonly VolumeMount[],
  caller: DirectoryCaller | undefined,
): Promise<HostDirectory[]> {
  if (asked.length === 0) return [];
  if (caller?.administrator !== true) {
    throw new StacyError("permission", "mounts: only administrators may give sandboxes directories of the host", {
      remedy: "use a key with the scope admin, or a volume",
    });
  }
  if (asked.length > MOST) throw new StacyError("invalid", `mounts: at most ${MOST}, and these are ${asked.length}`);
  const found: HostDirectory[] = [];
  for (const { source, target, readOnly = false } of asked) {
    const path = placeOf(target);
    // Where one lies in another the host would be asked to make the place of the next one.
    const other = [...volumes, ...found].find((each) => isBelow([each.path], path) || isBelow([path], each.path));
    if (other !== undefined) {
      throw new StacyError("invalid", `mounts: ${path} and ${other.path} lie one in the other`, {
        remedy: "choose places beside one another",
      });
    }
    const real = await permitted(rules, source, { anything: caller.ownUser });
    if (isBelow([rules.hidden], real)) {
      throw new StacyError("permission", `mounts: ${source} is in the server's own data directory`, {
        remedy: "mount another directory",
      });
    }
    found.push({ source: real, path, readOnly });
  }
  return found;
}

function placeOf(given: string): string {
  const path = given.length > 1 ? given.replace(/\/+$/, "") : given;
  const parts = path.split("/").slice(1);
  const plain = path.startsWith("/") && parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (plain && !path.includes("\0") && path.length <= 1_024 && !TAKEN.test(path)) return path;
  throw new StacyError("invalid", `mounts: ${JSON.stringify(given.slice(0, 80))} is no place for a directory`, {
    remedy: "name an absolute path such as /work that is not below /proc, /sys, /dev, /run or /etc",
  });
}

/** @param what cannot be done. @throws StacyError `conflict` */
export function assertNoDirectories({ id, directories }: SandboxRecord, what: string): void {
  if (directories === undefined) return;
  throw new StacyError("conflict", `sandbox ${id} has directories of the host, and cannot be ${what} yet`, {
    remedy: "start one without `mounts`: `stacyvm cp DIR ID:/PATH` copies a directory in, and back",
  });
}
