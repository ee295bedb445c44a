/** The unit in packaging/, judged by systemd itself. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "../src/host/paths.ts";

const run = promisify(execFile);

async function exposure(unit: string): Promise<number> {
  const { stdout } = await run("systemd-analyze", ["security", "--offline=true", unit]);
  const level = /Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1];
  assert.ok(level, stdout);
  return Number(level);
}

const unit = join(packageRoot, "packaging", "stacyvm.service");

test("the unit's exposure is low", async (t) => {
  const known = await run("systemd-analyze", ["--version"]).catch(() => undefined);
  if (known === undefined) return t.skip("systemd-analyze is not here; the package systemd has it");
  assert.ok((await exposure(unit)) < 3);
});

test("it leaves what the monitors' cells are made of, and makes no root: the jail needs none", async () => {
  const settings = (await readFile(unit, "utf8")).split("\n");
  assert.ok(settings.includes("User=stacyvm"));
  const allowed = (name: string): string => settings.filter((line) => line.startsWith(`${name}=`)).join(" ");
  for (const space of ["user", "mnt", "net", "ipc", "uts"])
    assert.match(allowed("RestrictNamespaces"), new RegExp(`\\b${space}\\b`));
  for (const call of [
    "@mount",
    "pivot_root",
    "unshare",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "seccomp",
  ])
    assert.match(allowed("SystemCallFilter"), new RegExp(`${call}\\b`));
  assert.ok(settings.includes("CapabilityBoundingSet="));
});
