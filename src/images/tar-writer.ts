/**
 * Writes tar archives as `tar.ts` reads them: ustar headers, and pax records for what has no room there. Names, targets and attribute
 * values are bytes (a `latin1` string has one character per byte): the usual packages write texts, which changes names that are no UTF-8.
 */
import { StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";
import type { TarEntry, TarType } from "./tar.ts";

export interface TarMember extends Omit<TarEntry, "stored" | "mtimeNs" | "xattrs"> {
  xattrs: ReadonlyMap<string, Buffer>;
  /** Content of a file, exactly `size` bytes. */
  bytes?: () => AsyncIterable<Uint8Array>;
}

const BLOCK = 512;
const FLAGS: Record<TarType, string> = {
  ...{ file: "0", hardlink: "1", symlink: "2", character: "3" },
  ...{ block: "4", directory: "5", fifo: "6" },
};
const XATTR = "SCHILY.xattr.";

/** @throws StacyError within: `not-supported` for an attribute whose name has `=`, `internal` for content that is not as long as it was said */
export async function* writeTar(members: Iterable<TarMember>): AsyncGenerator<Uint8Array> {
  const pace = new Pace();
  for (const member of members) {
    if (pace.over) await pace.rest();
    const records = Buffer.concat(recordsOf(member));
    const header = headerOf(member, member.path, FLAGS[member.type], member.type === "file" ? member.size : 0);
    yield records.length === 0
      ? header
      : Buffer.concat([headerOf(member, "PaxHeader", "x", records.length), records, padding(records.length), header]);
    if (member.type !== "file" || member.size === 0) continue;
    let written = 0;
    for await (const piece of member.bytes?.() ?? []) {
      written += piece.length;
      if (written <= member.size) yield piece;
    }
    if (written !== member.size)
      throw new StacyError(
        "internal",
        `${show(member.path)} has ${written} bytes, and was said to have ${member.size}`,
      );
    yield padding(member.size);
  }
  yield Buffer.alloc(2 * BLOCK);
}

/** What has no room in the header. */
function recordsOf({ path, link, size, mtime, uid, gid, xattrs }: TarMember): Buffer[] {
  const records = [...xattrs].map(([name, value]) => {
    if (name.includes("="))
      throw new StacyError("not-supported", `${show(path)} has an attribute ${name} that cannot be copied`, {
        remedy: "set it with RUN after the copy",
      });
    return record(XATTR + name, value);
  });
  const text = (key: string, value: string): void => void records.push(record(key, Buffer.from(value, "latin1")));
  if (path.length > 100) text("path", path);
  if (link.length > 100) text("linkpath", link);
  for (const [key, value, digits] of [
    ["size", size, 11],
    ["mtime", mtime, 11],
    ["uid", uid, 7],
    ["gid", gid, 7],
  ] as const)
    if (value < 0 || value >= 8 ** digits) text(key, String(value));
  return records;
}

/** `LENGTH KEY=VALUE\n`, where the length counts itself. */
function record(key: string, value: Buffer): Buffer {
  const rest = key.length + value.length + 3;
  let length = rest + 1;
  while (length !== rest + String(length).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, "latin1"), value, Buffer.from("\n")]);
}

function headerOf(member: TarMember, path: string, flag: string, size: number): Buffer {
  const { mode, uid, gid, mtime, link, major, minor } = member;
  const header = Buffer.alloc(BLOCK);
  const number = (value: number, at: number, field: number): void => {
    // One that has no room is in a record.
    const fits = Math.min(Math.max(value, 0), 8 ** (field - 1) - 1);
    header.write(fits.toString(8).padStart(field - 1, "0"), at, "latin1");
  };
  header.write(path.slice(0, 100), 0, "latin1");
  number(mode, 100, 8);
  number(uid, 108, 8);
  number(gid, 116, 8);
  number(size, 124, 12);
  number(mtime, 136, 12);
  header.write(flag, 156, "latin1");
  header.write(link.slice(0, 100), 157, "latin1");
  header.write("ustar\x0000", 257, "latin1");
  number(major, 329, 8);
  number(minor, 337, 8);
  header.fill(" ", 148, 156);
  number(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  );
  header[154] = 0;
  return header;
}

function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

function show(path: string): string {
  return Buffer.from(path, "latin1").toString("utf8");
}
