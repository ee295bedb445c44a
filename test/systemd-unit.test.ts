/** The unit in packaging/, judged by systemd itself. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
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

const here = (name: string): string => join(packageRoot, "packaging", name);

test("the unit's exposure is low, with the jail's rights too", async (t) => {
  const known = await run("systemd-analyze", ["--version"]).catch(() => undefined);
  if (known === undefined) return t.skip("systemd-analyze is not here; the package systemd has it");
  assert.ok((await exposure(here("stacyvm.service"))) < 3);
  const dir = await mkdtemp(join(tmpdir(), "unit-"));
  try {
    const [unit, more] = await Promise.all(
      ["stacyvm.service", "stacyvm-jailed.conf"].map((name) => readFile(here(name), "utf8")),
    );
    const merged = join(dir, "stacyvm.service");
    await writeFile(merged, `${unit?.split("[Install]")[0]}\n${more}`);
    // Root, and the rights by which the jailer puts each machine under another user and the server finds it again, are what is left.
    assert.ok((await exposure(merged)) < 3.8);
  } finally {
    await rm(dir, { recursive: true });
  }
});
