/**
 * The contract of the images layer: from a reference as a user writes it to a read-only base disk on this host, built
 * once per content digest and never changed afterwards.
 *
 *     <data>/images/<digest>/   base.img   the read-only filesystem (all machines of the image open this one file)
 *                               image.json what `Image` says, written last: a directory without it is not an image
 *     <data>/images/refs.json   which reference points at which digest, and whose it is
 *
 * A name is an owner's own (what it imported, built or tagged), or everybody's: what came from a registry, the built-in images, what was
 * shared, and what the operator made without a server. An owner's own name goes before everybody's. The content belongs to nobody: a
 * digest is found by whoever has a name for it.
 */

import type { Builds } from "./builds.ts";
import type { WorkDir } from "./work-dir.ts";

/** Whose names are meant. */
export interface ImageOwner {
  name: string;
  /** Sees other owners' images too. */
  everything?: boolean;
  /** Whose turn it is to pull, where that is another's: who asks for a shared template. */
  party?: string;
  /** What it names is for every owner. */
  shares?: boolean;
  /** Names what it makes as template images only (template-images.ts): what they are made of has been looked at, not their names. */
  templates?: boolean;
}

/** What the image says about its processes (OCI image configuration). */
export interface ImageConfig {
  /** `K=V` */
  env: string[];
  cwd?: string;
  /** name, uid, name:group or uid:gid */
  user?: string;
  entrypoint: string[];
  cmd: string[];
  labels: Record<string, string>;
  stopSignal?: string;
  exposedPorts: string[];
  /** Absolute paths. The directories are made; what is written there stays on the sandbox's own disk like everything else. */
  volumes?: string[];
  /** Instructions of a Dockerfile that a build from this image does first. */
  onBuild?: string[];
}

export interface Image {
  /** Whose name it is; absent: everybody's. */
  owner?: string;
  /** As resolved, for example `docker.io/library/python:3.12` or `stacyvm/python`. */
  reference: string;
  /** `sha256:<hex>` of the image's content; names its directory (without the prefix) and is part of every snapshot key. */
  digest: string;
  /** Absolute path of `base.img`. */
  base: string;
  /** Its filesystem, which the guest mounts read-only. */
  filesystem: "ext4" | "erofs";
  /** Bytes that `base.img` occupies. */
  sizeBytes: number;
  config: ImageConfig;
  /** ms since 1970 */
  createdAt: number;
}

/** Progress of long work, for a bar or an event. `done` and `total` are in `unit`; `total` may be unknown. */
export interface Progress {
  /** One line, for example `pulling 3 layers` or `building the filesystem`. */
  step: string;
  done?: number;
  total?: number;
  unit?: "bytes" | "files" | "packages";
}

export interface ResolveOptions {
  /** `missing` (default): pull or build only what is not here. `always`: ask the registry again. `never`: offline. */
  pull?: "missing" | "always" | "never";
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /**
   * Of its registry, which is asked with these each time, and says whether the caller may have it; `pull` is not looked at. The name is this
   * owner's alone then.
   */
  credentials?: RegistryCredentials;
}

export interface RegistryCredentials {
  username: string;
  password: string;
}

export interface Images {
  /** As this owner sees them; without: as the operator does, who makes names for everybody and finds only those. */
  of(owner: ImageOwner): Images;
  /**
   * The image that a reference names, pulled or built when needed; single-flight per digest, across processes too.
   * @throws StacyError `invalid` (bad reference), `not-found`, `unavailable` (registry, tools), `no-space`, `corrupt`
   */
  resolve(reference: string, options?: ResolveOptions): Promise<Image>;
  list(): Promise<Image[]>;
  /** Removes a reference, and its base when no other reference, of whomever, points at it. @throws StacyError `conflict` when in use */
  remove(reference: string, options?: { inUse?: (digest: string) => boolean }): Promise<void>;
}

export interface ImportOptions {
  /** Which image of an archive that has several. */
  tag?: string;
  /** Default: recognised by its content. `rootfs`: take the archive or directory as the file tree itself. */
  as?: "rootfs";
  /** Replaces fields of what the source says. */
  config?: Partial<ImageConfig>;
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface DeriveOptions {
  /** A file with what lies above: a layer of an image (tar, gzip or zstd or plain). */
  layer?: string;
  /** Paths in the layer that are left out; without a leading slash. */
  leaveOut?: (path: string) => boolean;
  config: ImageConfig;
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface ImageDetails extends Image {
  /** Every reference that points at it. */
  references: string[];
  /** ms since 1970 */
  usedAt: number;
  /** Blobs of the registry that it was built from. */
  blobs: string[];
}

export interface CollectOptions {
  /** Bytes that bases and blobs may occupy together; default: only what no reference needs goes. */
  maxBytes?: number;
  /** Digests that a machine or a snapshot needs. */
  inUse?: (digest: string) => boolean;
  /** Digests of template images that a template names; absent: nobody knows, and all of them are kept. */
  templates?: ReadonlySet<string>;
  /** Only says what would go. */
  dryRun?: boolean;
}

export interface Collected {
  /** Digests of images, in the order in which they went. */
  images: string[];
  blobs: string[];
  /** Keys of what builds remembered. */
  builds: string[];
  /** Bytes. */
  freed: number;
  /** Bytes that are left. */
  kept: number;
}

/** What the operator can do with the images of a host, beside using them. */
export interface ImageLibrary extends Images {
  /** Whose it is; absent: the operator's. */
  readonly owner: string | undefined;
  of(owner: ImageOwner): ImageLibrary;
  /** Whether the content is here, whoever has a name for it. */
  has(digest: string): Promise<boolean>;
  /** The same content on another host, as that one's `receive` takes it; `undefined`: it is not here. */
  content(digest: string): Promise<(Pick<Image, "base" | "config"> & { blobs: string[] }) | undefined>;
  /**
   * Takes content from another host, without a name: it is kept as long as it is used.
   * @param fill makes the base at that path, whole and on disk
   */
  receive(
    digest: string,
    about: { config: ImageConfig; blobs: string[] },
    fill: (path: string) => Promise<void>,
  ): Promise<void>;
  /**
   * Takes an image from a file or directory of this host under a name: an OCI layout (directory or archive), an archive of
   * `docker save`, a tar archive of a file tree (gzip, zstd or plain), or a directory.
   */
  import(source: string, reference: string, options?: ImportOptions): Promise<Image>;
  /**
   * An image made of one that is here (`undefined`: of nothing) and a layer above it, under a name. Without a name it is known by
   * its digest, and kept as long as it is used. @throws StacyError `not-found`, `corrupt`
   */
  derive(digest: string | undefined, reference: string | undefined, options: DeriveOptions): Promise<Image>;
  /** What builds have made before. */
  readonly builds: Builds;
  /** A private directory beside the images, for files that `derive` and `builds` take. */
  scratch(): Promise<WorkDir>;
  /** @throws StacyError `not-found` */
  inspect(reference: string): Promise<ImageDetails>;
  /** Whether the content goes when this name does: no other one, of whomever, points at it. @throws StacyError `not-found` */
  isLast(reference: string): Promise<boolean>;
  /** Another name for an image that is here. */
  tag(reference: string, name: string): Promise<Image>;
  /** Removes what nothing refers to, then the least recently used down to the limit; never what is in use. */
  collect(options?: CollectOptions): Promise<Collected>;
}
