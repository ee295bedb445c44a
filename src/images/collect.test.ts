import assert from "node:assert/strict";
import { test } from "node:test";
import type { Base } from "./bases.ts";
import type { StoredBuild } from "./builds.ts";
import { planCollection } from "./collect.ts";
import { plainConfig } from "./content.ts";
import { writeKey } from "./ref-names.ts";

const NOW = 10_000_000;
const digest = (letter: string): string => `sha256:${letter.repeat(64)}`;
const base = (letter: string, usedAt: number): Base => ({
  digest: digest(letter),
  base: "",
  filesystem: "erofs",
  sizeBytes: 100,
  config: plainConfig(),
  createdAt: 0,
  blobs: [],
  usedAt,
});
const build = (key: string, from: string, usedAt: number, image?: string): StoredBuild => ({
  key,
  base: digest(from),
  sizeBytes: 10,
  usedAt,
  ...(image === undefined ? {} : { image: digest(image) }),
});
const state = {
  bases: [base("a", 1), base("b", 2), base("c", 3)],
  refs: { one: { digest: digest("a"), at: 0 }, two: { digest: digest("b"), at: 0 } },
  blobs: [{ digest: digest("f"), sizeBytes: 50, usedAt: 5 }],
  builds: [
    build("step", "a", 9),
    build("whole", "a", 4, "b"),
    build("result-gone", "a", 4, "c"),
    build("base-gone", "c", 4),
    build("recent", "c", NOW),
  ],
  now: NOW,
};

test("what builds remember goes with the images that it needs, and not before", () => {
  const plan = planCollection(state, {});
  assert.deepEqual(plan.images, [digest("c")]);
  assert.deepEqual(plan.blobs, [digest("f")]);
  assert.deepEqual(plan.builds, ["result-gone", "base-gone"]);
  assert.deepEqual([plan.freed, plan.kept], [170, 230]);
});

test("what an older recipe made of a built-in image goes, unless something runs from it", () => {
  const refs = {
    [writeKey({ name: "stacyvm/base" })]: { digest: digest("a"), at: 0 },
    "stacyvm/base@recipe1": { digest: digest("b"), at: 0 },
    "stacyvm/python@recipe1": { digest: digest("c"), at: 0 },
  };
  const plan = planCollection({ ...state, refs, builds: [] }, { inUse: (each) => each === digest("c") });
  assert.deepEqual([plan.images, plan.refs], [[digest("b")], ["stacyvm/base@recipe1", "stacyvm/python@recipe1"]]);
});

test("an image of a template goes with the last template that names it, and stays where nobody knows the templates", () => {
  const HOUR = 3_600_000;
  const name = (build: string): string => `owner=alice stacyvm/template/t:${build}`;
  const now = 10 * HOUR;
  const templates = {
    ...{ bases: ["a", "b", "c", "d", "e"].map((letter) => base(letter, 1)), blobs: [], builds: [], now },
    refs: {
      [name("named")]: { digest: digest("a"), at: 0 },
      [name("forgotten")]: { digest: digest("b"), at: 0 },
      [name("building")]: { digest: digest("c"), at: now - HOUR },
      [name("running")]: { digest: digest("d"), at: 0 },
      [name("tagged")]: { digest: digest("e"), at: 0 },
      other: { digest: digest("e"), at: 0 },
    },
  };
  const known = { templates: new Set([digest("a")]), inUse: (each: string) => each === digest("d") };
  const plan = planCollection(templates, known);
  assert.deepEqual([plan.images, plan.refs], [[digest("b")], [name("forgotten"), name("tagged")]]);
  // Not for want of room either: no registry has it.
  assert.deepEqual(planCollection(templates, { ...known, maxBytes: 0 }).images, [digest("b"), digest("e")]);
  const unknown = planCollection(templates, { maxBytes: 0 });
  assert.deepEqual([unknown.images, unknown.refs], [[], []]);
});

test("what a stage of a build left stays while it can be made again, also from another stage", () => {
  const stages: StoredBuild[] = [
    { ...build("stage", "a", 4, "d"), stage: true },
    { ...build("on-stage", "d", 4, "e"), stage: true },
    { key: "of-nothing", image: digest("9"), sizeBytes: 10, usedAt: 4, stage: true },
    build("on-nothing", "9", 4),
    { ...build("lost", "c", 4, "8"), stage: true },
  ];
  assert.deepEqual(planCollection({ ...state, builds: stages }, {}).builds, ["lost"]);
});

test("under a limit builds go before images that have a name, the oldest first, and nothing in use", () => {
  const some = planCollection(state, { maxBytes: 225 });
  assert.deepEqual(some.builds, ["result-gone", "base-gone", "whole"]);
  assert.deepEqual(some.images, [digest("c")]);
  const all = planCollection(state, { maxBytes: 0, inUse: (one) => one === digest("a") });
  assert.deepEqual(all.images, [digest("c"), digest("b")]);
  assert.equal(all.kept, 100);
});
