import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { PACKAGE, pythonFiles } from "./generate-python.ts";
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

/** What is said otherwise in Python, or is not for it. */
const OTHERWISE: Record<string, string[]> = {
  // The connection itself; in Python it is private.
  client: ["transport"],
  // `Client.get` and `Client.list`.
  sandbox: ["connect", "list"],
  // A promise; in Python `wait()` is what one waits for.
  process: ["exited"],
  files: [],
};

test("the Python package has everything that the TypeScript SDK has, by the same names", async () => {
  const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  for (const [module, otherwise] of Object.entries(OTHERWISE)) {
    const typescript = await readFile(join(packageRoot, "sdk", "src", `${module}.ts`), "utf8");
    const python = await readFile(join(PACKAGE, "_async", `${module}.py`), "utf8");
    // Members of the class that the module is about: two blanks before them, and `private` and `#` are not for users.
    const [, body = ""] = typescript.split(/^export class \w+[^\n]*$/m);
    const [members = ""] = body.split(/^}/m);
    const names = [...members.matchAll(/^ {2}(?:static |async |readonly |get |\*)*([a-z]\w*)(?:\(|<| = \{|: )/gm)]
      .map(([, name = ""]) => name)
      .filter((name) => name !== "constructor" && !otherwise.includes(name));
    assert.ok(names.length > 8, module);
    for (const name of names) {
      assert.match(
        python,
        new RegExp(`(?:def |self\\.)${snake(name)}\\b`),
        `${module}.ts has ${name}, ${module}.py has no ${snake(name)}`,
      );
    }
    for (const [, group = "", inside = ""] of members.matchAll(/^ {2}readonly (\w+) = \{\n(.*?)^ {2}\};/gms)) {
      const [, class_ = ""] = new RegExp(`self\\.${group} = (\\w+)\\(`).exec(python) ?? [];
      const own = python.split(new RegExp(`^class ${class_}\\b`, "m"))[1]?.split(/^class /m)[0] ?? "";
      for (const [, name = ""] of inside.matchAll(/^ {4}(\w+): (?:async )?\(/gm)) {
        assert.match(own, new RegExp(`def ${snake(name)}\\b`), `client.${group}.${name}`);
      }
    }
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
