/**
 * The guest's first filesystem: the agent as `/init`, the modules it loads, and the empty directories it mounts on. Written
 * as a `newc` cpio archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed: decompressing
 * costs more under emulation than reading. Equal inputs give equal bytes, since its digest is part of every snapshot key.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { errno } from "../host/error.ts";

const DIRECTORIES = ["dev", "proc", "sys", "run", "mnt", "mnt/base", "mnt/rw", "mnt/root", "modules"];

export interface Initramfs {
  /** Absolute path. */
  path: string;
  /** sha256, hex */
  digest: string;
}

/** Writes `<assets>/initramfs/<digest>.cpio` unless it is there. @param modules in load order, named NN-name.ko */
export async function buildInitramfs(assets: string, agent: string, modules: string[]): Promise<Initramfs> {
  const parts: Buffer[] = [];
  let inode = 1;
  const add = (name: string, mode: number, data: Buffer, device: [number, number] = [0, 0]): void => {
    const fields = [inode++, mode, 0, 0, 1, 0, data.length, 0, 0, device[0], device[1], name.length + 1, 0];
    const head = Buffer.from(
      `070701${fields.map((value) => value.toString(16).padStart(8, "0")).join("")}${name}\0`,
      "latin1",
    );
    parts.push(head, padding(head.length), data, padding(data.length));
  };
  for (const name of DIRECTORIES) add(name, 0o040755, Buffer.alloc(0));
  // The kernel opens it for PID 1 before anything is mounted.
  add("dev/console", 0o020600, Buffer.alloc(0), [5, 1]);
  add("init", 0o100755, await readFile(agent));
  for (const module of modules) add(`modules/${basename(module)}`, 0o100644, await readFile(module));
  add("TRAILER!!!", 0, Buffer.alloc(0));
  const archive = Buffer.concat(parts);
  const digest = createHash("sha256").update(archive).digest("hex");
  const dir = join(assets, "initramfs");
  const path = join(dir, `${digest.slice(0, 16)}.cpio`);
  await mkdir(dir, { recursive: true });
  try {
    if ((await readFile(path)).equals(archive)) return { path, digest };
  } catch (error) {
    if (errno(error) !== "ENOENT") throw error;
  }
  const temporary = `${path}.${process.pid}`;
  await writeFile(temporary, archive);
  await rename(temporary, path);
  return { path, digest };
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
