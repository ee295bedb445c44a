/** From a reference to verified files on this host: manifest, configuration and layers of one image. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Addresses } from "../../host/addresses.ts";
import { REGISTRY_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import type { Progress, RegistryCredentials } from "../image.ts";
import { DEFAULT_REGISTRY, type Reference } from "../reference.ts";
import type { Blobs } from "./blobs.ts";
import { findCredentials } from "./credentials.ts";
import {
  choosePlatform,
  type Descriptor,
  isIndex,
  type Manifest,
  MEDIA,
  type OciConfig,
  parseConfig,
  parseIndex,
  parseManifest,
} from "./documents.ts";
import { isLoopback, RegistryHttp, type RetryPolicy } from "./http.ts";

export interface RegistryConfig {
  /** Plain http although it is not on loopback. */
  insecure?: boolean;
  /** Ask there instead, for example `https://mirror.example:5000`; a path goes before the image's name. */
  endpoint?: string;
  username?: string;
  password?: string;
}

export interface PullOptions {
  registries?: Record<string, RegistryConfig> | undefined;
  /** Docker configuration files to look for credentials in. */
  credentialFiles?: string[] | undefined;
  /** Of who asks, for the registry of the reference itself: in place of all others, and told to no mirror. */
  credentials?: RegistryCredentials | undefined;
  retry?: RetryPolicy | undefined;
  idleMs?: number | undefined;
  /** Layers fetched at once. */
  parallel?: number | undefined;
  progress?: ((progress: Progress) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Registries at private addresses: only those that `registries` names, or also the one of the reference (default: that is the operator's word). */
  privateHosts?: "named" | "any" | undefined;
}

/** What the reference points at now; nothing but documents has been fetched. */
export interface RemoteImage {
  /** Of the manifest for this platform. */
  digest: string;
  manifest: Manifest;
  http: RegistryHttp;
}

/** A manifest with everything it names, checked, as files of ours. */
export interface FetchedImage {
  config: OciConfig;
  /** In order, lowest first. */
  layers: string[];
  blobs: string[];
}

const MAX_DOCUMENT = REGISTRY_BOUNDS.documentBytes;
const HUB_ENDPOINT = "https://registry-1.docker.io";
const RETRY: RetryPolicy = { tries: 5, firstDelayMs: 500 };
const PARALLEL = 4;

export async function lookUp(reference: Reference, options: PullOptions): Promise<RemoteImage> {
  const http = await connect(reference, options);
  options.progress?.({ step: `looking up ${reference.full}` });
  let bytes = await manifest(http, reference.digest ?? reference.tag ?? "latest", reference.digest).catch((cause) => {
    if (!(cause instanceof StacyError) || cause.code !== "not-found") throw cause;
    throw new StacyError("not-found", `there is no image ${reference.full}: ${cause.message}`, {
      cause,
      remedy: "check its name and tag",
    });
  });
  if (isIndex(bytes)) {
    const chosen = choosePlatform(parseIndex(bytes).manifests);
    bytes = await manifest(http, chosen.digest, chosen.digest);
  }
  if (isIndex(bytes)) throw new StacyError("not-supported", "the image is an index of indexes");
  return { digest: digestOf(bytes), manifest: parseManifest(bytes), http };
}

async function connect(reference: Reference, options: PullOptions): Promise<RegistryHttp> {
  const configured = options.registries?.[reference.registry];
  const given = options.credentials;
  const insecure = configured?.insecure;
  const settings: RegistryConfig | undefined =
    given === undefined ? configured : { ...given, ...(insecure === undefined ? {} : { insecure }) };
  const host = reference.registry.replace(/:\d+$/, "");
  const plain = settings?.insecure ?? isLoopback(host);
  const origin = new URL(
    settings?.endpoint ??
      (reference.registry === DEFAULT_REGISTRY ? HUB_ENDPOINT : `${plain ? "http" : "https"}://${reference.registry}`),
  );
  const repository = `${origin.pathname}/${reference.repository}`.replace(/\/+/g, "/").slice(1);
  // A mirror must not be sent what was meant for the registry that it stands for.
  const asked = settings?.endpoint === undefined ? reference.registry : origin.host;
  const credentials =
    settings?.username === undefined
      ? await findCredentials(asked, repository, options.credentialFiles)
      : { username: settings.username, password: settings.password ?? "" };
  return new RegistryHttp({
    origin: origin.origin,
    repository,
    credentials,
    plain: plain || origin.protocol === "http:",
    retry: options.retry ?? RETRY,
    idleMs: options.idleMs,
    signal: options.signal,
    addresses: new Addresses(),
    named: namedHosts(options, options.privateHosts === "named" ? undefined : origin.host),
  });
}

/** By name and port, as the configuration or whoever calls has written them. */
function namedHosts({ registries = {} }: PullOptions, own: string | undefined): (host: string) => boolean {
  const named = new Set<string>(own === undefined ? [] : [own]);
  for (const [host, { endpoint }] of Object.entries(registries)) {
    named.add(host);
    if (endpoint !== undefined && URL.canParse(endpoint)) named.add(new URL(endpoint).host);
  }
  return (host) => named.has(host);
}

async function manifest(http: RegistryHttp, name: string, digest: string | undefined): Promise<Buffer> {
  const bytes = await http.document(`manifests/${name}`, Object.values(MEDIA), MAX_DOCUMENT);
  if (digest !== undefined && digestOf(bytes) !== digest) {
    throw new StacyError("corrupt", `the registry's manifest ${digest} has the digest ${digestOf(bytes)}`);
  }
  return bytes;
}

/** Fetches what is not in `blobs` yet into `dir`, several at once. @param fresh gets the digests of what was not here before, also when it fails */
export async function fetchImage(
  remote: RemoteImage,
  blobs: Blobs,
  dir: string,
  options: PullOptions,
  fresh: string[],
): Promise<FetchedImage> {
  const { manifest, http } = remote;
  if (manifest.config.size > MAX_DOCUMENT) throw new StacyError("corrupt", "the image's configuration is too long");
  const wanted = new Map([manifest.config, ...manifest.layers].map((blob) => [blob.digest, blob]));
  const total = [...wanted.values()].reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  const step = `pulling ${manifest.layers.length} ${manifest.layers.length === 1 ? "layer" : "layers"}`;
  const advance = (bytes: number): void => {
    done += bytes;
    options.progress?.({ step, done, total, unit: "bytes" });
  };
  const path = (digest: string): string => join(dir, digest.slice("sha256:".length));
  const fetchOne = async (blob: Descriptor, signal: AbortSignal): Promise<void> => {
    if (await blobs.take(blob.digest, path(blob.digest))) return advance(blob.size);
    await blobs.put(blob.digest, blob.size, path(blob.digest), (write) =>
      http.stream(
        `blobs/${blob.digest}`,
        blob.size,
        async (chunk) => {
          await write(chunk);
          advance(chunk.length);
        },
        options.signal === undefined ? signal : AbortSignal.any([options.signal, signal]),
      ),
    );
    fresh.push(blob.digest);
  };
  await atOnce([...wanted.values()], options.parallel ?? PARALLEL, fetchOne);
  return {
    config: parseConfig(await readFile(path(manifest.config.digest))),
    layers: manifest.layers.map(({ digest }) => path(digest)),
    blobs: [...wanted.keys()],
  };
}

/** Runs the work with so many at once. The first failure stops the rest, and is thrown when all have ended. */
async function atOnce<T>(
  items: T[],
  limit: number,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const stop = new AbortController();
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined && !stop.signal.aborted; item = queue.shift()) {
      await work(item, stop.signal).catch((error) => {
        stop.abort(error);
        throw error;
      });
    }
  };
  await Promise.allSettled(Array.from({ length: limit }, worker));
  stop.signal.throwIfAborted();
}

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
