import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { arm, disarm } from "../../test/faults/points.ts";
import { exists } from "../host/exists.ts";
import { removeMachineDir } from "./machine-dir.ts";

test("a removal that fails for a moment is made all the same; one that goes on failing says so", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "machine-dir-"));
  t.after(() => rm(root, { recursive: true }));
  t.after(() => disarm());
  const dir = join(root, "sb-1");
  await mkdir(dir);
  await writeFile(join(dir, "file"), "");
  arm("fs.remove", 1, "lasting");
  await assert.rejects(removeMachineDir(dir), { code: "EIO" });
  arm("fs.remove", 1);
  await removeMachineDir(dir);
  disarm();
  assert.equal(await exists(dir), false);
});
