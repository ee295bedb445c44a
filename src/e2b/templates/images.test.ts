/** Images of templates, in a real store. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { dataPaths } from "../../host/paths.ts";
import { createImages } from "../../images/store.ts";
import { TemplateImages, templateImage } from "../../images/template-images.ts";
import type { View } from "../../sandboxes/view.ts";
import { sourceOf } from "../control/templates.ts";
import type { E2bParts } from "../parts.ts";
import { letGo } from "./images.ts";

test("a template's image is its owner's, has a name that only a build gives, and goes with the last template that names it", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "template-images-"));
  t.after(() => rm(dir, { recursive: true }));
  await mkdir(join(dir, "tree"));
  await writeFile(join(dir, "tree", "file"), "x");
  const allow = ["docker.io/library/**"];
  const images = createImages(dataPaths(join(dir, "data")), { offline: true, policy: { allow } });
  const [alice, bob] = [images.of({ name: "alice" }), images.of({ name: "bob" })];
  const name = templateImage("t", "b1");
  await assert.rejects(alice.import(join(dir, "tree"), name), { code: "permission" });
  await assert.rejects(images.of({ name: "alice", templates: true }).import(join(dir, "tree"), "e2b/t:b1"), {
    code: "permission",
  });
  const made = await images.of({ name: "alice", templates: true }).import(join(dir, "tree"), name);
  assert.deepEqual([made.reference, made.owner], [name, "alice"]);
  assert.equal((await alice.resolve(name)).digest, made.digest, "what it was made from was allowed");
  await assert.rejects(bob.resolve(name), { code: "not-found" });
  await assert.rejects(alice.tag(name, templateImage("t", "b2")), { code: "invalid" });

  const templates = [
    { owner: "alice", name: "t", image: name },
    { owner: "alice", name: "t:v1", image: name },
  ];
  const view = { owner: "alice", templates: { list: () => templates } } as unknown as View;
  const used = new Set<string>();
  const machines = { imageUse: async () => ({ needed: used, golden: [] }), removeSnapshot: async () => {} };
  const imageUsers = [machines, new TemplateImages(images, () => templates)];
  const stop = new AbortController();
  t.after(() => stop.abort());
  const parts = { images, imageUsers, stopping: stop.signal } as unknown as E2bParts;
  templates.pop();
  await letGo(parts, view, [name]);
  assert.equal(await images.has(made.digest), true, "one names it");
  templates.pop();
  used.add(made.digest);
  const { tried } = await letGo(parts, view, [name, name]);
  assert.equal(await images.has(made.digest), true, "a sandbox runs from it");
  used.clear();
  await letGo(parts, view, ["stacyvm/base"]);
  const alive = setInterval(() => {}, 1_000); // what is tried again keeps no process alive
  await tried;
  clearInterval(alive);
  assert.equal(await images.has(made.digest), false);
});

test("what one owner lets go is not the end of another's: the same bytes are the same golden snapshot, with its warm machines", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "template-images-"));
  t.after(() => rm(dir, { recursive: true }));
  await mkdir(join(dir, "tree"));
  await writeFile(join(dir, "tree", "file"), "x");
  const images = createImages(dataPaths(join(dir, "data")), { offline: true });
  const make = async (owner: string): Promise<{ name: string; digest: string }> => {
    const name = templateImage(`of${owner}`, "b1");
    const { digest } = await images.of({ name: owner, templates: true }).import(join(dir, "tree"), name);
    return { name, digest };
  };
  const [hers, his] = [await make("alice"), await make("bob")];
  assert.equal(hers.digest, his.digest);
  const snapshots = new Set(["k"]);
  const machines = {
    imageUse: async () => ({
      needed: new Set<string>(),
      golden: [...snapshots].map((key) => ({ key, digest: his.digest })),
    }),
    removeSnapshot: async (key: string) => void snapshots.delete(key),
  };
  const stop = new AbortController();
  t.after(() => stop.abort());
  const parts = { images, imageUsers: [machines], stopping: stop.signal } as unknown as E2bParts;
  const view = (owner: string) => ({ owner, templates: { list: () => [] } }) as unknown as View;
  await letGo(parts, view("alice"), [hers.name]);
  await assert.rejects(images.of({ name: "alice" }).resolve(hers.name, { pull: "never" }), { code: "not-found" });
  assert.equal(snapshots.size, 1);
  assert.equal((await images.of({ name: "bob" }).resolve(his.name)).digest, his.digest);
  await letGo(parts, view("bob"), [his.name]);
  assert.equal(snapshots.size, 0);
  assert.equal(await images.has(his.digest), false);
});

test("a name without a slash is a template's and never an image's", () => {
  const view = { templates: { list: () => [], get: () => unknown() }, checkpoints: { list: () => [] } };
  const source = (name: string) => sourceOf(name, view as unknown as View);
  assert.throws(() => source("node:20"), { code: "not-found" });
  assert.deepEqual(source("library/node:20"), { image: "library/node:20" });
});

function unknown(): never {
  throw new StacyError("not-found", "there is none");
}
