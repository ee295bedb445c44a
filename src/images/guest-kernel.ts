/**
 * Which kernel a Linux guest boots, and what its command line needs: the distribution's own (kernel.ts), the one made for a
 * KVM that interprets ring 0 (interpreted-kernel.ts), or the user's.
 */
import { readdir, readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { sha256 } from "../host/digest.ts";
import { errno, StacyError } from "../host/error.ts";
import type { KvmMode } from "../host/kvm.ts";
import { findInterpretedKernel } from "./interpreted-kernel.ts";
import { extractElf, findKernel } from "./kernel.ts";

/** A kernel of the user's own (`firecracker.kernel`, `qemu.kernel`). */
export interface KernelSetting {
  /** ELF `vmlinux`; QEMU also takes a bzImage. */
  path: string;
  /** Added to the command line. */
  arguments?: string;
  /** Directory of uncompressed `*.ko`, loaded in the order of their names. Absent: all is built in. */
  modules?: string;
}

export interface KernelChoice {
  monitor: "firecracker" | "qemu";
  mode: KvmMode;
  setting?: KernelSetting | undefined;
}

export interface GuestKernel {
  /** For people. */
  release: string;
  /** What the monitor boots. */
  path: string;
  /** Extra arguments of its command line, or empty. */
  arguments: string;
  /** Absolute paths, in load order. */
  modules: string[];
  /** sha256 of the file at `path`, hex */
  digest: string;
}

/**
 * A backend that interprets ring 0 does not know all instructions, and shows features that it has not: what the kernel would use
 * of them is switched off. XSAVE and its like, FSGSBASE, and by name cmpxchg16b, stac and clac, popcnt, the string instructions
 * whose speed is announced, and the rest of what CPUID promises.
 */
export const INTERPRETED_ARGUMENTS = [
  "noxsave nofsgsbase",
  "clearcpuid=cx16,smap,smep,popcnt,erms,fsrm,umip,rdpid,invpcid,pcid,serialize",
  // The timer's self-test takes longer than it allows; the clock is the host's, which runs natively.
  "no_timer_check tsc=reliable lapic=notscdeadline",
  // Asynchronous page faults and paravirtual locks need what the backend does not deliver.
  "no-kvmapf nopvspin",
  // The kernel saves the FXSAVE state only, but CPUID is the host's for programs, which run natively: with AVX-512 in `memcpy` a third of
  // all busybox pipelines lost a process to SIGSEGV. The kernel hands what it does not know to PID 1's environment, and the agent to commands.
  "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW",
].join(" ");

/**
 * What the guest needs of its kernel, with a text that is in every kernel that has it built in, and the module's name.
 * The agent's channel is vsock under Firecracker and a virtio-serial port under QEMU.
 */
const PARTS: readonly { part: string; text: string; module: string; monitor?: KernelChoice["monitor"] }[] = [
  { part: "virtio-mmio", text: "virtio-mmio", module: "virtio_mmio" },
  { part: "virtio-blk", text: "virtio_blk", module: "virtio_blk" },
  // Not "overlay", which other parts have in their names, too.
  { part: "overlay", text: "overlayfs", module: "overlay" },
  { part: "erofs", text: "erofs", module: "erofs" },
  { part: "ext4", text: "EXT4-fs", module: "ext4" },
  {
    part: "virtio-vsock",
    text: "vmw_vsock_virtio_transport",
    module: "vmw_vsock_virtio_transport",
    monitor: "firecracker",
  },
  { part: "virtio-console", text: "virtio_console", module: "virtio_console", monitor: "qemu" },
];
const EM_X86_64 = 62;

/** @throws StacyError `unavailable` naming what set-up has not made; `invalid` for a user's kernel that will not do */
export async function loadGuestKernel(assets: string, choice: KernelChoice): Promise<GuestKernel> {
  if (choice.setting !== undefined) return ownKernel(choice.monitor, choice.setting);
  if (choice.monitor === "firecracker" && choice.mode === "interpreted") {
    const kernel = await findInterpretedKernel(assets);
    if (kernel === undefined) {
      throw missing("the guest kernel for a KVM that interprets ring 0", "run `stacyvm setup interpreted-kernel`");
    }
    const { release, vmlinux: path } = kernel;
    return { release, path, arguments: INTERPRETED_ARGUMENTS, modules: [], digest: sha256(await readFile(path)) };
  }
  const kernel = await findKernel(assets);
  if (kernel === undefined) throw missing(`the guest kernel is missing: ${join(assets, "kernel")}`);
  const path = choice.monitor === "firecracker" ? kernel.vmlinux : kernel.vmlinuz;
  const { release, modules } = kernel;
  return { release, path, arguments: "", modules, digest: sha256(await readFile(path)) };
}

function missing(what: string, remedy = "run `stacyvm setup`"): StacyError {
  return new StacyError("unavailable", what.includes("missing") ? what : `${what} is missing`, {
    phase: "resolve",
    remedy,
  });
}

async function ownKernel(monitor: KernelChoice["monitor"], setting: KernelSetting): Promise<GuestKernel> {
  const key = `${monitor}.kernel`;
  const path = resolve(setting.path);
  const image = await readFile(path).catch((cause) => {
    throw wrong(`${key} names ${path}, which cannot be read (${errno(cause) ?? "unknown"})`, `correct ${key}`, cause);
  });
  const modules = setting.modules === undefined || setting.modules === "" ? [] : await ownModules(key, setting.modules);
  const names = modules.map((module) => basename(module, ".ko").replace(/^\d+-/, "").replaceAll("-", "_"));
  const elf = await elfOf(key, path, image, monitor);
  const lacking = PARTS.filter(
    (each) =>
      (each.monitor === undefined || each.monitor === monitor) &&
      !elf.includes(each.text) &&
      !names.includes(each.module),
  ).map(({ part }) => part);
  if (lacking.length > 0) {
    throw wrong(
      `${path} has no ${lacking.join(", ")}, which guests need`,
      `build ${lacking.length === 1 ? "it" : "them"} in, or name the modules' directory in ${key}_modules`,
    );
  }
  const release = /Linux version (\S+)/.exec(elf.toString("latin1"))?.[1] ?? basename(path);
  return { release, path, arguments: setting.arguments ?? "", modules, digest: sha256(image) };
}

/** The ELF image, unpacked where the monitor takes a bzImage. */
async function elfOf(key: string, path: string, image: Buffer, monitor: KernelChoice["monitor"]): Promise<Buffer> {
  const isBzImage = image.length > 0x206 && image.toString("latin1", 0x202, 0x206) === "HdrS";
  if (isBzImage && monitor === "qemu") return extractElf(image);
  if (image.length < 64 || image.readUInt32BE(0) !== 0x7f454c46 || image[4] !== 2) {
    throw wrong(
      `${path} is no 64-bit ELF file${isBzImage ? ", but a bzImage" : ""}`,
      isBzImage ? "name the `vmlinux` of the same build" : `name the kernel's \`vmlinux\` in ${key}`,
    );
  }
  if (image.readUInt16LE(18) !== EM_X86_64) throw wrong(`${path} is a kernel for another processor`, `correct ${key}`);
  return image;
}

async function ownModules(key: string, dir: string): Promise<string[]> {
  const names = await readdir(resolve(dir)).catch((cause) => {
    throw wrong(`${key}_modules names ${dir}, which cannot be read`, `correct ${key}_modules`, cause);
  });
  return names
    .filter((name) => name.endsWith(".ko"))
    .sort()
    .map((name) => join(resolve(dir), name));
}

function wrong(message: string, remedy: string, cause?: unknown): StacyError {
  return new StacyError("invalid", message, { phase: "resolve", remedy, ...(cause === undefined ? {} : { cause }) });
}
