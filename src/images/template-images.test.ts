import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { dataPaths } from "../host/paths.ts";
import { collectImages } from "./care.ts";
import type { ImageLibrary } from "./image.ts";
import { createImages } from "./store.ts";
import { TemplateImages, templateImage } from "./template-images.ts";

const NAME = templateImage("t", "b1");

test("a template's image that is not here needs nothing; one that cannot be looked at ends the question", async () => {
  const failing = (error: Error): TemplateImages => {
    const images = { of: () => ({ inspect: () => Promise.reject(error) }) } as unknown as ImageLibrary;
    return new TemplateImages(images, () => [{ owner: "alice", image: NAME }]);
  };
  const gone = await failing(new StacyError("not-found", "it is not here")).imageUse();
  assert.deepEqual([gone.needed.size, gone.templates?.size], [0, 0]);
  for (const error of [new StacyError("corrupt", "refs.json is damaged"), new Error("EMFILE")]) {
    await assert.rejects(failing(error).imageUse(), error);
  }
});

test("a round of collection that cannot read an image changes nothing, and the next one keeps it", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "template-images-"));
  t.after(() => rm(dir, { recursive: true }));
  await mkdir(join(dir, "tree"));
  await writeFile(join(dir, "tree", "file"), "x");
  const images = createImages(dataPaths(join(dir, "data")), { offline: true });
  const made = await images.of({ name: "alice", templates: true }).import(join(dir, "tree"), NAME);
  const users = [new TemplateImages(images, () => [{ owner: "alice", image: NAME }])];
  const record = join(dirname(made.base), "image.json");
  await rename(record, join(dir, "aside"));
  await mkdir(record); // it can be opened, and not be read
  await assert.rejects(collectImages(images, users), { code: "EISDIR" });
  await assert.rejects(images.collect(), { code: "EISDIR" });
  await rm(record, { recursive: true });
  await rename(join(dir, "aside"), record);
  assert.deepEqual((await collectImages(images, users)).images, []);
  assert.equal((await images.of({ name: "alice" }).resolve(NAME)).digest, made.digest);
});
