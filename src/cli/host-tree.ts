/** A directory of this host as a tar stream, out and in. What comes in was made by a guest, which may be hostile. */
import { createReadStream, createWriteStream } from "node:fs";
import { chmod, link, lstat, mkdir, readdir, readlink, rm, symlink, utimes } from "node:fs/promises";
import { join, relative, resolve, sep } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, type Header, pack } from "tar-stream";
import { StacyError } from "../host/error.ts";

/** Files, directories and symbolic links below `root`; what else there is (sockets, devices) is left out. */
export function packTree(root: string): ReadableStream<Uint8Array> {
  const archive = pack();
  async function add(path: string): Promise<void> {
    const stat = await lstat(path);
    const common = {
      name: relative(root, path) || ".",
      mode: stat.mode & 0o7777,
      mtime: stat.mtime,
      uid: 0,
      gid: 0,
    };
    if (stat.isDirectory()) {
      archive.entry({ ...common, type: "directory" });
      for (const name of await readdir(path)) await add(join(path, name));
    } else if (stat.isSymbolicLink()) {
      archive.entry({ ...common, type: "symlink", linkname: await readlink(path) });
    } else if (stat.isFile()) {
      // A file that grows meanwhile must not: its size is promised already.
      const content = stat.size === 0 ? Readable.from([]) : createReadStream(path, { end: stat.size - 1 });
      await pipeline(content, archive.entry({ ...common, size: stat.size }));
    }
  }
  add(root).then(
    () => archive.finalize(),
    (error: Error) => archive.destroy(error),
  );
  return Readable.toWeb(Readable.from(archive)) as unknown as ReadableStream<Uint8Array>;
}

/**
 * Unpacks below `root`, which is made. Nothing is ever written outside: names that lead out are refused, and symbolic links come
 * last, so that no file goes through one. @throws StacyError `corrupt`
 */
export async function unpackTree(root: string, tar: ReadableStream<Uint8Array>): Promise<void> {
  const top = resolve(root);
  await mkdir(top, { recursive: true });
  const links: { path: string; target: string }[] = [];
  const directories: { path: string; mode: number; mtime: Date }[] = [];
  const archive = extract();
  const fed = pipeline(Readable.fromWeb(tar as never), archive);
  fed.catch(() => {}); // the loop meets it too
  for await (const entry of archive) {
    const { type, name, linkname, mode = 0o644, mtime = new Date() } = entry.header as Header;
    const path = inside(top, name);
    if (type === "directory") {
      await mkdir(path, { recursive: true });
      directories.push({ path, mode, mtime });
    } else if (type === "symlink") {
      links.push({ path, target: linkname ?? "" });
    } else if (type === "link") {
      await mkdir(resolve(path, ".."), { recursive: true });
      await rm(path, { force: true });
      await link(inside(top, linkname ?? ""), path);
    } else if (type === "file" || type === "contiguous-file") {
      await mkdir(resolve(path, ".."), { recursive: true });
      await rm(path, { force: true }); // also a link that was there before: the name is replaced, not what it points at
      await pipeline(entry, createWriteStream(path, { flags: "wx", mode: mode & 0o777 }));
      await chmod(path, mode & 0o777);
      await utimes(path, mtime, mtime);
      continue;
    }
    entry.resume();
  }
  await fed;
  for (const { path, target } of links) {
    await mkdir(resolve(path, ".."), { recursive: true });
    await rm(path, { force: true });
    await symlink(target, path);
  }
  // From the innermost: writing into a directory changes its time, and may need a permission that it is about to lose.
  for (const { path, mode, mtime } of directories.reverse()) {
    if (path === top) continue;
    await chmod(path, mode & 0o777);
    await utimes(path, mtime, mtime);
  }
}

function inside(top: string, name: string): string {
  const path = resolve(top, `./${name}`);
  if (path !== top && !path.startsWith(top === sep ? sep : top + sep)) {
    throw new StacyError("corrupt", `the archive names ${JSON.stringify(name)}, which is outside of ${top}`);
  }
  return path;
}
