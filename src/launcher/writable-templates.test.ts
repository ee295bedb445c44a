import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { WritableTemplates } from "./writable-templates.ts";

test("two launchers of one process make the same template at the same time, and neither takes the other's away", async (t) => {
  const assets = await mkdtemp(join(tmpdir(), "templates-"));
  t.after(() => rm(assets, { recursive: true, force: true }));
  const made = [new WritableTemplates(assets), new WritableTemplates(assets)].map((templates) => templates.get(16));
  for (const template of await Promise.all(made)) {
    const copy = join(assets, "copy");
    await template.copyTo(copy);
    await rm(copy);
  }
  const left = await readdir(join(assets, "writable"));
  assert.equal(left.length, 1, left.join());
});
