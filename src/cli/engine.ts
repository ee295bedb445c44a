/** The parts that a command needs when there is no server: images, VMMs, launcher, all in this process. */
import { mkdir } from "node:fs/promises";
import { loadConfig } from "../config/load.ts";
import { imagesOptions, networkOf } from "../config/options.ts";
import type { Config } from "../config/schema.ts";
import type { Network } from "../egress/network.ts";
import { StacyError } from "../host/error.ts";
import { type DataPaths, dataPaths } from "../host/paths.ts";
import { type SpawnProcess, spawnProcess } from "../host/process.ts";
import type { KernelSetting } from "../images/guest-kernel.ts";
import type { ImageLibrary } from "../images/image.ts";
import { createImages } from "../images/store.ts";
import { Launcher } from "../launcher/launcher.ts";
import { createFirecracker } from "../vmm/firecracker/firecracker.ts";
import { createQemu } from "../vmm/qemu/qemu.ts";
import type { Vmm, VmmName } from "../vmm/vmm.ts";
import { assertTrusted } from "./data-dir.ts";

export interface Engine {
  paths: DataPaths;
  images: ImageLibrary;
  network: Network;
  /** What a sandbox has when nobody says, by the configuration: MiB, and hosts that it may connect to. */
  defaults: { memoryMiB: number; vcpus: number; diskMiB: number; hosts: readonly string[] };
  launcher: Launcher;
}

/** @param spawn how their processes are started, if not from this one */
export function vmms(
  paths: DataPaths,
  config: Pick<Config, "firecracker" | "qemu">,
  spawn: SpawnProcess = spawnProcess,
): Record<VmmName, Vmm> {
  const { path, jailer, jail, jail_uid_base, jail_netns } = config.firecracker;
  const policy = { uidBase: jail_uid_base, ...(jail_netns ? { netns: jail_netns } : {}) };
  const firecracker = createFirecracker({
    assets: paths.assets,
    spawn,
    ...(path ? { firecracker: path } : {}),
    ...(jailer ? { jailer } : {}),
    ...(jail ? { jail: policy } : {}),
    ...ownKernel(config.firecracker),
  });
  return { firecracker, qemu: createQemu({ spawn, ...ownKernel(config.qemu) }) };
}

function ownKernel(section: Config["qemu"]): { kernel?: KernelSetting } {
  const { kernel: path, kernel_arguments, kernel_modules: modules } = section;
  return path === "" ? {} : { kernel: { path, arguments: kernel_arguments, modules } };
}

/**
 * The VMM for Linux guests on this host, of `all`: Firecracker where KVM runs them natively, else QEMU. A name picks one.
 * @throws StacyError `unavailable`
 */
export async function chooseVmm(
  all: Record<VmmName, Vmm>,
  name: string | undefined = process.env.STACYVM_PROVIDER,
): Promise<Vmm> {
  if (name !== undefined && name !== "" && name !== "auto") {
    if (name !== "firecracker" && name !== "qemu") {
      throw new StacyError("invalid", `there is no provider ${name}`, { remedy: "use firecracker, qemu or auto" });
    }
    return all[name];
  }
  const probe = await all.firecracker.probe();
  // A kernel that is interpreted boots in 40 s; QEMU's emulation needs 2.
  if (probe.usable && probe.accelerator === "kvm" && probe.guests.includes("linux")) return all.firecracker;
  return all.qemu;
}

export async function createEngine(options: { provider?: string; dataDir?: string } = {}): Promise<Engine> {
  const paths = options.dataDir === undefined ? dataPaths() : dataPaths(options.dataDir);
  await assertTrusted(paths);
  await mkdir(paths.root, { recursive: true });
  const { config } = await loadConfig();
  const images = createImages(paths, imagesOptions(config.images));
  const vmm = await chooseVmm(vmms(paths, config), options.provider);
  const network = networkOf(config);
  const { memory_mb: memoryMiB, vcpus, disk_size_mb: diskMiB, allowed_hosts: hosts } = config.defaults;
  return {
    paths,
    images,
    network,
    defaults: { memoryMiB, vcpus, diskMiB, hosts },
    launcher: new Launcher({ vmm, images, paths, network }),
  };
}
