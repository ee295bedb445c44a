import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { tailLines } from "./tail.ts";

test("the last lines of a file; of one that cannot be read none, and nothing rejects", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "tail-"));
  t.after(() => rm(root, { recursive: true }));
  const path = join(root, "log");
  await writeFile(path, "a\r\nb\n\nc\n");
  assert.deepEqual(await tailLines(path, 2), ["b", "c"]);
  assert.deepEqual(await tailLines(join(root, "none"), 2), []);
  // A directory opens as a broken disk's file does, and fails when it is read.
  assert.deepEqual(await tailLines(root, 2), []);
});
