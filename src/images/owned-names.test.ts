/** Names of images are their owner's; the content is nobody's. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataPaths } from "../host/paths.ts";
import { removeImage } from "./care.ts";
import { createImages } from "./store.ts";

const NOT_FOUND = { code: "not-found" };

test("an imported image exists for its owner alone, unless it is shared", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "owned-"));
  t.after(() => rm(dir, { recursive: true }));
  const tree = async (name: string): Promise<string> => {
    await mkdir(join(dir, name));
    await writeFile(join(dir, name, "file"), name);
    return join(dir, name);
  };
  const [hers, common] = [await tree("hers"), await tree("common")];
  const operator = createImages(dataPaths(join(dir, "data")), { offline: true });
  const [alice, bob] = [operator.of({ name: "alice" }), operator.of({ name: "bob" })];
  const never = { pull: "never" as const };
  const names = async (images: typeof alice): Promise<string[]> =>
    (await images.list()).map(({ reference, owner }) => `${owner ?? "-"} ${reference}`);

  const secret = await alice.import(hers, "secret:1");
  assert.equal(secret.owner, "alice");
  const NAME = "docker.io/library/secret:1";
  assert.deepEqual(await names(alice), [`alice ${NAME}`]);
  assert.deepEqual([await names(bob), await names(operator)], [[], [`alice ${NAME}`]]);
  assert.equal((await alice.resolve("secret:1", never)).digest, secret.digest);
  for (const other of [bob, operator.of({ name: "bob", everything: true })]) {
    await assert.rejects(other.resolve("secret:1", never), NOT_FOUND);
    await assert.rejects(other.inspect("secret:1"), NOT_FOUND);
    await assert.rejects(other.tag("secret:1", "mine:1"), NOT_FOUND);
    await assert.rejects(other.remove("secret:1"), NOT_FOUND);
  }
  for (const way of ["inspect", "resolve", "remove"] as const) await assert.rejects(bob[way](secret.digest), NOT_FOUND);
  await assert.rejects(operator.resolve("secret:1", never), NOT_FOUND, "the operator's names are everybody's");

  // The same name is each owner's own, and goes before everybody's.
  const shared = await operator.of({ name: "alice", shares: true }).import(common, "secret:1");
  assert.equal(shared.owner, undefined);
  assert.equal((await bob.resolve("secret:1", never)).digest, shared.digest);
  assert.equal((await alice.resolve("secret:1", never)).digest, secret.digest);
  assert.equal((await alice.resolve("secret:1", { pull: "always" })).digest, secret.digest);
  const his = await bob.tag("secret:1", "copy:1");
  assert.deepEqual([his.owner, his.digest], ["bob", shared.digest]);

  // The same content under two owners' names: one's end is not the other's, nor that of what was made from it.
  assert.equal((await bob.import(hers, "guess:1")).digest, secret.digest);
  assert.deepEqual((await bob.inspect(secret.digest)).references, ["docker.io/library/guess:1"]);
  const dropped: string[] = [];
  const users = {
    imageUse: async () => ({ needed: new Set<string>(), golden: [{ key: "k", digest: secret.digest }] }),
    removeSnapshot: async (key: string) => void dropped.push(key),
  };
  await removeImage(alice, [users], "secret:1");
  assert.equal((await alice.resolve("secret:1", never)).digest, shared.digest, "everybody's is in sight again");
  assert.equal((await bob.resolve("guess:1", never)).digest, secret.digest);
  assert.deepEqual(dropped, []);
  await removeImage(bob, [users], secret.digest);
  assert.equal(await operator.has(secret.digest), false);
  assert.deepEqual(dropped, ["k"]);
});
