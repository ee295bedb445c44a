import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { arm, disarm, type Kind } from "../../test/faults/points.ts";
import { replaceFile } from "./durable.ts";

test("whatever call fails: the file has the old content or the new one, nothing else is left, and again succeeds", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "durable-"));
  t.after(() => rm(dir, { recursive: true }));
  const path = join(dir, "file");
  let points = 0;
  for (const kind of ["fs.open", "fs.write", "fs.sync", "fs.rename"] satisfies Kind[]) {
    for (let at = 1; ; at++) {
      await writeFile(path, "old");
      arm(kind, at);
      const [result] = await Promise.allSettled([replaceFile(path, "new")]);
      if (!disarm().reached) break;
      points += 1;
      const content = await readFile(path, "utf8");
      assert.equal(result?.status, "rejected", `${kind} ${at}: nobody may believe that it is on disk`);
      assert.ok(["old", "new"].includes(content), `${kind} ${at}: ${content}`);
      assert.deepEqual(await readdir(dir), ["file"], `${kind} ${at}`);
      await replaceFile(path, "new");
      assert.equal(await readFile(path, "utf8"), "new");
    }
  }
  assert.ok(points >= 5, `${points} points`);
});
