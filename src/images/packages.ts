/**
 * Images from the host distribution's own packages, by mmdebstrap: its archive, suite and keyring are what the host's
 * apt is set up with, so Debian hosts make Debian images and Ubuntu hosts Ubuntu ones. mmdebstrap picks root, user
 * namespaces or fakechroot by itself; its result arrives as a tar stream with the right owners.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { errno, StacyError } from "../host/error.ts";
import { runTool } from "../host/run.ts";
import type { Progress } from "./image.ts";

/** One line of apt's configuration that the host's archive is reached by. */
const FORWARDED = /^Acquire::(https?|Retries|Check-(Valid-Until|Date)|ForceIPv[46])/;
const KILL_AFTER_MS = 10_000;
const WORDS = 12;

export interface PackageSet {
  /** mmdebstrap's: `extract` unpacks without configuring, `minbase` is a small system with apt. */
  variant: "extract" | "minbase";
  packages: string[];
}

interface Distribution {
  /** `debian`, `ubuntu` */
  id: string;
  codename: string;
}

async function hostDistribution(): Promise<Distribution> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => "");
  const field = (name: string): string | undefined =>
    new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1]?.toLowerCase();
  const id = field("ID");
  const codename = field("VERSION_CODENAME");
  if ((id === "debian" || id === "ubuntu") && codename !== undefined) return { id, codename };
  throw new StacyError(
    "not-supported",
    `built-in images need a Debian or Ubuntu host, this one is ${id ?? "unknown"}`,
    {
      remedy: "use an image of a registry, or import one with `stacyvm image import`",
    },
  );
}

/** The host's apt sources that belong to its own distribution, as `deb` lines. */
async function hostSources({ id, codename }: Distribution): Promise<string[]> {
  const format = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)\t$(SIGNED_BY)\t$(TRUSTED)";
  const listed = await runTool("apt-get", ["indextargets", "--format", format, "Created-By: Packages"], {
    package: "apt",
    timeoutMs: 60_000,
  });
  const sources = new Map<string, Set<string>>();
  for (const line of listed.toString("utf8").split("\n")) {
    const [uri, release, component, origin, signedBy, trusted] = line.split("\t");
    if (uri === undefined || release === undefined || component === undefined) continue;
    if (release !== codename && !release.startsWith(`${codename}-`)) continue;
    // Without downloaded lists apt does not know the origin yet; then the distribution's own component decides.
    const known = origin !== undefined && origin !== "" && !origin.startsWith("$(");
    if (known ? origin.toLowerCase() !== id : component !== "main") continue;
    const set = (value: string | undefined): value is string => value !== undefined && /^[^$\s]+$/.test(value);
    const options = [
      ...(set(signedBy) ? [`signed-by=${signedBy}`] : []),
      ...(trusted === "yes" ? ["trusted=yes"] : []),
    ];
    const head = `deb${options.length === 0 ? "" : ` [${options.join(" ")}]`} ${uri} ${release}`;
    sources.set(head, (sources.get(head) ?? new Set()).add(component));
  }
  if (sources.size === 0) {
    throw new StacyError("unavailable", `apt has no source for ${id} ${codename}`, {
      remedy: "add the distribution's archive to /etc/apt and run `apt-get update`",
    });
  }
  return [...sources].map(([head, components]) => `${head} ${[...components].join(" ")}`);
}

/** Proxies and the like: mmdebstrap's own apt does not read the host's configuration. */
async function hostAptOptions(): Promise<string[]> {
  const dump = await runTool("apt-config", ["dump"], { package: "apt", timeoutMs: 60_000 });
  return dump
    .toString("utf8")
    .split("\n")
    .filter((line) => FORWARDED.test(line) && !line.endsWith(' "";'));
}

/**
 * The packages' tree as a tar stream.
 * @throws StacyError `unavailable` with mmdebstrap's last words and a remedy; `no-space`
 */
export async function* packageTree(
  set: PackageSet,
  progress?: (progress: Progress) => void,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  const distribution = await hostDistribution();
  const [sources, options] = await Promise.all([hostSources(distribution), hostAptOptions()]);
  const [command = "", ...first] = [...(await ownMounts()), "mmdebstrap"];
  signal?.throwIfAborted();
  const child = spawn(
    command,
    [
      ...[...first, "--format=tar", `--variant=${set.variant}`, `--include=${set.packages.join(",")}`],
      // A dropped connection is retried; apt's default is once and out.
      ...['Acquire::Retries "5";', ...options].map((line) => `--aptopt=${line}`),
      ...["--dpkgopt=force-unsafe-io", distribution.codename, "-", "-"],
    ],
    {
      stdio: ["pipe", "pipe", "pipe"],
      env: {
        PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin`,
        HOME: process.env.HOME ?? "/",
        LC_ALL: "C.UTF-8",
        DEBIAN_FRONTEND: "noninteractive",
      },
    },
  );
  child.stdin.on("error", () => {}); // it ended before it read; its exit says why
  child.stdin.end(`${sources.join("\n")}\n`);
  const words = lastWords(child, progress);
  const failed = new Promise<Error>((resolve) => child.once("error", resolve));
  const exited = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  const abort = (): void => stop(child);
  signal?.addEventListener("abort", abort, { once: true });
  let complete = false;
  try {
    if (child.pid === undefined) throw startError(await failed);
    for await (const chunk of child.stdout) yield chunk as Buffer;
    const code = await exited;
    signal?.throwIfAborted();
    if (code !== 0) throw failure(words, code);
    complete = true;
  } finally {
    signal?.removeEventListener("abort", abort);
    if (!complete && child.pid !== undefined) {
      stop(child);
      await exited;
    }
  }
}

/**
 * As root it mounts the host's /proc and /sys into its directory: killed, it would leave them there, for whoever clears that away to
 * follow. In a mount namespace of its own they go with it; an ordinary user's are in one anyway.
 */
async function ownMounts(): Promise<string[]> {
  if (process.getuid?.() !== 0) return [];
  const command = ["unshare", "--mount"];
  // Where that is not permitted, no mount is either.
  return runTool("unshare", ["--mount", "true"]).then(
    () => command,
    () => [],
  );
}

/** It unmounts and removes its own directory when asked to end; only when that hangs is it killed. */
function stop(child: ChildProcess): void {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.stdout?.destroy();
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS);
  void once(child, "close").finally(() => clearTimeout(timer));
}

/** What people wait for, in our words; the rest of what mmdebstrap says of itself helps nobody. */
const STEPS: readonly (readonly [RegExp, string])[] = [
  [/^running apt-get update/, "reading the distribution's package lists"],
  [/^downloading packages/, "downloading packages"],
  [/^extracting archives/, "unpacking packages"],
  [/^installing/, "installing packages"],
  [/^creating tarball/, "collecting the files"],
];

export function stepOf(line: string): string | undefined {
  if (!line.startsWith("I: ")) return undefined;
  const said = line.slice(3);
  return STEPS.find(([pattern]) => pattern.test(said))?.[1];
}

function lastWords(child: ChildProcess, progress?: (progress: Progress) => void): string[] {
  const words: string[] = [];
  let rest = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split(/[\r\n]+/);
    rest = (lines.pop() ?? "").slice(-1000);
    for (const line of lines) {
      const step = stepOf(line);
      if (step !== undefined) progress?.({ step });
      else if (line.startsWith("I: ")) continue;
      else if (line.trim() !== "") words.push(line.slice(0, 400));
      if (words.length > WORDS) words.shift();
    }
  });
  return words;
}

function startError(cause: Error): StacyError {
  if (errno(cause) !== "ENOENT") return new StacyError("unavailable", "cannot start mmdebstrap", { cause });
  return notInstalled(cause);
}

function notInstalled(cause?: Error): StacyError {
  return new StacyError("unavailable", "mmdebstrap is not installed", {
    cause,
    remedy: "install the package mmdebstrap, or use an image of a registry",
  });
}

function failure(words: string[], code: number | null): StacyError {
  const said = words.join("\n");
  // What `unshare` and shells end with when there is no such program.
  if (code === 127) return notInstalled();
  if (/No space left on device/i.test(said)) {
    return new StacyError("no-space", `no space for the packages: ${said}`, { remedy: "free space in /tmp" });
  }
  if (/unable to pick chroot mode|newuidmap|subuid|unshare|fakechroot|Operation not permitted/i.test(said)) {
    return new StacyError("unavailable", `this user cannot build images from packages here: ${said}`, {
      remedy: "run `stacyvm setup` as root once, or install the packages uidmap, fakechroot and fakeroot",
    });
  }
  return new StacyError("unavailable", `mmdebstrap failed (${code ?? "killed"}): ${said}`, {
    remedy: "check the network and `apt-get update`",
  });
}
