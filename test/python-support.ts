import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";

/** A Python with the published SDK, installed once per checkout from the package index by name and version. */
export async function sdkPython(): Promise<string> {
  return environment("python-sdk", ["stacyvm==0.1.1"]);
}

/** One version of a published package in a directory of its own, without what it needs: the environment has that. */
export async function publishedPackage(python: string, name: string, version: string): Promise<string> {
  const folder = join(packageRoot, ".build", "python-published", `${name}-${version}`);
  if (!(await exists(join(folder, name)))) {
    const flags = ["--quiet", "--no-deps", "--target", folder];
    await runTool(python, ["-m", "pip", "install", ...flags, `${name}==${version}`], { timeoutMs: 120_000 });
  }
  return folder;
}

/** A Python with our own package: what it needs is installed once per checkout, its wheel is built and installed each time. */
export function ownPython(): Promise<string> {
  own ??= installOwn();
  return own;
}
let own: Promise<string> | undefined;

/** What our package needs, without itself. */
export function ownEnvironment(): Promise<string> {
  return environment("python-package", ["httpx==0.28.1", "websockets==16.1.1", "hatchling==1.33.0", "mypy==2.4.1"]);
}

async function installOwn(): Promise<string> {
  const python = await ownEnvironment();
  const wheels = join(packageRoot, ".build", "wheel");
  await rm(wheels, { recursive: true, force: true });
  await mkdir(wheels, { recursive: true });
  const flags = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels];
  await runTool(python, ["-m", "pip", "wheel", ...flags, join(packageRoot, "python")], { timeoutMs: 120_000 });
  const [wheel = ""] = await readdir(wheels);
  const install = ["--quiet", "--no-deps", "--force-reinstall", "--no-index", join(wheels, wheel)];
  await runTool(python, ["-m", "pip", "install", ...install], { timeoutMs: 120_000 });
  return python;
}

/** A Python with packages, installed once per checkout. @param name of a directory below `.build` */
export async function environment(name: string, packages: string[]): Promise<string> {
  const venv = join(packageRoot, ".build", name);
  const python = join(venv, "bin", "python");
  const done = join(venv, "lib", "installed");
  if (!(await exists(done))) {
    await runTool("python3", ["-m", "venv", venv], { package: "python3-venv" });
    await runTool(python, ["-m", "pip", "install", "--quiet", ...packages], { timeoutMs: 300_000 });
    await runTool("touch", [done]);
  }
  return python;
}
