import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { DOCUMENTS } from "./generate-docs.ts";

for (const [path, make] of Object.entries(DOCUMENTS)) {
  test(`${path} is that of the program; else run \`node scripts/generate-docs.ts\``, async () => {
    assert.equal(await readFile(join(packageRoot, path), "utf8"), await make());
  });
}
