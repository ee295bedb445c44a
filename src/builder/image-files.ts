/** An image's files as a source of copies: read from its base, no machine is needed. */
import { nameBytes, nameText } from "../host/byte-name.ts";
import { sortedInTurns } from "../host/sorted.ts";
import { Pace } from "../host/turns.ts";
import { ErofsBase } from "../images/erofs-reader.ts";
import type { Image } from "../images/image.ts";
import type { FileNode, FileTree } from "../images/tree.ts";
import type { BuildFile, BuildFiles } from "./files.ts";
import { buildNames, type NameShare } from "./name-budget.ts";

export class ImageFiles implements BuildFiles, AsyncDisposable {
  readonly name: string;
  readonly #base: ErofsBase;
  readonly #tree: FileTree;
  readonly #share: NameShare;

  private constructor(name: string, base: ErofsBase, tree: FileTree, share: NameShare) {
    this.name = name;
    this.#base = base;
    this.#tree = tree;
    this.#share = share;
  }

  /** @param name for messages @param party whose build it is @throws StacyError `limit` */
  static async open(image: Image, name: string, party: string | undefined): Promise<ImageFiles> {
    await using open = new AsyncDisposableStack();
    const base = open.use(await ErofsBase.open(image.base));
    const share = open.use(buildNames.share(party));
    // It is here, so what it may hold was looked at.
    const tree = await base.tree({ entries: Infinity, bytes: Infinity, take: share.take });
    const files = new ImageFiles(name, base, tree, share);
    open.move();
    return files;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#share[Symbol.dispose]();
    await this.#base[Symbol.asyncDispose]();
  }

  get(path: string): BuildFile | undefined {
    const node = this.#tree.find(toBytes(path));
    if (node === undefined) return undefined;
    const { type, mode, uid, gid, mtime, xattrs } = node;
    return {
      ...{ path, type, mode, uid, gid, mtime, xattrs },
      target: node.type === "symlink" ? fromBytes(node.target) : "",
      size: node.type === "file" ? node.data.size : 0,
      ...("major" in node ? { major: node.major, minor: node.minor } : { major: 0, minor: 0 }),
      bytes: () => this.#bytes(node as FileNode),
    };
  }

  async names(path: string): Promise<readonly string[]> {
    const node = this.#tree.find(toBytes(path));
    if (node?.type !== "directory") return [];
    const pace = new Pace();
    const names: string[] = [];
    for (const name of node.children.keys()) {
      if (pace.over) await pace.rest();
      names.push(fromBytes(name));
    }
    return await sortedInTurns(names, pace);
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
  return nameBytes(path).toString("latin1");
}

function fromBytes(name: string): string {
  return nameText(Buffer.from(name, "latin1"));
}
