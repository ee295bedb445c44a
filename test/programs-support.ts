/**
 * A guest with the distribution's own programs. A long form: `STACYVM_LONG=1` makes an image of their packages (ten minutes, and a GB of
 * downloads, kept in `.build`, or in the file that STACYVM_PROGRAMS names).
 */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Agent } from "../src/guest/agent.ts";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { buildBase } from "../src/images/base.ts";
import { packageTree } from "../src/images/packages.ts";
import { type Guest, type GuestOptions, startGuest } from "./agent-support.ts";
import { PROGRAMS } from "./guest-programs/packages.ts";

export const skipPrograms = process.env.STACYVM_LONG === "1" ? false : "a long form: STACYVM_LONG=1 runs it";

export interface Programs extends AsyncDisposable {
  guest: Guest;
  /** Runs a script of bash's. @returns what it printed, without the last line's end. It fails with what it said when it does not end with 0 */
  run(script: string, user?: string): Promise<string>;
}

/** A guest above the programs' base. @param options its size, or the disk that another one has left */
export async function startPrograms(options: Omit<GuestOptions, "image" | "base"> = {}): Promise<Programs> {
  const path = await packagesBase(process.env.STACYVM_PROGRAMS ?? join(packageRoot, ".build/programs.img"), PROGRAMS);
  const guest = await startGuest({
    base: { path, filesystem: "erofs" },
    ...{ memoryMiB: 1024, diskMiB: 4096, vcpus: 2, ...options },
  });
  const run = runIn(guest.agent);
  await run(
    "id user >/dev/null 2>&1 || useradd -m -s /bin/bash user; echo 'user:100000:65536' | tee /etc/subuid > /etc/subgid; echo 'user ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/user",
  );
  return { guest, run, [Symbol.asyncDispose]: () => guest[Symbol.asyncDispose]() };
}

/** An image of these packages of the distribution, made when it is not there. @returns its path */
export async function packagesBase(path: string, packages: readonly string[]): Promise<string> {
  if (await exists(path)) return path;
  await mkdir(dirname(path), { recursive: true });
  const open = (signal?: AbortSignal) =>
    packageTree({ variant: "minbase", packages: [...packages] }, undefined, signal);
  const temporary = `${path}.${process.pid}`;
  await buildBase(temporary, [{ open, whiteouts: false, keep: (entry) => !/^(dev|proc|sys|run|tmp)\/./.test(entry) }]);
  // Its machine's own user reads it.
  await chmod(temporary, 0o644);
  await rename(temporary, path);
  return path;
}

export function runIn(agent: Agent): Programs["run"] {
  return async (script, user = "root") => {
    const argv = ["/bin/bash", "-ec", script];
    const cwd = user === "root" ? "/root" : `/home/${user}`;
    const result = await agent.exec({ argv, user, cwd, env: { HOME: cwd, LANG: "C.UTF-8" }, timeoutMs: 900_000 });
    const said = `${result.stdout.toString().slice(-2000)}${result.stderr.toString().slice(-2000)}`;
    assert.equal(result.exitCode, 0, `${script}\n${said}\n${result.reason}`);
    return result.stdout.toString().trim();
  };
}

/** The original source of one of the distribution's packages, as the archive that its authors made. */
export async function packageSource(name: string): Promise<Buffer> {
  const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "source-"));
  try {
    const listed = await runTool(
      "apt-get",
      ["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
      { package: "apt" },
    );
    const first = listed.toString().split("\n", 1)[0] ?? "";
    await mkdir(join(dir, "lists/partial"), { recursive: true });
    await writeFile(join(dir, "sources.list"), `deb-src ${first}\n`);
    const options = [
      ...["-o", `Dir::Etc::SourceList=${dir}/sources.list`, "-o", "Dir::Etc::SourceParts=-"],
      ...["-o", `Dir::State::Lists=${dir}/lists`],
    ];
    await runTool("apt-get", [...options, "update"], { cwd: dir, package: "apt", timeoutMs: 120_000 });
    await runTool("apt-get", [...options, "source", "--download-only", name], {
      ...{ cwd: dir, package: "apt", timeoutMs: 120_000 },
    });
    const archive = (await readdir(dir)).find((file) => /\.orig\.tar\.\w+$/.test(file));
    assert.ok(archive !== undefined, `there is no source of ${name}`);
    return await readFile(join(dir, archive));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
