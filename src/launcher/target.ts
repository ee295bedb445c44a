/** From what is wanted to what is started: image, machine configuration, shape and key. */
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import { StacyError } from "../host/error.ts";
import type { DataPaths } from "../host/paths.ts";
import { Stamped } from "../host/stamp.ts";
import { BareImages, isBareReference } from "../images/bare-image.ts";
import { agentPath, type GuestFiles, loadGuestFiles } from "../images/guest-files.ts";
import type { Image, Images, ResolveOptions } from "../images/image.ts";
import type { WarmContext } from "../interpreter/contexts.ts";
import { driverDigest } from "../interpreter/language.ts";
import { assertUsable } from "../vmm/usable.ts";
import type { GuestKind, MachineConfig, Vmm, VolumeAccess } from "../vmm/vmm.ts";
import type { Manifest } from "./manifest.ts";
import { type Shape, snapshotKey } from "./shape.ts";

export interface LaunchSpec {
  image: string;
  /** Whose name of an image that is; absent: everybody's. */
  imageOwner?: string;
  /** Who asks: builds of owners take turns. No part of the shape, which may be several owners'. */
  owner?: string;
  vcpus: number;
  memoryMiB: number;
  diskMiB: number;
  /** Shell commands run once in the golden machine. */
  setup: string[];
  setupEnv: Record<string, string>;
  /** Hosts that they may connect to (egress/host-rules.ts). */
  setupHosts?: string[];
  /** A command that runs when the golden machine is saved (providers/provider.ts). */
  start?: { command: string; ready?: string; env: Record<string, string> };
  /** Contexts of the code interpreter that it is saved with. */
  contexts?: WarmContext[];
  /** For volumes. */
  slots?: VolumeAccess[];
}

export interface Target {
  spec: LaunchSpec;
  image: Image;
  guest: GuestKind;
  config: MachineConfig;
  shape: Shape;
  key: string;
}

export const LIMITS = { minMemoryMiB: 64, maxVcpus: 32, minDiskMiB: 16 } as const;

/** Resolves specs; reads the guest's files once, and again when one of them was built anew. */
export class Targets {
  readonly #vmm: Vmm;
  readonly #images: Images;
  readonly #files: Stamped<GuestFiles>;
  readonly #bareImages: BareImages;

  constructor(vmm: Vmm, images: Images, paths: DataPaths) {
    this.#vmm = vmm;
    this.#images = images;
    this.#bareImages = new BareImages(paths);
    this.#files = new Stamped(async () => {
      const files = await loadGuestFiles(paths.assets, await vmm.guestKernel());
      const { path, modules } = files.kernel;
      // A directory changes when a module is added to it.
      const dirs = new Set(modules.map((module) => dirname(module)));
      return { value: files, paths: [path, ...modules, ...dirs, agentPath(paths.assets)] };
    });
  }

  /** @throws StacyError `invalid` (sizes), `not-found` (image), `unavailable` (VMM, kernel, agent) */
  async resolve(spec: LaunchSpec, options?: ResolveOptions): Promise<Target> {
    checkSizes(spec);
    const probe = await assertUsable(this.#vmm);
    const bare = isBareReference(spec.image);
    if (!bare && !probe.guests.includes("linux")) {
      throw new StacyError(
        "unavailable",
        `${this.#vmm.name} cannot run Linux guests on this host: ${probe.notes.join("; ")}`,
        {
          phase: "resolve",
          remedy: probe.linuxRemedy ?? "use the provider qemu, which has software emulation",
        },
      );
    }
    if (bare && !probe.guests.includes("bare")) {
      throw new StacyError("not-supported", `${this.#vmm.name} does not run the bare guest`, { phase: "resolve" });
    }
    return bare ? this.#bare(spec) : this.#linux(spec, options);
  }

  /** A machine of an earlier start, for a boot with the kernel, agent and monitor of now. */
  async anew({ spec, image, guest, key }: Target): Promise<Target> {
    await assertUsable(this.#vmm);
    return { ...(guest === "bare" ? await this.#bare(spec) : await this.#linuxOf(spec, image)), key };
  }

  async #linux(spec: LaunchSpec, options?: ResolveOptions): Promise<Target> {
    return await this.#linuxOf(spec, await this.#image(spec, options));
  }

  async #linuxOf(spec: LaunchSpec, image: Image): Promise<Target> {
    const files = await this.#files.get();
    const config: MachineConfig = {
      ...sizeOf(spec),
      kernel: files.kernel.path,
      initramfs: files.initramfs.path,
      cmdline: `${files.kernel.arguments} stacyvm.base=${image.filesystem}`.trim(),
    };
    return this.#target(spec, image, "linux", config, files.kernel.digest, files.initramfs.digest);
  }

  #image({ image, imageOwner, owner }: LaunchSpec, options?: ResolveOptions): Promise<Image> {
    const party = owner === undefined ? {} : { party: owner };
    const images = imageOwner === undefined ? this.#images : this.#images.of({ name: imageOwner, ...party });
    return images.resolve(image, options);
  }

  async #bare(spec: LaunchSpec): Promise<Target> {
    const { image, kernel, kernelDigest } = await this.#bareImages.get(spec.image);
    return this.#target(spec, image, "bare", { ...sizeOf(spec), kernel }, kernelDigest, "");
  }

  async #target(
    spec: LaunchSpec,
    image: Image,
    guest: GuestKind,
    config: MachineConfig,
    kernel: string,
    initramfs: string,
  ): Promise<Target> {
    const shape: Shape = {
      format: 1,
      vmm: this.#vmm.name,
      vmmIdentity: await this.#vmm.identity(config),
      guest,
      vcpus: spec.vcpus,
      memoryMiB: spec.memoryMiB,
      diskMiB: spec.diskMiB,
      imageDigest: image.digest,
      kernel,
      initramfs,
      cmdline: config.cmdline ?? "",
      setup: spec.setup,
      // Without setup commands nothing has seen the environment, and it must not split the key.
      setupEnv: spec.setup.length === 0 ? {} : spec.setupEnv,
      ...((spec.setup.length === 0 && spec.start === undefined) || !spec.setupHosts?.length
        ? {}
        : { setupHosts: spec.setupHosts }),
      ...(spec.start === undefined ? {} : { start: spec.start }),
      // None leaves the key as it was: what is started without volumes is what it would be if there were none.
      ...(spec.slots === undefined ? {} : { slots: spec.slots }),
      ...(spec.contexts === undefined ? {} : { contexts: spec.contexts, drivers: await driversOf(spec.contexts) }),
    };
    return { spec, image, guest, config, shape, key: snapshotKey(shape) };
  }
}

function sizeOf({ vcpus, memoryMiB, slots }: LaunchSpec): Pick<MachineConfig, "vcpus" | "memoryMiB" | "volumes"> {
  return { vcpus, memoryMiB, ...(slots === undefined ? {} : { volumes: slots }) };
}

/** What was asked for when this was saved. */
export function specOf({ image, shape }: Manifest): LaunchSpec {
  const { vcpus, memoryMiB, diskMiB, setup, setupEnv, setupHosts, start, contexts, slots } = shape;
  return {
    ...{ image, vcpus, memoryMiB, diskMiB, setup, setupEnv },
    ...(setupHosts === undefined ? {} : { setupHosts }),
    ...(start === undefined ? {} : { start }),
    ...(contexts === undefined ? {} : { contexts }),
    ...(slots === undefined ? {} : { slots }),
  };
}

/** A saved context is the driver that it was started with. */
async function driversOf(contexts: readonly WarmContext[]): Promise<string[]> {
  return await Promise.all(contexts.map(({ language }) => driverDigest(language)));
}

/** The target that a saved machine belongs to, without asking for its image's reference again. */
export function targetOf(manifest: Manifest, paths: DataPaths): Target {
  const { shape, config, imageConfig } = manifest;
  if (config === undefined || imageConfig === undefined) {
    throw new StacyError("corrupt", `the manifest of ${manifest.key.slice(0, 12)} does not say what its machine is`);
  }
  return {
    key: manifest.key,
    guest: shape.guest,
    config,
    shape,
    spec: specOf(manifest),
    image: {
      reference: manifest.image,
      digest: shape.imageDigest,
      base: join(paths.images, shape.imageDigest.replace(/^sha256:/, ""), "base.img"),
      filesystem: shape.cmdline.includes("erofs") ? "erofs" : "ext4",
      sizeBytes: 0,
      config: imageConfig,
      createdAt: manifest.createdAt,
    },
  };
}

function checkSizes(spec: LaunchSpec): void {
  const hostMiB = Math.floor(totalmem() / 2 ** 20);
  const wrong = (message: string, remedy: string): StacyError =>
    new StacyError("invalid", message, { phase: "resolve", remedy });
  if (!Number.isInteger(spec.memoryMiB) || spec.memoryMiB < LIMITS.minMemoryMiB || spec.memoryMiB > hostMiB) {
    throw wrong(
      `${spec.memoryMiB} MiB of memory is not possible here`,
      `choose ${LIMITS.minMemoryMiB} to ${hostMiB} MiB`,
    );
  }
  if (!Number.isInteger(spec.vcpus) || spec.vcpus < 1 || spec.vcpus > LIMITS.maxVcpus) {
    throw wrong(`${spec.vcpus} vCPUs are not possible`, `choose 1 to ${LIMITS.maxVcpus}`);
  }
  if (!Number.isInteger(spec.diskMiB) || spec.diskMiB < LIMITS.minDiskMiB) {
    throw wrong(`a disk of ${spec.diskMiB} MiB is not possible`, `choose at least ${LIMITS.minDiskMiB} MiB`);
  }
}
