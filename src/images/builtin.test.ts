/** When a built-in image is made again. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataPaths } from "../host/paths.ts";
import { builtinDigest, type Recipe, recipeDigest } from "./builtin.ts";
import { createImages } from "./store.ts";

test("a recipe that changes in any part is another one", () => {
  const recipe: Recipe = {
    set: { variant: "minbase", packages: ["python3"] },
    config: { env: ["A=1"], cwd: "/root", entrypoint: [], cmd: ["sh"], labels: {}, exposedPorts: [] },
    makes: { user: true },
  };
  const changed: Recipe[] = [
    { ...recipe, set: { ...recipe.set, packages: ["python3", "git"] } },
    { ...recipe, set: { ...recipe.set, variant: "extract" } },
    { ...recipe, config: { ...recipe.config, cwd: "/home/user" } },
    { ...recipe, makes: {} },
    { ...recipe, makes: { user: true, directory: "workspace" } },
    { ...recipe, makes: "busybox" },
  ];
  assert.equal(new Set([recipe, structuredClone(recipe), ...changed].map(recipeDigest)).size, changed.length + 1);
});

test("an image that another recipe made is not there any more: it is made again, and not told as present", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "builtin-"));
  t.after(() => rm(dir, { recursive: true }));
  const paths = dataPaths(dir);
  const images = createImages(paths, { offline: true });
  const source = join(dir, "tree");
  await mkdir(source);
  const { digest } = await images.import(source, "any:1");
  const refs = join(paths.images, "refs.json");
  const table = await readFile(refs, "utf8");
  const known = async (key: string): Promise<string | undefined> => {
    await writeFile(refs, table.replace("docker.io/library/any:1", key));
    return (await images.resolve("stacyvm/base", { pull: "never" }).catch(() => undefined))?.digest;
  };
  assert.equal(await known(`stacyvm/base@recipe${builtinDigest("stacyvm/base")}`), digest);
  for (const older of ["1", "0123456789abcdef"]) {
    assert.equal(await known(`stacyvm/base@recipe${older}`), undefined);
    assert.deepEqual(
      (await images.list()).flatMap(({ reference }) => reference ?? []),
      [],
    );
  }
});
