/** Removing a directory that a program had to write, which may have closed parts of it to us. */
import { chmod, constants, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { errno } from "./error.ts";

/** Linux, include/uapi/asm-generic/fcntl.h; Node does not name it. */
const O_PATH = 0o10000000;

/** As `rm -r`, where there is something; directories of ours that are closed to us are opened. */
export async function removeTree(dir: string): Promise<void> {
  try {
    await rm(dir, { recursive: true, force: true });
  } catch (error) {
    // As root none is closed.
    if (errno(error) !== "EACCES") throw error;
    await openTree(dir);
    await rm(dir, { recursive: true, force: true });
  }
}

async function openTree(dir: string): Promise<void> {
  // By descriptor: a link in its place would have another directory opened.
  const handle = await open(dir, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await chmod(`/proc/self/fd/${handle.fd}`, 0o700);
  } finally {
    await handle.close();
  }
  for (const entry of await readdir(dir, { withFileTypes: true }))
    if (entry.isDirectory()) await openTree(join(dir, entry.name));
}
