/** What a side of a sync looks like: by path, relative to its top, `/` between names. */

export interface Entry {
  kind: "file" | "directory" | "link";
  /** Permission bits; of a link 0. */
  mode: number;
  /** Bytes, of a file. */
  size: number;
  /** Of a file, µs since 1970. */
  mtimeUs: number;
  /** Where a link leads. */
  target?: string;
  /** SHA-256 of a file's content in hex, where it is known. */
  hash?: string;
  /** In the sandbox: whom it belongs to. */
  owner?: { uid: number; gid: number };
}

export type Tree = Map<string, Entry>;

/** What both sides had in common when they last agreed on it: the content, and when each side's file was last changed. */
export interface Agreed extends Omit<Entry, "mtimeUs" | "owner"> {
  hereUs: number;
  thereUs: number;
}

export type Agreement = Map<string, Agreed>;

/** Whether two are the same to whoever reads them. A file whose content is not known is like no other. */
export function same(a: Omit<Entry, "mtimeUs"> | undefined, b: Omit<Entry, "mtimeUs"> | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (a.kind !== b.kind || a.mode !== b.mode) return false;
  if (a.kind === "link") return a.target === b.target;
  return a.kind === "directory" || sameContent(a, b);
}

export function sameContent(a: Omit<Entry, "mtimeUs">, b: Omit<Entry, "mtimeUs">): boolean {
  return a.kind === "file" && b.kind === "file" && a.hash !== undefined && a.hash === b.hash;
}

/** The directory that it is in; "" for one at the top. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

/** Of the sync's own making, while it writes: no part of any side. */
export const TEMPORARY = ".stacyvm-sync-";
/** One that is so old belongs to no sync that runs. */
export const ABANDONED_MS = 3_600_000;
