import assert from "node:assert/strict";
import { chmod, chown, mkdir, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { exists } from "./exists.ts";
import { removeTree } from "./remove-tree.ts";

/** Deeper than a path may be long, and with a name that is no text; nobody can say a path to its end. */
async function deep(root: string): Promise<string> {
  const dir = join(root, "deep");
  await mkdir(dir);
  await writeFile(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0xfe])]), "");
  for (let depth = 0; depth < 30; depth++) {
    const above = join(root, "above");
    await mkdir(above);
    await writeFile(join(above, "file"), "");
    await rename(dir, join(above, "d".repeat(250)));
    await rename(above, dir);
  }
  return dir;
}

test("a tree that is deeper than a path may be long is removed, whoever made it", async () => {
  const root = await mkdtemp(join(tmpdir(), "remove-"));
  const isRoot = process.geteuid?.() === 0;
  try {
    if (isRoot) await chown(root, ORDINARY, ORDINARY);
    if (isRoot) process.seteuid?.(ORDINARY);
    const dir = await deep(root);
    await assert.rejects(rm(dir, { recursive: true, force: true }), { code: "ENAMETOOLONG" });
    await removeTree(dir);
    assert.deepEqual(await readdir(root), []);
  } finally {
    if (isRoot) process.seteuid?.(0);
    await removeTree(root);
  }
});

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
