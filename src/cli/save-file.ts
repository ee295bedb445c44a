import { open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { nameBytes } from "../host/byte-name.ts";
import { StacyError } from "../host/error.ts";
import { usersMask } from "../host/umask.ts";
import { Room, writeSparse } from "./sparse-copy.ts";

/**
 * A stream into a file of this host, which is under its name only when it is whole. The handle writes it, not a stream made of the
 * handle: one that has finished may keep the handle from ever being closed.
 * @param mode what the user's mask leaves of it is set
 */
export async function saveFile(target: string, content: AsyncIterable<Uint8Array>, mode: number): Promise<void> {
  await checkSaveTarget(target, "copy");
  const partial = nameBytes(`${target}.${process.pid}.part`);
  try {
    await using file = await open(partial, "wx").catch((error: NodeJS.ErrnoException) => {
      // The user has named no such file.
      error.path = target;
      throw error;
    });
    await writeSparse(file, content, Room.on(nameBytes(dirname(target))));
    await file.chmod(mode & 0o777 & ~usersMask);
    await rename(partial, nameBytes(target));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/**
 * To be asked before anybody sends content.
 * @param name for a file in the directory that was named instead of one
 * @throws where a file cannot get this name
 */
export async function checkSaveTarget(target: string, name: string): Promise<void> {
  const there = await stat(nameBytes(target)).catch(() => undefined);
  if (there?.isDirectory() !== true && !target.endsWith("/")) return;
  const what = there === undefined ? "names a directory, which is not there" : "is a directory";
  throw new StacyError("is-directory", `${target} ${what}`, {
    remedy: `name a file in it, such as ${join(target, name)}`,
  });
}
