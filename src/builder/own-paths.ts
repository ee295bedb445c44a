/**
 * Paths that belong to a sandbox and not to an image: what every sandbox gets anew, what its kernel says, and what the agent has in it. No
 * build keeps what it has there.
 */
const FILES = new Set(["etc/hostname", "etc/machine-id", "etc/resolv.conf"]);
const TREES = /^((dev|proc|sys)\/.|run\/stacyvm)/;

/** @param path of the root, relative */
export function isOwn(path: string): boolean {
  return FILES.has(path) || TREES.test(path);
}
