/**
 * A tar stream into a directory of this host. The archive was made by a guest, which may be hostile, and what lies in the target may
 * have come from it too. So nothing is unpacked there: the tree is made in a fresh directory beside it, in which no symbolic link
 * exists until all else is there, and moved in when it is whole. The move looks at each name without following it, and goes
 * only into directories that are real ones.
 *
 * Names are bytes: strings here have one character per byte (`latin1`, as in images/tar.ts).
 */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { link, lstat, mkdir, open, readdir, readlink, rename, rm, symlink, unlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { UNPACK_BOUNDS } from "../host/bounds.ts";
import { nameBytes } from "../host/byte-name.ts";
import { errno, StacyError } from "../host/error.ts";
import { usersMask } from "../host/umask.ts";
import { readTar, type TarEntry } from "../images/tar.ts";
import { Room, writeSparse } from "./sparse-copy.ts";

/** What an entry costs beside its names. */
const ENTRY_BYTES = 100;

/** What of an archive is not made on this host, where it would be of the user and not of the guest. */
export interface LeftOut {
  /** Device nodes and FIFOs. */
  nodes: number;
  /** Files and directories that are there without their setuid, setgid or sticky bit. */
  bits: number;
}

interface Directory {
  /** Below the root. */
  path: string;
  mode: number;
  mtime: number;
}

/**
 * Unpacks as `root`, which is made or added to. Nothing outside of it is written, or gets another mode or time; a symbolic link that is in
 * the way is replaced. When it fails, nothing of the archive is left.
 * @throws StacyError `corrupt` for a name that leads out, `limit`, `conflict` when something else is in the way
 */
export async function unpackTree(root: string, tar: ReadableStream<Uint8Array>): Promise<LeftOut> {
  // Node's own words for the working directory are damaged when they are not UTF-8.
  const top = resolve(await readlink("/proc/self/cwd", "latin1"), nameBytes(root).toString("latin1"));
  await mkdir(at(dirname(top)), { recursive: true, mode: 0o777 & ~usersMask });
  const staging = join(dirname(top), `.${basename(top)}.${randomUUID().slice(0, 8)}`);
  await mkdir(at(staging), 0o700);
  try {
    const fresh = join(staging, "tree");
    await mkdir(at(fresh), 0o700);
    const left: LeftOut = { nodes: 0, bits: 0 };
    const directories = await unpackFresh(fresh, tar, left);
    const made = new Set<string>();
    await moveIn(fresh, top, "", made);
    await settleModes(top, directories, made);
    return left;
  } finally {
    await rm(at(staging), { recursive: true, force: true });
  }
}

/** Into an empty directory that nobody else writes to. */
async function unpackFresh(top: string, tar: ReadableStream<Uint8Array>, left: LeftOut): Promise<Directory[]> {
  const symlinks: { path: string; target: string }[] = [];
  const directories: Directory[] = [];
  const room = Room.on(at(top));
  let entries = 0;
  let words = 0;
  await readTar(Readable.fromWeb(tar as never), async (entry, body) => {
    words += entry.path.length + entry.link.length + ENTRY_BYTES;
    if (++entries > UNPACK_BOUNDS.entries || words > UNPACK_BOUNDS.nameBytes) {
      throw new StacyError("limit", `the archive has more than ${UNPACK_BOUNDS.entries} entries, or very long names`);
    }
    // Agents send none. It would be as large as somebody says, out of an archive of a few bytes.
    if (entry.size > entry.stored) throw new StacyError("corrupt", `the archive has ${show(entry.path)} with holes`);
    const path = inside(entry.path);
    if ((entry.type === "file" || entry.type === "directory") && (entry.mode & 0o7000) !== 0) left.bits++;
    if (entry.type === "directory") {
      await makeDirectory(top, path);
      directories.push({ path, mode: entry.mode & 0o777, mtime: entry.mtime });
    } else if (entry.type === "symlink") {
      symlinks.push({ path, target: entry.link });
    } else if (entry.type === "hardlink") {
      const target = inside(entry.link);
      await makeDirectory(top, parent(path));
      await clear(at(top, path));
      await link(at(top, target), at(top, path)).catch((cause: Error) => {
        throw new StacyError("corrupt", `the archive links ${show(path)} to ${show(target)}, which it does not have`, {
          cause,
        });
      });
    } else if (entry.type === "file") {
      await makeDirectory(top, parent(path));
      await makeFile(at(top, path), entry, body, room);
    } else left.nodes++;
  });
  for (const { path, target } of symlinks) {
    await makeDirectory(top, parent(path));
    await clear(at(top, path));
    await symlink(Buffer.from(target, "latin1"), at(top, path));
  }
  return directories;
}

/** With its parents; each of them is a real directory afterwards. */
async function makeDirectory(top: string, path: string): Promise<void> {
  let made = "";
  for (const name of path === "" ? [] : path.split("/")) {
    made = made === "" ? name : `${made}/${name}`;
    try {
      await mkdir(at(top, made), 0o700);
    } catch (error) {
      if (errno(error) !== "EEXIST") throw error;
      const found = await lstat(at(top, made));
      if (!found.isDirectory()) {
        throw new StacyError("corrupt", `the archive has ${show(made)} as a directory and as something else`);
      }
    }
  }
}

async function makeFile(path: Buffer, entry: TarEntry, body: AsyncIterable<Buffer>, room: Room): Promise<void> {
  await clear(path);
  await using file = await open(path, "wx", 0o600);
  await writeSparse(file, body, room);
  await file.chmod(entry.mode & 0o777 & ~usersMask);
  await file.utimes(when(entry.mtime), when(entry.mtime));
}

/** A later entry of the same name replaces an earlier one, but no directory. */
async function clear(path: Buffer): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (errno(error) === "ENOENT") return;
    throw new StacyError("corrupt", "the archive has one name as a directory and as something else", { cause: error });
  });
}

/** @param path below both roots @param made the directories that were not there before */
async function moveIn(from: string, to: string, path: string, made: Set<string>): Promise<void> {
  const [source, target] = [at(from, path), at(to, path)];
  const incoming = await lstat(source);
  const there = await lstat(target).catch((error: unknown) => {
    if (errno(error) === "ENOENT") return undefined;
    throw error;
  });
  if (there?.isDirectory()) {
    if (!incoming.isDirectory()) {
      throw new StacyError("conflict", `${show(path)} is a directory in the target and something else in the sandbox`, {
        remedy: "move it away, or copy to another place",
      });
    }
    for (const name of await readdir(source, "latin1")) await moveIn(from, to, join(path, name), made);
    return;
  }
  // A rename replaces what is no directory, and follows nothing; only a directory needs a free place.
  if (there !== undefined && incoming.isDirectory()) await unlink(target);
  await rename(source, target);
  if (incoming.isDirectory()) made.add(path);
}

/** Directories were made for the owner alone, so that they could be written to and moved. */
async function settleModes(top: string, directories: Directory[], made: ReadonlySet<string>): Promise<void> {
  const known = new Map<string, boolean>();
  const isNew = (path: string): boolean => {
    const found = known.get(path) ?? (made.has(path) || (path !== "" && isNew(parent(path))));
    known.set(path, found);
    return found;
  };
  const modes = new Map<string, Directory>();
  if (made.has("")) modes.set("", { path: "", mode: 0o777, mtime: Date.now() / 1000 });
  // Parents that the archive does not name.
  for (const { path } of directories)
    for (let each = path; each !== "" && !modes.has(each); each = parent(each))
      modes.set(each, { path: each, mode: 0o755, mtime: Date.now() / 1000 });
  for (const each of directories) if (each.path !== "") modes.set(each.path, each);
  // From the innermost: writing into a directory changes its time, and may need a permission that it is about to lose.
  for (const { path, mode, mtime } of [...modes.values()].sort((a, b) => b.path.length - a.path.length)) {
    if (!isNew(path)) continue;
    await using directory = await open(
      at(top, path),
      constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    );
    await directory.utimes(when(mtime), when(mtime));
    await directory.chmod(mode & ~usersMask);
  }
}

/** The name below the root, without dots. @throws StacyError `corrupt` when it leads out, or is not plausible */
function inside(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (name.startsWith("/") || parts.includes("..")) {
    throw new StacyError("corrupt", `the archive names ${show(name)}, which is outside of the target`);
  }
  if (parts.length > UNPACK_BOUNDS.depth) throw new StacyError("limit", "the archive's directories are too deep");
  return parts.join("/");
}

/** @param seconds since 1970. Node takes a negative number for now, and a date for what it is */
function when(seconds: number): Date {
  return new Date(seconds * 1000);
}

function parent(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

function at(top: string, path = ""): Buffer {
  return Buffer.from(path === "" ? top : `${top}/${path}`, "latin1");
}

function show(name: string): string {
  return JSON.stringify(Buffer.from(name, "latin1").toString("utf8").slice(0, 200));
}
