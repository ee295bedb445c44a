/**
 * An image's file tree while it is built, in memory: layers are applied to it in order, then it is written out. Paths of
 * hostile archives are resolved here and only here, in the tree itself, so no path can reach the host's files.
 *
 * Names are bytes as `latin1` strings, as `tar.ts` gives them; sorting such strings sorts by bytes.
 */
import { getHeapStatistics } from "node:v8";
import { ARCHIVE_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import type { TarEntry } from "./tar.ts";

/** Where a file's bytes lie in the image under construction (erofs.ts). */
export interface FileData {
  size: number;
  /** First 4 KiB block of the whole blocks, which lie together. */
  block: number;
  /** The bytes after the whole blocks, when they are stored beside the inode. */
  tail: Buffer | undefined;
  /** The blocks are in the base below, not in the image under construction. */
  below?: boolean;
}

// Notes of those who walk over a tree stand on its nodes: a table of a million of them stops everything for 30 ms when it grows.
interface Common {
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNs: number;
  xattrs: ReadonlyMap<string, Buffer>;
  /** The walk that has met it (`FileTree.names`). */
  walk?: number;
  /** Where it stands in the order of what is written (erofs.ts). */
  index?: number;
}

export interface FileNode extends Common {
  type: "file";
  data: FileData;
}
export interface SymlinkNode extends Common {
  type: "symlink";
  target: string;
}
export interface DeviceNode extends Common {
  type: "character" | "block" | "fifo";
  major: number;
  minor: number;
}
export interface DirectoryNode extends Common {
  type: "directory";
  children: Map<string, Child>;
  /** The layer in which all that lower ones had put here was hidden: what marks that again has nothing to look for. */
  cleared?: number;
}
export type TreeNode = FileNode | SymlinkNode | DeviceNode | DirectoryNode;

/** A name in a directory. Several names with one node are hard links. */
interface Child {
  node: TreeNode;
  /** The layer that named it last: whiteouts hide only what lower layers brought. */
  layer: number;
}

export interface TreeLimits {
  /** Names in the whole image. */
  entries: number;
  /** Bytes of all files. */
  bytes: number;
  /** Told how much more memory the tree needs, bytes; may throw. */
  take?(bytes: number): void;
}

/** Most have none, and an empty table takes more than all else that is known of a file. */
export const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

const MAX_LINKS = 40; // what Linux follows in one path
const MAX_DEPTH = 1024;
/** On a small host a tree has less: two are built at a time, and builds keep some. */
const HEAP_SHARE = getHeapStatistics().heap_size_limit / 4;
const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

export interface Applied {
  /** `whiteouts: false` for plain archives, where `.wh.` has no meaning. */
  whiteouts: boolean;
}

export class FileTree {
  readonly root: DirectoryNode = directory();
  readonly #limits: TreeLimits;
  #layer = 0;
  #entries = 0;
  #bytes = 0;
  /** Of names, targets and attributes: they are in memory, and an archive of nothing but them is small. */
  #words = 0;
  /** What all of it takes in memory, also while it is written out. */
  #memory = 0;
  #walks = 0;

  constructor(limits: TreeLimits) {
    this.#limits = limits;
  }

  /** What is applied from here on lies above what is there. */
  beginLayer(): void {
    this.#layer++;
  }

  /**
   * Counts an entry against the limits, before its content is read.
   * @throws StacyError `limit`
   */
  admit(entry: TarEntry): void {
    this.#bytes += entry.size;
    // A part of a path keeps the whole of it.
    let words = entry.link.length + entry.path.length;
    for (const [name, value] of entry.xattrs) words += name.length + value.length + ARCHIVE_BOUNDS.attributeBytes;
    this.#count(words);
  }

  /** Puts a node of a finished image into a directory, as it was there. @param isNew it has no other name yet @throws StacyError `limit` */
  inherit(parent: DirectoryNode, name: string, node: TreeNode, isNew: boolean): void {
    let words = name.length;
    if (isNew) {
      if (node.type === "file") this.#bytes += node.data.size;
      if (node.type === "symlink") words += node.target.length;
      for (const [key, value] of node.xattrs) words += key.length + value.length + ARCHIVE_BOUNDS.attributeBytes;
    }
    this.#count(words);
    parent.children.set(name, { node, layer: 0 });
  }

  #count(words: number): void {
    const { entryBytes, treeBytes, nameBytes } = ARCHIVE_BOUNDS;
    this.#entries++;
    this.#words += words;
    this.#memory += entryBytes + words;
    this.#limits.take?.(entryBytes + words);
    if (this.#entries > this.#limits.entries || this.#bytes > this.#limits.bytes) {
      throw new StacyError("limit", "the image holds more than is allowed", {
        data: { entries: this.#entries, bytes: this.#bytes, limits: this.#limits },
        remedy: "raise `images.max_image_bytes` and `images.max_image_entries` if you trust this image",
      });
    }
    if (this.#words > nameBytes || this.#memory > Math.min(treeBytes, HEAP_SHARE)) {
      throw new StacyError("limit", "the image's names and attributes take more memory than is allowed", {
        data: { entries: this.#entries, memory: this.#memory },
        remedy: "leave files or attributes out of the image",
      });
    }
  }

  /**
   * Applies one entry of the current layer. In steps: what it hides may be very much.
   * @param data of a file; required there
   * @throws StacyError `corrupt` when its path leaves the image, or contradicts what is there
   */
  *apply(entry: TarEntry, data: FileData | undefined, { whiteouts }: Applied): Generator<undefined, void> {
    const parts = split(entry.path);
    const name = parts.pop();
    if (name === undefined) {
      if (entry.type !== "directory") throw corrupt(`the root is a ${entry.type}`, entry.path);
      Object.assign(this.root, common(entry));
      return;
    }
    const parent = this.#parent(parts, entry.path);
    if (whiteouts && name.startsWith(WHITEOUT)) {
      yield* this.#whiteout(parent, name, entry.path);
      return;
    }
    const before = parent.children.get(name);
    if (entry.type === "directory" && before?.node.type === "directory") {
      Object.assign(before.node, common(entry));
      before.layer = this.#layer;
      return;
    }
    parent.children.set(name, { node: this.#node(entry, data), layer: this.#layer });
  }

  /** Adds or replaces a file, directory or link of our own, for example `/etc/hostname`. */
  put(path: string, node: TreeNode): void {
    const parts = split(path);
    const name = parts.pop();
    if (name === undefined) throw corrupt("no name", path);
    this.#parent(parts, path).children.set(name, { node, layer: this.#layer });
  }

  /** The directory at a path with those above it, symlinks followed. @throws StacyError `corrupt` when something else is there */
  makeDirectories(path: string): void {
    this.#parent(split(path), path);
  }

  remove(path: string): void {
    const parts = split(path);
    const name = parts.pop();
    if (name === undefined) return;
    const parent = this.find(parts.join("/"));
    if (parent?.type === "directory") parent.children.delete(name);
  }

  /** The node at a path, symlinks on the way followed, at the end not. */
  find(path: string): TreeNode | undefined {
    const parts = split(path);
    const name = parts.pop();
    if (name === undefined) return this.root;
    const parent = this.#walk(parts, path, false);
    return parent?.children.get(name)?.node;
  }

  /** Every node once, with one of its paths, directories before what is in them. */
  *nodes(): Generator<[path: string, node: TreeNode]> {
    for (const [path, node, again] of this.names()) if (!again) yield [path, node];
  }

  /**
   * Every name, directories before what is in them, for those who let others have their turn between the steps: one file may have a
   * million names. One walk at a time.
   * @returns also whether the node came before, under another name
   */
  *names(): Generator<[path: string, node: TreeNode, again: boolean]> {
    const walk = ++this.#walks;
    yield ["/", this.root, false];
    const stack: { path: string; left: Iterator<[string, Child]> }[] = [
      { path: "", left: this.root.children.entries() },
    ];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.left.next();
      if (next.done) {
        stack.pop();
        continue;
      }
      const [name, { node }] = next.value;
      const path = `${top.path}/${name}`;
      // Only what is no directory has several names.
      const again = node.walk === walk;
      node.walk = walk;
      if (node.type === "directory") stack.push({ path, left: node.children.entries() });
      yield [path, node, again];
    }
  }

  #node(entry: TarEntry, data: FileData | undefined): TreeNode {
    const base = common(entry);
    switch (entry.type) {
      case "file":
        if (data === undefined) throw new StacyError("internal", "a file without content");
        return { type: "file", data, ...base };
      case "directory":
        return { type: "directory", children: new Map(), ...base };
      case "symlink":
        if (entry.link === "") throw corrupt("a symbolic link without a target", entry.path);
        return { type: "symlink", target: entry.link, ...base, mode: 0o777 };
      case "hardlink": {
        const target = this.find(entry.link);
        if (target === undefined || target.type === "directory") {
          throw corrupt(`a hard link to ${show(entry.link)}, which is no file of the image`, entry.path);
        }
        return target;
      }
      default:
        return { type: entry.type, major: entry.major, minor: entry.minor, ...base };
    }
  }

  *#whiteout(parent: DirectoryNode, name: string, path: string): Generator<undefined, void> {
    if (name === OPAQUE) {
      yield* this.#clear(parent);
      return;
    }
    if (name.startsWith(`${WHITEOUT}${WHITEOUT}`)) return; // notes of the aufs driver
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === "" || hidden === "." || hidden === "..") throw corrupt("a whiteout of no name", path);
    yield* this.#hide(parent, hidden);
  }

  /** Removes what lower layers put into a directory. Once for each: an archive may ask for it as often as it has room for. */
  *#clear(directory: DirectoryNode): Generator<undefined, void> {
    if (directory.cleared === this.#layer) return;
    for (const child of directory.children.keys()) {
      yield* this.#hide(directory, child);
      yield;
    }
    directory.cleared = this.#layer;
  }

  /** Removes what lower layers put under a name, and keeps what this layer did. */
  *#hide(parent: DirectoryNode, name: string): Generator<undefined, void> {
    const child = parent.children.get(name);
    if (child === undefined) return;
    if (child.node.type === "directory") {
      yield* this.#clear(child.node);
      // Layers need not name a directory again to put something into it.
      if (child.node.children.size > 0) return;
    }
    if (child.layer < this.#layer) parent.children.delete(name);
  }

  #parent(parts: string[], path: string): DirectoryNode {
    const found = this.#walk(parts, path, true);
    if (found === undefined) throw corrupt("no such directory", path);
    return found;
  }

  /** Follows symlinks inside the tree, `..` in their targets ends at its root. @param create makes missing directories */
  #walk(parts: string[], path: string, create: boolean): DirectoryNode | undefined {
    const pending = [...parts].reverse();
    const trail: DirectoryNode[] = [this.root];
    let links = 0;
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      if (name === "" || name === ".") continue;
      if (name === "..") {
        if (trail.length > 1) trail.pop();
        continue;
      }
      const here = trail.at(-1) ?? this.root;
      const child = here.children.get(name)?.node;
      if (child?.type === "directory") {
        trail.push(child);
      } else if (child?.type === "symlink") {
        if (++links > MAX_LINKS) throw corrupt("too many symbolic links", path);
        if (child.target.startsWith("/")) trail.length = 1;
        const target = child.target.split("/");
        if (pending.length + target.length > MAX_DEPTH * 2) throw corrupt("too deep", path);
        pending.push(...target.reverse());
      } else if (child !== undefined) {
        throw corrupt(`${show(name)} is no directory`, path);
      } else if (create) {
        // No entry names it, and a path may have a thousand of them.
        this.#count(name.length);
        const made = directory();
        here.children.set(name, { node: made, layer: this.#layer });
        trail.push(made);
      } else {
        return undefined;
      }
      if (trail.length > MAX_DEPTH) throw corrupt("too deep", path);
    }
    return trail.at(-1);
  }
}

export function directory(mode = 0o755): DirectoryNode {
  return { type: "directory", children: new Map(), mode, uid: 0, gid: 0, mtime: 0, mtimeNs: 0, xattrs: NO_XATTRS };
}

export function symlink(target: string): SymlinkNode {
  return { type: "symlink", target, mode: 0o777, uid: 0, gid: 0, mtime: 0, mtimeNs: 0, xattrs: NO_XATTRS };
}

function common(entry: TarEntry): Common {
  return {
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtime: entry.mtime,
    mtimeNs: entry.mtimeNs,
    xattrs: keptXattrs(entry.xattrs),
  };
}

/** Overlay's own attributes would act on the guest's overlay: an image must not hide or redirect its files that way. */
function keptXattrs(xattrs: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  if (xattrs.size === 0) return NO_XATTRS;
  return new Map([...xattrs].filter(([name]) => !/^(trusted|user)\.overlay\./.test(name)));
}

/** Components of a path relative to the root. @throws StacyError `corrupt` when it climbs out */
function split(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      if (parts.pop() === undefined) throw corrupt("the path leaves the image", path);
      continue;
    }
    if (part.length > 255) throw corrupt("a name longer than 255 bytes", path);
    parts.push(part);
  }
  if (parts.length > MAX_DEPTH) throw corrupt("too deep", path);
  return parts;
}

function show(bytes: string): string {
  return JSON.stringify(Buffer.from(bytes.slice(0, 200), "latin1").toString("utf8"));
}

function corrupt(why: string, path: string): StacyError {
  return new StacyError("corrupt", `the image has an unsound entry ${show(path)}: ${why}`);
}
