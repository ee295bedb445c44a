import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runTool } from "../host/run.ts";
import { allocatedBytes } from "../host/sparse.ts";
import { createWritableLayer } from "./writable.ts";

test("a writable layer has the size that was asked for, and occupies next to nothing of it", async () => {
  const dir = await mkdtemp(join(tmpdir(), "writable-"));
  try {
    for (const [sizeMiB, mostBytes] of [
      [64, 256 << 10],
      [1024, 256 << 10],
      [64 * 1024, 1 << 20],
    ] as const) {
      const path = join(dir, `${sizeMiB}`);
      await createWritableLayer(path, sizeMiB);
      const again = join(dir, "again");
      if (sizeMiB === 1024) {
        await createWritableLayer(again, sizeMiB);
        await runTool("cmp", [path, again]);
      }
      assert.equal((await stat(path)).size, sizeMiB * 2 ** 20);
      const occupied = await allocatedBytes(path);
      assert.ok(occupied <= mostBytes, `${sizeMiB} MiB occupy ${occupied} bytes`);
      const said = (await runTool("dumpe2fs", ["-h", path], { package: "e2fsprogs" })).toString();
      const count = (name: string) => Number(new RegExp(`^${name} count: +(\\d+)`, "m").exec(said)?.[1]);
      assert.ok(count("Inode") >= count("Block"), "files end before blocks do");
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
