/**
 * The files that a build may copy from. They come as one tar stream (from a directory here, or from a client) and are kept in
 * one file of ours with a table in memory, so a hostile archive's names never become paths on the host.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { join, matchesGlob } from "node:path/posix";
import { errno, StacyError } from "../host/error.ts";
import { directoryLayer } from "../images/directory.ts";
import { readTar } from "../images/tar.ts";

export interface ContextEntry {
  /** Relative, without `./` and without a slash at the end; the root is the empty string. */
  path: string;
  type: "file" | "directory" | "symlink";
  mode: number;
  mtime: number;
  /** Of a symlink. */
  target: string;
  size: number;
  /** Where its bytes lie in our file. */
  offset: number;
  /** Hex, of a file's content. */
  sha256: string;
}

const MAX_ENTRIES = 1_000_000;
const MAX_BYTES = 16 * 2 ** 30;
const IGNORE_FILE = ".dockerignore";
const CHUNK = 1 << 20;

export class BuildContext implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #entries: Map<string, ContextEntry>;

  private constructor(file: FileHandle, entries: Map<string, ContextEntry>) {
    this.#file = file;
    this.#entries = entries;
  }

  /** @param store a path of ours that does not exist yet */
  static async ofDirectory(dir: string, store: string, signal?: AbortSignal): Promise<BuildContext> {
    const ignored = await readFile(join(dir, IGNORE_FILE), "utf8").catch((error) => {
      if (errno(error) === "ENOENT") return "";
      throw error;
    });
    return BuildContext.#read(directoryLayer(dir, true).open(signal), store, ignorePatterns(ignored), signal);
  }

  /** @throws StacyError `corrupt` for what is no tar, `limit` */
  static async ofTar(tar: AsyncIterable<Uint8Array>, store: string, signal?: AbortSignal): Promise<BuildContext> {
    return BuildContext.#read(tar, store, [], signal);
  }

  static async #read(
    tar: AsyncIterable<Uint8Array>,
    store: string,
    patterns: Pattern[],
    signal: AbortSignal | undefined,
  ): Promise<BuildContext> {
    const entries = new Map<string, ContextEntry>();
    const file = await open(store, "wx+", 0o600);
    let end = 0;
    try {
      await readTar(tar, async (entry, body) => {
        signal?.throwIfAborted();
        const path = relative(entry.path);
        if (path === "" || isIgnored(path, patterns)) return;
        if (entries.size >= MAX_ENTRIES || end + entry.size > MAX_BYTES) {
          throw new StacyError("limit", "the build's files are more than is allowed", {
            remedy: `leave files out by ${IGNORE_FILE}`,
            data: { entries: MAX_ENTRIES, bytes: MAX_BYTES },
          });
        }
        const { type } = entry;
        const common = { path, mode: entry.mode, mtime: entry.mtime, target: "", size: 0, offset: end, sha256: "" };
        if (type === "directory") entries.set(path, { ...common, type });
        else if (type === "symlink") entries.set(path, { ...common, type, target: utf8(entry.link) });
        else if (type === "hardlink") {
          const same = entries.get(relative(entry.link));
          if (same !== undefined) entries.set(path, { ...same, path });
        } else if (type === "file") {
          const hash = createHash("sha256");
          for await (const chunk of body) {
            hash.update(chunk);
            for (let done = 0; done < chunk.length; )
              done += (await file.write(chunk, done, chunk.length - done, end + done)).bytesWritten;
            end += chunk.length;
          }
          entries.set(path, { ...common, type, size: end - common.offset, sha256: hash.digest("hex") });
        }
        // Sockets, pipes and devices are nothing that could be copied.
      });
      const context = new BuildContext(file, entries);
      // In an archive the file with the patterns may come last.
      const late = patterns.length === 0 ? entries.get(IGNORE_FILE) : undefined;
      if (late?.type === "file") {
        const found = ignorePatterns((await context.content(late)).toString("utf8"));
        for (const path of [...entries.keys()]) if (isIgnored(path, found)) entries.delete(path);
      }
      return context;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  entry(path: string): ContextEntry | undefined {
    return this.#entries.get(path);
  }

  /** Everything below a directory (`""`: all), in the order of names. */
  below(path: string): ContextEntry[] {
    const prefix = path === "" ? "" : `${path}/`;
    const found = [...this.#entries.values()].filter((entry) => entry.path !== path && entry.path.startsWith(prefix));
    return found.sort((a, b) => (a.path < b.path ? -1 : 1));
  }

  /** Paths that a pattern means; a plain name means itself. */
  matching(pattern: string): string[] {
    const wanted = relative(pattern);
    if (wanted === "") return [""];
    if (!/[*?[]/.test(wanted)) return this.#entries.has(wanted) || this.below(wanted).length > 0 ? [wanted] : [];
    return [...this.#entries.keys()].filter((path) => matchesGlob(path, wanted)).sort();
  }

  async *bytes({ offset, size }: ContextEntry): AsyncGenerator<Buffer> {
    for (let done = 0; done < size; ) {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK, size - done));
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, offset + done);
      if (bytesRead === 0) throw new StacyError("internal", "the build's files were cut short");
      yield chunk.subarray(0, bytesRead);
      done += bytesRead;
    }
  }

  async content(entry: ContextEntry): Promise<Buffer> {
    return Buffer.concat(await Array.fromAsync(this.bytes(entry)));
  }
}

/** @throws StacyError `invalid` when it leaves the context */
function relative(path: string): string {
  const parts: string[] = [];
  for (const part of utf8(path).split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) throw new StacyError("invalid", `${path} lies outside of the build's files`);
  }
  return parts.join("/");
}

/** Names out of an archive have one character per byte. */
function utf8(bytes: string): string {
  return /^[\x00-\x7f]*$/.test(bytes) ? bytes : Buffer.from(bytes, "latin1").toString("utf8");
}

interface Pattern {
  glob: string;
  keep: boolean;
}

/** Docker's rules ("Build context", .dockerignore): later lines win, `!` keeps. */
function ignorePatterns(text: string): Pattern[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => ({ glob: relative(line.replace(/^!/, "")), keep: line.startsWith("!") }))
    .filter(({ glob }) => glob !== "");
}

function isIgnored(path: string, patterns: Pattern[]): boolean {
  let ignored = false;
  for (const { glob, keep } of patterns) {
    if (ignored === keep && (matchesGlob(path, glob) || matchesGlob(path, `${glob}/**`))) ignored = !keep;
  }
  return ignored;
}
