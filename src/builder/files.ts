/** What a copy takes files from: the build's own files, or an image. */
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";
import type { TarType } from "../images/tar.ts";
import { namePattern } from "./match.ts";

export interface BuildFile {
  /** Relative, without `./` and without a slash at the end; the root is the empty string. Bytes as byte-name.ts has them in text. */
  path: string;
  type: Exclude<TarType, "hardlink">;
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  /** Of a symlink. */
  target: string;
  /** Bytes; 0 for all but files. */
  size: number;
  /** Of a device; else 0. */
  major: number;
  minor: number;
  /** Full name to value. */
  xattrs: ReadonlyMap<string, Buffer>;
  bytes(): AsyncIterable<Uint8Array>;
}

export interface BuildFiles {
  /** What is said when something is missing: `the build's files`, `the image x`. */
  readonly name: string;
  /** Links on the way and at the end are not followed. Sockets are nothing that an archive or an image could have. */
  get(path: string): BuildFile | undefined;
  /** Names in a directory, in their order; empty for anything else. */
  names(path: string): Promise<readonly string[]>;
}

const MAX_LINKS = 40;
/** Names on the way, those of the links' targets too: more than a path has room for. */
const MAX_STEPS = 4_096;

/** A clean relative path. @throws StacyError `invalid` when it climbs out */
export function relativePath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) throw new StacyError("invalid", `${path} lies outside of the build's files`);
  }
  return parts.join("/");
}

/** Where a path leads, links followed as if the files' root were `/`; `undefined`: nowhere. In steps. */
export function* follow(files: BuildFiles, path: string): Generator<undefined, string | undefined> {
  const pending = path.split("/").reverse();
  let trail = "";
  let links = 0;
  let steps = 0;
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === "" || name === ".") continue;
    if (++steps > MAX_STEPS) return undefined;
    yield;
    if (name === "..") {
      trail = trail.slice(0, Math.max(0, trail.lastIndexOf("/")));
      continue;
    }
    const here = trail === "" ? name : `${trail}/${name}`;
    const found = files.get(here);
    if (found === undefined) return undefined;
    if (found.type !== "symlink") {
      trail = here;
      continue;
    }
    if (++links > MAX_LINKS) return undefined;
    if (found.target.startsWith("/")) trail = "";
    pending.push(...found.target.split("/").reverse());
  }
  return trail;
}

/** Paths that a pattern means, in their order; a plain name means itself. A star stops at a slash. */
export async function matching(files: BuildFiles, pattern: string, most?: number): Promise<string[]> {
  const pace = new Pace();
  let found = [""];
  for (const part of relativePath(pattern).split("/")) {
    if (part === "") continue;
    const fits = namePattern(part);
    const next: string[] = [];
    for (const path of found) {
      const directory = await pace.through(follow(files, path));
      for (const name of directory === undefined ? [] : await files.names(directory)) {
        if (pace.over) await pace.rest();
        if (!(await pace.through(fits.steps(name)))) continue;
        // Links to directories let it mean the same files again and again.
        assertFew(next.length, most);
        next.push(path === "" ? name : `${path}/${name}`);
      }
    }
    found = next;
  }
  return found;
}

/** @param copied files that a copy means already @throws StacyError `limit` */
export function assertFew(copied: number, most: number = BUILD_BOUNDS.copied): void {
  if (copied < most) return;
  throw new StacyError("limit", `one copy means more than ${most} files`, {
    remedy: "copy a directory, or leave files out",
  });
}

/** Everything below a directory, directories before what is in them. */
export async function* below(files: BuildFiles, path: string): AsyncGenerator<BuildFile> {
  const stack = [{ path, names: await files.names(path), at: 0 }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const name = top.names[top.at++];
    if (name === undefined) {
      stack.pop();
      continue;
    }
    const file = files.get(top.path === "" ? name : `${top.path}/${name}`);
    if (file === undefined) continue;
    yield file;
    if (file.type === "directory") stack.push({ path: file.path, names: await files.names(file.path), at: 0 });
  }
}
