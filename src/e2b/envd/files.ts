/** `/files`: contents of files, whole. A file is written as the user's who is named, with the directories that it needs. */
import { posix } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import { Busboy } from "@fastify/busboy";
import { bodyStream } from "../../api/body.ts";
import { parseRange } from "../../api/range.ts";
import { StacyError } from "../../host/error.ts";
import type { E2bParts } from "../parts.ts";
import type { Guest } from "./guest.ts";
import { type GuestUser, give, missingDirectories, pathOf } from "./users.ts";

interface Written {
  name: string;
  type: "file";
  path: string;
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
  const part = range === undefined ? {} : { offset: range.start, length: range.end - range.start + 1 };
  const { stream } = await guest.agent.readStream(target, { ...part, signal: request.signal });
  const hold = guest.hold();
  stream.once("close", hold);
  if (range !== undefined) {
    headers["content-range"] = `bytes ${range.start}-${range.end}/${stat.size}`;
    headers["content-length"] = String(range.end - range.start + 1);
    return new Response(Readable.toWeb(stream) as ReadableStream, { status: 206, headers });
  }
  if (
    /(^|,)\s*gzip\s*(,|;|$)/.test(request.headers.get("accept-encoding") ?? "") &&
    stat.size > 0 &&
    wantsGzip(request)
  ) {
    headers["content-encoding"] = "gzip";
    const packed = createGzip();
    pipeline(stream, packed).catch((error) => packed.destroy(error));
    return new Response(Readable.toWeb(packed) as ReadableStream, { headers });
  }
  headers["content-length"] = String(stat.size);
  return new Response(Readable.toWeb(stream) as ReadableStream, { headers });
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
  const type = request.headers.get("content-type") ?? "";
  const { max_upload_bytes: maxBytes, body_timeout: timeoutMs } = parts.config.server;
  const body = bodyStream(request, { maxBytes, timeoutMs });
  const written = type.startsWith("multipart/form-data")
    ? await eachPart(body, type, (content, name) => write(guest, user, path ?? name, content))
    : [await write(guest, user, path, unpacked(body, request.headers.get("content-encoding")))];
  if (written.length === 0) throw new StacyError("invalid", "there is no file in the request");
  return Response.json(written);
}

async function write(
  { agent }: Guest,
  user: GuestUser,
  path: string | undefined,
  content: AsyncIterable<Uint8Array>,
): Promise<Written> {
  if (path === undefined || path === "") throw new StacyError("invalid", "path: is required");
  const target = pathOf(path, user);
  const there = await agent.stat(target).catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") return undefined;
    throw error;
  });
  if (there?.kind === "directory") throw new StacyError("invalid", `path is a directory: ${target}`);
  const made = there === undefined ? await missingDirectories(agent, posix.dirname(target)) : [];
  await agent.writeFile(target, content, { mode: there?.mode ?? 0o644 });
  await give(agent, user, [...made, target]);
  return { name: posix.basename(target), type: "file", path: target };
}

function unpacked(body: AsyncIterable<Uint8Array>, encoding: string | null): AsyncIterable<Uint8Array> {
  if (encoding === null || encoding === "identity") return body;
  if (encoding !== "gzip") throw new StacyError("invalid", `content-encoding: ${encoding} is not understood`);
  const plain = createGunzip();
  pipeline(Readable.from(body), plain).catch(() => {}); // whoever reads meets it
  return plain;
}

/** The files of a form, one after another as they come. */
async function eachPart(
  body: AsyncIterable<Uint8Array>,
  type: string,
  each: (content: AsyncIterable<Uint8Array>, name: string) => Promise<Written>,
): Promise<Written[]> {
  const written: Promise<Written>[] = [];
  const form = new Busboy({ headers: { "content-type": type }, preservePath: true });
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  form.on("file", (_field, stream, name) => {
    const done = each(stream, name);
    written.push(done);
    done.catch((error) => {
      stream.resume();
      failed.reject(error);
    });
  });
  try {
    await Promise.race([pipeline(Readable.from(body), form), failed.promise]);
  } catch (error) {
    form.destroy();
    throw error instanceof StacyError ? error : new StacyError("invalid", "the form is not sound", { cause: error });
  }
  return await Promise.all(written);
}
