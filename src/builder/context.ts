/**
 * The files that a build may copy from. They come as one tar stream (from a directory here, or from a client) and are kept in
 * one file of ours with a table in memory, so a hostile archive's names never become paths on the host.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { join } from "node:path/posix";
import { ARCHIVE_BOUNDS, BUILD_BOUNDS } from "../host/bounds.ts";
import { nameText } from "../host/byte-name.ts";
import { errno, StacyError } from "../host/error.ts";
import { sortedInTurns } from "../host/sorted.ts";
import { Pace } from "../host/turns.ts";
import { directoryLayer } from "../images/directory.ts";
import { readTar } from "../images/tar.ts";
import { type BuildFile, type BuildFiles, relativePath } from "./files.ts";
import { ignoreRules } from "./ignore.ts";
import { buildNames, type NameShare } from "./name-budget.ts";

export type ContextEntry = ContextFile;

type Head = Pick<BuildFile, "path" | "type" | "mode" | "mtime">;

interface Content {
  target: string;
  size: number;
  /** Where its bytes lie in our file. */
  offset: number;
  /** Hex, of a file's content. */
  sha256: string;
}

const NO_CONTENT: Content = { target: "", size: 0, offset: 0, sha256: "" };
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

/** There may be a million of them: what all have alike each has not by itself. */
class ContextFile implements BuildFile, Content {
  readonly path: string;
  readonly type: BuildFile["type"];
  readonly mode: number;
  readonly mtime: number;
  readonly target: string;
  readonly size: number;
  readonly offset: number;
  readonly sha256: string;
  readonly #file: FileHandle;

  constructor(file: FileHandle, { path, type, mode, mtime }: Head, { target, size, offset, sha256 }: Content) {
    this.#file = file;
    this.path = path;
    this.type = type;
    this.mode = mode;
    this.mtime = mtime;
    this.target = target;
    this.size = size;
    this.offset = offset;
    this.sha256 = sha256;
  }

  get uid(): number {
    return 0;
  }

  get gid(): number {
    return 0;
  }

  get xattrs(): ReadonlyMap<string, Buffer> {
    return NO_XATTRS;
  }

  get major(): number {
    return 0;
  }

  get minor(): number {
    return 0;
  }

  /** The same under another name. */
  as(path: string): ContextFile {
    const { type, mode, mtime } = this;
    return new ContextFile(this.#file, { path, type, mode, mtime }, this);
  }

  async *bytes(): AsyncGenerator<Buffer> {
    const { offset, size } = this;
    for (let done = 0; done < size; ) {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK, size - done));
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, offset + done);
      if (bytesRead === 0) throw new StacyError("internal", "the build's files were cut short");
      yield chunk.subarray(0, bytesRead);
      done += bytesRead;
    }
  }
}

class ContextDevice extends ContextFile {
  readonly #file: FileHandle;
  readonly #major: number;
  readonly #minor: number;

  constructor(file: FileHandle, head: Head, { major, minor }: { major: number; minor: number }) {
    super(file, head, NO_CONTENT);
    this.#file = file;
    this.#major = major;
    this.#minor = minor;
  }

  override get major(): number {
    return this.#major;
  }

  override get minor(): number {
    return this.#minor;
  }

  override as(path: string): ContextFile {
    const { type, mode, mtime } = this;
    return new ContextDevice(this.#file, { path, type, mode, mtime }, this);
  }
}

/** An archive whose names are all put into one folder, of which none leads out. */
export interface FolderArchive {
  folder: string;
  tar: AsyncIterable<Uint8Array>;
}

const IGNORE_FILE = ".dockerignore";
const CHUNK = 1 << 20;

export class BuildContext implements BuildFiles, AsyncDisposable {
  readonly name = "the build's files";
  readonly #file: FileHandle;
  readonly #entries: Map<string, ContextEntry>;
  /** What may be read as the build's own instructions, although no copy sees it. */
  readonly #hidden = new Map<string, ContextEntry>();
  /** Directories and the names in them. */
  #names = new Map<string, string[]>();
  readonly #share: NameShare;
  /** Bytes in our file. */
  #end = 0;
  /** Of names and targets. */
  #words = 0;
  /** Directories of the names, also those that no entry names. */
  readonly #directories = new Set<string>();
  /** Directories that are ignored, and something in them is not: they are as they are all the same. */
  readonly #around = new Map<string, ContextFile>();

  private constructor(file: FileHandle, party?: string) {
    this.#file = file;
    this.#share = buildNames.share(party);
    this.#entries = new Map();
  }

  /**
   * @param store a path of ours that does not exist yet
   * @param buildFile path of the file of steps, which may have ignore rules of its own beside it
   */
  static async ofDirectory(
    dir: string,
    store: string,
    options: { buildFile?: string; signal?: AbortSignal } = {},
  ): Promise<BuildContext> {
    const { buildFile, signal } = options;
    const own = buildFile === undefined ? undefined : await textIfThere(`${buildFile}${IGNORE_FILE}`);
    const rules = own ?? (await textIfThere(join(dir, IGNORE_FILE)));
    const ignores = rules === undefined ? nothing : ignoreRules(rules);
    // A hard link to a file that is ignored would be lost with it: each name comes with its content.
    const context = new BuildContext(await open(store, "wx+", 0o600));
    const tar = directoryLayer(dir, true, ["--hard-dereference"]).open(signal);
    await context.#read({ folder: "", tar }, ignores, signal);
    await context.#plant();
    return context;
  }

  /**
   * @param options.party whose build it is
   * @param options.buildFiles names of the files of steps, the one that is there may have ignore rules of its own
   * @throws StacyError `corrupt` for what is no tar, `limit`
   */
  static async ofTar(
    tar: AsyncIterable<Uint8Array>,
    store: string,
    options: { buildFiles?: readonly string[]; party?: string | undefined; signal?: AbortSignal } = {},
  ): Promise<BuildContext> {
    const context = new BuildContext(await open(store, "wx+", 0o600), options.party);
    await context.#read({ folder: "", tar }, nothing, options.signal);
    // In an archive the file with the rules may come last.
    await context.#ignore(options.buildFiles ?? []);
    await context.#plant();
    return context;
  }

  /** Each in its folder; no file of theirs says what of them is ignored. @throws StacyError as `ofTar`; what naming the next one throws */
  static async ofFolders(
    archives: AsyncIterable<FolderArchive>,
    store: string,
    options: { party?: string | undefined; signal?: AbortSignal } = {},
  ): Promise<BuildContext> {
    const context = new BuildContext(await open(store, "wx+", 0o600), options.party);
    try {
      for await (const each of archives) await context.#read(each, nothing, options.signal);
    } catch (error) {
      await context[Symbol.asyncDispose]();
      throw error;
    }
    await context.#plant();
    return context;
  }

  async #read(
    { folder, tar }: FolderArchive,
    ignores: (path: string) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const entries = this.#entries;
    const file = this.#file;
    const directories = this.#directories;
    /** Directories that are ignored, from the outermost to the one that came last. */
    let above: ContextFile[] = [];
    const placed = (name: string): string => {
      const path = relativePath(textOf(name));
      return folder === "" || path === "" ? path : `${folder}/${path}`;
    };
    try {
      await readTar(tar, async (entry, body) => {
        signal?.throwIfAborted();
        const path = placed(entry.path);
        if (path === "") return;
        above = above.filter((directory) => path.startsWith(`${directory.path}/`));
        if (ignores(path)) {
          const { mode, mtime } = entry;
          if (entry.type === "directory")
            above.push(new ContextFile(file, { path, type: "directory", mode, mtime }, NO_CONTENT));
          return;
        }
        for (const directory of above) this.#around.set(directory.path, directory);
        this.#words += path.length + entry.link.length;
        const { entries: most, contentBytes, depth, pathLetters } = BUILD_BOUNDS;
        const isDeep = path.length > pathLetters || path.split("/").length > depth;
        const before = entries.size + directories.size;
        if (!isDeep) noteDirectories(path, directories);
        const count = entries.size + directories.size;
        const added = count - before + (entries.has(path) ? 0 : 1);
        // Letters may take two bytes each.
        this.#share.take(added * BUILD_BOUNDS.entryBytes + 2 * (path.length + entry.link.length));
        if (
          isDeep ||
          count >= most ||
          this.#end + entry.size > contentBytes ||
          this.#words > ARCHIVE_BOUNDS.nameBytes
        ) {
          throw new StacyError("limit", "the build's files are more than is allowed", {
            remedy: `leave files out by ${IGNORE_FILE}`,
            data: { ...BUILD_BOUNDS, ...ARCHIVE_BOUNDS },
          });
        }
        const { type } = entry;
        const { mode, mtime } = entry;
        const put = (type: BuildFile["type"], more: Partial<Content> = {}): void => {
          entries.set(path, new ContextFile(this.#file, { path, type, mode, mtime }, { ...NO_CONTENT, ...more }));
        };
        if (type === "directory" || type === "fifo") put(type);
        else if (type === "character" || type === "block")
          entries.set(path, new ContextDevice(this.#file, { path, type, mode, mtime }, entry));
        else if (type === "symlink") put("symlink", { target: textOf(entry.link) });
        else if (type === "hardlink") {
          const same = entries.get(placed(entry.link));
          if (same === undefined)
            throw new StacyError(
              "corrupt",
              `${path} of the build's files is a hard link to a file that does not come before it`,
            );
          entries.set(path, same.as(path));
        } else {
          const offset = this.#end;
          const hash = createHash("sha256");
          for await (const chunk of body) {
            hash.update(chunk);
            for (let done = 0; done < chunk.length; )
              done += (await file.write(chunk, done, chunk.length - done, this.#end + done)).bytesWritten;
            this.#end += chunk.length;
          }
          put("file", { offset, size: this.#end - offset, sha256: hash.digest("hex") });
        }
      });
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #ignore(buildFiles: readonly string[]): Promise<void> {
    try {
      const own = buildFiles.find((name) => this.#entries.get(name)?.type === "file");
      const names = [...(own === undefined ? [] : [`${own}${IGNORE_FILE}`]), IGNORE_FILE];
      const rules = names.map((name) => this.#entries.get(name)).find((entry) => entry?.type === "file");
      if (rules === undefined) return;
      const ignores = ignoreRules(nameText(await this.content(rules, BUILD_BOUNDS.planBytes)), rules.path);
      const pace = new Pace();
      for (const [path, entry] of this.#entries) {
        if (pace.over) await pace.rest();
        if (!(await pace.through(ignores.steps(path)))) continue;
        this.#entries.delete(path);
        if (entry.type === "directory") this.#around.set(path, entry);
        if (path === own) this.#hidden.set(path, entry);
      }
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#share[Symbol.dispose]();
    await this.#file.close();
  }

  get(path: string): ContextEntry | undefined {
    const found = this.#entries.get(path);
    if (found !== undefined || !this.#names.has(path)) return found;
    const around = this.#around.get(path);
    if (around !== undefined) return around;
    // A directory that no entry of an archive names.
    return new ContextFile(this.#file, { path, type: "directory", mode: 0o755, mtime: 0 }, NO_CONTENT);
  }

  async names(path: string): Promise<readonly string[]> {
    return this.#names.get(path) ?? [];
  }

  /** A file of steps, whether copies see it or not. */
  instructions(path: string): ContextEntry | undefined {
    return this.#entries.get(path) ?? this.#hidden.get(path);
  }

  async #plant(): Promise<void> {
    const pace = new Pace();
    const names = new Map<string, Set<string>>([["", new Set()]]);
    for (const { path, type } of this.#entries.values()) {
      if (pace.over) await pace.rest();
      if (type === "directory" && !names.has(path)) names.set(path, new Set());
      for (let rest = path; rest !== ""; ) {
        const slash = rest.lastIndexOf("/");
        const parent = slash === -1 ? "" : rest.slice(0, slash);
        const inside = names.get(parent) ?? new Set();
        const name = rest.slice(slash + 1);
        // Then those above it are there, too.
        if (inside.has(name)) break;
        names.set(parent, inside.add(name));
        rest = parent;
      }
    }
    for (const path of this.#around.keys()) {
      if (pace.over) await pace.rest();
      if (!names.has(path)) this.#around.delete(path);
    }
    for (const [path, inside] of names) {
      if (pace.over) await pace.rest();
      this.#names.set(path, await sortedInTurns([...inside], pace));
    }
  }

  /** @param most bytes @throws StacyError `limit` before anything of it is read */
  async content(entry: ContextEntry, most: number): Promise<Buffer> {
    if (entry.size > most) {
      throw new StacyError("limit", `${entry.path} has ${entry.size} bytes, and may have ${most}`);
    }
    return Buffer.concat(await Array.fromAsync(entry.bytes()));
  }
}

function nothing(): boolean {
  return false;
}

/** Also those that no entry names. @param known those that were there before */
function noteDirectories(path: string, known: Set<string>): void {
  for (let end = path.lastIndexOf("/"); end !== -1; end = path.lastIndexOf("/", end - 1)) {
    const parent = path.slice(0, end);
    if (known.has(parent)) return;
    known.add(parent);
  }
}

async function textIfThere(path: string): Promise<string | undefined> {
  const bytes = await readFile(path).catch((error) => {
    if (errno(error) === "ENOENT") return undefined;
    throw error;
  });
  return bytes === undefined ? undefined : nameText(bytes);
}

/** Names out of an archive have one character per byte. */
function textOf(bytes: string): string {
  return /^[\x00-\x7f]*$/.test(bytes) ? bytes : nameText(Buffer.from(bytes, "latin1"));
}
