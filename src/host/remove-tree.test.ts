import assert from "node:assert/strict";
import { chmod, chown, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { exists } from "./exists.ts";
import { removeTree } from "./remove-tree.ts";

const ORDINARY = 65_534;

test("what a program has closed to its own user is removed; what its links lead to stays as it is", async () => {
  const root = await mkdtemp(join(tmpdir(), "remove-"));
  const isRoot = process.geteuid?.() === 0;
  const [dir, other] = [join(root, "machine"), join(root, "other")];
  try {
    await mkdir(join(dir, "jail/deep/deeper"), { recursive: true });
    await mkdir(other);
    await writeFile(join(dir, "jail/deep/deeper/file"), "");
    await symlink(other, join(dir, "jail/deep/link"));
    if (isRoot)
      for (const name of ["", ...(await readdir(root, { recursive: true }))])
        if (name !== "machine/jail/deep/link") await chown(join(root, name), ORDINARY, ORDINARY);
    await chmod(other, 0o500);
    for (const name of ["jail/deep/deeper", "jail/deep", "jail"]) await chmod(join(dir, name), 0o000);
    if (isRoot) process.seteuid?.(ORDINARY);
    await assert.rejects(rm(dir, { recursive: true, force: true }), { code: "EACCES" });
    await removeTree(dir);
    await removeTree(dir);
    assert.equal(await exists(dir), false);
    assert.equal((await stat(other)).mode & 0o777, 0o500);
  } finally {
    if (isRoot) process.seteuid?.(0);
    await chmod(other, 0o700);
    await removeTree(root);
  }
});
