/**
 * Images in files: an OCI layout as a directory or an archive, and the archives of `docker save`. What an archive holds is
 * copied to numbered files of ours, so its names never become paths on the host.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { errno, StacyError } from "../../host/error.ts";
import { ArchiveBytes } from "../archive-bytes.ts";
import type { ImageContent } from "../content.ts";
import { decompressed, layerFile } from "../layer.ts";
import { readTar } from "../tar.ts";
import type { TreeLimits } from "../tree.ts";
import {
  choosePlatform,
  type Descriptor,
  imageConfig,
  isIndex,
  layerDigests,
  parseConfig,
  parseDockerSave,
  parseIndex,
  parseManifest,
} from "./documents.ts";
import { digestOf } from "./pull.ts";

/** Finds the files of an image by their names within it. */
export interface ImageFiles {
  /** A path on the host, or `undefined`. */
  path(name: string): string | undefined;
}

export interface ArchiveOptions {
  /** Which image, where there are several: a tag. */
  tag?: string | undefined;
  signal?: AbortSignal | undefined;
}

const MAX_DOCUMENT = 16 << 20;
const MAX_MEMBERS = 100_000;
const MAX_DEPTH = 4;

export function layoutDirectory(dir: string): ImageFiles {
  return { path: (name) => join(dir, name) };
}

/** What an archive is, by the names in it. */
export async function archiveKind(
  path: string,
  limits: TreeLimits,
  signal?: AbortSignal,
): Promise<"oci" | "docker" | "rootfs"> {
  let oci = false;
  let docker = false;
  let other = false;
  await readTar(new ArchiveBytes(limits).through(decompressed(path, signal)), async (entry) => {
    const name = member(entry.path);
    if (name === "oci-layout") oci = true;
    else if (name === "manifest.json") docker = true;
    else if (/^(etc|usr|bin|lib)\//.test(name)) other = true;
  });
  if (other) return "rootfs";
  return oci ? "oci" : docker ? "docker" : "rootfs";
}

/** Copies the members of an archive to files in `dir`. @throws StacyError `limit` before there is more than an image may have */
export async function unpackMembers(
  path: string,
  dir: string,
  limits: TreeLimits,
  signal?: AbortSignal,
): Promise<ImageFiles> {
  const files = new Map<string, string>();
  const links = new Map<string, string>();
  const bytes = new ArchiveBytes(limits);
  await readTar(bytes.through(decompressed(path, signal)), async (entry, body) => {
    if (files.size + links.size >= MAX_MEMBERS) throw new StacyError("limit", "the archive has too many members");
    // A member with holes is far larger than the archive.
    bytes.add(entry.size);
    const name = member(entry.path);
    // Old archives store a layer that two images share once, and link to it.
    if (entry.type === "symlink") links.set(name, member(join("/", name, "..", entry.link)));
    if (entry.type === "hardlink") links.set(name, member(entry.link));
    if (entry.type !== "file") return;
    const target = join(dir, `member-${files.size}`);
    const file = await open(target, "wx", 0o600);
    try {
      for await (const chunk of body) await writeAll(file, chunk);
    } finally {
      await file.close();
    }
    files.set(name, target);
  });
  return {
    path(name) {
      let current = member(name);
      for (let i = 0; i < MAX_DEPTH && !files.has(current); i++) current = links.get(current) ?? current;
      return files.get(current);
    },
  };
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length; ) done += (await file.write(chunk, done, chunk.length - done)).bytesWritten;
}

function member(path: string): string {
  return join("/", path).slice(1).replace(/\/$/, "");
}

/** @throws StacyError `corrupt`, `not-found` (no such tag), `not-supported` (platform) */
export async function readLayout(files: ImageFiles, options: ArchiveOptions = {}): Promise<ImageContent> {
  const index = parseIndex(await document(files, "index.json"));
  let bytes = await blob(files, chooseTagged(index.manifests, options.tag));
  for (let depth = 0; isIndex(bytes); depth++) {
    if (depth === MAX_DEPTH) throw new StacyError("corrupt", "the image's indexes nest too deep");
    bytes = await blob(files, choosePlatform(parseIndex(bytes).manifests));
  }
  const manifest = parseManifest(bytes);
  const config = parseConfig(await blob(files, manifest.config));
  const diffIds = layerDigests(config, manifest.layers.length);
  const layers = await Promise.all(
    manifest.layers.map(async (layer, i) => {
      const path = await checkedBlob(files, layer, options.signal);
      return layerFile(path, { whiteouts: true, diffId: diffIds[i] });
    }),
  );
  return { digest: digestOf(bytes), config: imageConfig(config), layers, blobs: [] };
}

function chooseTagged(manifests: Descriptor[], tag: string | undefined): Descriptor {
  const name = ({ annotations }: Descriptor): string | undefined => annotations?.["org.opencontainers.image.ref.name"];
  const tagged =
    tag === undefined ? [] : manifests.filter((entry) => [tag, `:${tag}`].some((end) => name(entry)?.endsWith(end)));
  if (tagged[0] !== undefined) return tagged[0];
  const [only] = manifests;
  if (only !== undefined && manifests.length === 1) return only;
  const platforms = manifests.filter(({ platform }) => platform !== undefined);
  if (tag === undefined && platforms.length === manifests.length && platforms.length > 0)
    return choosePlatform(platforms);
  const names = manifests.map((entry) => name(entry) ?? entry.digest).join(", ");
  throw new StacyError("not-found", `the layout has several images: ${names}`, { remedy: "name one with --tag" });
}

/** The first image that fits, or the tagged one. @throws StacyError as `readLayout` */
export async function readDockerSave(files: ImageFiles, options: ArchiveOptions = {}): Promise<ImageContent> {
  const entries = parseDockerSave(await document(files, "manifest.json"));
  const { tag } = options;
  const tagged =
    tag === undefined
      ? entries
      : entries.filter(({ RepoTags }) => RepoTags.some((name) => name.endsWith(`:${tag}`) || name === tag));
  const [entry] = tagged.length === 0 && entries.length === 1 ? entries : tagged;
  if (entry === undefined || (tag === undefined && entries.length > 1)) {
    const names = entries.flatMap(({ RepoTags }) => RepoTags).join(", ");
    throw new StacyError("not-found", `the archive has several images: ${names}`, { remedy: "name one with --tag" });
  }
  const bytes = await document(files, entry.Config);
  const config = parseConfig(bytes);
  const diffIds = layerDigests(config, entry.Layers.length);
  const layers = entry.Layers.map((name, i) => {
    const path = files.path(name);
    if (path === undefined) throw new StacyError("corrupt", `the archive lacks ${JSON.stringify(name)}`);
    return layerFile(path, { whiteouts: true, diffId: diffIds[i] });
  });
  // By these digests the configuration names what is in the layers. Images of registries are known by the digests of manifests: an
  // archive may have one of those in the configuration's place, so the two never meet.
  const digest = digestOf(Buffer.concat([Buffer.from("docker save\n"), bytes]));
  return { digest, config: imageConfig(config), layers, blobs: [] };
}

async function document(files: ImageFiles, name: string): Promise<Buffer> {
  const path = files.path(name);
  try {
    if (path === undefined) throw new StacyError("corrupt", `the image lacks ${JSON.stringify(name)}`);
    const { size } = await regular(path, name);
    if (size > MAX_DOCUMENT) throw new StacyError("corrupt", `${JSON.stringify(name)} is too long`);
    return await readFile(path);
  } catch (error) {
    if (errno(error) !== "ENOENT") throw error;
    throw new StacyError("corrupt", `the image lacks ${JSON.stringify(name)}`, { cause: error });
  }
}

/** A directory may have links in it, also to what has no end. @throws StacyError `corrupt` */
async function regular(path: string, name: string): Promise<{ size: number }> {
  const found = await stat(path);
  if (found.isFile()) return found;
  throw new StacyError("corrupt", `the image's ${JSON.stringify(name)} is no file`);
}

async function blob(files: ImageFiles, { digest }: Descriptor): Promise<Buffer> {
  const bytes = await document(files, blobName(digest));
  if (digestOf(bytes) === digest) return bytes;
  throw new StacyError("corrupt", `the blob ${digest} has the digest ${digestOf(bytes)}`);
}

async function checkedBlob(files: ImageFiles, { digest }: Descriptor, signal?: AbortSignal): Promise<string> {
  const path = files.path(blobName(digest));
  if (path === undefined) throw new StacyError("corrupt", `the image lacks the layer ${digest}`);
  const hash = createHash("sha256");
  try {
    await regular(path, digest);
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
      signal?.throwIfAborted();
      hash.update(chunk as Buffer);
    }
  } catch (error) {
    if (errno(error) !== "ENOENT") throw error;
    throw new StacyError("corrupt", `the image lacks the layer ${digest}`, { cause: error });
  }
  const actual = `sha256:${hash.digest("hex")}`;
  if (actual === digest) return path;
  throw new StacyError("corrupt", `the layer ${digest} has the digest ${actual}`);
}

function blobName(digest: string): string {
  return `blobs/sha256/${digest.slice("sha256:".length)}`;
}
