/** A file of a sandbox as a model, or its host, can take it: text, a picture, or bytes under an address. */
import type { ReadResourceResult } from "@modelcontextprotocol/server";
import { getMimeType } from "hono/utils/mime";
import type { Sandbox } from "../../../sdk/src/index.ts";
import { shortened } from "./shortened.ts";
import { Advice, type Content } from "./tool.ts";

/** In one message; as base64 it has to fit into the 10 MB that clients take. */
const MOST_BYTES = 5 << 20;
const URI = /^stacyvm:\/\/(sb-[0-9a-f]{8})(\/.*)$/;

/** What models can look at, by the bytes that it begins with. */
const PICTURES: [string, RegExp][] = [
  ["image/png", /^\x89PNG\r\n\x1a\n/],
  ["image/jpeg", /^\xff\xd8\xff/],
  ["image/gif", /^GIF8[79]a/],
  ["image/webp", /^RIFF.{4}WEBP/s],
];

export function fileUri(sandbox: string, path: string): string {
  return `stacyvm://${sandbox}${path.split("/").map(encodeURIComponent).join("/")}`;
}

/** @throws Advice for what is no address of a file */
export function parseFileUri(uri: string): { sandbox: string; path: string } {
  const [, sandbox, path] = URI.exec(uri) ?? [];
  if (sandbox === undefined || path === undefined) {
    throw new Advice(`${uri} is no file of a sandbox`, "write it as stacyvm://SANDBOX/absolute/path");
  }
  return { sandbox, path: decodeURIComponent(path) };
}

export interface Part {
  /** Bytes. */
  offset?: number | undefined;
  length?: number | undefined;
}

export async function shownFile(sandbox: Sandbox, path: string, part: Part, signal: AbortSignal): Promise<Content[]> {
  const { path: absolute, size } = await sandbox.files.stat(path, { signal });
  const whole = part.offset === undefined && part.length === undefined;
  if (whole && size > MOST_BYTES) throw tooLarge(path, `${size} bytes`);
  const { offset = 0, length = MOST_BYTES } = part;
  const bytes = whole
    ? await wholeFile(sandbox, path, signal)
    : await sandbox.files.readBytes(path, { offset, length: Math.min(length, MOST_BYTES), signal });
  const picture = pictureOf(bytes);
  if (whole && picture !== undefined) return [{ type: "image", data: base64(bytes), mimeType: picture }];
  const text = textOf(bytes, whole);
  if (text !== undefined) return [{ type: "text", text: shortened(text) }];
  const mimeType = mimeTypeOf(absolute, bytes);
  const name = absolute.slice(absolute.lastIndexOf("/") + 1);
  return [
    { type: "text", text: `${absolute} is no text: ${mimeType}, ${size} bytes. Its content is at the address below.` },
    { type: "resource_link", uri: fileUri(sandbox.id, absolute), name, mimeType, size },
  ];
}

/** The whole of it, text or not. */
export async function fileResource(
  sandbox: Sandbox,
  path: string,
  uri: string,
  signal: AbortSignal,
): Promise<ReadResourceResult> {
  const { size } = await sandbox.files.stat(path, { signal });
  if (size > MOST_BYTES) throw tooLarge(path, `${size} bytes`);
  const bytes = await wholeFile(sandbox, path, signal);
  const mimeType = mimeTypeOf(path, bytes);
  const text = textOf(bytes, true);
  return { contents: [text === undefined ? { uri, mimeType, blob: base64(bytes) } : { uri, mimeType, text }] };
}

/** Its size is no bound: what the kernel makes up has none, and may have no end (/dev/zero). A range of such a file is refused. */
async function wholeFile(sandbox: Sandbox, path: string, signal: AbortSignal): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  // Leaving the loop ends the reading in the guest.
  for await (const part of await sandbox.files.readStream(path, { signal })) {
    parts.push(part);
    size += part.length;
    if (size > MOST_BYTES) throw tooLarge(path, `more than ${MOST_BYTES} bytes`);
  }
  return Buffer.concat(parts);
}

function tooLarge(path: string, size: string): Advice {
  const next = "read a part with offset and length, or look into it with run_command (head, tail, grep)";
  return new Advice(`${path} is too large to be read at once: ${size}`, next);
}

function mimeTypeOf(path: string, bytes: Uint8Array): string {
  const text = textOf(bytes, true) !== undefined;
  return (
    pictureOf(bytes) ?? getMimeType(path)?.replace(/;.*/, "") ?? (text ? "text/plain" : "application/octet-stream")
  );
}

function pictureOf(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  return PICTURES.find(([, pattern]) => pattern.test(head))?.[0];
}

/** @param whole a part may begin and end inside of a character */
function textOf(bytes: Uint8Array, whole: boolean): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: whole }).decode(bytes);
  } catch {
    return undefined;
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}
