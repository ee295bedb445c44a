/**
 * The sandbox's side of a sync, by the server's calls about files: none of its programs is needed. Each name is looked at again right before it
 * is replaced or removed, so that what a program there has changed meanwhile stays.
 */
import { createHash, randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { StacyError as ApiError, ConnectionError, type Files, NotFoundError } from "../../sdk/src/index.ts";
import { errno, StacyError } from "../host/error.ts";
import { Changed, type Scan } from "./here.ts";
import { IGNORE_FILE, type Ignored } from "./ignored.ts";
import { ABANDONED_MS, type Agreed, type Agreement, type Entry, TEMPORARY } from "./tree.ts";

type Found = Awaited<ReturnType<Files["list"]>>[number];
/** Files that go in one call: what the sandbox has is looked at before each. */
const MOST_FILES = 200;
const MOST_BYTES = 16 * 2 ** 20;

export class There {
  readonly #files: Files;
  readonly #top: string;
  /** What its own temporary directories are called. */
  readonly #temporary: string;
  readonly #signal: AbortSignal;
  #owner = { uid: 0, gid: 0 };

  /**
   * @param top absolute, without links
   * @param mark of this pair of directories
   */
  constructor(files: Files, top: string, mark: string, signal: AbortSignal) {
    this.#files = files;
    this.#top = top;
    this.#temporary = `${TEMPORARY}${mark}-`;
    this.#signal = signal;
  }

  /** @param ignored the rules of this host's directories; where it has none, those of the sandbox's are added */
  async scan(last: Agreement, ignored: Ignored): Promise<Scan> {
    const scan: Scan = { tree: new Map(), left: new Map() };
    await this.#directory("", last, ignored, scan);
    return scan;
  }

  /** Directory by directory, so that what is ignored is not walked. */
  async #directory(directory: string, last: Agreement, ignored: Ignored, scan: Scan): Promise<void> {
    const found = await this.#files.list(this.#at(directory), { signal: this.#signal });
    if (found.some((file) => file.name === IGNORE_FILE && file.kind === "file") && !ignored.has(directory))
      ignored.add(directory, await this.#files.read(this.#at(directory, IGNORE_FILE), { signal: this.#signal }));
    const below: string[] = [];
    for (const file of found) {
      const path = directory === "" ? file.name : `${directory}/${file.name}`;
      if (file.name.startsWith(TEMPORARY)) {
        // Nothing is being put there while it looks: one of its own was left by one that was killed.
        if (file.name.startsWith(this.#temporary) || file.modTimeUs / 1000 < Date.now() - ABANDONED_MS)
          await this.#files.remove(this.#at(path), { recursive: true, signal: this.#signal }).catch(unlessGone);
        continue;
      }
      if (ignored.test(path, file.isDir)) continue;
      if (file.name.includes("\uFFFD")) scan.left.set(path, "its name is not UTF-8");
      else if (file.kind === "other") scan.left.set(path, "it is neither file nor directory nor link");
      else scan.tree.set(path, entryOf(file, last.get(path)));
      if (file.isDir) below.push(path);
    }
    await inTurns(below, (path) => this.#directory(path, last, ignored, scan));
  }

  /** Whom what comes from here belongs to there. */
  async settleOwner(): Promise<void> {
    const { uid, gid } = await this.#files.stat(this.#top, { signal: this.#signal });
    this.#owner = { uid, gid };
  }

  /** The content's sum, if it is as it was seen. */
  async hash(path: string, seen: Entry): Promise<string> {
    const hash = createHash("sha256");
    for await (const part of this.content(path, seen)) hash.update(part);
    return hash.digest("hex");
  }

  /** @throws Changed at its end if it was written meanwhile */
  async *content(path: string, seen: Entry): AsyncGenerator<Uint8Array> {
    await this.#assertAsSeen(path, seen);
    const stream = await this.#files.readStream(this.#at(path), { signal: this.#signal }).catch(changedIfGone(path));
    yield* Readable.fromWeb(stream as never) as AsyncIterable<Uint8Array>;
    await this.#assertAsSeen(path, seen);
  }

  /** @returns false for a directory in which there is something that is not synced */
  async remove(path: string, seen: Entry): Promise<boolean> {
    await this.#assertAsSeen(path, seen);
    try {
      await this.#files.remove(this.#at(path), { signal: this.#signal });
      return true;
    } catch (error) {
      if (error instanceof NotFoundError) return true;
      if (seen.kind === "directory") return false;
      throw error;
    }
  }

  /** Gives it another name. */
  move(path: string, to: string): Promise<void> {
    return this.#files.move(this.#at(path), this.#at(to), { signal: this.#signal });
  }

  chmod(path: string, mode: number): Promise<void> {
    return this.#files.chmod(this.#at(path), mode, { signal: this.#signal });
  }

  /**
   * Puts these there, a directory before what lies in it.
   * @param done is told of each that is there: of files, the sum and the time of what was sent
   * @param changed of each that was not sent, since it was changed there meanwhile, or is gone here
   */
  async put(
    here: string,
    each: readonly Sent[],
    done: (path: string, sent: { hash?: string; mtimeUs: number }) => void,
    changed: (path: string) => void,
  ): Promise<void> {
    const directories = new Set<string>();
    await inTurns(
      each.filter(({ entry }) => entry.kind === "directory"),
      async ({ path, seen }) => {
        const ready = await this.#unlessChanged(path, seen, changed, async () => {
          if (seen !== undefined && seen.kind !== "directory") await this.remove(path, seen);
        });
        if (ready) directories.add(path);
      },
    );
    const made = each.filter(({ path }) => directories.has(path));
    if (made.length > 0) {
      await this.#unpack(
        "",
        made.map(({ path, entry, seen }) => ({ ...this.#header(path, entry, seen), type: "directory" })),
      ).catch((error: unknown) => {
        throw withoutRoom(error, () => undefined);
      });
    }
    for (const { path } of made) done(path, { mtimeUs: 0 });
    const files = each.filter(({ entry }) => entry.kind !== "directory");
    for (let at = 0; at < files.length; ) {
      const batch: Sent[] = [];
      for (let bytes = 0; at < files.length && batch.length < MOST_FILES && bytes < MOST_BYTES; at++) {
        const next = files[at] as Sent;
        bytes += next.entry.size;
        batch.push(next);
      }
      await this.#putBatch(here, batch, done, changed);
    }
  }

  /** Whole, aside; then each by a rename: nobody sees half a file, however this ends. */
  async #putBatch(
    here: string,
    batch: readonly Sent[],
    done: (path: string, sent: { hash?: string; mtimeUs: number }) => void,
    changed: (path: string) => void,
  ): Promise<void> {
    const aside = `${this.#temporary}${randomUUID()}`;
    const failed = (error: unknown): never => {
      throw withoutRoom(error, (number) => batch[number]?.path);
    };
    await this.#files.mkdir(this.#at(aside), { mode: 0o700, signal: this.#signal }).catch(failed);
    try {
      const headers = batch.map(({ path, entry, seen }, number): Header | OfFile => {
        const header = this.#header(String(number), entry, seen);
        if (entry.kind === "link") return { ...header, mode: 0o777, type: "symlink", linkname: entry.target ?? "" };
        return { ...header, from: join(here, path) };
      });
      const sent = await this.#unpack(aside, headers).catch(failed);
      await inTurns([...batch.entries()], async ([number, { path, entry, seen }]) => {
        const what = sent[number];
        if (what === undefined) return changed(path);
        const moved = await this.#unlessChanged(path, seen, changed, async () => {
          if (seen !== undefined && seen.kind !== entry.kind) await this.remove(path, seen);
          await this.#files.move(this.#at(aside, String(number)), this.#at(path), { signal: this.#signal });
        });
        if (moved) done(path, what);
      });
    } finally {
      // One that stays, since the sandbox is away, is removed by a later look.
      await this.#files.remove(this.#at(aside), { recursive: true }).catch(() => {});
    }
  }

  async #unlessChanged(
    path: string,
    seen: Entry | undefined,
    changed: (path: string) => void,
    work: () => Promise<void>,
  ): Promise<boolean> {
    try {
      await this.#assertAsSeen(path, seen);
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof Changed)) throw error;
      changed(path);
      return false;
    }
  }

  #header(name: string, entry: Entry, seen: Entry | undefined): Common {
    // With a bit that is not sent: a mode of 0 would be none to tar-stream, which then says what is usual.
    return { name, mode: constants.S_IFREG | entry.mode, ...(seen?.owner ?? this.#owner) };
  }

  /** @returns of each what was sent; of a file that is not there any more nothing */
  async #unpack(
    place: string,
    headers: readonly (Header | OfFile)[],
  ): Promise<({ hash?: string; mtimeUs: number } | undefined)[]> {
    const tar = pack();
    const sent: ({ hash?: string; mtimeUs: number } | undefined)[] = [];
    const filling = (async () => {
      for (const header of headers) {
        if (!("from" in header)) {
          await entered(tar, header);
          sent.push({ mtimeUs: 0 });
          continue;
        }
        const { from, ...common } = header;
        const result = await sendFile(tar, from, common).catch((error: unknown) => {
          if (errno(error) !== "ENOENT" && errno(error) !== "ELOOP") throw error;
          return undefined;
        });
        sent.push(result);
      }
      tar.finalize();
    })();
    let broken: Error | undefined;
    filling.catch((error: Error) => {
      broken = error;
      tar.destroy(error);
    });
    const body = Readable.toWeb(Readable.from(tar as AsyncIterable<Buffer>));
    await this.#files.writeArchive(this.#at(place), body as never, { signal: this.#signal }).catch((error: unknown) => {
      // Where the sandbox takes no more, that is why the rest could not be sent; the other way round, what could not be read here.
      const unread = (broken as NodeJS.ErrnoException | undefined)?.syscall !== undefined;
      throw error instanceof ConnectionError && unread ? broken : error;
    });
    await filling;
    return sent;
  }

  async #assertAsSeen(path: string, seen: Entry | undefined): Promise<void> {
    const now = await this.#files.stat(this.#at(path), { signal: this.#signal }).catch((error: unknown) => {
      if (!(error instanceof NotFoundError)) throw error;
    });
    const entry = now === undefined || now.kind === "other" ? undefined : entryOf(now, undefined);
    const same =
      entry === undefined || seen === undefined
        ? now === undefined && seen === undefined
        : entry.kind === seen.kind &&
          (seen.kind !== "file" || (entry.mtimeUs === seen.mtimeUs && entry.size === seen.size)) &&
          entry.target === seen.target;
    if (!same) throw new Changed(path);
  }

  #at(...names: string[]): string {
    return [this.#top.replace(/\/$/, ""), ...names.filter((name) => name !== "")].join("/") || "/";
  }
}

function entryOf(file: Found, base: Agreed | undefined): Entry {
  const mode = Number.parseInt(file.mode, 8) & 0o777;
  const owner = { uid: file.uid, gid: file.gid };
  if (file.kind === "directory") return { kind: "directory", mode, size: 0, mtimeUs: 0, owner };
  if (file.kind === "symlink") return { kind: "link", mode: 0, size: 0, mtimeUs: 0, target: file.target ?? "", owner };
  const plain: Entry = { kind: "file", mode, size: file.size, mtimeUs: file.modTimeUs, owner };
  const known = base?.kind === "file" && base.size === plain.size && base.thereUs === plain.mtimeUs;
  return known && base.hash !== undefined ? { ...plain, hash: base.hash } : plain;
}

type Header = Parameters<ReturnType<typeof pack>["entry"]>[0];
type Common = { name: string; mode: number; uid: number; gid: number };
/** A file's content comes from here. */
type OfFile = Common & { from: string };

export interface Sent {
  path: string;
  /** What this host has, and what was seen there. */
  entry: Entry;
  seen: Entry | undefined;
}

function entered(tar: ReturnType<typeof pack>, header: Header): Promise<void> {
  return new Promise((settle, fail) => {
    tar.entry(header, (error) => (error == null ? settle() : fail(error)));
  });
}

/** As many bytes as it had when it was opened, whatever becomes of it meanwhile: the sum is that of what was sent. */
async function sendFile(
  tar: ReturnType<typeof pack>,
  full: string,
  common: Common,
): Promise<{ hash: string; mtimeUs: number }> {
  await using file = await open(full, constants.O_RDONLY | constants.O_NOFOLLOW);
  const { size, mtimeNs } = await file.stat({ bigint: true });
  const mtimeUs = Number(mtimeNs / 1000n);
  const pax = { mtime: `${mtimeNs / 1_000_000_000n}.${String(mtimeNs % 1_000_000_000n).padStart(9, "0")}` };
  const hash = createHash("sha256");
  const header = { ...common, type: "file", size: Number(size), pax } as Header;
  const ended = Promise.withResolvers<void>();
  ended.promise.catch(() => {});
  const entry = tar.entry(header, (error) => (error == null ? ended.resolve() : ended.reject(error)));
  entry.on("error", ended.reject); // the archive is given up
  const buffer = Buffer.alloc(256 * 1024);
  for (let at = 0; at < Number(size); ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(Number(size) - at, buffer.length), at);
    // It has become shorter: the tar has said how long it is.
    const part = bytesRead === 0 ? Buffer.alloc(Math.min(Number(size) - at, 65_536)) : buffer.subarray(0, bytesRead);
    at += part.length;
    hash.update(part);
    const copy = Buffer.from(part);
    if (!entry.write(copy))
      await Promise.race([new Promise<void>((settle) => entry.once("drain", () => settle())), ended.promise]);
  }
  entry.end(undefined);
  await ended.promise;
  return { hash: hash.digest("hex"), mtimeUs };
}

/** In the words of whoever reads it: the file's own name, not the number that it has on the way. */
function withoutRoom(error: unknown, pathOf: (number: number) => string | undefined): unknown {
  if (!(error instanceof ApiError) || error.status !== 507) return error;
  const path = pathOf(Number(/(?:^|\s)(\d+): /.exec(error.message)?.[1]));
  return new StacyError(
    "no-space",
    `the sandbox's disk has no room for ${path ?? "all of it"}; what was sent before is there`,
    {
      remedy:
        "remove something there, name what it need not have in .gitignore, or start a sandbox with a larger --disk",
      cause: error,
    },
  );
}

function unlessGone(error: unknown): void {
  if (!(error instanceof NotFoundError)) throw error;
}

function changedIfGone(path: string): (error: unknown) => never {
  return (error) => {
    throw error instanceof NotFoundError ? new Changed(path) : error;
  };
}

/** Eight at a time. */
export async function inTurns<T>(list: readonly T[], work: (each: T) => Promise<void>): Promise<void> {
  const rest = [...list].reverse();
  const one = async (): Promise<void> => {
    for (let next = rest.pop(); next !== undefined; next = rest.pop()) await work(next);
  };
  await Promise.all(Array.from({ length: Math.min(8, list.length) }, one));
}
