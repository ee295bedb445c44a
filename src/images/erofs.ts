/**
 * Writes a file tree as an EROFS filesystem, uncompressed. Our own writer, because it lets an image be built straight from
 * its layers: file contents stream from the archive into place, owners, devices and attributes are numbers in a table, and
 * so nothing is ever unpacked on the host, which would need root, or a user namespace, and care with hostile paths. Debian 12's
 * mkfs.erofs (1.5) reads directories only. Uncompressed, since a guest without hardware virtualisation pays dearly for
 * decompression. The same tree gives the same bytes.
 *
 *     block 0        superblock at byte 1024
 *     blocks 1..     file contents, each file's whole blocks together
 *     meta           inodes in 32-byte slots; small directories, links and file ends lie behind their inode
 *     after meta     larger directories
 *
 * Format: the kernel's fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst; all numbers little-endian.
 */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open, rm } from "node:fs/promises";
import { StacyError } from "../host/error.ts";
import { sortedInTurns } from "../host/sorted.ts";
import { Pace } from "../host/turns.ts";
import type { DirectoryNode, FileData, FileTree, TreeNode } from "./tree.ts";

const BLOCK = 4096;
const SLOT = 32;
/** Extended inodes: the compact ones have no time stamps of their own. */
const INODE = 64;
const MAGIC = 0xe0f5e1e2;
const FEATURE_MTIME = 2;
const LAYOUT_PLAIN = 0;
const LAYOUT_INLINE = 2;
/** A file's end up to this size lies behind its inode, so small files need no block of their own. */
const MAX_TAIL = 2048;
/** File ends are kept in memory until the inodes are written; past this sum they get blocks like the rest. */
const MAX_TAILS = 256 << 20;
const WRITE_CHUNK = 1 << 20;

/** `st_mode`'s type of each kind of node. */
export const S_IF = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
} as const;
const DIRENT_TYPE = { file: 1, directory: 2, character: 3, block: 4, fifo: 5, symlink: 7 } as const;

const NOTHING = Buffer.alloc(0);

interface Placed {
  node: TreeNode;
  /** Byte offset of the inode within the meta area. */
  at: number;
  number: number;
  links: number;
  xattrs: Buffer;
  /** What the inode describes besides a file's own data: entries of a directory (made late), target of a link. */
  dataSize: number;
  /** Bytes behind the inode. */
  inline: number;
  /** First block of the rest, or 0. */
  block: number;
  /** `..` of a directory; the root is its own parent. */
  parent: DirectoryNode | undefined;
}

/** Where a file's blocks can be read: an image under construction, or a finished one (erofs-reader.ts). */
export interface BlockSource {
  read(at: number, length: number): AsyncIterable<Uint8Array>;
}

export interface ErofsStats {
  files: number;
  bytes: number;
}

export class ErofsImage implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #path: string;
  #nextBlock = 1;
  #tails = 0;
  #buffer: Buffer = Buffer.allocUnsafe(WRITE_CHUNK);
  #finished = false;

  private constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Begins an image in the file `path`, which must not exist. Disposing of it unfinished removes the file. */
  static async create(path: string): Promise<ErofsImage> {
    return new ErofsImage(await open(path, "wx+", 0o600), path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    if (!this.#finished) await rm(this.#path, { force: true });
  }

  /** The path has been given to another file: disposing of this one leaves it alone. */
  keep(): void {
    this.#finished = true;
  }

  /** Streams a file's content in. @throws StacyError `corrupt` when it is not `size` bytes */
  async addFile(size: number, body: AsyncIterable<Uint8Array>): Promise<FileData> {
    const tailSize = size % BLOCK;
    const inline = tailSize <= MAX_TAIL && this.#tails + tailSize <= MAX_TAILS;
    const inBlocks = inline ? size - tailSize : size;
    const first = this.#nextBlock;
    const tail = inline && tailSize > 0 ? Buffer.allocUnsafe(tailSize) : undefined;
    const writer = new BlockWriter(this.#file, first * BLOCK, this.#buffer);
    let done = 0;
    for await (const chunk of body) {
      const fromBlocks = Math.max(0, Math.min(chunk.length, inBlocks - done));
      if (fromBlocks > 0) await writer.write(fromBlocks === chunk.length ? chunk : chunk.subarray(0, fromBlocks));
      if (fromBlocks < chunk.length && done + chunk.length <= size) {
        tail?.set(chunk.subarray(fromBlocks), Math.max(0, done - inBlocks));
      }
      done += chunk.length;
    }
    await writer.flush();
    if (done !== size) throw new StacyError("corrupt", `a file of ${size} bytes has ${done}`);
    this.#nextBlock += Math.ceil(inBlocks / BLOCK);
    if (tail !== undefined) this.#tails += tail.length;
    return { size, block: inBlocks === 0 ? 0 : first, tail };
  }

  /** Blocks that have been written so far. A file that no tree refers to in the end leaves its blocks unused. */
  get dataBlocks(): number {
    return this.#nextBlock - 1;
  }

  /** Copies a file's content from another image: leaves behind what was overwritten or deleted by later layers. */
  async copyFile(from: BlockSource, { size, tail, block }: FileData): Promise<FileData> {
    const length = size - (tail?.length ?? 0);
    if (length === 0) return { size, tail, block };
    const first = this.#nextBlock;
    const writer = new BlockWriter(this.#file, first * BLOCK, this.#buffer);
    for await (const chunk of from.read(block * BLOCK, length)) await writer.write(chunk);
    await writer.flush();
    this.#nextBlock += Math.ceil(length / BLOCK);
    return { size, tail, block: first };
  }

  /** Bytes that were written so far. A chunk is valid until the next one is asked for. */
  async *read(at: number, length: number): AsyncGenerator<Buffer> {
    const buffer = Buffer.allocUnsafe(Math.min(length, WRITE_CHUNK));
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#file.read(buffer, 0, Math.min(buffer.length, length - done), at + done);
      // Blocks of zeros at the end of the file have not been written.
      if (bytesRead === 0) buffer.fill(0);
      const have = bytesRead === 0 ? Math.min(buffer.length, length - done) : bytesRead;
      yield buffer.subarray(0, have);
      done += have;
    }
  }

  /** Writes the inodes and directories, and syncs: the image is complete. The tree's directories are sorted for it. */
  async finish(tree: FileTree): Promise<ErofsStats> {
    const pace = new Pace();
    const metaBlock = this.#nextBlock;
    const { placed, metaSize } = await this.#place(tree, pace);
    const directories = metaBlock + Math.ceil(metaSize / BLOCK);
    let next = directories;
    const large: Placed[] = [];
    for (const place of placed) {
      if (pace.over) await pace.rest();
      if (place.node.type === "file" || place.dataSize <= place.inline) continue;
      large.push(place);
      place.block = next;
      next += Math.ceil((place.dataSize - place.inline) / BLOCK);
    }

    const digest = createHash("sha256");
    const meta = new BlockWriter(this.#file, metaBlock * BLOCK, this.#buffer, digest);
    for (const place of placed) {
      if (pace.over) await pace.rest();
      const { node } = place;
      await meta.padTo(metaBlock * BLOCK + place.at);
      await meta.write(inode(node, place));
      await meta.write(place.xattrs);
      if (place.inline === 0) continue;
      let last: Buffer | undefined;
      for (const piece of contentOf(node, placed)) {
        if (pace.over) await pace.rest();
        last = piece;
      }
      if (last !== undefined) await meta.write(last);
    }
    await meta.padTo(directories * BLOCK);
    for (const place of large) {
      await meta.padTo(place.block * BLOCK);
      let left = place.dataSize - place.inline;
      for (const piece of contentOf(place.node, placed)) {
        if (left === 0) break;
        if (pace.over) await pace.rest();
        await meta.write(piece);
        left -= piece.length;
      }
    }
    await meta.padTo(next * BLOCK);
    await meta.flush();
    await this.#file.truncate(next * BLOCK);

    const root = at(placed, tree.root);
    await this.#file.write(superblock(metaBlock, root.at / SLOT, placed.length, next, uuid(digest)), 0, BLOCK, 0);
    await this.#file.sync();
    this.#finished = true;
    return { files: placed.length, bytes: next * BLOCK };
  }

  /** Gives every inode its place: the root first (its number has 16 bits only), then each directory's children together. */
  async #place(tree: FileTree, pace: Pace): Promise<{ placed: Placed[]; metaSize: number }> {
    const placed: Placed[] = [];
    // Number 0 is kept free: C libraries take an inode number of 0 for a deleted entry.
    let end = SLOT * 2;
    const add = async (node: TreeNode, parent?: DirectoryNode): Promise<void> => {
      const xattrs = xattrArea(node);
      const dataSize = node.type === "directory" ? await sort(node, pace) : sizeOf(node);
      let inline = node.type === "file" ? (node.data.tail?.length ?? 0) : dataSize % BLOCK;
      if (INODE + xattrs.length + inline > BLOCK) {
        if (node.type === "file") throw new StacyError("not-supported", "a file's extended attributes are too large");
        inline = 0;
      }
      const need = INODE + xattrs.length + inline;
      const left = BLOCK - (end % BLOCK);
      if (need > left && inline > 0) end += left; // what lies behind an inode must not cross into another block
      node.index = placed.length;
      const number = placed.length + 1;
      placed.push({ node, at: end, number, links: 1, xattrs, dataSize, inline, block: 0, parent });
      end = Math.ceil((end + need) / SLOT) * SLOT;
    };
    await add(tree.root);
    at(placed, tree.root).links = 2;
    for (let i = 0; i < placed.length; i++) {
      const dir = placed[i]?.node;
      if (pace.over) await pace.rest();
      if (dir?.type !== "directory") continue;
      for (const { node: child } of dir.children.values()) {
        if (pace.over) await pace.rest();
        const before = placeOf(placed, child);
        if (before !== undefined) before.links++;
        else await add(child, dir);
        if (child.type === "directory") {
          at(placed, child).links = 2;
          at(placed, dir).links++;
        }
      }
    }
    return { placed, metaSize: end };
  }
}

/** An index that another image's writing has left is not one of this. */
function placeOf(placed: readonly Placed[], node: TreeNode): Placed | undefined {
  const place = placed[node.index ?? placed.length];
  return place?.node === node ? place : undefined;
}

function at(placed: readonly Placed[], node: TreeNode): Placed {
  const place = placeOf(placed, node);
  if (place === undefined) throw new StacyError("internal", "a node without a place");
  return place;
}

/** Puts a directory's names into the order of their bytes. @returns the size of its entries */
async function sort(dir: DirectoryNode, pace: Pace): Promise<number> {
  // Default order of strings is by UTF-16 units, which for one character per byte is the order of the bytes.
  const unsorted: string[] = [];
  for (const name of dir.children.keys()) {
    if (pace.over) await pace.rest();
    unsorted.push(name);
  }
  const names = await sortedInTurns(unsorted, pace);
  const sorted: DirectoryNode["children"] = new Map();
  for (const name of names) {
    if (pace.over) await pace.rest();
    const child = dir.children.get(name);
    if (child !== undefined) sorted.set(name, child);
  }
  dir.children = sorted;
  let blocks = 0;
  let last = 0;
  for (const { size } of direntBlocks(dir)) {
    if (pace.over) await pace.rest();
    blocks++;
    last = size;
  }
  return (blocks - 1) * BLOCK + last;
}

function sizeOf(node: TreeNode): number {
  return node.type === "symlink" ? node.target.length : 0;
}

/** Of a sorted directory, with its own two. */
function* direntNames(dir: DirectoryNode): Generator<string> {
  const own = [".", ".."];
  for (const name of dir.children.keys()) {
    while (own[0] !== undefined && own[0] < name) yield own.shift() as string;
    yield name;
  }
  yield* own;
}

/** Distributes sorted names over blocks; a block holds its entries first, then their names. */
function* direntBlocks(dir: DirectoryNode): Generator<{ names: string[]; size: number }> {
  let names: string[] = [];
  let size = 0;
  for (const name of direntNames(dir)) {
    const need = 12 + name.length;
    if (size + need > BLOCK) {
      yield { names, size };
      names = [];
      size = 0;
    }
    names.push(name);
    size += need;
  }
  yield { names, size };
}

/** What an inode other than a file's describes, in pieces of a block of which only the last may be shorter; of a file only its end. */
function* contentOf(node: TreeNode, placed: readonly Placed[]): Generator<Buffer> {
  if (node.type === "file") {
    if (node.data.tail !== undefined) yield node.data.tail;
    return;
  }
  if (node.type === "symlink") yield Buffer.from(node.target, "latin1");
  if (node.type !== "directory") return;
  let left = at(placed, node).dataSize;
  const resolve = (name: string): TreeNode => {
    if (name === ".") return node;
    if (name === "..") return at(placed, node).parent ?? node;
    return node.children.get(name)?.node ?? node;
  };
  for (const block of direntBlocks(node)) {
    const content = Buffer.alloc(Math.min(BLOCK, left));
    left -= content.length;
    let nameAt = block.names.length * 12;
    block.names.forEach((name, index) => {
      const child = resolve(name);
      const entry = index * 12;
      content.writeBigUInt64LE(BigInt(at(placed, child).at / SLOT), entry);
      content.writeUInt16LE(nameAt, entry + 8);
      content.writeUInt8(DIRENT_TYPE[child.type], entry + 10);
      content.write(name, nameAt, "latin1");
      nameAt += name.length;
    });
    yield content;
  }
}

function inode(node: TreeNode, place: Placed): Buffer {
  const bytes = Buffer.alloc(INODE);
  const layout = place.inline > 0 ? LAYOUT_INLINE : LAYOUT_PLAIN;
  bytes.writeUInt16LE(1 | (layout << 1), 0);
  bytes.writeUInt16LE(place.xattrs.length === 0 ? 0 : (place.xattrs.length - 12) / 4 + 1, 2);
  bytes.writeUInt16LE(S_IF[node.type] | node.mode, 4);
  bytes.writeBigUInt64LE(BigInt(node.type === "file" ? node.data.size : place.dataSize), 8);
  bytes.writeUInt32LE(location(node, place), 16);
  bytes.writeUInt32LE(place.number, 20);
  bytes.writeUInt32LE(node.uid, 24);
  bytes.writeUInt32LE(node.gid, 28);
  bytes.writeBigInt64LE(BigInt(node.mtime), 32);
  bytes.writeUInt32LE(node.mtimeNs, 40);
  bytes.writeUInt32LE(place.links, 44);
  return bytes;
}

/** First block of the data, or a device's number as the kernel's `new_encode_dev` packs it. */
function location(node: TreeNode, place: Placed): number {
  if (node.type === "file") return node.data.block;
  if (node.type === "character" || node.type === "block") {
    if (node.major > 0xfff || node.minor > 0xfffff) throw new StacyError("corrupt", "a device number out of range");
    return ((node.minor & 0xff) | (node.major << 8) | ((node.minor & ~0xff) << 12)) >>> 0;
  }
  return place.block;
}

/** Longer prefixes first. The name is stored without its prefix. */
const XATTR_PREFIXES: [prefix: string, index: number][] = [
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["security.", 6],
  ["trusted.", 4],
  ["user.", 1],
];

function xattrArea(node: TreeNode): Buffer {
  if (node.xattrs.size === 0) return NOTHING;
  const parts: Buffer[] = [Buffer.alloc(12)];
  for (const [name, value] of [...node.xattrs].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const prefix = XATTR_PREFIXES.find(([start]) => name.startsWith(start));
    if (prefix === undefined) continue; // a namespace that no Linux filesystem stores
    const rest = Buffer.from(name.slice(prefix[0].length), "latin1");
    if (rest.length > 255 || value.length > 0xffff) {
      throw new StacyError("corrupt", "an extended attribute is longer than Linux allows");
    }
    const size = 4 + rest.length + value.length;
    const entry = Buffer.alloc(Math.ceil(size / 4) * 4);
    entry.writeUInt8(rest.length, 0);
    entry.writeUInt8(prefix[1], 1);
    entry.writeUInt16LE(value.length, 2);
    rest.copy(entry, 4);
    value.copy(entry, 4 + rest.length);
    parts.push(entry);
  }
  if (parts.length === 1) return NOTHING;
  const area = Buffer.concat(parts);
  if (area.length > 12 + 4 * 0xfffe) {
    throw new StacyError("not-supported", "a file's extended attributes are too large");
  }
  return area;
}

/**
 * Of a digest, version 8 (RFC 9562). What lies above a base tells by it that it is still the same one; and the same tree has the
 * same one.
 */
function uuid(digest: Hash): Buffer {
  const bytes = digest.digest().subarray(0, 16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes;
}

function superblock(metaBlock: number, rootNid: number, inodes: number, blocks: number, id: Buffer): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  const sb = bytes.subarray(1024);
  sb.writeUInt32LE(MAGIC, 0);
  sb.writeUInt32LE(FEATURE_MTIME, 8);
  sb.writeUInt8(12, 12);
  sb.writeUInt16LE(rootNid, 14);
  sb.writeBigUInt64LE(BigInt(inodes), 16);
  sb.writeUInt32LE(blocks, 36);
  sb.writeUInt32LE(metaBlock, 40);
  id.copy(sb, 48);
  return bytes;
}

const ZEROS = Buffer.alloc(BLOCK);

/** Sequential writes in large pieces. Whole zero blocks stay holes: the file is new, so they read as zeros. */
class BlockWriter {
  readonly #file: FileHandle;
  readonly #buffer: Buffer;
  readonly #digest: Hash | undefined;
  #at: number;
  #used = 0;

  /** @param at a multiple of 4096. @param digest takes in what is written */
  constructor(file: FileHandle, at: number, buffer: Buffer, digest?: Hash) {
    this.#file = file;
    this.#at = at;
    this.#buffer = buffer;
    this.#digest = digest;
  }

  async write(data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const part = Math.min(data.length - done, this.#buffer.length - this.#used);
      this.#buffer.set(data.subarray(done, done + part), this.#used);
      this.#used += part;
      done += part;
      if (this.#used === this.#buffer.length) await this.flush();
    }
  }

  async padTo(position: number): Promise<void> {
    for (let missing = position - this.#at - this.#used; missing > 0; ) {
      const part = Math.min(missing, BLOCK);
      await this.write(ZEROS.subarray(0, part));
      missing -= part;
    }
  }

  async flush(): Promise<void> {
    this.#digest?.update(this.#buffer.subarray(0, this.#used));
    let start = 0;
    let end = this.#used;
    while (start + BLOCK <= end && isZero(this.#buffer, start)) start += BLOCK;
    while (end - BLOCK >= start && end % BLOCK === 0 && isZero(this.#buffer, end - BLOCK)) end -= BLOCK;
    for (let done = start; done < end; ) {
      const { bytesWritten } = await this.#file.write(this.#buffer, done, end - done, this.#at + done);
      done += bytesWritten;
    }
    this.#at += this.#used;
    this.#used = 0;
  }
}

function isZero(buffer: Buffer, offset: number): boolean {
  return buffer.compare(ZEROS, 0, BLOCK, offset, offset + BLOCK) === 0;
}
