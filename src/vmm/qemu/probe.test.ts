import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { test } from "node:test";
import { probeQemu } from "./probe.ts";

test("another binary by its bare name or relative path is started by its whole path", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "qemu-"));
  const path = join(dir, "my-qemu");
  const before = process.env.PATH;
  t.after(async () => {
    process.env.PATH = before;
    await rm(dir, { recursive: true });
  });
  await writeFile(path, "#!/bin/sh\necho QEMU emulator version 8.2.1\n");
  await chmod(path, 0o755);
  process.env.PATH = `${before}:${dir}`;
  for (const configured of ["my-qemu", relative(process.cwd(), path), path]) {
    const probe = await probeQemu(configured);
    assert.equal(probe.usable && probe.path, path, configured);
  }
  assert.equal((await probeQemu("no-such-qemu")).usable, false);
});
