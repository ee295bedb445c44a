/**
 * The files that a build may copy from. They come as one tar stream (from a directory here, or from a client) and are kept in
 * one file of ours with a table in memory, so a hostile archive's names never become paths on the host.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { join } from "node:path/posix";
import { ARCHIVE_BOUNDS, BUILD_BOUNDS } from "../host/bounds.ts";
import { errno, StacyError } from "../host/error.ts";
import { Pace } from "../host/turns.ts";
import { directoryLayer } from "../images/directory.ts";
import { readTar } from "../images/tar.ts";
import { type BuildFile, type BuildFiles, relativePath } from "./files.ts";
import { ignoreRules } from "./ignore.ts";

export interface ContextEntry extends BuildFile {
  /** Where its bytes lie in our file. */
  offset: number;
  /** Hex, of a file's content. */
  sha256: string;
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

  private constructor(file: FileHandle) {
    this.#file = file;
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
    await context.#read(directoryLayer(dir, true, ["--hard-dereference"]).open(signal), ignores, signal);
    await context.#plant();
    return context;
  }

  /**
   * @param options.buildFiles names of the files of steps, the one that is there may have ignore rules of its own
   * @param options.rules false: no file of the archive says what of it is ignored
   * @throws StacyError `corrupt` for what is no tar, `limit`
   */
  static async ofTar(
    tar: AsyncIterable<Uint8Array>,
    store: string,
    options: { buildFiles?: readonly string[]; rules?: boolean; signal?: AbortSignal } = {},
  ): Promise<BuildContext> {
    const context = new BuildContext(await open(store, "wx+", 0o600));
    await context.#read(tar, nothing, options.signal);
    // In an archive the file with the rules may come last.
    if (options.rules !== false) await context.#ignore(options.buildFiles ?? []);
    await context.#plant();
    return context;
  }

  async #read(
    tar: AsyncIterable<Uint8Array>,
    ignores: (path: string) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const entries = this.#entries;
    const file = this.#file;
    const directories = new Set<string>();
    let end = 0;
    let words = 0;
    try {
      await readTar(tar, async (entry, body) => {
        signal?.throwIfAborted();
        const path = relativePath(utf8(entry.path));
        if (path === "" || ignores(path)) return;
        words += path.length + entry.link.length;
        const { entries: most, contentBytes, depth, pathLetters } = BUILD_BOUNDS;
        const isDeep = path.length > pathLetters || path.split("/").length > depth;
        if (!isDeep) noteDirectories(path, directories);
        const names = entries.size + directories.size;
        if (isDeep || names >= most || end + entry.size > contentBytes || words > ARCHIVE_BOUNDS.nameBytes) {
          throw new StacyError("limit", "the build's files are more than is allowed", {
            remedy: `leave files out by ${IGNORE_FILE}`,
            data: { ...BUILD_BOUNDS, ...ARCHIVE_BOUNDS },
          });
        }
        const { type } = entry;
        const put = (type: BuildFile["type"], more: Partial<ContextEntry> = {}): void => {
          const { mode, mtime } = entry;
          const common = { path, mode, mtime, uid: 0, gid: 0, target: "", size: 0, offset: end, sha256: "" };
          const added: ContextEntry = { ...common, xattrs: new Map(), bytes: () => this.#bytes(added), type, ...more };
          entries.set(path, added);
        };
        if (type === "directory") put("directory");
        else if (type === "symlink") put("symlink", { target: utf8(entry.link) });
        else if (type === "hardlink") {
          const same = entries.get(relativePath(utf8(entry.link)));
          if (same !== undefined) entries.set(path, { ...same, path });
        } else if (type === "file") {
          const offset = end;
          const hash = createHash("sha256");
          for await (const chunk of body) {
            hash.update(chunk);
            for (let done = 0; done < chunk.length; )
              done += (await file.write(chunk, done, chunk.length - done, end + done)).bytesWritten;
            end += chunk.length;
          }
          put("file", { offset, size: end - offset, sha256: hash.digest("hex") });
        }
        // Sockets, pipes and devices are nothing that could be copied.
      });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #ignore(buildFiles: readonly string[]): Promise<void> {
    try {
      const own = buildFiles.find((name) => this.#entries.get(name)?.type === "file");
      const names = [...(own === undefined ? [] : [`${own}${IGNORE_FILE}`]), IGNORE_FILE];
      const rules = names.map((name) => this.#entries.get(name)).find((entry) => entry?.type === "file");
      if (rules === undefined) return;
      const ignores = ignoreRules((await this.content(rules, BUILD_BOUNDS.planBytes)).toString("utf8"), rules.path);
      const pace = new Pace();
      for (const [path, entry] of [...this.#entries]) {
        if (pace.over) await pace.rest();
        if (!(await pace.through(ignores.steps(path)))) continue;
        this.#entries.delete(path);
        if (path === own) this.#hidden.set(path, entry);
      }
    } catch (error) {
      await this.#file.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  get(path: string): ContextEntry | undefined {
    const found = this.#entries.get(path);
    if (found !== undefined || !this.#names.has(path)) return found;
    // A directory that no entry names, because it is ignored and something in it is not.
    const common = { path, mode: 0o755, mtime: 0, uid: 0, gid: 0, target: "", size: 0, offset: 0, sha256: "" };
    const implied: ContextEntry = {
      ...common,
      xattrs: new Map(),
      type: "directory",
      bytes: () => this.#bytes(implied),
    };
    return implied;
  }

  names(path: string): readonly string[] {
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
    for (const [path, inside] of names) {
      if (pace.over) await pace.rest();
      this.#names.set(path, [...inside].sort());
    }
  }

  async *#bytes({ offset, size }: ContextEntry): AsyncGenerator<Buffer> {
    for (let done = 0; done < size; ) {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK, size - done));
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, offset + done);
      if (bytesRead === 0) throw new StacyError("internal", "the build's files were cut short");
      yield chunk.subarray(0, bytesRead);
      done += bytesRead;
    }
  }

  /** @param most bytes @throws StacyError `limit` before anything of it is read */
  async content(entry: ContextEntry, most: number): Promise<Buffer> {
    if (entry.size > most) {
      throw new StacyError("limit", `${entry.path} has ${entry.size} bytes, and may have ${most}`);
    }
    return Buffer.concat(await Array.fromAsync(this.#bytes(entry)));
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
  return readFile(path, "utf8").catch((error) => {
    if (errno(error) === "ENOENT") return undefined;
    throw error;
  });
}

/** Names out of an archive have one character per byte. */
function utf8(bytes: string): string {
  return /^[\x00-\x7f]*$/.test(bytes) ? bytes : Buffer.from(bytes, "latin1").toString("utf8");
}
