import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Room, writeSparse } from "./sparse-copy.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "sparse-copy-"));
});
after(() => rm(dir, { recursive: true, force: true }));

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test("what comes is what is there, whatever pieces it comes in; zeros take no room", async () => {
  const content = Buffer.alloc(300_000);
  for (const at of [0, 5_000, 12_288, 200_000]) content.write("data", at);
  for (const bytes of [content, content.subarray(0, 4_096), content.subarray(1, 8_193), Buffer.alloc(0)]) {
    for (const size of [1_000, 4_096, 65_536, 300_000]) {
      const path = join(dir, `file-${bytes.length}-${size}`);
      await using file = await open(path, "wx");
      await writeSparse(file, pieces(bytes, size), Room.on(Buffer.from(dir)));
      assert.ok((await readFile(path)).equals(bytes), `${bytes.length} in ${size}`);
    }
  }
  const holes = join(dir, "holes");
  await using file = await open(holes, "wx");
  async function* zeros(): AsyncGenerator<Buffer> {
    const piece = Buffer.alloc(1 << 20);
    for (let i = 0; i < 64; i++) yield piece;
  }
  await writeSparse(file, zeros(), Room.on(Buffer.from(dir)));
  const { size, blocks } = await stat(holes);
  assert.equal(size, 64 << 20);
  assert.ok(blocks * 512 < 1 << 20, `${blocks} blocks`);
});

test("a disk is not filled to its end, also by files that others write meanwhile", async () => {
  const path = join(dir, "full");
  await using file = await open(path, "wx");
  const data = Buffer.alloc(200 << 20, 1);
  let asked = 0;
  const room = new Room(async () => (asked++ === 0 ? 2 ** 40 : 1_000));
  await assert.rejects(writeSparse(file, pieces(data, 1 << 20), room), { code: "limit", message: /fill the disk/ });
  assert.ok((await stat(path)).size <= 64 << 20);
  await assert.rejects(Room.on(Buffer.from(dir)).take(2 ** 60), { code: "limit" });
});
