import assert from "node:assert/strict";
import { mkdtemp, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Stamped } from "./stamp.ts";

test("a file is read once while it stays, and again when it is another one", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "stamp-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const path = join(dir, "file");
  let reads = 0;
  const file = new Stamped(async () => {
    reads += 1;
    return { value: await readFile(path, "utf8"), paths: [path] };
  });
  await assert.rejects(file.get(), { code: "ENOENT" });
  await writeFile(path, "one");
  // Remembered from when the clock has gone on since it was written.
  for (let before = -1; before !== reads; await file.get()) before = reads;
  assert.deepEqual(await Promise.all([file.get(), file.get()]), ["one", "one"]);

  // Of the same length and age.
  const old = await stat(path);
  await writeFile(`${path}.new`, "two");
  await utimes(`${path}.new`, old.atime, old.mtime);
  await rename(`${path}.new`, path);
  assert.deepEqual(await Promise.all([file.get(), file.get()]), ["two", "two"]);
  await rm(path);
  await assert.rejects(file.get(), { code: "ENOENT" });
});

test("it is read again when a file that was not there has come, and each time when it says that it is not to be kept", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "stamp-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  let [reads, keep] = [0, true];
  const own = new Stamped(async () => {
    reads += 1;
    return { value: reads, paths: [join(dir, "file")], keep };
  });
  assert.deepEqual([await own.get(), await own.get()], [1, 1]);
  keep = false;
  await writeFile(join(dir, "file"), "");
  assert.deepEqual([await own.get(), await own.get()], [2, 3]);
});

test("many at once read it together", async () => {
  let reads = 0;
  const own = new Stamped(async () => {
    reads += 1;
    return { value: reads, paths: [process.execPath] };
  });
  assert.deepEqual(await Promise.all([own.get(), own.get(), own.get()]), [1, 1, 1]);
  assert.equal(await own.get(), 1);
});
