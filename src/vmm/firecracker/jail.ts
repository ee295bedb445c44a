/**
 * Where a jailed machine works. Its root lies inside the machine's directory, so that it goes when that goes, and where the jailer
 * insists on it:
 *
 *     <dir>/rootfs.ext4                         hard links of these two ...
 *     <dir>/vmm.log
 *     <dir>/jail/firecracker/<id>/root/
 *         rootfs.ext4  vmm.log                  ... are here
 *         base.img  vmstate.bin  memory.bin     the shared read-only files
 *         api.sock  v.sock                      made by Firecracker
 *
 * Who makes it: Firecracker's jailer, where the server is root (jailer.ts), else the cell that QEMU has too (cell-jail.ts).
 */
import { chmod, chown, link, mkdir, readdir, realpath, rename, rm, stat, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { errno, StacyError } from "../../host/error.ts";
import { removeTree } from "../../host/remove-tree.ts";

const JAIL = "jail";
/** In the machine's directory, and under the same name in a cell. */
export const SHOWN = "shown";
/** The id of one that the jailer did not make. */
const CELL = "cell";

export interface Jail {
  by: "jailer" | "cell";
  /** Names the root and the jailer's cgroups. */
  id: string;
  /** Firecracker's working directory, relative to the machine's. */
  root: string;
  /** The program's file name: the jailer derives paths from it. */
  program: string;
  uid: number;
  gid: number;
  /** Of a cell: the memory file that is shown in it, by device and inode. */
  memory?: string;
}

/** Below which the jailer puts its root. */
export function jailBase(dir: string): string {
  return join(dir, JAIL);
}

/** Makes the root. @param id of the jailer's; a cell needs none */
export async function makeRoot(
  dir: string,
  firecracker: string,
  user: { uid: number; gid: number },
  id?: string,
): Promise<Jail> {
  // Of the same machine before it was suspended: it was used.
  await removeTree(jailBase(dir));
  const program = basename(firecracker);
  const jail = describe(program, id ?? CELL, user);
  await mkdir(join(dir, jail.root), { recursive: true, mode: 0o700 });
  return jail;
}

function describe(program: string, id: string, { uid, gid }: { uid: number; gid: number }): Jail {
  return { by: id === CELL ? "cell" : "jailer", id, program, root: join(JAIL, program, id, "root"), uid, gid };
}

/** The jail that an earlier daemon made in this directory, if any. */
export async function findJail(dir: string): Promise<Jail | undefined> {
  const [program] = await readdir(jailBase(dir)).catch(() => []);
  if (program === undefined) return undefined;
  const [id] = await readdir(join(dir, JAIL, program));
  if (id === undefined) return undefined;
  // The jailer gave it to the machine's user, who must be given what the machine writes.
  return describe(program, id, await stat(join(dir, JAIL, program, id, "root")));
}

/**
 * Makes a file of the host appear in the jail, by hard link. What machines share is in a cell since its start, to read only.
 * @param own gives it to the machine's uid
 */
export async function bring(jail: Jail, dir: string, path: string, name: string, own: boolean): Promise<void> {
  if (jail.by === "cell" && !own) return;
  await bringTo(join(dir, jail.root, name), jail, dir, path, own);
}

/** The same of a volume that takes the place of another one. */
export async function bringAnother(jail: Jail, dir: string, path: string, name: string, own: boolean): Promise<void> {
  // In a cell what is only read lies in a directory that is shown to read, and its own name is a link there.
  const place = jail.by === "cell" && !own ? join(dir, SHOWN) : join(dir, jail.root);
  const next = join(place, `${name}.next`);
  await rm(next, { force: true });
  await bringTo(next, jail, dir, path, own);
  await rename(next, join(place, name));
}

/** For a cell: volumes that are only read, whose places others may take. @param names in the machine's directory */
export async function showVolumes(jail: Jail, dir: string, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  await removeTree(join(dir, SHOWN));
  await mkdir(join(dir, SHOWN), { mode: 0o700 });
  for (const name of names) {
    await bringTo(join(dir, SHOWN, name), jail, dir, join(dir, name), false);
    await symlink(join(SHOWN, name), join(dir, jail.root, name));
  }
}

async function bringTo(target: string, jail: Jail, dir: string, path: string, own: boolean): Promise<void> {
  const file = await realpath(path);
  try {
    await link(file, target);
  } catch (error) {
    if (errno(error) === "EEXIST") return;
    if (errno(error) !== "EXDEV") throw error;
    throw new StacyError("unavailable", `${path} is on another filesystem than the machine's directory ${dir}`, {
      cause: error,
      remedy: "keep images, snapshots and sandboxes on one filesystem when the jail is on",
    });
  }
  // In a cell its user is ours.
  if (jail.by === "cell") return;
  // By the name outside: what is in the jail a machine that runs may replace.
  if (own) {
    await chown(file, jail.uid, jail.gid);
    // A volume that was shared before.
    await chmod(file, 0o600);
  }
  // Shared by all machines and read only: its user is not the one that made it.
  else await chmod(file, 0o444);
}
