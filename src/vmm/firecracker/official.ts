/**
 * An official release of Firecracker, fetched from where its makers publish it and checked by the SHA-256 that the user gives: the
 * one beside the archive on its release page. Nothing is taken on trust, and no checksum is known in advance here.
 *
 *     STACYVM_FIRECRACKER_RELEASE=1.17.0:<sha256 of firecracker-v1.17.0-x86_64.tgz>
 *
 *     <assets>/firecracker/official-1.17.0/firecracker, jailer, checksums.json   `Checksums`, of the archive and of what came out of it
 */
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StacyError } from "../../host/error.ts";
import { runTool } from "../../host/run.ts";
import type { Progress } from "../../images/image.ts";
import { traitsOf } from "./versions.ts";

export const RELEASE_VARIABLE = "STACYVM_FIRECRACKER_RELEASE";
/** Set to another address for a mirror of the same layout. */
const PLACE_VARIABLE = "STACYVM_FIRECRACKER_RELEASES";
const PLACE = "https://github.com/firecracker-microvm/firecracker/releases/download";
const PREFIX = "official-";
const PROGRAMS = ["firecracker", "jailer"] as const;
const DOWNLOAD_LIMIT_MS = 300_000;
/** Archives of releases are some 10 MB. */
const ARCHIVE_LIMIT_BYTES = 256 << 20;

export interface OfficialRelease {
  version: string;
  /** Of the archive for x86-64, hex. */
  sha256: string;
  /** Where releases lie. */
  place: string;
}

/** @throws StacyError `invalid` when the variable is nonsense */
export function wantedRelease(env: NodeJS.ProcessEnv): OfficialRelease | undefined {
  const text = env[RELEASE_VARIABLE];
  if (text === undefined || text === "") return undefined;
  const [, version, sha256] = /^v?(\d+\.\d+\.\d+):([0-9a-f]{64})$/i.exec(text) ?? [];
  if (version === undefined || sha256 === undefined) {
    throw new StacyError("invalid", `${RELEASE_VARIABLE} is "${text}"`, {
      remedy: "write VERSION:SHA256, with the checksum that stands beside the release's archive for x86_64",
    });
  }
  return { version, sha256: sha256.toLowerCase(), place: env[PLACE_VARIABLE] || PLACE };
}

/** SHA-256 each, hex. */
type Checksums = Record<"archive" | (typeof PROGRAMS)[number], string>;

const CHECKSUMS = "checksums.json";

/** The named one where it is installed, else the newest that may be used. @param root `<assets>/firecracker` */
export async function findOfficial(
  root: string,
  named?: string,
): Promise<{ dir: string; version: string } | undefined> {
  const names = (await readdir(root).catch(() => [])).filter((name) => name.startsWith(PREFIX));
  const versions = names.map((name) => name.slice(PREFIX.length)).filter((each) => traitsOf(each) !== undefined);
  versions.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const version = versions.find((each) => each === named) ?? versions.at(-1);
  return version === undefined ? undefined : { dir: join(root, `${PREFIX}${version}`), version };
}

/**
 * Leaves one that came out of this archive, and is as it was, alone.
 * @throws StacyError `unavailable` (cannot be fetched), `corrupt` (another checksum)
 */
export async function installOfficial(
  root: string,
  release: OfficialRelease,
  options: { progress?: (progress: Progress) => void; signal?: AbortSignal } = {},
): Promise<void> {
  const { version, sha256, place } = release;
  const target = join(root, `${PREFIX}${version}`);
  if (await isWhole(target, sha256)) return;
  const name = `firecracker-v${version}-x86_64`;
  options.progress?.({ step: `fetching the official Firecracker ${version}` });
  const archive = await download(`${place}/v${version}/${name}.tgz`, options.signal);
  const found = digest(archive);
  if (found !== sha256) {
    throw new StacyError("corrupt", `the archive of Firecracker ${version} has SHA-256 ${found}, expected ${sha256}`, {
      remedy: `compare ${RELEASE_VARIABLE} with the release's page`,
    });
  }
  await mkdir(root, { recursive: true });
  const work = await mkdtemp(join(root, ".install-"));
  try {
    await writeFile(join(work, "archive.tgz"), archive);
    await runTool("tar", ["-xzf", "archive.tgz"], { cwd: work, package: "tar" });
    const out = join(work, "out");
    await mkdir(out);
    const checksums: Partial<Checksums> = { archive: sha256 };
    for (const program of PROGRAMS) {
      const inside = join(work, `release-v${version}-x86_64`, `${program}-v${version}-x86_64`);
      await rename(inside, join(out, program)).catch((cause) => {
        throw new StacyError("corrupt", `the archive of Firecracker ${version} holds no ${program}`, { cause });
      });
      await chmod(join(out, program), 0o755);
      checksums[program] = digest(await readFile(join(out, program)));
    }
    await writeFile(join(out, CHECKSUMS), JSON.stringify(checksums));
    // Another set-up's result, equal by checksum, or a damaged one: either makes room.
    await rm(target, { recursive: true, force: true });
    await rename(out, target);
  } catch (error) {
    if (!(await isWhole(target, sha256))) throw error;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Whether what is in `dir` came out of the archive with this checksum, and is as it was. */
async function isWhole(dir: string, sha256: string): Promise<boolean> {
  try {
    const checksums = JSON.parse(await readFile(join(dir, CHECKSUMS), "utf8")) as Checksums;
    if (checksums.archive !== sha256) return false;
    for (const program of PROGRAMS) {
      if (digest(await readFile(join(dir, program))) !== checksums[program]) return false;
    }
    return true;
  } catch {
    return false;
  }
}

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

async function download(url: string, signal: AbortSignal | undefined): Promise<Buffer> {
  const limit = AbortSignal.timeout(DOWNLOAD_LIMIT_MS);
  try {
    const response = await fetch(url, { signal: signal === undefined ? limit : AbortSignal.any([signal, limit]) });
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of response.body ?? []) {
      size += part.length;
      if (size > ARCHIVE_LIMIT_BYTES) throw new Error("it is far too large");
      parts.push(part);
    }
    return Buffer.concat(parts);
  } catch (cause) {
    signal?.throwIfAborted();
    const why = cause instanceof Error ? (cause.cause instanceof Error ? cause.cause.message : cause.message) : "";
    throw new StacyError("unavailable", `${url} cannot be fetched: ${why}`, {
      cause,
      remedy: "check the network, or install the release yourself and set STACYVM_FIRECRACKER",
    });
  }
}
