/** Directories by what the kernel says of them. */
import { readdir, stat } from "node:fs/promises";
import { errno } from "./error.ts";

/**
 * Names this very directory: another one that is made later under its name, or with its inode, is not it. (Where a filesystem does not keep
 * when a file was made, by its inode alone.) `undefined` when there is none. @throws when that cannot be seen
 */
export async function directoryIdentity(dir: string): Promise<string | undefined> {
  try {
    const { dev, ino, birthtimeNs } = await stat(dir, { bigint: true });
    return `${dev}:${ino}:${birthtimeNs}`;
  } catch (error) {
    if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Names of the directories in `dir`; none when it is not there. */
export async function subdirectories(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((error: unknown) => {
    if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return [];
    throw error;
  });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}
