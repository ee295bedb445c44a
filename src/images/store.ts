/** The images of this host: resolves references, pulls or builds what is missing once, imports, lists, removes. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { join, resolve as resolvePath } from "node:path";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { type Lock, lock, tryLock } from "../host/lock.ts";
import type { DataPaths } from "../host/paths.ts";
import { ArchiveBytes } from "./archive-bytes.ts";
import { buildBase, DEFAULT_LIMITS } from "./base.ts";
import { type Base, Bases, type Refs } from "./bases.ts";
import { Builds } from "./builds.ts";
import { buildBuiltin, builtinNames } from "./builtin.ts";
import { planCollection } from "./collect.ts";
import { configPlaces, makePlaces } from "./config-places.ts";
import { type ImageContent, plainConfig } from "./content.ts";
import { directoryLayer } from "./directory.ts";
import type {
  Collected,
  CollectOptions,
  DeriveOptions,
  Image,
  ImageConfig,
  ImageDetails,
  ImageLibrary,
  ImageOwner,
  ImportOptions,
  Progress,
  RegistryCredentials,
  ResolveOptions,
} from "./image.ts";
import { layerFile } from "./layer.ts";
import { archiveKind, layoutDirectory, readDockerSave, readLayout, unpackMembers } from "./oci/archive.ts";
import { Blobs } from "./oci/blobs.ts";
import { imageConfig, layerDigests } from "./oci/documents.ts";
import { fetchImage, lookUp, type PullOptions, type RegistryConfig, type RemoteImage } from "./oci/pull.ts";
import { checkPolicy, followAliases, type ImagePolicy } from "./policy.ts";
import { type Asking, PullTurns } from "./pull-turns.ts";
import { isVisible, type RefName, readKey, writeKey } from "./ref-names.ts";
import { isDigest, OWN_PREFIX, parseReference } from "./reference.ts";
import { isTemplateImage } from "./template-images.ts";
import type { TreeLimits } from "./tree.ts";
import { WorkDir } from "./work-dir.ts";

export interface ImagesOptions {
  /** Ask nobody: what is not here is not found. */
  offline?: boolean;
  /** A name and the reference that it stands for, for example `alpine:latest` for a local import. */
  aliases?: Record<string, string>;
  policy?: ImagePolicy;
  /** What takes the place of an image whose registry cannot be reached: a built-in one. */
  standIns?: Record<string, string>;
  /** By host, with port. */
  registries?: Record<string, RegistryConfig>;
  /** Registries at private addresses: only those that `registries` names, or (default) also the one of a reference. */
  privateHosts?: "named" | "any";
  /** Docker configuration files with credentials; default: where Docker and Podman keep theirs. */
  credentialFiles?: string[];
  /** What one image may hold. */
  limits?: Partial<TreeLimits>;
  /** For tests and slow networks. */
  network?: Pick<PullOptions, "retry" | "idleMs" | "parallel">;
}

/** The library over one data directory. Several processes may use one at the same time. */
export function createImages(paths: DataPaths, options: ImagesOptions = {}): ImageLibrary {
  return new ImageStore(paths, options);
}

interface Work {
  progress?: ((progress: Progress) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Whose turn it is; absent: this library's owner's. */
  party?: string | undefined;
}

/** What a builder leaves at the path that it was given, and what belongs to it. */
interface Built {
  /** `undefined`: from the content. */
  digest: string | undefined;
  config: ImageConfig;
  blobs: string[];
}

class ImageStore implements ImageLibrary {
  readonly #paths: DataPaths;
  readonly #options: ImagesOptions;
  readonly #bases: Bases;
  readonly #blobs: Blobs;
  readonly builds: Builds;
  readonly #owner: ImageOwner | undefined;
  readonly #turns: PullTurns<Image>;

  constructor(paths: DataPaths, options: ImagesOptions, turns = new PullTurns<Image>(), owner?: ImageOwner) {
    this.#owner = owner;
    this.#turns = turns;
    this.#paths = paths;
    this.#options = options;
    this.#bases = new Bases(paths);
    this.#blobs = new Blobs(join(paths.images, "blobs"));
    this.builds = new Builds(join(paths.images, "builds"));
  }

  get owner(): string | undefined {
    return this.#owner?.name;
  }

  get #party(): string {
    return this.#owner?.party ?? this.#owner?.name ?? "";
  }

  of(owner: ImageOwner): ImageLibrary {
    return new ImageStore(this.#paths, this.#options, this.#turns, owner);
  }

  async has(digest: string): Promise<boolean> {
    return (await this.#bases.get(digest)) !== undefined;
  }

  async content(digest: string): Promise<Base | undefined> {
    const base = await this.#bases.get(digest);
    // Of an earlier version's other kind of base nothing is said on the way.
    return base?.filesystem === "erofs" ? base : undefined;
  }

  async receive(
    digest: string,
    { config, blobs }: Pick<Base, "config" | "blobs">,
    fill: (path: string) => Promise<void>,
  ): Promise<void> {
    if (await this.has(digest)) return;
    await using work = await WorkDir.create(this.#paths);
    const dir = join(work.path, "base");
    await mkdir(dir);
    await fill(join(dir, "base.img"));
    await this.#bases.publish(dir, digest, config, blobs);
  }

  async resolve(reference: string, options: ResolveOptions = {}): Promise<Image> {
    const { signal, progress, credentials } = options;
    const party = this.#party;
    if (credentials !== undefined) return await this.#resolveFor(credentials, reference, { signal, progress, party });
    // Before its lock: one that waits for its turn keeps nobody else from the same image.
    return this.#resolve(reference, options, (name, pull) =>
      this.#turns.run(name, pull, { party, signal, progress }, (signal, progress) =>
        this.#everybodys.#fetch(name, pull, { progress, signal, party }),
      ),
    );
  }

  /** @param fetch brings what is not here */
  async #resolve(
    reference: string,
    options: ResolveOptions,
    fetch: (name: string, pull: "missing" | "always") => Promise<Image>,
  ): Promise<Image> {
    return inImagePhase(options.signal, async () => {
      const name = this.#name(reference);
      await this.#check(name);
      const pull = this.#options.offline === true ? "never" : (options.pull ?? "missing");
      const again = pull === "always" && !isDigest(name);
      // One that is about to be replaced is not used by that.
      const present = await this.#present(name, !again);
      // An owner's own has no registry to be asked again.
      const asks = again && present?.owner === undefined;
      if (present !== undefined && !asks) return present;
      if (pull === "never" || isDigest(name)) {
        throw new StacyError("not-found", `the image ${name} is not on this host`, {
          remedy: pull === "never" ? "import it with `stacyvm image import`, or go online" : "name it by its reference",
        });
      }
      return fetch(name, pull);
    });
  }

  /**
   * Whoever has the credentials may have the image, and nobody else by that: its name becomes this owner's own. The registry is asked also
   * where the image is here, and by each caller for itself.
   */
  async #resolveFor(credentials: RegistryCredentials, reference: string, asking: Asking): Promise<Image> {
    return inImagePhase(asking.signal, async () => {
      const name = this.#name(reference);
      await this.#check(name);
      const owner = this.#owner?.name;
      if (owner === undefined || isDigest(name) || name.startsWith(OWN_PREFIX)) {
        throw new StacyError("invalid", `${name} is nothing that an owner has credentials for`, {
          remedy: "name the image as its registry does",
        });
      }
      if (this.#options.offline === true) throw missing(name);
      const ref = { name, owner };
      return this.#turns.run(`${name} ${randomUUID()}`, "always", asking, async (signal, progress) => {
        const options = { ...this.#pullOptions({ signal, progress, party: asking.party }), credentials };
        await mkdir(this.#paths.images, { recursive: true });
        return image(ref, await this.#fromRegistry(ref, await lookUp(parseReference(name), options), options));
      });
    });
  }

  /** The same images in the eyes of nobody: what it finds, every owner may have. */
  get #everybodys(): ImageStore {
    return this.#owner === undefined ? this : new ImageStore(this.#paths, this.#options, this.#turns);
  }

  #fetch(name: string, pull: "missing" | "always", work: Work): Promise<Image> {
    return this.#once(name, work, pull === "missing", () => this.#obtain(name, work));
  }

  async import(source: string, reference: string, options: ImportOptions = {}): Promise<Image> {
    return inImagePhase(options.signal, async () => {
      const name = this.#newName(reference);
      await using work = await WorkDir.create(this.#paths);
      options.progress?.({ step: `reading ${source}` });
      const content = await this.#read(resolvePath(source), work.path, options);
      const config = { ...content.config, ...options.config };
      // Another configuration is another image, although its files are the same.
      const digest = options.config === undefined ? content.digest : undefined;
      const base = await this.#publish(this.#made(name), options, (path) =>
        this.#build(path, { ...content, config, digest }, options),
      );
      return image(this.#made(name), base);
    });
  }

  async derive(digest: string | undefined, reference: string | undefined, options: DeriveOptions): Promise<Image> {
    return inImagePhase(options.signal, async () => {
      const name = reference === undefined ? undefined : this.#newName(reference);
      const below = digest === undefined ? undefined : await this.#bases.get(digest);
      if (digest !== undefined && below === undefined) throw missing(digest);
      if (digest !== undefined) await this.#bases.touch(digest);
      const { layer, leaveOut, config } = options;
      const layers =
        layer === undefined
          ? []
          : [{ ...layerFile(layer, { whiteouts: true }), keep: (path: string) => leaveOut?.(path) !== true }];
      const content: ImageContent = { digest: undefined, config, layers, blobs: [] };
      const made = name === undefined ? undefined : this.#made(name);
      const base = await this.#publish(made, options, (path) => this.#build(path, content, options, below?.base));
      return image(name === undefined ? { name: base.digest } : this.#made(name), base);
    });
  }

  scratch(): Promise<WorkDir> {
    return WorkDir.create(this.#paths);
  }

  async list(): Promise<Image[]> {
    const refs = await this.#bases.refs();
    const found = await Promise.all(
      this.#visible(refs).map(async ({ ref, digest }) => {
        const base = await this.#bases.get(digest);
        return base === undefined ? [] : [image(ref, base)];
      }),
    );
    return found.flat().sort((a, b) => (a.reference < b.reference ? -1 : 1));
  }

  async inspect(reference: string): Promise<ImageDetails> {
    const name = this.#name(reference);
    const present = await this.#present(name, false);
    const base = present === undefined ? undefined : await this.#bases.get(present.digest);
    if (present === undefined || base === undefined) throw missing(name);
    const names = this.#visible(await this.#bases.refs()).filter(({ digest }) => digest === base.digest);
    const references = [...new Set(names.map(({ ref }) => ref.name))];
    return { ...present, references, usedAt: base.usedAt, blobs: base.blobs };
  }

  async tag(reference: string, name: string): Promise<Image> {
    const from = this.#name(reference);
    const to = this.#names(name) ? name : parseReference(name).full;
    if (!this.#names(name) && (parseReference(name).digest !== undefined || name.startsWith(OWN_PREFIX))) {
      throw new StacyError("invalid", `${name} cannot be given`, { remedy: "choose a name with a tag" });
    }
    const present = await this.#present(from);
    if (present === undefined) throw missing(from);
    const made = this.#made(to);
    await this.#bases.changeRefs((refs) => {
      refs[writeKey(made)] = { digest: present.digest, at: Date.now() };
    });
    const { owner: _before, ...content } = present;
    return { ...content, reference: to, ...(made.owner === undefined ? {} : { owner: made.owner }) };
  }

  async isLast(reference: string): Promise<boolean> {
    const { last } = await this.#going(await this.#bases.refs(), this.#name(reference));
    return last;
  }

  async remove(reference: string, options: { inUse?: (digest: string) => boolean } = {}): Promise<void> {
    const name = this.#name(reference);
    await this.#bases.changeRefs(async (refs) => {
      const { digest, going, last } = await this.#going(refs, name);
      if (last && options.inUse?.(digest)) {
        throw new StacyError("conflict", `the image ${name} is in use`, { remedy: "destroy its sandboxes first" });
      }
      for (const ref of going) delete refs[writeKey(ref)];
      if (last) await this.#bases.delete(digest);
    });
  }

  async collect(options: CollectOptions = {}): Promise<Collected> {
    return this.#bases.changeRefs(async (refs) => {
      const [bases, blobs, builds] = await Promise.all([this.#bases.all(), this.#blobs.all(), this.builds.all()]);
      const plan = planCollection({ bases, refs, blobs, builds, now: Date.now() }, options);
      if (options.dryRun === true) return plan;
      const gone = new Set(plan.images);
      for (const key of plan.refs) delete refs[key];
      for (const [key, { digest }] of Object.entries(refs)) {
        if (gone.has(digest) || (await this.#bases.get(digest)) === undefined) delete refs[key];
      }
      for (const digest of plan.images) await this.#bases.delete(digest);
      for (const digest of plan.blobs) await this.#blobs.delete(digest);
      for (const key of plan.builds) await this.builds.delete(key);
      return plan;
    });
  }

  /** @throws StacyError `permission` */
  async #check(name: string): Promise<void> {
    if (isTemplateImage(name)) return; // what it was made from was allowed, as it is with a build's stages
    try {
      checkPolicy(this.#options.policy, name);
    } catch (error) {
      // The stages of a build have no names that a policy could mean; what they were made from was allowed.
      if (!isDigest(name) || !(await this.builds.isStage(name))) throw error;
    }
  }

  /** The full form of what the name stands for in the end. */
  #name(reference: string): string {
    return followAliases(this.#options.aliases, reference, fullName);
  }

  /** The name of an image that is made here. @throws StacyError `invalid`, `permission` */
  #newName(reference: string): string {
    const name = this.#name(reference);
    if (this.#names(name)) return name;
    checkPolicy(this.#options.policy, name);
    if (isDigest(name) || name.startsWith(OWN_PREFIX) || parseReference(name).digest !== undefined) {
      throw new StacyError("invalid", `${name} cannot be given to an image`, { remedy: "choose a name with a tag" });
    }
    return name;
  }

  /** Whether it is a name that this owner's builds of templates give. */
  #names(name: string): boolean {
    return this.#owner?.templates === true && isTemplateImage(name);
  }

  async #present(name: string, touch = true): Promise<Image | undefined> {
    const refs = await this.#bases.refs();
    const digest = this.#digest(refs, name);
    const base = digest === undefined ? undefined : await this.#bases.get(digest);
    if (base === undefined) return undefined;
    if (touch) await this.#bases.touch(base.digest);
    return image(this.#named(refs, name)?.ref ?? { name }, base);
  }

  /** How a name that is given here is kept. */
  #made(name: string): RefName {
    return this.#owner === undefined || this.#owner.shares === true ? { name } : { name, owner: this.#owner.name };
  }

  /** The names that are in sight: of equal ones the owner's own first, other owners' last. */
  #visible(refs: Refs): { ref: RefName; digest: string }[] {
    const all = Object.entries(refs).flatMap(([key, { digest }]) => {
      const ref = readKey(key);
      return ref === undefined || !isVisible(ref, this.#owner) ? [] : [{ ref, digest }];
    });
    const rank = ({ ref }: { ref: RefName }): number =>
      ref.owner === undefined ? 1 : ref.owner === this.#owner?.name ? 0 : 2;
    return all.sort((a, b) => rank(a) - rank(b));
  }

  /** An owner's own, or everybody's: whoever sees all means no other owner's by a name, which may be several owners'. */
  #named(refs: Refs, name: string): { ref: RefName; digest: string } | undefined {
    const mine = this.#owner?.name;
    return this.#visible(refs).find(({ ref }) => ref.name === name && (ref.owner === undefined || ref.owner === mine));
  }

  /** What a name points at. A digest is a name for whoever has another one for it, or where nobody has (a build's stage). */
  #digest(refs: Refs, name: string): string | undefined {
    if (!isDigest(name)) return this.#named(refs, name)?.digest;
    const known = this.#visible(refs).some(({ digest }) => digest === name);
    return known || !Object.values(refs).some(({ digest }) => digest === name) ? name : undefined;
  }

  /** The names that a removal of this one means, and whether no other, of whomever, points at the same. @throws StacyError `not-found` */
  async #going(refs: Refs, name: string): Promise<{ digest: string; going: RefName[]; last: boolean }> {
    const digest = this.#digest(refs, name);
    if (digest === undefined || (isDigest(name) && (await this.#bases.get(name)) === undefined)) throw missing(name);
    const going = isDigest(name)
      ? this.#visible(refs).filter((each) => each.digest === digest)
      : [this.#named(refs, name)].filter((each) => each !== undefined);
    const pointing = Object.values(refs).filter((ref) => ref.digest === digest);
    return { digest, going: going.map(({ ref }) => ref), last: pointing.length === going.length };
  }

  /** Does the work once, however many callers and processes ask for it. */
  async #once(name: string, work: Work, missingOnly: boolean, obtain: () => Promise<Base>): Promise<Image> {
    await mkdir(this.#paths.images, { recursive: true });
    const { images } = this.#paths;
    const guarded = `image ${writeKey({ name })}`;
    let held: Lock | undefined = await tryLock(images, guarded);
    const waited = held === undefined;
    if (waited) work.progress?.({ step: `waiting for another pull or build of ${name}` });
    held ??= await lock(images, guarded, work.signal);
    await using _held = held;
    // Whoever held the lock has just looked at the source, so that result is as fresh as ours would be.
    const present = missingOnly || waited ? await this.#present(name) : undefined;
    return present ?? image({ name }, await obtain());
  }

  async #obtain(name: string, work: Work): Promise<Base> {
    if (builtinNames.includes(name)) {
      await using scratch = await WorkDir.create(this.#paths);
      return await this.#publish({ name }, work, async (path) => {
        const config = await buildBuiltin(name, path, {
          workDir: scratch.path,
          party: work.party,
          ...optional(work),
        });
        return { digest: undefined, config, blobs: [] };
      });
    }
    if (name.startsWith(OWN_PREFIX)) {
      throw new StacyError("not-found", `there is no built-in image ${name}`, {
        remedy: `built-in are ${builtinNames.join(", ")}`,
      });
    }
    const options = this.#pullOptions(work);
    const remote = await lookUp(parseReference(name), options).catch(async (error: unknown) => {
      const standIn = await this.#standIn(name, error, work);
      if (standIn === undefined) throw error;
      return standIn;
    });
    return "manifest" in remote ? await this.#fromRegistry({ name }, remote, options) : remote;
  }

  #pullOptions(work: Work): PullOptions & Work {
    const { registries, credentialFiles, privateHosts, network } = this.#options;
    return { registries, credentialFiles, privateHosts, ...network, ...optional(work), party: work.party };
  }

  /** What the registry has, under a name here. */
  async #fromRegistry(ref: RefName, remote: RemoteImage, options: PullOptions & Work): Promise<Base> {
    const present = await this.#bases.get(remote.digest);
    if (present !== undefined) {
      await this.#point(ref, present);
      return present;
    }
    // Two references may point at one image.
    await using _held = await lock(this.#paths.images, `image ${remote.digest}`, options.signal);
    const other = await this.#bases.get(remote.digest);
    if (other === undefined) return await this.#pull(ref, remote, options);
    await this.#point(ref, other);
    return other;
  }

  /** Under the name that was asked for, until that is pulled again. */
  async #standIn(name: string, error: unknown, work: Work): Promise<Base | undefined> {
    const found = Object.entries(this.#options.standIns ?? {}).find(([from]) => fullName(from) === name)?.[1];
    if (found === undefined || asStacyError(error).code !== "unavailable" || work.signal?.aborted) return undefined;
    work.progress?.({ step: `${found} stands in for ${name}: ${asStacyError(error).message}` });
    // It has its turn.
    const image = await this.#resolve(found, optional(work), (name, pull) => this.#fetch(name, pull, work));
    const base = await this.#bases.get(image.digest);
    if (base !== undefined) await this.#point({ name }, base);
    return base;
  }

  async #pull(ref: RefName, remote: RemoteImage, options: PullOptions & Work): Promise<Base> {
    await using work = await WorkDir.create(this.#paths);
    const { manifest } = remote;
    const bytes = new ArchiveBytes(this.#limits);
    for (const { size } of [manifest.config, ...manifest.layers]) bytes.add(size);
    const fresh: string[] = [];
    try {
      const fetched = await fetchImage(remote, this.#blobs, work.path, options, fresh);
      const diffIds = layerDigests(fetched.config, fetched.layers.length);
      const content: ImageContent = {
        digest: remote.digest,
        config: imageConfig(fetched.config),
        layers: fetched.layers.map((path, i) => layerFile(path, { whiteouts: true, diffId: diffIds[i] })),
        blobs: fetched.blobs,
      };
      return await this.#publish(ref, options, (path) => this.#build(path, content, options));
    } catch (error) {
      // Of an image that is refused for what it is nothing is kept for the next attempt.
      if (["limit", "corrupt", "not-supported"].includes(asStacyError(error).code)) {
        for (const digest of fresh) await this.#blobs.delete(digest);
      }
      throw error;
    }
  }

  get #limits(): TreeLimits {
    return { ...DEFAULT_LIMITS, ...this.#options.limits };
  }

  /** What a path on the host is, and how to read it. */
  async #read(source: string, workDir: string, options: ImportOptions): Promise<ImageContent> {
    const { signal, tag } = options;
    const rootfs = (layer: ImageContent["layers"][number]): ImageContent => ({
      digest: undefined,
      config: plainConfig(),
      layers: [layer],
      blobs: [],
    });
    const found = await stat(source).catch((cause) => {
      if (errno(cause) !== "ENOENT" && errno(cause) !== "ENOTDIR") throw cause;
      throw new StacyError("not-found", `there is no ${source}`, { cause });
    });
    if (found.isDirectory()) {
      const isLayout = options.as !== "rootfs" && (await isFile(join(source, "oci-layout")));
      return isLayout ? readLayout(layoutDirectory(source), { tag, signal }) : rootfs(directoryLayer(source));
    }
    if (!found.isFile()) throw new StacyError("invalid", `${source} is neither a file nor a directory`);
    const kind =
      options.as ?? (await archiveKind(source, this.#limits, signal).catch((cause) => noArchive(source, cause)));
    if (kind === "rootfs") return rootfs(layerFile(source, { whiteouts: false }));
    const files = await unpackMembers(source, workDir, this.#limits, signal);
    return kind === "oci" ? readLayout(files, { tag, signal }) : readDockerSave(files, { tag, signal });
  }

  async #build(path: string, content: ImageContent, work: Work, below?: string): Promise<Built> {
    configPlaces(content.config); // before the work
    await buildBase(path, content.layers, {
      party: work.party ?? this.#party,
      edit: (tree) => makePlaces(tree, content.config),
      ...(below === undefined ? {} : { below }),
      ...(this.#options.limits === undefined ? {} : { limits: this.#options.limits }),
      ...optional(work),
    });
    return content;
  }

  /** Builds in a private directory, publishes the result and points the name at it, if it has one. */
  async #publish(name: RefName | undefined, work: Work, build: (path: string) => Promise<Built>): Promise<Base> {
    await using scratch = await WorkDir.create(this.#paths);
    const dir = join(scratch.path, "out");
    await mkdir(dir);
    const path = join(dir, "base.img");
    const built = await build(path);
    work.signal?.throwIfAborted();
    const digest = built.digest ?? (await contentDigest(path, built.config));
    const base = await this.#bases.publish(dir, digest, built.config, built.blobs);
    if (name === undefined) await this.#bases.touch(base.digest);
    else await this.#point(name, base);
    return base;
  }

  async #point(name: RefName, base: Base): Promise<void> {
    await this.#bases.touch(base.digest);
    await this.#bases.changeRefs((refs) => {
      refs[writeKey(name)] = { digest: base.digest, at: Date.now() };
    });
  }
}

async function inImagePhase<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted) {
      throw new StacyError("cancelled", "the work on the image was cancelled", { phase: "image", cause: error });
    }
    throw asStacyError(error).inPhase("image");
  }
}

/** Two builds with the same files and configuration are one image, whoever made them. */
async function contentDigest(path: string, config: ImageConfig): Promise<string> {
  const hash = createHash("sha256").update(`${JSON.stringify(config)}\n`);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return `sha256:${hash.digest("hex")}`;
}

function fullName(reference: string): string {
  return isDigest(reference) || reference.startsWith(OWN_PREFIX) ? reference : parseReference(reference).full;
}

function missing(name: string): StacyError {
  return new StacyError("not-found", `the image ${name} is not on this host`, { remedy: "see `stacyvm image ls`" });
}

function image({ name, owner }: RefName, base: Base): Image {
  const { blobs: _blobs, usedAt: _usedAt, ...rest } = base;
  return { reference: name, ...(owner === undefined ? {} : { owner }), ...rest };
}

/** What cannot even be looked through is most likely another kind of file. */
function noArchive(source: string, cause: unknown): never {
  if (!(cause instanceof StacyError) || cause.code !== "corrupt") throw cause;
  throw new StacyError("corrupt", `${source}: ${cause.message}`, {
    cause,
    remedy:
      "import takes OCI layouts, archives of `docker save`, tars of a file tree (gzip, zstd, plain) and directories",
  });
}

function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

function optional({ progress, signal }: Work): { progress?: (progress: Progress) => void; signal?: AbortSignal } {
  return { ...(progress === undefined ? {} : { progress }), ...(signal === undefined ? {} : { signal }) };
}
