/** A directory of this host as a tar stream. */
import { createReadStream } from "node:fs";
import { lstat, readdir, readlink } from "node:fs/promises";
import { join, relative } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { pack } from "tar-stream";

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
