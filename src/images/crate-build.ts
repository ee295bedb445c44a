/** Compiles our Rust programs with whatever cargo is there, and puts them where the host looks for them. */
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { directoryHelperPath } from "../host/directory-helper.ts";
import { StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { packageRoot } from "../host/paths.ts";
import { runTool } from "../host/run.ts";
import { spawnerPath } from "../host/spawner.ts";
import { agentPath } from "./guest-files.ts";
import type { SetupOptions } from "./kernel.ts";

const TARGET = "x86_64-unknown-linux-gnu";
/** Where Debian's package of their only dependency puts it. */
const PACKAGED_CRATES = "/usr/share/cargo/registry";

/** `built`, `present` when the sources have not changed since, or `prebuilt` when another one is used. */
export type Built = "built" | "present" | "prebuilt";

/** The guest's agent. @throws StacyError `unavailable` with the compiler's last words */
export function buildAgent(assets: string, options: SetupOptions = {}): Promise<Built> {
  return buildCrate("agent", agentPath(assets), assets, options);
}

/** What starts a server's processes (host/spawner.ts). @throws as `buildAgent` */
export function buildSpawner(assets: string, options: SetupOptions = {}): Promise<Built> {
  return buildCrate("spawner", spawnerPath(assets), assets, options);
}

/** What serves a directory of the host to a guest (host/directory-helper.ts). @throws as `buildAgent` */
export function buildDirectoryHelper(assets: string, options: SetupOptions = {}): Promise<Built> {
  return buildCrate("directory", directoryHelperPath(assets), assets, options);
}

/** @param used the binary that the host takes */
async function buildCrate(name: string, used: string, assets: string, options: SetupOptions): Promise<Built> {
  const dir = join(assets, name);
  const binary = join(dir, `stacyvm-${name}`);
  if (used !== binary) return "prebuilt";
  const source = join(packageRoot, name);
  const digest = await sourceDigest(source);
  const stamp = join(dir, "source.sha256");
  if ((await exists(binary)) && (await readFile(stamp, "utf8").catch(() => "")) === digest) return "present";
  options.progress?.({ step: `compiling stacyvm-${name}` });
  const target = join(packageRoot, ".build", name);
  await mkdir(dir, { recursive: true });
  const build = ["build", "--release", "--locked", "--target", TARGET, "--target-dir", target];
  await runTool("cargo", [...build, ...(await crateSource(source))], {
    cwd: source,
    package: "cargo",
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  await install(join(target, TARGET, "release", `stacyvm-${name}`), binary);
  await writeFile(stamp, digest);
  return "built";
}

/** cargo's arguments that take packaged crates where those are the locked ones: an old cargo would clone a whole index. */
export async function crateSource(source: string): Promise<string[]> {
  const version = /name = "libc"\nversion = "([^"]+)"/.exec(await readFile(join(source, "Cargo.lock"), "utf8"))?.[1];
  if (!(await exists(join(PACKAGED_CRATES, `libc-${version}`)))) return [];
  const settings = [`source.crates-io.replace-with="system"`, `source.system.directory="${PACKAGED_CRATES}"`];
  return ["--offline", ...settings.flatMap((setting) => ["--config", setting])];
}

async function install(from: string, to: string): Promise<void> {
  await copyFile(from, `${to}.new`);
  await rename(`${to}.new`, to);
}

async function sourceDigest(source: string): Promise<string> {
  const names = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"];
  for (const entry of await readdir(join(source, "src"), { recursive: true }))
    if (entry.endsWith(".rs")) names.push(join("src", entry));
  const hash = createHash("sha256");
  for (const name of names.sort()) {
    const text = await readFile(join(source, name)).catch((cause) => {
      throw new StacyError("unavailable", `the source of a program is incomplete: ${join(source, name)}`, {
        cause,
        remedy: "clone the repository again",
      });
    });
    hash.update(`${name}\0${text.length}\0`).update(text);
  }
  return hash.digest("hex");
}
