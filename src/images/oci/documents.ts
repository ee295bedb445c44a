/** The JSON documents of the OCI image format and of Docker's, and what we take from them. */
import { z } from "zod";
import { StacyError } from "../../host/error.ts";
import type { ImageConfig } from "../image.ts";

export const MEDIA = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
} as const;

/** More layers than any builder makes. */
const MAX_LAYERS = 1000;

const DESCRIPTOR = z.object({
  mediaType: z.string().max(255).optional(),
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/, "only sha256 digests are supported"),
  size: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  platform: z
    .object({ architecture: z.string(), os: z.string(), variant: z.string().optional() })
    .optional()
    .catch(undefined),
  annotations: z.record(z.string(), z.string()).optional().catch(undefined),
});
export type Descriptor = z.infer<typeof DESCRIPTOR>;

const INDEX = z.object({ manifests: z.array(DESCRIPTOR).max(10_000) });
const MANIFEST = z.object({ config: DESCRIPTOR, layers: z.array(DESCRIPTOR).max(MAX_LAYERS) });
export type Manifest = z.infer<typeof MANIFEST>;

const strings = z
  .array(z.string())
  .nullish()
  .transform((value) => value ?? []);
const CONFIG = z.object({
  architecture: z.string().optional(),
  os: z.string().optional(),
  rootfs: z.object({ diff_ids: z.array(z.string().regex(/^sha256:[0-9a-f]{64}$/)).nullish() }).optional(),
  config: z
    .object({
      Env: strings,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      Entrypoint: strings,
      Cmd: strings,
      Labels: z.record(z.string(), z.string()).nullish(),
      StopSignal: z.string().nullish(),
      ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
      Volumes: z.record(z.string(), z.unknown()).nullish(),
      OnBuild: strings,
    })
    .nullish(),
});
export type OciConfig = z.infer<typeof CONFIG>;

/** `docker save`: one entry per image, paths within the archive. */
const DOCKER_SAVE = z
  .array(z.object({ Config: z.string(), RepoTags: strings, Layers: z.array(z.string()).max(MAX_LAYERS) }))
  .min(1);
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
  throw new StacyError("corrupt", `the ${what} is unsound: ${issue?.path.join(".")} ${issue?.message}`, {
    cause: parsed.error,
  });
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
  const offered = real.map(({ platform }) =>
    platform === undefined ? "?" : `${platform.os}/${platform.architecture}`,
  );
  throw new StacyError(
    "not-supported",
    `the image has no linux/${hostArchitecture} version, only ${offered.join(", ")}`,
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
