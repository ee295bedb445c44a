import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { pythonFiles } from "./generate-python.ts";
import { GENERATED, generate } from "./generate-sdk.ts";
import { openApiDocument } from "./openapi.ts";

test("the SDK's types are those of the server's schemas", async () => {
  assert.equal(
    await readFile(GENERATED, "utf8"),
    await generate(await openApiDocument()),
    "run `node scripts/generate-sdk.ts`",
  );
});

test("the made parts of the Python package are up to date", async () => {
  for (const [path, text] of await pythonFiles(await openApiDocument())) {
    assert.ok((await readFile(path, "utf8")) === text, `${path} is out of date: run \`node scripts/generate-sdk.ts\``);
  }
});

test("the SDK depends on nothing: no package, no module of Node", async () => {
  const dir = join(packageRoot, "sdk", "src");
  for (const name of await readdir(dir)) {
    if (name.endsWith(".test.ts")) continue;
    const text = await readFile(join(dir, name), "utf8");
    for (const [, from] of text.matchAll(/from "([^"]+)"/g))
      assert.ok(from?.startsWith("./"), `${name} imports ${from}`);
  }
  const manifest = JSON.parse(await readFile(join(packageRoot, "sdk", "package.json"), "utf8"));
  assert.equal(manifest.dependencies, undefined);
});
