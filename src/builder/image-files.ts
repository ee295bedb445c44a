/** An image's files as a source of copies: read from its base, no machine is needed. */
import { DEFAULT_LIMITS } from "../images/base.ts";
import { ErofsBase } from "../images/erofs-reader.ts";
import type { Image } from "../images/image.ts";
import type { FileNode, FileTree } from "../images/tree.ts";
import type { BuildFile, BuildFiles } from "./files.ts";

export class ImageFiles implements BuildFiles, AsyncDisposable {
  readonly name: string;
  readonly #base: ErofsBase;
  readonly #tree: FileTree;

  private constructor(name: string, base: ErofsBase, tree: FileTree) {
    this.name = name;
    this.#base = base;
    this.#tree = tree;
  }

  /** @param name for messages */
  static async open(image: Image, name: string): Promise<ImageFiles> {
    await using open = new AsyncDisposableStack();
    const base = open.use(await ErofsBase.open(image.base));
    const files = new ImageFiles(name, base, await base.tree(DEFAULT_LIMITS));
    open.move();
    return files;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#base[Symbol.asyncDispose]();
  }

  get(path: string): BuildFile | undefined {
    const node = this.#tree.find(toBytes(path));
    if (node === undefined || (node.type !== "file" && node.type !== "directory" && node.type !== "symlink")) {
      return undefined;
    }
    const { type, mode, uid, gid, mtime, xattrs } = node;
    return {
      ...{ path, type, mode, uid, gid, mtime, xattrs },
      target: node.type === "symlink" ? fromBytes(node.target) : "",
      size: node.type === "file" ? node.data.size : 0,
      bytes: () => this.#bytes(node as FileNode),
    };
  }

  names(path: string): readonly string[] {
    const node = this.#tree.find(toBytes(path));
    return node?.type === "directory" ? [...node.children.keys()].map(fromBytes).sort() : [];
  }

  async *#bytes({ data }: FileNode): AsyncGenerator<Uint8Array> {
    const { block, size, tail } = data;
    const length = size - (tail?.length ?? 0);
    // A chunk of the base is valid until the next one only, and whoever packs it may keep it longer.
    if (length > 0) for await (const chunk of this.#base.read(block * 4096, length)) yield Buffer.from(chunk);
    if (tail !== undefined) yield tail;
  }
}

/** A tree's names have one character per byte. */
function toBytes(path: string): string {
  return Buffer.from(path, "utf8").toString("latin1");
}

function fromBytes(name: string): string {
  return Buffer.from(name, "latin1").toString("utf8");
}
