import { constants } from "node:fs";
import { open, readlink, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { nameBytes, nameText } from "../host/byte-name.ts";
import { StacyError } from "../host/error.ts";
import { usersMask } from "../host/umask.ts";
import { Room, writeSparse } from "./sparse-copy.ts";

/** As many as the kernel follows. */
const MOST_LINKS = 40;

/**
 * A stream into a file of this host, which is under its name only when it is whole; where a link leads to it, the link stays. What is no file
 * (a device, a named pipe) is written as the stream comes. The handle writes it, not a stream made of the handle: one that has finished may
 * keep the handle from ever being closed.
 * @param mode what the user's mask leaves of it is set, of a file
 */
export async function saveFile(target: string, content: AsyncIterable<Uint8Array>, mode: number): Promise<void> {
  await checkSaveTarget(target, "copy");
  const there = await stat(nameBytes(target)).catch(() => undefined);
  if (there?.isFile() === false) {
    await using device = await open(nameBytes(target), constants.O_WRONLY);
    for await (const piece of content) await device.writeFile(piece);
    return;
  }
  await saveWhole(await linkedTo(target), target, content, mode);
}

/** Where a file of that name would be made: behind the links that lead there, whether there is one or not. */
async function linkedTo(target: string): Promise<string> {
  let at = target;
  for (let links = 0; links < MOST_LINKS; links++) {
    const next = await readlink(nameBytes(at), "buffer").catch(() => undefined);
    if (next === undefined) return at;
    // Relative to the directory that it is in, which may be reached by links itself.
    at = resolve(await directoryOf(at), nameText(next));
  }
  return at;
}

async function directoryOf(path: string): Promise<string> {
  return nameText(await realpath(nameBytes(dirname(path)), "buffer"));
}

/** @param named by the user */
async function saveWhole(
  target: string,
  named: string,
  content: AsyncIterable<Uint8Array>,
  mode: number,
): Promise<void> {
  const partial = nameBytes(`${target}.${process.pid}.part`);
  try {
    await using file = await open(partial, "wx").catch((error: NodeJS.ErrnoException) => {
      // The user has named no such file.
      error.path = named;
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
