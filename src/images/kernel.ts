/**
 * The guest kernel: the distribution's own package, unpacked into the data directory and never installed. Debian has a
 * `cloud` flavour; Ubuntu's closest is `virtual`.
 *
 *     <assets>/kernel/vmlinuz       for QEMU
 *     <assets>/kernel/vmlinux       the ELF inside it, for Firecracker
 *     <assets>/kernel/modules/NN-name.ko   what the agent loads, in this order, uncompressed
 *     <assets>/kernel/kernel.json   `Kernel`, written last
 */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { asStacyError, StacyError } from "../host/error.ts";
import { runTool } from "../host/run.ts";
import type { Progress } from "./image.ts";

/** Modules the guest needs, with what they depend on before them; one that is built in is passed over. */
const MODULES = [
  "virtio_mmio",
  "virtio_blk",
  "virtio_console",
  "virtio_rng",
  // Tells the monitor which memory the guest has no use for.
  "virtio_balloon",
  "vmw_vsock_virtio_transport",
  "overlay",
  "erofs",
  // What rootless container tools open: file systems of programs, network of programs.
  "fuse",
  "tun",
];

export interface Kernel {
  /** For example `6.1.0-56-cloud-amd64`. */
  release: string;
  /** Absolute paths. */
  vmlinuz: string;
  vmlinux: string;
  modules: string[];
  /** Names of the modules that were looked for when it was unpacked. */
  wanted: string[];
}

export interface SetupOptions {
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** @returns `undefined` when set-up has not put one here */
export async function findKernel(assets: string): Promise<Kernel | undefined> {
  const dir = join(assets, "kernel");
  try {
    const kernel = JSON.parse(await readFile(join(dir, "kernel.json"), "utf8")) as {
      release: string;
      modules: string[];
      wanted?: string[];
    };
    return {
      release: kernel.release,
      vmlinuz: join(dir, "vmlinuz"),
      vmlinux: join(dir, "vmlinux"),
      modules: kernel.modules.map((name) => join(dir, "modules", name)),
      wanted: kernel.wanted ?? [],
    };
  } catch {
    return undefined;
  }
}

/**
 * Downloads and unpacks the kernel package: once, and again when guests need other modules than that was unpacked with. One that is
 * there stays when a new one cannot be had.
 * @throws StacyError `unavailable` with the remedy
 */
export async function installKernel(assets: string, options: SetupOptions = {}): Promise<Kernel> {
  const present = await findKernel(assets);
  if (present !== undefined && MODULES.every((name) => present.wanted.includes(name))) return present;
  try {
    return await unpackKernel(assets, options);
  } catch (error) {
    if (present === undefined || options.signal?.aborted === true) throw error;
    options.progress?.({ step: `the guest kernel stays as it is: ${asStacyError(error).message}` });
    return present;
  }
}

async function unpackKernel(assets: string, options: SetupOptions): Promise<Kernel> {
  await mkdir(assets, { recursive: true });
  const work = await mkdtemp(join(assets, "kernel-"));
  try {
    options.progress?.({ step: "downloading the guest kernel package" });
    for (const name of await kernelPackages(options.signal)) {
      await runTool("apt-get", ["download", "-qq", name], { cwd: work, ...signalOf(options) });
    }
    const tree = join(work, "tree");
    for (const file of await readdir(work)) {
      if (file.endsWith(".deb"))
        await runTool("dpkg", ["-x", file, tree], { cwd: work, package: "dpkg", ...signalOf(options) });
    }
    options.progress?.({ step: "unpacking the guest kernel" });
    const out = join(work, "kernel");
    await mkdir(join(out, "modules"), { recursive: true });
    const boot = (await readdir(join(tree, "boot"))).find((name) => name.startsWith("vmlinuz-"));
    if (boot === undefined) throw new StacyError("unavailable", "the kernel package holds no vmlinuz");
    const release = boot.slice("vmlinuz-".length);
    const image = await readFile(join(tree, "boot", boot));
    await writeFile(join(out, "vmlinuz"), image);
    await writeFile(join(out, "vmlinux"), await extractElf(image));
    const modules = await collectModules(await moduleTree(tree, release), out);
    await writeFile(join(out, "kernel.json"), `${JSON.stringify({ release, modules, wanted: MODULES }, null, 2)}\n`);
    await rm(join(assets, "kernel"), { recursive: true, force: true });
    await rename(out, join(assets, "kernel"));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return (await findKernel(assets)) as Kernel;
}

function signalOf(options: SetupOptions): { signal?: AbortSignal } {
  return options.signal === undefined ? {} : { signal: options.signal };
}

/** The packages that hold the image and the modules: what the metapackage names. */
async function kernelPackages(signal: AbortSignal | undefined): Promise<string[]> {
  for (const meta of ["linux-image-cloud-amd64", "linux-image-virtual"]) {
    const text = await runTool("apt-cache", ["depends", "--no-recommends", "--no-suggests", meta], {
      package: "apt",
      ...(signal === undefined ? {} : { signal }),
    }).catch(() => Buffer.alloc(0));
    const image = /Depends: (linux-image-\S+)/.exec(text.toString("utf8"))?.[1];
    if (image === undefined) continue;
    const modules = image.replace("linux-image-", "linux-modules-");
    const separate = await runTool("apt-cache", ["show", modules]).then(
      (shown) => shown.length > 0,
      () => false,
    );
    return separate ? [image, modules] : [image];
  }
  throw new StacyError(
    "unavailable",
    "no guest kernel package: neither linux-image-cloud-amd64 nor linux-image-virtual is known to apt",
    {
      remedy:
        "run `apt-get update`; on other distributions put vmlinuz, vmlinux and modules/ into the data directory's assets/kernel by hand",
    },
  );
}

async function moduleTree(tree: string, release: string): Promise<string> {
  for (const prefix of ["lib/modules", "usr/lib/modules"]) {
    const dir = join(tree, prefix, release);
    if (await readdir(dir).catch(() => undefined)) return dir;
  }
  throw new StacyError("unavailable", `the kernel package holds no modules of ${release}`);
}

/** Copies the modules, dependencies first, decompressed and numbered in load order. */
async function collectModules(dir: string, out: string): Promise<string[]> {
  const byName = new Map<string, string>();
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const match = /^(.+?)\.ko(\.xz|\.zst|\.gz)?$/.exec(entry.name);
    if (match?.[1] !== undefined) byName.set(match[1].replaceAll("-", "_"), join(entry.parentPath, entry.name));
  }
  const written: string[] = [];
  const done = new Set<string>();
  const add = async (name: string): Promise<void> => {
    if (done.has(name)) return;
    done.add(name);
    const file = byName.get(name);
    if (file === undefined) return; // built in
    const module = await decompress(file);
    for (const needed of dependsOf(module)) await add(needed.replaceAll("-", "_"));
    const target = `${String(written.length).padStart(2, "0")}-${basename(file).replace(/\.ko.*$/, "")}.ko`;
    await writeFile(join(out, "modules", target), module);
    written.push(target);
  };
  for (const name of MODULES) await add(name);
  return written;
}

/** The `depends=` entry of a module's .modinfo section. */
function dependsOf(module: Buffer): string[] {
  const key = Buffer.from("\0depends=");
  const at = module.indexOf(key);
  if (at < 0) return [];
  const text = module.toString("latin1", at + key.length, module.indexOf(0, at + key.length));
  return text === "" ? [] : text.split(",");
}

async function decompress(file: string): Promise<Buffer> {
  if (file.endsWith(".xz")) return runTool("xz", ["-dc", file], { package: "xz-utils" });
  const data = await readFile(file);
  if (file.endsWith(".zst")) return zstdDecompressSync(data);
  if (file.endsWith(".gz")) return gunzipSync(data);
  return data;
}

/** The ELF kernel inside a bzImage: its setup header says where the payload lies (Linux, Documentation/arch/x86/boot.rst). */
export async function extractElf(image: Buffer): Promise<Buffer> {
  if (image.toString("latin1", 0x202, 0x206) !== "HdrS") throw new StacyError("corrupt", "the kernel is no bzImage");
  const setupBytes = ((image[0x1f1] || 4) + 1) * 512;
  const start = setupBytes + image.readUInt32LE(0x248);
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c));
  // The last four bytes are the size of the content, appended by the kernel's build.
  const body = payload.subarray(0, payload.length - 4);
  const elf = await (async () => {
    if (payload.readUInt32BE(0) === 0xfd377a58)
      return runTool("xz", ["-dc", "--single-stream"], { package: "xz-utils", input: body });
    if (payload.readUInt32LE(0) === 0xfd2fb528) return zstdDecompressSync(body);
    if (payload.readUInt16BE(0) === 0x1f8b) return gunzipSync(payload);
    if (payload.readUInt32LE(0) === 0x184c2102) return runTool("lz4", ["-dc"], { package: "lz4", input: body });
    throw new StacyError("not-supported", "the kernel's compression is not one of xz, zstd, gzip and lz4");
  })();
  if (elf.toString("latin1", 1, 4) !== "ELF") throw new StacyError("corrupt", "the kernel's payload is no ELF file");
  return elf;
}
