/** What a monitor has written, where nobody but it writes, becomes the server's. */
import { chmod, lchown, lstat, rename } from "node:fs/promises";
import { StacyError } from "../host/error.ts";
import { isRoot } from "../host/is-root.ts";

/**
 * Moves it to a place that the monitor has no way to, and only there looks what it is: until then a hostile one could put something
 * else under its name. A monitor of another user's no longer owns it.
 * @throws StacyError `corrupt` for what is no file of one name
 */
export async function takeBack(from: string, to: string, mode: number): Promise<void> {
  await rename(from, to);
  const found = await lstat(to);
  if (!found.isFile() || found.nlink !== 1)
    throw new StacyError("corrupt", `${to} is not what the monitor should have written`);
  if (isRoot()) await lchown(to, 0, 0);
  await chmod(to, mode);
}
