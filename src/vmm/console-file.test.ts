import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CONSOLE_BOUNDS } from "../host/bounds.ts";
import { tailLines } from "../host/tail.ts";
import { dropBeginning, shorten } from "./console-file.ts";

test("a console that grows keeps its last part, and its writer goes on behind it", async () => {
  const dir = await mkdtemp(join(tmpdir(), "console-"));
  try {
    const path = join(dir, "console.log");
    await using writer = await open(path, "a");
    await writer.write("small\n");
    await shorten(path);
    assert.equal(await readFile(path, "utf8"), "small\n");
    for (let i = 0; i < 3; i++) {
      await writer.write(Buffer.alloc(CONSOLE_BOUNDS.mostBytes, "x"));
      await writer.write(`line ${i}\n`);
      await shorten(path);
      await writer.write("later\n");
      const { size, blocks } = await stat(path);
      assert.ok(size <= CONSOLE_BOUNDS.keptBytes + 100, `${size} bytes`);
      assert.ok(blocks * 512 <= 2 * CONSOLE_BOUNDS.keptBytes);
      assert.ok((await readFile(path, "utf8")).endsWith(`line ${i}\nlater\n`));
    }
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("a log whose writer has a position of its own keeps its last part, and takes no more room", async () => {
  const dir = await mkdtemp(join(tmpdir(), "log-"));
  try {
    const path = join(dir, "vmm.log");
    await using writer = await open(path, "w");
    for (let i = 0; i < 3; i++) {
      await writer.write(Buffer.alloc(CONSOLE_BOUNDS.mostBytes, "x"));
      await writer.write(`\nline ${i}\n`);
      await dropBeginning(path);
      await writer.write("later\n");
      const { blocks } = await stat(path);
      assert.ok(blocks * 512 <= 2 * CONSOLE_BOUNDS.keptBytes, `${blocks * 512} bytes`);
      assert.deepEqual(await tailLines(path, 2), [`line ${i}`, "later"]);
    }
  } finally {
    await rm(dir, { recursive: true });
  }
});
