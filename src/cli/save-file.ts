import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { nameBytes } from "../host/byte-name.ts";
import { usersMask } from "../host/umask.ts";
import { Room, writeSparse } from "./sparse-copy.ts";

/**
 * A stream into a file of this host, which is under its name only when it is whole. The handle writes it, not a stream made of the
 * handle: one that has finished may keep the handle from ever being closed.
 * @param mode what the user's mask leaves of it is set
 */
export async function saveFile(target: string, content: AsyncIterable<Uint8Array>, mode: number): Promise<void> {
  const partial = nameBytes(`${target}.${process.pid}.part`);
  try {
    await using file = await open(partial, "wx");
    await writeSparse(file, content, Room.on(nameBytes(dirname(target))));
    await file.chmod(mode & 0o777 & ~usersMask);
    await rename(partial, nameBytes(target));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}
