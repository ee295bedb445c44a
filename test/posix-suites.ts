/**
 * Public suites of file systems, from their registry, for a guest: pjdfstest (https://github.com/saidsay-so/pjdfstest) asks what each call
 * of POSIX promises, fsx (https://github.com/asomers/fsx-rs) does random operations on one file and compares it with a copy in memory.
 */
import assert from "node:assert/strict";
import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Agent } from "../src/guest/agent.ts";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { unpackPackages } from "./package-tree.ts";

const SUITES = { pjdfstest: "0.2.2", fsx: "0.3.2" };

const PJDFSTEST = `[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.05
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
`;

const FSX = `flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 0.5
invalidate = 0.5
mapread = 1
mapwrite = 1
read = 1
write = 1
truncate = 1
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 0.5
punch_hole = 0.5
sendfile = 0.5
posix_fadvise = 0.2
copy_file_range = 0.5
`;

/** A small system of the distribution with both suites in it, as a tree. */
export async function suitesTree(tree: string): Promise<void> {
  const built = join(packageRoot, ".build/suites");
  for (const [name, version] of Object.entries(SUITES)) {
    if (await exists(join(built, "bin", name))) continue;
    await runTool("cargo", ["install", "--quiet", "--locked", "--root", built, "--version", version, name], {
      ...{ package: "cargo", timeoutMs: 900_000 },
    });
  }
  await unpackPackages(tree, ["libacl1"]);
  for (const name of Object.keys(SUITES)) await cp(join(built, "bin", name), join(tree, "usr/bin", name));
  await writeFile(join(tree, "of-the-image"), "line\n".repeat(100_000));
  await writeFile(join(tree, "etc/pjdfstest.toml"), PJDFSTEST);
  await writeFile(join(tree, "etc/fsx.toml"), FSX);
}

export interface Asked {
  passed: number;
  /** Names of the cases that do not hold. */
  failed: string[];
  skipped: string[];
}

/** Every case of pjdfstest in a new directory below this one; `/dev/shm` is the other file system that it needs. */
export async function pjdfstest(agent: Agent, directory: string): Promise<Asked> {
  const script = `mkdir -p "$1" /dev/shm/other; cd /; exec pjdfstest -c /etc/pjdfstest.toml -s /dev/shm/other -p "$1"`;
  const result = await agent.exec({ argv: ["/bin/sh", "-c", script, "sh", directory], timeoutMs: 1_800_000 });
  const said = result.stdout.toString();
  const named = (word: string): string[] =>
    [...said.matchAll(new RegExp(`^(\\S+)\\s+${word}$`, "gm"))].map((line) => line[1] ?? "").sort();
  const asked = { passed: named("ok").length, failed: named("FAILED"), skipped: named("skipped") };
  assert.match(said, /^Summary: .* 398 total$/m, `${said.slice(-2000)}${result.stderr}`);
  return asked;
}

export async function fsx(agent: Agent, file: string, operations: number, seed: number): Promise<void> {
  const argv = ["fsx", "-q", "-f", "/etc/fsx.toml", "-P", "/tmp", "-N", String(operations), "-S", String(seed), file];
  const result = await agent.exec({ argv, timeoutMs: 1_800_000 });
  assert.equal(result.exitCode, 0, `${result.stdout.toString().slice(-4000)}${result.stderr}`);
}
