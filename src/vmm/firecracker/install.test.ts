import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { installFirecracker, locateFirecracker } from "./install.ts";

async function scratch(t: { after(work: () => Promise<void>): void }): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "fc-install-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function script(path: string): Promise<string> {
  await writeFile(path, "#!/bin/sh\n");
  await chmod(path, 0o755);
  return path;
}

test("a configured path wins over everything, and the jailer beside it is found", async (t) => {
  const dir = await scratch(t);
  const mine = await script(join(dir, "firecracker"));
  const jailer = await script(join(dir, "jailer"));
  const found = await installFirecracker(dir, { env: { STACYVM_FIRECRACKER: mine, PATH: "/nowhere" } });
  assert.equal(found.firecracker, mine);
  assert.equal(found.jailer, jailer);
  assert.equal(found.source, "configured");
});

test("a configured path that is no program is an error that names the variable", async (t) => {
  const dir = await scratch(t);
  await assert.rejects(installFirecracker(dir, { env: { STACYVM_FIRECRACKER: join(dir, "none") } }), (error) => {
    assert.ok(error instanceof StacyError);
    assert.equal(error.code, "not-found");
    assert.match(error.remedy ?? "", /STACYVM_FIRECRACKER/);
    return true;
  });
});

test("without any Firecracker the error says how to get one", async (t) => {
  const dir = await scratch(t);
  await assert.rejects(locateFirecracker(dir, { env: { PATH: "" } }), (error) => {
    assert.ok(error instanceof StacyError);
    assert.equal(error.code, "unavailable");
    assert.match(error.remedy ?? "", /stacyvm setup/);
    return true;
  });
});

test("a Firecracker on the PATH is used before the installed one", async (t) => {
  const dir = await scratch(t);
  await mkdir(join(dir, "bin"));
  const mine = await script(join(dir, "bin/firecracker"));
  const found = await locateFirecracker(dir, { env: { PATH: join(dir, "bin") } });
  assert.equal(found.firecracker, mine);
  assert.equal(found.source, "path");
  assert.equal(found.jailer, undefined);
});
