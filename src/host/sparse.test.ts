import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { allocatedBytes, copySparse, mapSparse, SparseTemplate } from "./sparse.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "stacyvm-sparse-"));
});
after(() => rm(dir, { recursive: true, force: true }));

/** 64 MiB with data at three places, one of them explicit zeros. */
async function sparseFile(name: string): Promise<string> {
  const path = join(dir, name);
  const file = await open(path, "w");
  await file.write(Buffer.alloc(8192, 1), 0, 8192, 0);
  await file.write(Buffer.alloc(4096, 0), 0, 4096, 16 << 20);
  await file.write(Buffer.from("end"), 0, 3, (64 << 20) - 3);
  await file.close();
  return path;
}

test("the map names data and not zeros, however they are stored", async () => {
  const map = await mapSparse(await sparseFile("a"));
  assert.equal(map.size, 64 << 20);
  assert.deepEqual(map.extents, [
    { start: 0, length: 8192 },
    { start: (64 << 20) - 4096, length: 4096 },
  ]);
});

test("a flipped byte, also in a hole, changes the map", async () => {
  const path = await sparseFile("b");
  const before = await mapSparse(path);
  const file = await open(path, "r+");
  await file.write(Buffer.from("x"), 0, 1, 32 << 20);
  await file.close();
  assert.notEqual((await mapSparse(path)).sha256, before.sha256);
});

test("copies have the same bytes and stay sparse", async () => {
  const path = await sparseFile("c");
  await using template = await SparseTemplate.open(path, await mapSparse(path));
  await template.copyTo(join(dir, "c1"));
  await copySparse(path, join(dir, "c2"));
  const original = await readFile(path);
  for (const name of ["c1", "c2"]) {
    assert.ok(original.equals(await readFile(join(dir, name))), name);
    assert.ok((await allocatedBytes(join(dir, name))) < 1 << 20, name);
  }
});

test("a template that was cut is refused", async () => {
  const path = await sparseFile("d");
  const map = await mapSparse(path);
  await truncate(path, 4096);
  await assert.rejects(SparseTemplate.open(path, map), { code: "corrupt" });
  const large = await SparseTemplate.open(path, map, 0);
  await assert.rejects(large.copyTo(`${path}.copy`), { code: "corrupt" });
});
