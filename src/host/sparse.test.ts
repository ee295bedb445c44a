import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { BLOCK } from "./extents.ts";
import { allocatedBytes, copySparse, SparseTemplate } from "./sparse.ts";
import { mapSparse } from "./sparse-map.ts";

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

test("copies of a scattered file have the same bytes, and no more room than its small holes", async () => {
  // Many runs near one another, and some far away.
  const path = join(dir, "e");
  const file = await open(path, "w");
  const places = [
    ...Array.from({ length: 3000 }, (_, i) => 2 * i * BLOCK),
    ...Array.from({ length: 16 }, (_, i) => (i + 1) << 26),
  ];
  for (const [i, at] of places.entries()) await file.write(Buffer.alloc(BLOCK, (i % 255) + 1), 0, BLOCK, at);
  await file.close();
  const map = await mapSparse(path);
  for (const keep of [64 << 20, 0]) {
    await using template = await SparseTemplate.open(path, map, keep);
    const copy = `${path}.${keep}`;
    await template.copyTo(copy);
    assert.equal((await mapSparse(copy)).sha256, map.sha256);
    assert.ok((await allocatedBytes(copy)) < 2 * (await allocatedBytes(path)) + (1 << 20));
  }
});
