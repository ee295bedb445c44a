/** `/files`: contents of files, whole. A file is written as the user's who is named, with the directories that it needs. */
import { posix } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import { Busboy, type BusboyInstance } from "@fastify/busboy";
import { HTTPException } from "hono/http-exception";
import { bodyStream } from "../../api/body.ts";
import { parseRange } from "../../api/range.ts";
import { exactly } from "../../api/streams.ts";
import { missingDirectories } from "../../guest/exists.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { errno, StacyError } from "../../host/error.ts";
import type { E2bParts } from "../parts.ts";
import type { Guest } from "./guest.ts";
import { keepMetadata, METADATA, metadataIn } from "./metadata.ts";
import { type GuestUser, give, pathOf } from "./users.ts";

interface Written {
  name: string;
  type: "file";
  path: string;
  metadata?: Record<string, string>;
}

export async function readFile(guest: Guest, request: Request, query: URLSearchParams): Promise<Response> {
  const path = query.get("path") ?? "";
  const user = (await guest.users()).find(query.get("username") ?? guest.userName);
  const target = pathOf(path, user);
  const stat = await guest.agent.stat(target);
  if (stat.kind === "directory") throw new StacyError("invalid", `path '${target}' is a directory`);
  if (stat.kind !== "file") throw new StacyError("invalid", `path '${target}' is not a regular file`);
  const range = parseRange(request.headers.get("range") ?? undefined, stat.size);
  const headers: Record<string, string> = {
    "content-type": "application/octet-stream",
    "content-disposition": `inline; filename*=UTF-8''${encodeURIComponent(posix.basename(target))}`,
    "accept-ranges": "bytes",
    "last-modified": new Date(stat.mtimeMs).toUTCString(),
    vary: "Accept-Encoding",
  };
  if (range === "unsatisfiable") {
    return new Response(null, { status: 416, headers: { "content-range": `bytes */${stat.size}` } });
  }
  // Also of a whole file: one that grows meanwhile is read to the length that is announced.
  const whole = stat.size === 0 ? {} : { length: stat.size };
  const part = range === undefined ? whole : { offset: range.start, length: range.end - range.start + 1 };
  const { stream } = await guest.agent.readStream(target, { ...part, signal: request.signal });
  const hold = guest.hold();
  stream.once("close", hold);
  if (range !== undefined) {
    headers["content-range"] = `bytes ${range.start}-${range.end}/${stat.size}`;
    const length = range.end - range.start + 1;
    headers["content-length"] = String(length);
    return new Response(webStream(exactly(stream, length)), { status: 206, headers });
  }
  if (
    /(^|,)\s*gzip\s*(,|;|$)/.test(request.headers.get("accept-encoding") ?? "") &&
    stat.size > 0 &&
    wantsGzip(request)
  ) {
    headers["content-encoding"] = "gzip";
    const packed = createGzip();
    pipeline(stream, packed).catch((error) => packed.destroy(error));
    return new Response(webStream(packed), { headers });
  }
  // /proc and the like have size 0 and content all the same.
  if (stat.size === 0) return new Response(webStream(stream), { headers });
  headers["content-length"] = String(stat.size);
  return new Response(webStream(exactly(stream, stat.size)), { headers });
}

function webStream(source: AsyncIterable<Uint8Array>): ReadableStream {
  return Readable.toWeb(Readable.from(source, { objectMode: false })) as ReadableStream;
}

/** Every HTTP client takes gzip; it is worth its time where nothing else is taken, which is how E2B's clients ask for it. */
function wantsGzip(request: Request): boolean {
  return (request.headers.get("accept-encoding") ?? "").trim() === "gzip";
}

export async function writeFiles(
  parts: E2bParts,
  guest: Guest,
  request: Request,
  query: URLSearchParams,
): Promise<Response> {
  const path = query.get("path") ?? undefined;
  const user = (await guest.users()).find(query.get("username") ?? guest.userName);
  const metadata = metadataIn(request.headers);
  const type = request.headers.get("content-type") ?? "";
  const { max_upload_bytes: maxBytes, body_timeout: timeoutMs } = parts.config.server;
  const body = bodyStream(request, { maxBytes, timeoutMs });
  const written = type.startsWith("multipart/form-data")
    ? await eachPart(body, type, (content, name) => write(guest, user, path ?? name, content, metadata))
    : [await write(guest, user, path, unpacked(body, request.headers.get("content-encoding"), maxBytes), metadata)];
  if (written.length === 0) throw new StacyError("invalid", "there is no file in the request");
  return Response.json(written);
}

async function write(
  { agent }: Guest,
  user: GuestUser,
  path: string | undefined,
  content: AsyncIterable<Uint8Array>,
  metadata: Record<string, string>,
): Promise<Written> {
  if (path === undefined || path === "") throw new StacyError("invalid", "path: is required");
  const target = pathOf(path, user);
  const there = await agent.stat(target, { attributes: METADATA }).catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") return undefined;
    throw error;
  });
  if (there?.kind === "directory") throw new StacyError("invalid", `path is a directory: ${target}`);
  const made = there === undefined ? await missingDirectories(agent, posix.dirname(target)) : [];
  // In its place, as E2B's agent does: whoever has the file open, or has it by another name, sees what is written.
  await agent.writeFile(target, content, { atomic: false, ...(there === undefined ? { mode: 0o644 } : {}) });
  await give(agent, user, [...made, target]);
  const given = Object.keys(metadata).length > 0;
  // What is written anew has nothing left of what was said of it before.
  if (given || there?.attributes !== undefined) await keepMetadata(agent, target, metadata);
  return { name: posix.basename(target), type: "file", path: target, ...(given ? { metadata } : {}) };
}

/** @param maxBytes also of what comes out, since little goes in; 0: no limit */
export async function* unpacked(
  body: AsyncIterable<Uint8Array>,
  encoding: string | null,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  if (encoding === null || encoding === "identity") return yield* body;
  if (encoding !== "gzip") throw new StacyError("invalid", `content-encoding: ${encoding} is not understood`);
  const plain = createGunzip();
  pipeline(Readable.from(body), plain).catch(() => {}); // whoever reads meets it
  let total = 0;
  try {
    for await (const piece of plain as AsyncIterable<Buffer>) {
      total += piece.length;
      if (maxBytes > 0 && total > maxBytes) {
        throw new StacyError("too-large", `the content is over the limit of ${maxBytes} bytes`);
      }
      yield piece;
    }
  } catch (cause) {
    if (!/^Z_/.test(errno(cause) ?? "")) throw cause;
    throw new StacyError("invalid", "the content is not what gzip makes", { cause });
  }
}

/** The files of a form, a few at a time as they come. @throws StacyError `invalid`, `too-large`, and what the body and `each` throw */
export async function eachPart<T>(
  body: AsyncIterable<Uint8Array>,
  type: string,
  each: (content: AsyncIterable<Uint8Array>, name: string | undefined) => Promise<T>,
): Promise<T[]> {
  const { formFiles, formAtOnce } = E2B_BOUNDS;
  const form = parserOf(type);
  const files: { content: Readable; done: Promise<T> }[] = [];
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  form.on("filesLimit", () => failed.reject(new StacyError("too-large", `a form has at most ${formFiles} files`)));
  form.on("file", (_field, content, name) => {
    // The parser tells a file's reader of a broken form, and leaves it waiting; nobody may read yet, and then it is an error of nobody's.
    let broken: Error | undefined;
    content.on("error", (error) => {
      broken ??= error;
      content.destroy(error);
    });
    // A file is there when all of those before it have been sent: none of them waits for this one.
    const before = files.at(-formAtOnce)?.done ?? Promise.resolve();
    const done = before.then(() => each(content, name));
    done.catch((error) => failed.reject(error === broken ? toldOf(error) : error));
    files.push({ content, done });
  });
  const parsing = pipeline(Readable.from(body), form).catch((error) => Promise.reject(toldOf(error)));
  try {
    await Promise.race([parsing, failed.promise]);
    return await Promise.all(files.map(({ done }) => done));
  } catch (error) {
    form.destroy();
    parsing.catch(() => {});
    for (const { content } of files) content.destroy(error as Error);
    await Promise.allSettled(files.map(({ done }) => done));
    throw error;
  }
}

/** What reads the body has its own words; the rest is the parser's. */
function toldOf(error: unknown): unknown {
  return error instanceof StacyError || error instanceof HTTPException ? error : unsound(error);
}

function parserOf(type: string): BusboyInstance {
  try {
    return new Busboy({
      headers: { "content-type": type },
      preservePath: true,
      limits: { files: E2B_BOUNDS.formFiles },
      // A part of this name is a file's content also without a name of its own: the request names its path.
      isPartAFile: (field, _type, name) => name !== undefined || field === "file",
    });
  } catch (cause) {
    throw unsound(cause);
  }
}

function unsound(cause: unknown): StacyError {
  return new StacyError("invalid", "the form is not sound", { cause });
}
