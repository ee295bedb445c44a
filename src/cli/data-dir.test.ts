import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataPaths } from "../host/paths.ts";
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
