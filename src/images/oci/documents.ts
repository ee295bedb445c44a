/** The JSON documents of the OCI image format and of Docker's, and what we take from them. */
import { z } from "zod";
import { REGISTRY_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import type { ImageConfig } from "../image.ts";

export const MEDIA = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
} as const;

const { images: MAX_IMAGES, layers: MAX_LAYERS, documentEntries: MAX_ENTRIES } = REGISTRY_BOUNDS;
const SHA256 = /^sha256:[0-9a-f]{64}$/;

/** Platforms that an error says. */
const MAX_NAMED = 32;

const isText = (value: unknown): value is string => typeof value === "string";

/** Says one thing of a list that is unsound: of each entry it would be more than the document, and take seconds. */
function texts(most: number, what = "texts", form = /(?:)/): z.ZodType<string[]> {
  return z.custom<string[]>(
    (value) => Array.isArray(value) && value.length <= most && value.every((one) => isText(one) && form.test(one)),
    `must be a list of ${what}, ${most} at most`,
  );
}

/** As `texts`, for what has a schema of its own: its length is looked at first. */
function list<T>(entry: z.ZodType<T>, most: number): z.ZodType<T[]> {
  return z
    .custom((value) => Array.isArray(value) && value.length <= most, `must be a list, ${most} at most`)
    .pipe(z.array(entry));
}

/** As `texts`, by name. */
function table<T>(entry: z.ZodType<T>, is: (value: unknown) => boolean): z.ZodType<Record<string, T>> {
  return z
    .custom((value) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
      const entries = Object.values(value);
      return entries.length <= MAX_ENTRIES && entries.every(is);
    }, `must be a table, ${MAX_ENTRIES} entries at most`)
    .pipe(z.record(z.string(), entry));
}

const DESCRIPTOR = z.object({
  mediaType: z.string().max(255).optional(),
  digest: z.string().regex(SHA256, "only sha256 digests are supported"),
  size: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  platform: z
    .object({ architecture: z.string().max(255), os: z.string().max(255), variant: z.string().optional() })
    .optional()
    .catch(undefined),
  annotations: table(z.string(), isText).optional().catch(undefined),
});
export type Descriptor = z.infer<typeof DESCRIPTOR>;

const INDEX = z.object({ manifests: list(DESCRIPTOR, MAX_IMAGES) });
const MANIFEST = z.object({ config: DESCRIPTOR, layers: list(DESCRIPTOR, MAX_LAYERS) });
export type Manifest = z.infer<typeof MANIFEST>;

const strings = texts(MAX_ENTRIES)
  .nullish()
  .transform((value) => value ?? []);
const CONFIG = z.object({
  architecture: z.string().optional(),
  os: z.string().optional(),
  rootfs: z.object({ diff_ids: texts(MAX_LAYERS, "sha256 digests", SHA256).nullish() }).optional(),
  config: z
    .object({
      Env: strings,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      Entrypoint: strings,
      Cmd: strings,
      Labels: table(z.string(), isText).nullish(),
      StopSignal: z.string().nullish(),
      ExposedPorts: table(z.unknown(), () => true).nullish(),
      Volumes: table(z.unknown(), () => true).nullish(),
      OnBuild: strings,
    })
    .nullish(),
});
export type OciConfig = z.infer<typeof CONFIG>;

/** `docker save`: one entry per image, paths within the archive. */
const DOCKER_SAVE = list(
  z.object({ Config: z.string(), RepoTags: strings, Layers: texts(MAX_LAYERS) }),
  MAX_IMAGES,
).refine((entries) => entries.length > 0, "names no image");
export type DockerSave = z.infer<typeof DOCKER_SAVE>;

function parse<T>(schema: z.ZodType<T>, bytes: Buffer, what: string): T {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw new StacyError("corrupt", `the ${what} is no JSON`, { cause });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  // All of them are no cause to be logged.
  throw new StacyError("corrupt", `the ${what} is unsound: ${issue?.path.join(".")} ${issue?.message}`);
}

export const parseIndex = (bytes: Buffer) => parse(INDEX, bytes, "image index");
export const parseManifest = (bytes: Buffer) => parse(MANIFEST, bytes, "image manifest");
export const parseConfig = (bytes: Buffer) => parse(CONFIG, bytes, "image configuration");
export const parseDockerSave = (bytes: Buffer) => parse(DOCKER_SAVE, bytes, "manifest.json of the archive");

/** Decides by content: registries' Content-Type and the documents' own field are both unreliable. */
export function isIndex(bytes: Buffer): boolean {
  try {
    return Array.isArray((JSON.parse(bytes.toString("utf8")) as { manifests?: unknown }).manifests);
  } catch {
    return false;
  }
}

const ARCHITECTURE: Record<string, string> = { x64: "amd64", arm64: "arm64" };
export const hostArchitecture = ARCHITECTURE[process.arch] ?? process.arch;

/** The manifest for this host out of an index. @throws StacyError `not-supported` naming what there is */
export function choosePlatform(manifests: Descriptor[]): Descriptor {
  const real = manifests.filter(({ platform }) => platform?.os !== "unknown"); // build attestations say so
  const fitting = real.find(({ platform }) => platform?.os === "linux" && platform.architecture === hostArchitecture);
  if (fitting !== undefined) return fitting;
  const [only] = real;
  if (only !== undefined && real.length === 1 && only.platform === undefined) return only;
  const offered = real
    .slice(0, MAX_NAMED)
    .map(({ platform }) => (platform === undefined ? "?" : `${platform.os}/${platform.architecture}`));
  throw new StacyError(
    "not-supported",
    `the image has no linux/${hostArchitecture} version, only ${offered.join(", ")}`,
  );
}

/**
 * What the configuration says that each layer holds, uncompressed. One for each, or it says nothing of some layer, and what is made of
 * the image would not be what its digest names.
 * @throws StacyError `corrupt`
 */
export function layerDigests({ rootfs }: OciConfig, layers: number): string[] {
  const digests = rootfs?.diff_ids ?? [];
  if (digests.length === layers) return digests;
  throw new StacyError(
    "corrupt",
    `the image has ${layers} layers, its configuration ${digests.length === 0 ? "names none" : digests.length}`,
  );
}

/** @throws StacyError `not-supported` for another platform */
export function imageConfig(document: OciConfig): ImageConfig {
  const { os = "linux", architecture = hostArchitecture } = document;
  if (os !== "linux" || architecture !== hostArchitecture) {
    throw new StacyError("not-supported", `the image is for ${os}/${architecture}, not linux/${hostArchitecture}`);
  }
  const config = document.config ?? undefined;
  const volumes = Object.keys(config?.Volumes ?? {});
  const onBuild = config?.OnBuild ?? [];
  return {
    env: config?.Env ?? [],
    ...(config?.WorkingDir ? { cwd: config.WorkingDir } : {}),
    ...(config?.User ? { user: config.User } : {}),
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
    labels: config?.Labels ?? {},
    ...(config?.StopSignal ? { stopSignal: config.StopSignal } : {}),
    exposedPorts: Object.keys(config?.ExposedPorts ?? {}),
    ...(volumes.length === 0 ? {} : { volumes }),
    ...(onBuild.length === 0 ? {} : { onBuild }),
  };
}
