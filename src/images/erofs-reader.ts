/**
 * Reads a base that `erofs.ts` has written back into a file tree, so that an image can be made of another one and what lies
 * above it. Only that writer's own form is understood: uncompressed, extended inodes.
 */
import { type FileHandle, open } from "node:fs/promises";
import { StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";
import { S_IF } from "./erofs.ts";
import { type DirectoryNode, FileTree, NO_XATTRS, type TreeLimits, type TreeNode } from "./tree.ts";

const BLOCK = 4096;
const SLOT = 32;
const INODE = 64;
const MAGIC = 0xe0f5e1e2;
const LAYOUT_INLINE = 2;
const WINDOW = 1 << 20;
const READ_CHUNK = 1 << 20;
const NOTHING = Buffer.alloc(0);
const XATTR_PREFIXES: Record<number, string> = {
  1: "user.",
  2: "system.posix_acl_access",
  3: "system.posix_acl_default",
  4: "trusted.",
  6: "security.",
};
const TYPES = new Map(Object.entries(S_IF).map(([type, bits]) => [bits as number, type as TreeNode["type"]]));

interface Window {
  at: number;
  bytes: Buffer;
}

/** An open base. */
export class ErofsBase implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #path: string;
  /** Inodes and directories lie in two runs, each in the order in which a walk asks for them. */
  readonly #windows: [Window, Window] = [
    { at: 0, bytes: Buffer.alloc(0) },
    { at: 0, bytes: Buffer.alloc(0) },
  ];

  private constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  static async open(path: string): Promise<ErofsBase> {
    return new ErofsBase(await open(path, "r"), path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  /** Bytes of the image, in order. A chunk is valid until the next one is asked for. */
  async *read(at: number, length: number): AsyncGenerator<Buffer> {
    const buffer = Buffer.allocUnsafe(Math.min(length, READ_CHUNK));
    for (let done = 0; done < length; ) {
      const want = Math.min(buffer.length, length - done);
      const { bytesRead } = await this.#file.read(buffer, 0, want, at + done);
      if (bytesRead === 0) throw this.#damaged();
      yield buffer.subarray(0, bytesRead);
      done += bytesRead;
    }
  }

  /** The whole tree; file contents stay where they are. @throws StacyError `corrupt` */
  async tree(limits: TreeLimits): Promise<FileTree> {
    const superblock = await this.#bytes(1024, 128, 0);
    if (superblock.readUInt32LE(0) !== MAGIC || superblock.readUInt8(12) !== 12) throw this.#damaged();
    const meta = superblock.readUInt32LE(40) * BLOCK;
    const tree = new FileTree(limits);
    const pace = new Pace();
    const seen = new Map<number, TreeNode>();
    const rootNumber = superblock.readUInt16LE(14);
    const pending: ({ node: DirectoryNode; content: Buffer } | undefined)[] = [];
    const load = async (number: number): Promise<{ node: TreeNode; isNew: boolean }> => {
      const known = seen.get(number);
      if (known !== undefined) return { node: known, isNew: false };
      const { node, content } = await this.#inode(meta + number * SLOT);
      seen.set(number, node);
      if (node.type === "directory") pending.push({ node, content });
      return { node, isNew: true };
    };
    const { node: root } = await load(rootNumber);
    if (root.type !== "directory") throw this.#damaged();
    // The writer has put the inodes into this order, too.
    for (let i = 0; i < pending.length; i++) {
      const next = pending[i];
      if (next === undefined) continue;
      pending[i] = undefined;
      for (const [name, number] of entries(next.content)) {
        if (pace.over) await pace.rest();
        const { node, isNew } = await load(number);
        tree.inherit(next.node, name, node, isNew);
      }
    }
    Object.assign(tree.root, root);
    return tree;
  }

  async #inode(at: number): Promise<{ node: TreeNode; content: Buffer }> {
    const bytes = Buffer.from(await this.#bytes(at, INODE, 0));
    const format = bytes.readUInt16LE(0);
    const layout = (format >> 1) & 7;
    const mode = bytes.readUInt16LE(4);
    const type = TYPES.get(mode & 0o170000);
    if ((format & 1) === 0 || (layout !== 0 && layout !== LAYOUT_INLINE) || type === undefined) throw this.#damaged();
    const size = Number(bytes.readBigUInt64LE(8));
    const location = bytes.readUInt32LE(16);
    const xattrCount = bytes.readUInt16LE(2);
    const xattrBytes = xattrCount === 0 ? 0 : 12 + 4 * (xattrCount - 1);
    const common = {
      mode: mode & 0o7777,
      uid: bytes.readUInt32LE(24),
      gid: bytes.readUInt32LE(28),
      mtime: Number(bytes.readBigInt64LE(32)),
      mtimeNs: bytes.readUInt32LE(40),
      xattrs: parseXattrs(await this.#bytes(at + INODE, xattrBytes, 0)),
    };
    const inline = layout === LAYOUT_INLINE ? size % BLOCK : 0;
    const tail = inline === 0 ? undefined : Buffer.from(await this.#bytes(at + INODE + xattrBytes, inline, 0));
    const content = async (): Promise<Buffer> => {
      const blocks = size === inline ? NOTHING : await this.#bytes(location * BLOCK, size - inline, 1);
      return Buffer.concat([blocks, ...(tail === undefined ? [] : [tail])]);
    };
    switch (type) {
      case "file":
        return { node: { type, data: { size, block: location, tail, below: true }, ...common }, content: NOTHING };
      case "symlink":
        return { node: { type, target: (await content()).toString("latin1"), ...common }, content: NOTHING };
      case "directory":
        return { node: { type, children: new Map(), ...common }, content: await content() };
      default: {
        const major = type === "fifo" ? 0 : (location >>> 8) & 0xfff;
        const minor = type === "fifo" ? 0 : (location & 0xff) | ((location >>> 12) & 0xfff00);
        return { node: { type, major, minor, ...common }, content: NOTHING };
      }
    }
  }

  /** A view that is valid until the same run is asked again. */
  async #bytes(at: number, length: number, run: 0 | 1): Promise<Buffer> {
    if (length === 0) return Buffer.alloc(0);
    const window = this.#windows[run];
    if (at < window.at || at + length > window.at + window.bytes.length) {
      const bytes = Buffer.allocUnsafe(Math.max(WINDOW, length));
      const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, at);
      window.at = at;
      window.bytes = bytes.subarray(0, bytesRead);
    }
    const from = at - window.at;
    const view = window.bytes.subarray(from, from + length);
    if (view.length < length) throw this.#damaged();
    return view;
  }

  #damaged(): StacyError {
    return new StacyError("corrupt", `${this.#path} is not a base that this software has written`, {
      remedy: "remove the image and pull it again",
    });
  }
}

/** Names and inode numbers of a directory, without `.` and `..`. */
function* entries(content: Buffer): Generator<[name: string, number: number]> {
  for (let block = 0; block < content.length; block += BLOCK) {
    const bytes = content.subarray(block, block + BLOCK);
    const count = bytes.readUInt16LE(8) / 12;
    for (let i = 0; i < count; i++) {
      const nameAt = bytes.readUInt16LE(i * 12 + 8);
      const end = i + 1 < count ? bytes.readUInt16LE((i + 1) * 12 + 8) : bytes.length;
      const name = bytes.toString("latin1", nameAt, end).replace(/\0+$/, "");
      if (name !== "." && name !== "..") yield [name, Number(bytes.readBigUInt64LE(i * 12))];
    }
  }
}

function parseXattrs(area: Buffer): ReadonlyMap<string, Buffer> {
  if (area.length === 0) return NO_XATTRS;
  const xattrs = new Map<string, Buffer>();
  for (let at = 12; at + 4 <= area.length; ) {
    const nameLength = area.readUInt8(at);
    const prefix = XATTR_PREFIXES[area.readUInt8(at + 1)];
    const valueLength = area.readUInt16LE(at + 2);
    const value = at + 4 + nameLength;
    if (prefix !== undefined) {
      const name = prefix + area.toString("latin1", at + 4, value);
      xattrs.set(name, Buffer.from(area.subarray(value, value + valueLength)));
    }
    at += Math.ceil((4 + nameLength + valueLength) / 4) * 4;
  }
  return xattrs;
}
