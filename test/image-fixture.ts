/** Images of any size for tests and benchmarks: a real tree on disk, made into an OCI image by umoci. */
import { createHash } from "node:crypto";
import { chmod, lchown, link, mkdir, open, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DEFAULT_LIMITS } from "../src/images/base.ts";
import { ErofsBase } from "../src/images/erofs-reader.ts";
import type { ImageLibrary } from "../src/images/image.ts";
import { run } from "./images-support.ts";

export interface TreeSize {
  /** Bytes in files of 8 MiB, 256 KiB and 12 KiB, a third each. */
  bytes: number;
  /** Further files of up to 3 KiB. */
  smallFiles: number;
}

const LARGE = 8 << 20;
const MIDDLE = 256 << 10;
const SMALL = 12 << 10;
const PER_DIRECTORY = 500;

/** Bytes that compress to about half, as programs do, and that are different everywhere. */
class Filler {
  readonly #noise = Buffer.concat(
    Array.from({ length: 2048 }, (_, i) => createHash("sha512").update(`block ${i}`).digest()),
  );
  #count = 0;

  next(size: number): Buffer {
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; at += 4096) {
      const from = (this.#count * 64) % (this.#noise.length - 2048);
      this.#noise.copy(bytes, at, from, from + Math.min(2048, size - at));
      if (at + 4 <= size) bytes.writeUInt32LE(this.#count, at);
      this.#count++;
    }
    return bytes;
  }
}

/** Writes the tree below `dir`/data, with a shell beside it so that commands run. Owners vary where this user may say so. */
export async function makeTree(dir: string, size: TreeSize, library: ImageLibrary): Promise<void> {
  await mkdir(join(dir, "data"), { recursive: true });
  await addShell(dir, library);
  const filler = new Filler();
  const isRoot = process.getuid?.() === 0;
  let count = 0;
  let directory = "";
  const add = async (bytes: Buffer): Promise<void> => {
    if (count % PER_DIRECTORY === 0) {
      directory = join(dir, "data", `d${count / PER_DIRECTORY}`);
      await mkdir(directory, { mode: 0o755 });
      await symlink("../d0", join(directory, "first"));
      await chmod(directory, [0o755, 0o700, 0o2775, 0o1777][(count / PER_DIRECTORY) % 4] ?? 0o755);
    }
    const path = join(directory, `file-${count}`);
    await writeFile(path, bytes);
    if (count % 7 === 0) await chmod(path, [0o600, 0o4755, 0o444][count % 3] ?? 0o644);
    if (isRoot && count % 11 === 0) await lchown(path, 1000 + (count % 50), 100);
    if (count % 97 === 0) await link(path, join(directory, `same-${count}`));
    count++;
  };
  for (const each of [LARGE, MIDDLE, SMALL]) {
    for (let done = 0; done + each <= size.bytes / 3; done += each) await add(filler.next(each));
  }
  for (let i = 0; i < size.smallFiles; i++) await add(filler.next((i * 131) % 3072));
}

export async function addShell(dir: string, library: ImageLibrary): Promise<void> {
  const image = await library.resolve("stacyvm/busybox");
  await using base = await ErofsBase.open(image.base);
  const tree = await base.tree(DEFAULT_LIMITS);
  const program = tree.find("bin/busybox")?.type === "file" ? tree.find("bin/busybox") : tree.find("usr/bin/busybox");
  if (program?.type !== "file") throw new Error("stacyvm/busybox has no busybox");
  await mkdir(join(dir, "bin"), { recursive: true });
  const { block, size, tail } = program.data;
  await using file = await open(join(dir, "bin/busybox"), "w", 0o755);
  for await (const chunk of base.read(block * 4096, size - (tail?.length ?? 0))) await file.write(chunk);
  if (tail !== undefined) await file.write(tail);
  for (const name of ["sh", "echo", "true", "cat"]) await symlink("busybox", join(dir, "bin", name));
}

/** Adds the tree as the one layer of `tag` to an OCI layout. */
export async function treeImage(dir: string, layout: string, tag: string): Promise<void> {
  await run("umoci", ["init", "--layout", layout]).catch(() => {}); // it may exist
  await run("umoci", ["new", "--image", `${layout}:${tag}`]);
  const archive = `${layout}-${tag}.tar`;
  await run("tar", [
    "--create",
    "--format=posix",
    "--numeric-owner",
    "--sort=name",
    `--directory=${dir}`,
    `--file=${archive}`,
    ".",
  ]);
  await run("umoci", ["raw", "add-layer", "--image", `${layout}:${tag}`, archive]);
  await run("umoci", ["config", "--image", `${layout}:${tag}`, "--config.env", "PATH=/bin", "--config.cmd", "sh"]);
  await rm(archive);
}
