/**
 * This host's side of a sync. What comes from the sandbox is hostile: nothing is written through a link, and each name is looked at again right before
 * it is replaced or removed, so that what was changed here meanwhile stays.
 */
import { createHash, randomUUID } from "node:crypto";
import { type BigIntStats, constants } from "node:fs";
import {
  chmod,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  rmdir,
  symlink,
  unlink,
} from "node:fs/promises";
import { join } from "node:path";
import { errno, StacyError } from "../host/error.ts";
import { IGNORE_FILE, type Ignored } from "./ignored.ts";
import { ABANDONED_MS, type Agreement, type Entry, parentOf, TEMPORARY, type Tree } from "./tree.ts";

export interface Scan {
  tree: Tree;
  /** What cannot be synced, and why. */
  left: Map<string, string>;
}

/** Something that was changed meanwhile: the next round looks at it again. */
export class Changed extends Error {}

/**
 * @param last files as they were agreed on are not read again
 * @param ignored is told of each directory's rules on the way
 */
export async function scanHere(top: string, last: Agreement, ignored: Ignored): Promise<Scan> {
  const scan: Scan = { tree: new Map(), left: new Map() };
  await scanDirectory(top, "", last, ignored, scan);
  return scan;
}

async function scanDirectory(
  top: string,
  directory: string,
  last: Agreement,
  ignored: Ignored,
  scan: Scan,
): Promise<void> {
  const entries = await readdir(join(top, directory), { withFileTypes: true }).catch((error: unknown) => {
    if (directory === "") throw error;
    // Gone since its name was read; what may not be read is no reason to remove it there.
    if (errno(error) === "ENOENT") return [];
    throw new StacyError("permission", `${join(top, directory)} cannot be read`, {
      remedy: `make it readable, or name it in ${IGNORE_FILE}`,
      cause: error as Error,
    });
  });
  if (entries.some((entry) => entry.name === IGNORE_FILE && entry.isFile())) {
    const text = await readFile(join(top, directory, IGNORE_FILE), "utf8").catch(() => "");
    ignored.add(directory, text);
  }
  for (const { name } of entries) {
    const path = directory === "" ? name : `${directory}/${name}`;
    if (name.startsWith(TEMPORARY)) {
      // Of an earlier run that was killed, or of another one that syncs this directory with another sandbox.
      const old = await lstatOf(top, path);
      if (old !== undefined && Number(old.ctimeMs) < Date.now() - ABANDONED_MS)
        await rm(join(top, path), { force: true });
      continue;
    }
    if (name.includes("\uFFFD")) {
      scan.left.set(path, "its name is not UTF-8");
      continue;
    }
    const stat = await lstatOf(top, path);
    if (stat === undefined || ignored.test(path, stat.isDirectory())) continue;
    if (stat.isDirectory()) {
      scan.tree.set(path, { kind: "directory", mode: modeOf(stat), size: 0, mtimeUs: 0 });
      await scanDirectory(top, path, last, ignored, scan);
    } else if (stat.isSymbolicLink()) {
      const target = await readlink(join(top, path)).catch(() => undefined);
      if (target !== undefined) scan.tree.set(path, { kind: "link", mode: 0, size: 0, mtimeUs: 0, target });
    } else if (stat.isFile()) {
      const entry = await fileEntry(top, path, stat, last);
      if (entry !== undefined) scan.tree.set(path, entry);
    } else scan.left.set(path, "it is neither file nor directory nor link");
  }
}

async function fileEntry(top: string, path: string, stat: BigIntStats, last: Agreement): Promise<Entry | undefined> {
  const plain: Entry = { kind: "file", mode: modeOf(stat), size: Number(stat.size), mtimeUs: microseconds(stat) };
  const base = last.get(path);
  if (base?.kind === "file" && base.size === plain.size && base.hereUs === plain.mtimeUs && base.hash !== undefined)
    return { ...plain, hash: base.hash };
  try {
    await using file = await open(join(top, path), constants.O_RDONLY | constants.O_NOFOLLOW);
    const hash = createHash("sha256");
    for await (const part of file.createReadStream({ autoClose: false })) hash.update(part as Buffer);
    return { ...plain, hash: hash.digest("hex") };
  } catch (error) {
    if (errno(error) === "ENOENT") return undefined;
    throw new StacyError("permission", `${join(top, path)} cannot be read`, {
      remedy: `make it readable, or name it in ${IGNORE_FILE}`,
      cause: error as Error,
    });
  }
}

/** Throws `Changed` unless what is there is what was seen. */
async function assertAsSeen(top: string, path: string, seen: Entry | undefined): Promise<void> {
  const stat = await lstatOf(top, path);
  const now =
    stat === undefined ? undefined : { kind: kindOf(stat), mtimeUs: microseconds(stat), size: Number(stat.size) };
  const same =
    now === undefined || seen === undefined
      ? now === seen
      : now.kind === seen.kind &&
        (seen.kind !== "file" || (now.mtimeUs === seen.mtimeUs && now.size === seen.size)) &&
        (seen.kind !== "link" || (await readlink(join(top, path))) === seen.target);
  if (!same) throw new Changed(path);
}

/** The directories on the way are directories, made where they are not there. */
async function waysTo(top: string, path: string): Promise<void> {
  const names = path.split("/").slice(0, -1);
  for (let depth = 1; depth <= names.length; depth++) {
    const above = names.slice(0, depth).join("/");
    const stat = await lstatOf(top, above);
    if (stat === undefined) await mkdir(join(top, above), 0o755);
    else if (!stat.isDirectory()) throw new Changed(above);
  }
}

/** @throws Changed; what is in a directory that is not synced keeps it */
export async function removeHere(top: string, path: string, seen: Entry): Promise<boolean> {
  await waysTo(top, path);
  await assertAsSeen(top, path, seen);
  if (seen.kind !== "directory") {
    await unlink(join(top, path));
    return true;
  }
  try {
    await rmdir(join(top, path));
    return true;
  } catch (error) {
    if (errno(error) === "ENOTEMPTY") return false;
    throw error;
  }
}

/**
 * @param seen what is there now
 * @param content of a file
 * @returns when it was last changed, µs, as this host's file says, and the content's sum
 */
export async function putHere(
  top: string,
  path: string,
  seen: Entry | undefined,
  entry: Entry,
  content?: AsyncIterable<Uint8Array>,
): Promise<{ mtimeUs: number; hash?: string }> {
  await waysTo(top, path);
  const full = join(top, path);
  if (entry.kind === "directory") {
    await assertAsSeen(top, path, seen);
    if (seen !== undefined && seen.kind !== "directory") await unlink(full);
    if (seen?.kind !== "directory") await mkdir(full, 0o700);
    await chmod(full, entry.mode);
    return { mtimeUs: 0 };
  }
  const temporary = join(top, parentOf(path), `${TEMPORARY}${randomUUID()}`);
  try {
    const written: { mtimeUs: number; hash?: string } = { mtimeUs: 0 };
    if (entry.kind === "link") await symlink(entry.target ?? "", temporary);
    else {
      await using file = await open(temporary, "wx", 0o600);
      const hash = createHash("sha256");
      for await (const part of content ?? []) {
        hash.update(part);
        await file.writeFile(part);
      }
      await file.chmod(entry.mode);
      await file.utimes(entry.mtimeUs / 1e6, entry.mtimeUs / 1e6);
      await file.datasync();
      written.mtimeUs = microseconds(await file.stat({ bigint: true }));
      written.hash = hash.digest("hex");
    }
    await assertAsSeen(top, path, seen);
    if (seen?.kind === "directory") await rmdir(full);
    await rename(temporary, full);
    return written;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

function lstatOf(top: string, path: string): Promise<BigIntStats | undefined> {
  return lstat(join(top, path), { bigint: true }).catch((error: unknown) => {
    if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return undefined;
    throw error;
  });
}

function kindOf(stat: BigIntStats): string {
  if (stat.isDirectory()) return "directory";
  return stat.isSymbolicLink() ? "link" : stat.isFile() ? "file" : "other";
}

function modeOf(stat: BigIntStats): number {
  return Number(stat.mode) & 0o777;
}

function microseconds(stat: BigIntStats): number {
  return Number(stat.mtimeNs / 1000n);
}
