import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CONSOLE_BOUNDS } from "../host/bounds.ts";
import { tailLines } from "../host/tail.ts";
import { dropBeginning, lastWords, shorten } from "./console-file.ts";

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

test("the report of a kernel that died begins with the cause, however long its trace is; of others it is the end", async () => {
  const dir = await mkdtemp(join(tmpdir(), "console-"));
  try {
    const path = join(dir, "console.log");
    const lines = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${name} ${i}`);
    const ends = async (...all: string[][]): Promise<string[]> => {
      await writeFile(path, all.flat().join("\n"));
      return lastWords(path);
    };
    const oops = "[   12.1] BUG: kernel NULL pointer dereference, address: 0000000000000008";
    const panic = "[   12.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009";
    const told = await ends(lines("before", 100), [oops], lines("trace", 60), [panic], lines("register", 30));
    assert.equal(told.length, 20);
    assert.deepEqual([told[0], told[1], told.at(-1)], [oops, "trace 0", "register 29"]);
    assert.deepEqual(await ends(lines("before", 100)), lines("before", 100).slice(-20));
    const short = await ends(lines("before", 30), [panic], lines("register", 5));
    assert.deepEqual(short, [...lines("before", 30).slice(-14), panic, ...lines("register", 5)]);
    assert.deepEqual(await lastWords(join(dir, "none")), []);
  } finally {
    await rm(dir, { recursive: true });
  }
});
