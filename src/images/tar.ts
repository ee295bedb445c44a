/**
 * Reads tar archives as image layers have them: ustar, pax and GNU. Names and attribute values stay bytes (a `latin1`
 * string has one character per byte), because image layers hold names that are no UTF-8 and capabilities that are no
 * text: a reader that decodes them, as the usual packages do, changes them. The archive is hostile: every number and
 * length is bounded before it is used.
 */
import { StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";
import { expanded, MAX_PIECES, type SparseMap, sparseMap } from "./sparse-member.ts";

export type TarType = "file" | "directory" | "symlink" | "hardlink" | "character" | "block" | "fifo";

export interface TarEntry {
  /** As stored, bytes as `latin1`. */
  path: string;
  type: TarType;
  /** Permission bits with setuid, setgid and sticky: `0` to `0o7777`. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of content; 0 for all but files. */
  size: number;
  /** What of that is in the archive: less where there are holes. */
  stored: number;
  /** Seconds since 1970, and the nanoseconds below. */
  mtime: number;
  mtimeNs: number;
  /** Target of a symbolic or hard link, bytes as `latin1`; else empty. */
  link: string;
  major: number;
  minor: number;
  /** Full name (`security.capability`) to value. */
  xattrs: Map<string, Buffer>;
}

const BLOCK = 512;
const MAX_PATH = 4096;
/** One extended header: long paths and extended attributes (Linux allows 64 KiB per value). */
const MAX_EXTENDED = 1 << 20;
const MAX_XATTRS = 256;
/** Of the extended headers that hold for one member. */
const MAX_RECORDS = 1_024;
const MAX_ID = 0xfffffffe;

/**
 * Of extended headers, bytes as `latin1`. No part of a header's bytes, nor a small buffer of its own: that would keep all of the header,
 * or all of the piece of memory that small buffers share, for one byte that somebody keeps.
 */
type Records = ReadonlyMap<string, string>;

/** Records that are read between two looks at the time. */
const STEP = 256;

/** @throws StacyError `corrupt` for what is no tar or breaks a bound; `not-supported` for an unknown form of sparse member */
export async function readTar(
  source: AsyncIterable<Uint8Array>,
  onEntry: (entry: TarEntry, body: AsyncIterable<Buffer>) => Promise<void>,
): Promise<void> {
  const reader = new ByteReader(source);
  try {
    await readEntries(reader, onEntry);
    // What follows the end marker is padding; it is read so that a checksum over the source covers all of it.
    await reader.drain();
  } finally {
    await reader.close();
  }
}

async function readEntries(
  reader: ByteReader,
  onEntry: (entry: TarEntry, body: AsyncIterable<Buffer>) => Promise<void>,
): Promise<void> {
  let global: Records = new Map();
  let local: Records = new Map();
  let longPath: string | undefined;
  let longLink: string | undefined;
  const pace = new Pace();
  for (;;) {
    // What is decompressed at a time may be thousands of entries.
    if (pace.over) await pace.rest();
    const header = await reader.read(BLOCK);
    if (header === undefined) {
      if (reader.position === 0) throw corrupt("the archive is empty");
      return; // some writers leave the end marker out
    }
    if (header.every((byte) => byte === 0)) return;
    const flag = checked(header);
    const storedSize = number(header, 124, 12, "size");
    if (flag === "x" || flag === "g" || flag === "L" || flag === "K") {
      if (storedSize > MAX_EXTENDED) throw corrupt(`an extended header of ${storedSize} bytes`);
      const data = await reader.readPadded(storedSize);
      if (flag === "x") local = await pace.through(pax(data, local));
      else if (flag === "g") global = await pace.through(pax(data, global));
      else if (flag === "L") longPath = cString(data, 0, data.length);
      else longLink = cString(data, 0, data.length);
      continue;
    }
    const attributes = new Map([...global, ...local]);
    const entry = decode(header, flag, attributes, longPath, longLink);
    local = new Map();
    longPath = undefined;
    longLink = undefined;
    const size = attributes.has("size") ? decimal(attributes, "size") : storedSize;
    // Only files have content, but POSIX lets unknown types have it too, and old writers give hard links a size.
    const hasBody = entry?.type === "file" || entry === undefined;
    if (!hasBody) {
      await onEntry(entry, empty());
      continue;
    }
    const sparse = entry === undefined ? undefined : await sparseOf(reader, header, flag, attributes, size, pace);
    const end = sparse?.end ?? reader.position + size;
    if (entry !== undefined) {
      entry.size = sparse?.map.size ?? size;
      entry.stored = size;
      const take = (length: number): AsyncIterable<Buffer> => reader.body(reader.position + length);
      await onEntry(entry, sparse === undefined ? take(size) : expanded(sparse.map, take));
    }
    for await (const _ of reader.body(end)); // what the receiver left
    await reader.readPadding(size);
  }
}

/**
 * The map of a sparse member, read from its header, from the blocks after that or from the begin of its data; `undefined` for
 * any other file. @param size bytes of data that the member is said to have
 */
async function sparseOf(
  reader: ByteReader,
  header: Buffer,
  flag: string,
  attributes: Records,
  size: number,
  pace: Pace,
): Promise<{ map: SparseMap; end: number } | undefined> {
  if (flag === "S") {
    const numbers: number[] = [];
    const collect = (block: Buffer, from: number, count: number): void => {
      for (let i = 0; i < count; i++) {
        const offset = number(block, from + 24 * i, 12, "sparse offset");
        const length = number(block, from + 24 * i + 12, 12, "sparse length");
        if (offset > 0 || length > 0) numbers.push(offset, length);
      }
    };
    collect(header, 386, 4);
    for (let more = header[482] !== 0; more; ) {
      if (pace.over) await pace.rest();
      const block = await reader.read(BLOCK);
      if (block === undefined || numbers.length > 2 * MAX_PIECES) throw corrupt("a sparse member's map has no end");
      collect(block, 0, 21);
      more = block[504] !== 0;
    }
    const map = await pace.through(sparseMap(number(header, 483, 12, "real size"), numbers, size));
    return { map, end: reader.position + size };
  }
  const end = reader.position + size;
  const list = attributes.get("GNU.sparse.map");
  if (list !== undefined) {
    const numbers = await pace.through(listed(list));
    return { map: await pace.through(sparseMap(decimal(attributes, "GNU.sparse.size"), numbers, size)), end };
  }
  if (attributes.has("GNU.sparse.major")) {
    if (attributes.get("GNU.sparse.major") !== "1" || attributes.get("GNU.sparse.minor") !== "0") {
      throw new StacyError("not-supported", "the archive has sparse members of an unknown form", {
        remedy: "make the archive again without `--sparse`",
      });
    }
    const numbers = await leadingNumbers(reader, end, pace);
    const data = end - reader.position;
    return { map: await pace.through(sparseMap(decimal(attributes, "GNU.sparse.realsize"), numbers, data)), end };
  }
  // Without a single piece the older pax form has no list.
  if (attributes.has("GNU.sparse.size"))
    return { map: await pace.through(sparseMap(decimal(attributes, "GNU.sparse.size"), [], size)), end };
  return undefined;
}

/** Numbers with commas between them. */
function* listed(list: string): Generator<undefined, number[]> {
  const numbers: number[] = [];
  for (let at = 0; at < list.length; ) {
    const comma = list.indexOf(",", at);
    const end = comma === -1 ? list.length : comma;
    numbers.push(whole(list.slice(at, end)));
    at = end + 1;
    yield;
  }
  return numbers;
}

/** The map of pax form 1.0: a count and pairs, a number a line, filled up to a block. */
async function leadingNumbers(reader: ByteReader, end: number, pace: Pace): Promise<number[]> {
  const numbers: number[] = [];
  let wanted: number | undefined;
  let line = "";
  while (wanted === undefined || numbers.length < wanted) {
    if (pace.over) await pace.rest();
    const block = reader.position + BLOCK > end ? undefined : await reader.read(BLOCK);
    if (block === undefined) throw corrupt("a sparse member's map has no end");
    const lines = (line + block.toString("latin1")).split("\n");
    line = lines.pop() ?? "";
    for (const digits of lines) {
      if (wanted === undefined) {
        wanted = 2 * whole(digits);
        if (wanted > 2 * MAX_PIECES) throw corrupt("a sparse member's map is too long");
      } else if (numbers.length < wanted) numbers.push(whole(digits));
      if (numbers.length === wanted) break;
    }
    if (line.length > BLOCK) throw corrupt("a sparse member's map holds no numbers");
  }
  return numbers;
}

/** Whether an archive begins with this block. */
export function isTarHeader(block: Buffer): boolean {
  if (block.length < BLOCK) return false;
  try {
    checked(block.subarray(0, BLOCK));
    return true;
  } catch {
    return false;
  }
}

/** The type flag of a header whose checksum holds. */
function checked(header: Buffer): string {
  const stored = number(header, 148, 8, "checksum");
  let unsigned = 8 * 32;
  let signed = 8 * 32;
  for (let i = 0; i < BLOCK; i++) {
    if (i >= 148 && i < 156) continue;
    const byte = header[i] ?? 0;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte; // historic writers summed signed bytes
  }
  if (stored !== unsigned && stored !== signed) throw corrupt("a header's checksum does not hold");
  return String.fromCharCode(header[156] ?? 0);
}

function decode(
  header: Buffer,
  flag: string,
  attributes: Records,
  longPath: string | undefined,
  longLink: string | undefined,
): TarEntry | undefined {
  const ustar = header.toString("latin1", 257, 262) === "ustar";
  // In GNU's format the prefix field holds other things.
  const prefix = ustar && header[262] === 0 ? cString(header, 345, 155) : "";
  const name = cString(header, 0, 100);
  const path =
    attributes.get("GNU.sparse.name") ??
    attributes.get("path") ??
    longPath ??
    (prefix === "" ? name : `${prefix}/${name}`);
  const link = attributes.get("linkpath") ?? longLink ?? cString(header, 157, 100);
  if (path.length > MAX_PATH || link.length > MAX_PATH) throw corrupt("a path longer than 4096 bytes");
  if (path === "") throw corrupt("an entry without a name");
  if (path.includes("\0") || link.includes("\0")) throw corrupt("a path with a NUL byte");
  const type = typeOf(flag, path);
  if (type === undefined) return undefined;
  const [mtime, mtimeNs] = time(attributes) ?? [number(header, 136, 12, "time", true), 0];
  return {
    path,
    type,
    mode: number(header, 100, 8, "mode") & 0o7777,
    uid: id(attributes.has("uid") ? decimal(attributes, "uid") : number(header, 108, 8, "uid")),
    gid: id(attributes.has("gid") ? decimal(attributes, "gid") : number(header, 116, 8, "gid")),
    size: 0,
    stored: 0,
    mtime,
    mtimeNs,
    link: type === "symlink" || type === "hardlink" ? link : "",
    major: type === "character" || type === "block" ? number(header, 329, 8, "major") : 0,
    minor: type === "character" || type === "block" ? number(header, 337, 8, "minor") : 0,
    xattrs: xattrsOf(attributes),
  };
}

function typeOf(flag: string, path: string): TarType | undefined {
  switch (flag) {
    case "\0":
    case "0":
    case "7":
    case "S":
      return path.endsWith("/") ? "directory" : "file"; // before ustar, directories were files with a slash
    case "1":
      return "hardlink";
    case "2":
      return "symlink";
    case "3":
      return "character";
    case "4":
      return "block";
    case "5":
      return "directory";
    case "6":
      return "fifo";
    default:
      return undefined; // volume labels, multi-volume parts: nothing that an image can hold
  }
}

/** Octal text, or GNU's big-endian binary when the first byte's top bit is set. */
function number(header: Buffer, offset: number, length: number, what: string, negative = false): number {
  const first = header[offset] ?? 0;
  if (first & 0x80) {
    let value = BigInt(first === 0xff ? -1 : first & 0x7f);
    for (let i = offset + 1; i < offset + length; i++) value = (value << 8n) | BigInt(header[i] ?? 0);
    if ((value < 0n && !negative) || value > BigInt(Number.MAX_SAFE_INTEGER) || value < -(1n << 40n)) {
      throw corrupt(`${what} out of range`);
    }
    return Number(value);
  }
  const digits = cString(header, offset, length).trim();
  if (digits === "") return 0;
  if (!/^[0-7]+$/.test(digits)) throw corrupt(`${what} is no octal number`);
  return Number.parseInt(digits, 8);
}

function cString(data: Buffer, offset: number, length: number): string {
  const end = data.indexOf(0, offset);
  return data.toString("latin1", offset, end === -1 || end > offset + length ? offset + length : end);
}

/** Records `LENGTH KEY=VALUE\n`; a later one replaces an earlier one, an empty value removes it. */
function* pax(data: Buffer, before: Records): Generator<undefined, Records> {
  const records = new Map(before);
  const map: string[] = [];
  let bytes = 0;
  for (const [key, value] of records) bytes += key.length + value.length;
  for (let at = 0, n = 0; at < data.length; n++) {
    if (n % STEP === STEP - 1) yield;
    const space = data.indexOf(32, at);
    const digits = space === -1 ? "" : data.toString("latin1", at, space);
    const length = /^[0-9]{1,7}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = data.indexOf(61, space);
    if (length === 0 || end > data.length || equals === -1 || equals >= end || data[end - 1] !== 10) {
      throw corrupt("a malformed extended header");
    }
    const key = data.toString("latin1", space + 1, equals);
    const value = data.toString("latin1", equals + 1, end - 1);
    // The oldest pax form of a sparse member's map repeats its keys; the next one has a list of the same numbers.
    if (value.length > 0 && (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes")) {
      map.push(value);
    } else {
      bytes -= lengthOf(records, key);
      records.delete(key);
      if (value.length > 0 || key.startsWith("SCHILY.xattr.")) records.set(key, value);
      bytes += lengthOf(records, key);
    }
    // Headers may follow one another before a member.
    if (records.size > MAX_RECORDS || bytes > MAX_EXTENDED || map.length > 2 * MAX_PIECES)
      throw corrupt("too many extended records");
    at = end;
  }
  if (map.length > 0) records.set("GNU.sparse.map", map.join(","));
  return records;
}

function lengthOf(records: Records, key: string): number {
  const value = records.get(key);
  return value === undefined ? 0 : key.length + value.length;
}

function decimal(attributes: Records, key: string): number {
  return whole(attributes.get(key) ?? "", key);
}

function whole(digits: string, what = "a sparse member's map"): number {
  const parsed = /^[0-9]{1,16}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!Number.isSafeInteger(parsed)) throw corrupt(`${what} is no number`);
  return parsed;
}

function time(attributes: Records): [number, number] | undefined {
  const value = attributes.get("mtime");
  if (value === undefined) return undefined;
  const match = /^(-?[0-9]{1,12})(?:\.([0-9]{1,20}))?$/.exec(value);
  if (match === null) throw corrupt("mtime is no number");
  const seconds = Number(match[1]);
  const ns = Number((match[2] ?? "").slice(0, 9).padEnd(9, "0"));
  return value.startsWith("-") && ns > 0 ? [seconds - 1, 1e9 - ns] : [seconds, ns];
}

function id(value: number): number {
  if (value > MAX_ID) throw corrupt("an owner out of range");
  return value;
}

function xattrsOf(attributes: Records): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of attributes) {
    if (key.startsWith("SCHILY.xattr.")) xattrs.set(key.slice("SCHILY.xattr.".length), Buffer.from(value, "latin1"));
  }
  if (xattrs.size > MAX_XATTRS) throw corrupt("too many extended attributes on one entry");
  return xattrs;
}

function corrupt(why: string): StacyError {
  return new StacyError("corrupt", `not a sound tar archive: ${why}`);
}

async function* empty(): AsyncGenerator<Buffer> {}

/** Exact reads over a stream of chunks, without copying the chunks that pass through. */
class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #chunk: Buffer = Buffer.alloc(0);
  #ended = false;
  position = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async close(): Promise<void> {
    if (!this.#ended) await this.#source.return?.();
  }

  /** Up to `limit` bytes of what is at hand; `undefined` at the end. */
  async #some(limit: number): Promise<Buffer | undefined> {
    while (this.#chunk.length === 0) {
      const next = await this.#source.next();
      if (next.done) {
        this.#ended = true;
        return undefined;
      }
      this.#chunk = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
    }
    const part = this.#chunk.subarray(0, limit);
    this.#chunk = this.#chunk.subarray(part.length);
    this.position += part.length;
    return part;
  }

  /** Exactly `length` bytes; `undefined` when the source ends before the first. @throws StacyError `corrupt` within */
  async read(length: number): Promise<Buffer | undefined> {
    if (length === 0) return Buffer.alloc(0);
    const first = await this.#some(length);
    if (first === undefined || first.length === length) return first;
    const parts = [first];
    for (let have = first.length; have < length; ) {
      const part = await this.#some(length - have);
      if (part === undefined) throw corrupt("it ends in the middle of an entry");
      parts.push(part);
      have += part.length;
    }
    return Buffer.concat(parts, length);
  }

  async readPadded(size: number): Promise<Buffer> {
    const data = await this.read(size);
    if (data === undefined) throw corrupt("it ends in the middle of an entry");
    await this.readPadding(size);
    return data;
  }

  async readPadding(size: number): Promise<void> {
    const rest = (BLOCK - (size % BLOCK)) % BLOCK;
    if ((await this.read(rest)) === undefined) throw corrupt("it ends in the middle of an entry");
  }

  /** What lies before the position `end`. */
  async *body(end: number): AsyncGenerator<Buffer> {
    while (this.position < end) {
      const part = await this.#some(end - this.position);
      if (part === undefined) throw corrupt("it ends in the middle of a file");
      yield part;
    }
  }

  async drain(): Promise<void> {
    while ((await this.#some(1 << 20)) !== undefined);
  }
}
