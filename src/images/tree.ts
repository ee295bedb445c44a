/**
 * An image's file tree while it is built, in memory: layers are applied to it in order, then it is written out. Paths of
 * hostile archives are resolved here and only here, in the tree itself, so no path can reach the host's files.
 *
 * Names are bytes as `latin1` strings, as `tar.ts` gives them; sorting such strings sorts by bytes.
 */
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
}

interface Common {
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNs: number;
  xattrs: Map<string, Buffer>;
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
}

const MAX_LINKS = 40; // what Linux follows in one path
const MAX_DEPTH = 1024;
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
    for (const [name, value] of entry.xattrs) this.#words += name.length + value.length;
    this.#words += entry.link.length + Math.min(entry.path.length, 255);
    this.#count();
  }

  #count(): void {
    this.#entries++;
    if (this.#entries > this.#limits.entries || this.#bytes > this.#limits.bytes) {
      throw new StacyError("limit", "the image holds more than is allowed", {
        data: { entries: this.#entries, bytes: this.#bytes, limits: this.#limits },
        remedy: "raise `images.max_image_bytes` and `images.max_image_entries` if you trust this image",
      });
    }
    if (this.#words > ARCHIVE_BOUNDS.nameBytes) {
      throw new StacyError("limit", "the image's names and attributes are longer than is allowed", {
        remedy: "leave files or attributes out of the image",
      });
    }
  }

  /**
   * Applies one entry of the current layer.
   * @param data of a file; required there
   * @throws StacyError `corrupt` when its path leaves the image, or contradicts what is there
   */
  apply(entry: TarEntry, data: FileData | undefined, { whiteouts }: Applied): void {
    const parts = split(entry.path);
    const name = parts.pop();
    if (name === undefined) {
      if (entry.type !== "directory") throw corrupt(`the root is a ${entry.type}`, entry.path);
      Object.assign(this.root, common(entry));
      return;
    }
    const parent = this.#parent(parts, entry.path);
    if (whiteouts && name.startsWith(WHITEOUT)) {
      this.#whiteout(parent, name, entry.path);
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
    const seen = new Set<TreeNode>();
    const stack: [string, TreeNode][] = [["", this.root]];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      const [path, node] = top;
      if (seen.has(node)) continue;
      seen.add(node);
      yield [path === "" ? "/" : path, node];
      if (node.type !== "directory") continue;
      for (const [name, child] of node.children) stack.push([`${path}/${name}`, child.node]);
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

  #whiteout(parent: DirectoryNode, name: string, path: string): void {
    if (name === OPAQUE) {
      this.#clear(parent);
      return;
    }
    if (name.startsWith(`${WHITEOUT}${WHITEOUT}`)) return; // notes of the aufs driver
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === "" || hidden === "." || hidden === "..") throw corrupt("a whiteout of no name", path);
    this.#hide(parent, hidden);
  }

  /** Removes what lower layers put into a directory. Once for each: an archive may ask for it as often as it has room for. */
  #clear(directory: DirectoryNode): void {
    if (directory.cleared === this.#layer) return;
    for (const child of [...directory.children.keys()]) this.#hide(directory, child);
    directory.cleared = this.#layer;
  }

  /** Removes what lower layers put under a name, and keeps what this layer did. */
  #hide(parent: DirectoryNode, name: string): void {
    const child = parent.children.get(name);
    if (child === undefined) return;
    if (child.node.type === "directory") {
      this.#clear(child.node);
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
        this.#words += name.length;
        this.#count();
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
  return { type: "directory", children: new Map(), mode, uid: 0, gid: 0, mtime: 0, mtimeNs: 0, xattrs: new Map() };
}

export function symlink(target: string): SymlinkNode {
  return { type: "symlink", target, mode: 0o777, uid: 0, gid: 0, mtime: 0, mtimeNs: 0, xattrs: new Map() };
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
function keptXattrs(xattrs: Map<string, Buffer>): Map<string, Buffer> {
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
