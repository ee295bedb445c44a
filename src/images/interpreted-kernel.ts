/**
 * The guest kernel for a KVM that interprets ring 0 (guests/linux-interpreted): the distribution's source package, our patch
 * and configuration, compiled once per machine. What it makes is kept by the digest of all three:
 *
 *     <cache>/kernels/<digest>/vmlinux, kernel.json   `Built`, written last
 *     <assets>/kernel-interpreted/                    the same, for whoever boots it
 */
import { createHash } from "node:crypto";
import { constants, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { sha256 } from "../host/digest.ts";
import { StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { lock } from "../host/lock.ts";
import { defaultCacheDir, packageRoot } from "../host/paths.ts";
import { runTool } from "../host/run.ts";
import type { SetupOptions } from "./kernel.ts";

const PACKAGE = "linux-source-6.12";
/** What the patch was made against; where apt has it no more, its newest one is tried. */
const TRIED_VERSION = "6.12.117-1~deb12u1";
const RECORD = "kernel.json";
const PATCH = "interpreted-ring0.patch";
const SOURCES = join(packageRoot, "guests", "linux-interpreted");
/** Lines that the compilation prints, about: for the progress. */
const BUILD_LINES = 1_556;
const BUILD_LIMIT_MS = 60 * 60_000;
/** Equal sources give equal bytes, and so equal snapshot keys, on every machine with the same compiler. */
const REPRODUCIBLE = {
  KBUILD_BUILD_TIMESTAMP: "1970-01-01",
  KBUILD_BUILD_USER: "stacyvm",
  KBUILD_BUILD_HOST: "localhost",
  KBUILD_BUILD_VERSION: "1",
};
const REMEDY =
  "see guests/linux-interpreted/README.md; the tools that it needs are in scripts/packages-interpreted.txt";

interface Built {
  /** For example `6.12.117-interpreted`. */
  release: string;
  /** Digest of the inputs, hex. */
  inputs: string;
  /** The package and its version, with a space between them. */
  source: string;
  /** SHA-256 of the ELF image, hex; one that was built before this was written down has none. */
  image?: string;
}

export interface InterpretedKernel extends Built {
  /** Absolute path of the ELF image. */
  vmlinux: string;
}

/** @returns `undefined` when set-up has not put one here */
export async function findInterpretedKernel(assets: string): Promise<InterpretedKernel | undefined> {
  const dir = installDir(assets);
  const built = await readBuilt(dir);
  return built === undefined ? undefined : { ...built, vmlinux: join(dir, "vmlinux") };
}

/** Whether this copy of the program has what it is built from: the published package has not. */
export function canBuildInterpretedKernel(): Promise<boolean> {
  return exists(join(SOURCES, PATCH));
}

/**
 * Puts the kernel into `assets`: from the cache, or compiled, which takes minutes. One that is there and was made from the same
 * inputs stays. Safe to call from several processes at once.
 * @throws StacyError `unavailable` without apt, tools or network, with the last words of what failed
 */
export async function installInterpretedKernel(
  assets: string,
  options: SetupOptions = {},
  cacheDir: string = defaultCacheDir(),
): Promise<{ kernel: InterpretedKernel; result: "present" | "cached" | "built" }> {
  const cache = join(cacheDir, "kernels");
  await using _held = await lock(cache, "build", options.signal);
  const present = await findInterpretedKernel(assets);
  const recipe = await recipeDigest();
  const version = await sourceVersion(options.signal).catch(async (thrown: unknown) => {
    options.signal?.throwIfAborted();
    // Without apt's word, one that was built of the same recipe will do, whichever source apt had then.
    const built = [present, ...(await allBuilt(cache))].find((each) => each !== undefined && isOf(each, recipe));
    if (built === undefined) throw thrown;
    return versionOf(built);
  });
  const inputs = digest(version, recipe);
  if (present?.inputs === inputs && (await isWhole(installDir(assets), present))) {
    return { kernel: present, result: "present" };
  }
  const cached = join(cache, inputs.slice(0, 16));
  const kept = await readBuilt(cached);
  const result = kept !== undefined && (await isWhole(cached, kept)) ? "cached" : "built";
  if (result === "built") await build(cached, version, inputs, options);
  await copyInto(cached, installDir(assets));
  return { kernel: (await findInterpretedKernel(assets)) as InterpretedKernel, result };
}

/** The file that says which one is there, if one is: it changes with it. */
export function interpretedKernelRecord(assets: string): string {
  return join(installDir(assets), RECORD);
}

function installDir(assets: string): string {
  return join(assets, "kernel-interpreted");
}

async function readBuilt(dir: string): Promise<Built | undefined> {
  try {
    return JSON.parse(await readFile(join(dir, RECORD), "utf8")) as Built;
  } catch {
    return undefined;
  }
}

/** Whether the image is there as it was built. */
async function isWhole(dir: string, { image }: Built): Promise<boolean> {
  const bytes = await readFile(join(dir, "vmlinux")).catch(() => undefined);
  return bytes !== undefined && (image === undefined || image === sha256(bytes));
}

async function allBuilt(cache: string): Promise<Built[]> {
  const built = await Promise.all((await readdir(cache).catch(() => [])).map((name) => readBuilt(join(cache, name))));
  return built.filter((each) => each !== undefined);
}

function versionOf({ source }: Built): string {
  return source.slice(source.indexOf(" ") + 1);
}

function isOf(built: Built, recipe: string): boolean {
  return built.inputs === digest(versionOf(built), recipe);
}

async function copyInto(from: string, to: string): Promise<void> {
  const work = `${to}.${process.pid}`;
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  for (const name of ["vmlinux", RECORD]) {
    await copyFile(join(from, name), join(work, name), constants.COPYFILE_FICLONE);
  }
  await rm(to, { recursive: true, force: true });
  await rename(work, to);
}

function digest(...parts: (string | Buffer)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.length}\n`).update(part);
  return hash.digest("hex");
}

/** What a kernel of this recipe and that source is named by. */
export async function recipeInputs(version: string): Promise<string> {
  return digest(version, await recipeDigest());
}

async function recipeDigest(): Promise<string> {
  const [patch, config] = await Promise.all([PATCH, "config"].map((name) => input(name)));
  return digest(patch as Buffer, config as Buffer, JSON.stringify(REPRODUCIBLE));
}

function input(name: string): Promise<Buffer> {
  return readFile(join(SOURCES, name)).catch((cause) => {
    throw new StacyError("unavailable", `${join(SOURCES, name)} cannot be read`, {
      cause,
      remedy: "build the kernel in a checkout of the repository, and name it in `firecracker.kernel`",
    });
  });
}

/** The version of the source package that will be built: the tried one where apt has it. */
async function sourceVersion(signal: AbortSignal | undefined): Promise<string> {
  const listed = await runTool("apt-cache", ["madison", PACKAGE], { package: "apt", ...signalOf({ signal }) });
  const versions = listed
    .toString("utf8")
    .split("\n")
    .map((line) => line.split("|")[1]?.trim())
    .filter((version) => version !== undefined && version !== "");
  const [newest] = versions;
  if (newest === undefined) {
    throw new StacyError("unavailable", `apt does not know the package ${PACKAGE}`, {
      remedy: "run `apt-get update`; Debian 12 has it among its security updates",
    });
  }
  return versions.includes(TRIED_VERSION) ? TRIED_VERSION : newest;
}

async function build(target: string, version: string, inputs: string, options: SetupOptions): Promise<void> {
  const { signal, progress } = options;
  const parent = join(target, "..");
  await mkdir(parent, { recursive: true });
  // Nobody else builds: we hold the lock. What is there belongs to builds that were killed.
  for (const name of await readdir(parent)) {
    if (name.startsWith(".build-")) await rm(join(parent, name), { recursive: true, force: true });
  }
  const work = await mkdtemp(join(parent, ".build-"));
  const run = (command: string, args: string[], tool: string, onOutput?: (chunk: Buffer) => void): Promise<Buffer> =>
    runTool(command, args, {
      cwd: work,
      package: tool,
      timeoutMs: BUILD_LIMIT_MS,
      env: { ...process.env, ...REPRODUCIBLE, LC_ALL: "C" },
      ...signalOf({ signal }),
      ...(onOutput === undefined ? {} : { onOutput }),
    });
  try {
    progress?.({ step: `downloading ${PACKAGE} ${version}` });
    await run("apt-get", ["download", "-qq", `${PACKAGE}=${version}`], "apt");
    progress?.({ step: "unpacking the kernel's source" });
    const archive = (await readdir(work)).find((name) => name.endsWith(".deb"));
    await run("dpkg", ["-x", archive ?? "", "package"], "dpkg");
    await run("tar", ["-xf", join("package", "usr", "src", `${PACKAGE}.tar.xz`)], "xz-utils");
    await run("patch", ["-d", PACKAGE, "-p1", "--forward", "-i", join(SOURCES, PATCH)], "patch");
    await copyFile(join(SOURCES, "config"), join(work, PACKAGE, ".config"));
    const make = (args: string[], onOutput?: (chunk: Buffer) => void): Promise<Buffer> =>
      run("make", ["-C", PACKAGE, ...args], "make", onOutput);
    progress?.({ step: "configuring the kernel" });
    await make(["olddefconfig"]);
    let lines = 0;
    const count = (chunk: Buffer): void => {
      for (const byte of chunk) if (byte === 0x0a) lines += 1;
      const done = Math.min(lines, BUILD_LINES);
      // One step in words for those who see no bar: a log shows that it goes on.
      const step = `compiling the guest kernel (some minutes, once), ${10 * Math.floor((10 * done) / BUILD_LINES)} %`;
      progress?.({ step, done, total: BUILD_LINES, unit: "files" });
    };
    await make([`-j${availableParallelism()}`, "vmlinux"], count);
    const release = (await make(["-s", "kernelrelease"])).toString("utf8").trim();
    const out = join(work, "out");
    await mkdir(out);
    await rename(join(work, PACKAGE, "vmlinux"), join(out, "vmlinux"));
    const image = sha256(await readFile(join(out, "vmlinux")));
    const built: Built = { release, inputs, source: `${PACKAGE} ${version}`, image };
    await writeFile(join(out, RECORD), `${JSON.stringify(built)}\n`);
    await rm(target, { recursive: true, force: true });
    await rename(out, target);
  } catch (thrown) {
    if (!(thrown instanceof StacyError) || thrown.remedy !== undefined) throw thrown;
    throw new StacyError(thrown.code, `the guest kernel cannot be built: ${thrown.message}`, {
      cause: thrown,
      remedy: REMEDY,
    });
  } finally {
    // Compilers that were interrupted may still be writing their last files.
    await rm(work, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

function signalOf({ signal }: { signal?: AbortSignal | undefined }): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
