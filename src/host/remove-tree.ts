/** Removing a directory that a program had to write, which may have closed parts of it to us, or made it deeper than a path may be long. */
import { randomUUID } from "node:crypto";
import { chmod, constants, type FileHandle, open, readdir, rename, rm, rmdir, unlink } from "node:fs/promises";
import { errno } from "./error.ts";

/** Linux, include/uapi/asm-generic/fcntl.h; Node does not name it. */
const O_PATH = 0o10000000;

/** As `rm -r`, where there is something, however deep it is; directories of ours that are closed to us are opened. */
export async function removeTree(dir: string): Promise<void> {
  try {
    await rm(dir, { recursive: true, force: true });
  } catch (error) {
    // As root none is closed.
    const code = errno(error);
    if (code !== "EACCES" && code !== "ENAMETOOLONG") throw error;
    await flatten(dir);
    await rm(dir, { recursive: true, force: true });
  }
}

/** Leaves no directories in it: what they have in them comes up beside them, so that no path is long and few files are open. */
async function flatten(dir: string): Promise<void> {
  await using top = await opened(Buffer.from(dir));
  const left = await directoriesIn(top);
  for (let name = left.pop(); name !== undefined; name = left.pop()) {
    await using one = await opened(below(top, name));
    for (const inner of await directoriesIn(one)) {
      const moved = Buffer.from(randomUUID());
      await (await opened(below(one, inner))).close(); // one that is closed cannot be moved either
      await rename(below(one, inner), below(top, moved));
      left.push(moved);
    }
    for (const file of await readdir(below(one), BYTES)) await unlink(below(one, file));
    await rmdir(below(top, name));
  }
}

/** By descriptor: a link in its place would have another directory opened. Its owner may do everything in it. */
async function opened(path: Buffer): Promise<FileHandle> {
  const handle = await open(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await chmod(below(handle), 0o700);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Names need not be text. */
const BYTES = { encoding: "buffer" } as const;

async function directoriesIn(handle: FileHandle): Promise<Buffer[]> {
  const entries = await readdir(below(handle), { ...BYTES, withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

function below({ fd }: FileHandle, name?: Uint8Array): Buffer {
  const path = Buffer.from(`/proc/self/fd/${fd}`);
  return name === undefined ? path : Buffer.concat([path, Buffer.from("/"), name]);
}
