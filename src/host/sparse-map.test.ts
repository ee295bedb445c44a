import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, open, readFile, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import { DISK_BOUNDS } from "./bounds.ts";
import { BLOCK, type Extent } from "./extents.ts";
import { runTool } from "./run.ts";
import { mapSparse } from "./sparse-map.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "stacyvm-sparse-"));
});
after(() => rm(dir, { recursive: true, force: true }));

async function fileOf(name: string, size: number, extents: Iterable<Extent>, fill = 7): Promise<string> {
  const path = join(dir, name);
  const file = await open(path, "w");
  await file.truncate(size);
  for (const { start, length } of extents) await file.write(Buffer.alloc(length, fill), 0, length, start);
  await file.close();
  return path;
}

/** What earlier versions took as the checksum too: saved machines of theirs are compared with it. */
async function checksum(path: string, extents: Iterable<Extent>): Promise<string> {
  const bytes = await readFile(path);
  const hash = createHash("sha256");
  for (const { start, length } of extents) {
    hash.update(`${start}:${length}\n`);
    hash.update(bytes.subarray(start, start + length));
  }
  return hash.digest("hex");
}

function* every(stride: number, count: number): Generator<Extent> {
  for (let i = 0; i < count; i++) yield { start: i * stride, length: BLOCK };
}

test("the map names data and not zeros, however they are stored", async () => {
  const end = (64 << 20) - BLOCK;
  const path = await fileOf("zeros", 64 << 20, [{ start: 0, length: 8192 }]);
  const file = await open(path, "r+");
  await file.write(Buffer.alloc(BLOCK), 0, BLOCK, 16 << 20);
  await file.write(Buffer.from("end"), 0, 3, (64 << 20) - 3);
  await file.close();
  const map = await mapSparse(path);
  assert.equal(map.size, 64 << 20);
  assert.deepEqual(map.extents, [
    { start: 0, length: 8192 },
    { start: end, length: BLOCK },
  ]);
  assert.equal(map.sha256, await checksum(path, map.extents));
});

test("a run is one, however it is read", async () => {
  // Longer than what is read at a time, across its edges, and up to the end of a file that is not of whole blocks.
  const runs = [
    { start: BLOCK, length: 3 * DISK_BOUNDS.turnBytes },
    { start: 4 * DISK_BOUNDS.turnBytes - BLOCK, length: 2 * BLOCK },
    { start: 8 * DISK_BOUNDS.turnBytes, length: BLOCK + 100 },
  ];
  const path = await fileOf("runs", 8 * DISK_BOUNDS.turnBytes + BLOCK + 100, runs);
  const map = await mapSparse(path);
  assert.deepEqual(map.extents, runs);
  assert.equal(map.sha256, await checksum(path, runs));
});

test("a flipped byte, also in a hole, changes the map", async () => {
  const path = await fileOf("flipped", 64 << 20, every(1 << 20, 8));
  const before = await mapSparse(path);
  const file = await open(path, "r+");
  await file.write(Buffer.from("x"), 0, 1, 32 << 20);
  await file.close();
  assert.notEqual((await mapSparse(path)).sha256, before.sha256);
});

test("a file without data, and one without bytes", async () => {
  for (const size of [0, 64 << 20]) {
    const map = await mapSparse(await fileOf(`empty-${size}`, size, []));
    assert.deepEqual(map, { size, extents: [], sha256: createHash("sha256").digest("hex") });
  }
});

test("a scattered file has few extents, in which all its data lies, and the checksum of its runs", async () => {
  const count = 3_000;
  for (const stride of [2 * BLOCK, 5 * BLOCK]) {
    const path = await fileOf("scattered", stride * count, every(stride, count));
    const turnsOf = countTurns();
    const map = await mapSparse(path);
    // Others have their turn as often as there is something to hash, and not once for each extent or once in all.
    const turns = turnsOf();
    assert.ok(turns > (count * BLOCK) / DISK_BOUNDS.turnBytes, `${turns} turns`);
    assert.ok(map.extents.length <= DISK_BOUNDS.extents, `${map.extents.length} extents`);
    assert.equal(map.sha256, await checksum(path, every(stride, count)));
    let at = 0;
    for (const { start } of every(stride, count)) {
      while ((map.extents[at]?.start ?? Number.POSITIVE_INFINITY) + (map.extents[at]?.length ?? 0) <= start) at += 1;
      const extent = map.extents[at];
      assert.ok(extent !== undefined && extent.start <= start && start + BLOCK <= extent.start + extent.length);
    }
  }
});

test("without descriptors for the program that asks the filesystem, the whole file is read", async () => {
  const path = await fileOf("short", 4 << 20, every(1 << 20, 3));
  const told = await mapSparse(path);
  // In a process of its own, whose limit leaves room for the file and not for a program with its pipes.
  const script = `
    import { open } from "node:fs/promises";
    import { mapSparse } from ${JSON.stringify(join(import.meta.dirname, "sparse-map.ts"))};
    const file = process.argv[1];
    const held = [];
    try { for (;;) held.push(await open(file)); } catch {}
    await held.pop().close();
    await held.pop().close();
    process.stdout.write(JSON.stringify(await mapSparse(file)));
  `;
  const args = ["--nofile=64:64", process.execPath, "--input-type=module", "-e", script, path];
  assert.deepEqual(JSON.parse((await runTool("prlimit", args)).toString()), told);
});

test("what the filesystem does not tell is read", async (t) => {
  const path = await fileOf("untold", 4 << 20, every(1 << 20, 3));
  const told = await mapSparse(path);
  const { PATH } = process.env;
  t.after(() => {
    process.env.PATH = PATH;
  });
  process.env.PATH = dir; // no filefrag there
  assert.deepEqual(await mapSparse(path), told);
  // One that ends in the middle of its work has said what it had seen until then.
  const half = join(dir, "filefrag");
  const file = await open(half, "w", 0o755);
  await file.write(
    "#!/bin/sh\necho 'File size of x is 4194304 (1024 blocks of 4096 bytes)'\necho '   0:        0..       0:'\nexit 1\n",
  );
  await file.close();
  assert.deepEqual(await mapSparse(path), told);
});

test("a file that is cut has another checksum", async () => {
  const path = await fileOf("cut", 1 << 20, every(2 * BLOCK, 100));
  const before = await mapSparse(path);
  await truncate(path, 50 * BLOCK);
  const after = await mapSparse(path);
  assert.notEqual(after.sha256, before.sha256);
  assert.equal(after.size, 50 * BLOCK);
});
