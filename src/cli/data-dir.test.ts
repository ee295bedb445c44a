import assert from "node:assert/strict";
import { chmod, chown, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataPaths } from "../host/paths.ts";
import { examine } from "./commands/doctor.ts";
import { lockDataDir } from "./data-dir.ts";

test("whoever takes a data directory closes it and its database to other users, and what is made from then on is closed", async () => {
  const root = await mkdtemp(join(tmpdir(), "modes-"));
  const before = process.umask(0o022);
  try {
    const paths = dataPaths(root);
    await chmod(root, 0o755);
    await writeFile(paths.database, "", { mode: 0o644 });
    await using lock = await lockDataDir(paths);
    assert.ok(lock);
    await writeFile(join(root, "later"), "", { mode: 0o666 });
    const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);
    assert.deepEqual(await Promise.all([root, paths.database, join(root, "later")].map(mode)), ["700", "600", "600"]);
  } finally {
    process.umask(before);
    await rm(root, { recursive: true });
  }
});

test("a data directory that another user has made is not taken, and nothing is made in it or below it", async (t) => {
  if (process.getuid?.() !== 0) return t.skip("only root can make another user's directory");
  const root = await mkdtemp(join(tmpdir(), "planted-"));
  t.after(() => rm(root, { recursive: true }));
  const theirs = join(root, "theirs");
  await mkdir(theirs);
  await chown(theirs, 12_345, 12_345);
  for (const dir of [theirs, join(theirs, "data")]) {
    await assert.rejects(lockDataDir(dataPaths(dir)), {
      code: "permission",
      message: /theirs belongs to another user/,
    });
    const [, first, ...rest] = await examine(dataPaths(dir));
    assert.deepEqual([first?.name, first?.state], ["data directory", "missing"]);
    assert.match(first?.detail ?? "", /belongs to another user/);
    assert.ok(!rest.some(({ name }) => /firecracker|qemu/i.test(name)), "none of its programs was asked");
  }
  assert.deepEqual(await readdir(theirs), []);
  // One in which only a database was planted.
  const paths = dataPaths(join(root, "own"));
  await mkdir(paths.root);
  await writeFile(paths.database, "");
  await chown(paths.database, 12_345, 12_345);
  await assert.rejects(lockDataDir(paths), { code: "permission", message: /stacyvm\.db belongs to another user/ });
});
