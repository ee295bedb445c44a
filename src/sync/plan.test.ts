import assert from "node:assert/strict";
import { test } from "node:test";
import { planOf } from "./plan.ts";
import type { Agreement, Entry, Tree } from "./tree.ts";

/** `a=1` is a file with content 1, `d/` a directory, `l>x` a link. */
function tree(words: string): Tree {
  const all: Tree = new Map();
  for (const word of words.split(" ").filter(Boolean)) {
    const [, path = "", kind, content = ""] = /^(.*?)([=/>])(\w*)$/.exec(word) ?? [];
    const plain: Entry = { kind: "file", mode: 0o644, size: content.length, mtimeUs: 1, hash: content };
    if (kind === "/") all.set(path, { kind: "directory", mode: 0o755, size: 0, mtimeUs: 0 });
    else if (kind === ">") all.set(path, { kind: "link", mode: 0, size: 0, mtimeUs: 0, target: content });
    else all.set(path, plain);
  }
  return all;
}

function plan(last: string, here: string, there: string): Record<string, string> {
  const base: Agreement = new Map();
  for (const [path, entry] of tree(last)) base.set(path, { ...entry, hereUs: 1, thereUs: 1 });
  const found = planOf(tree(here), tree(there), base);
  return Object.fromEntries(
    Object.entries(found)
      .filter(([what, list]) => list.length > 0 && what !== "agreed")
      .map(([what, list]) => [what, list.join(" ")]),
  );
}

test("what one side has changed goes to the other, and what is gone there goes", () => {
  assert.deepEqual(plan("a=1", "a=1", "a=1"), {});
  assert.deepEqual(plan("a=1 b=1", "a=2 b=1", "a=1 b=2"), { toThere: "a", toHere: "b" });
  assert.deepEqual(plan("", "a=1", "b=1"), { toThere: "a", toHere: "b" });
  assert.deepEqual(plan("a=1 b=1", "b=1", "a=1"), { removeThere: "a", removeHere: "b" });
  assert.deepEqual(plan("a=1", "", ""), { forgotten: "a" });
  assert.deepEqual(plan("l>x", "l>y", "l>x"), { toThere: "l" });
});

test("what both have changed is a conflict if it differs, and none if it does not", () => {
  assert.deepEqual(plan("a=1", "a=2", "a=3"), { conflicts: "a" });
  assert.deepEqual(plan("a=1", "a=2", "a=2"), {});
  assert.deepEqual(plan("", "a=1", "a=2"), { conflicts: "a" });
  assert.deepEqual(plan("", "a=1", "a/ a/b=1 a/c=1"), { conflicts: "a", toHere: "a/b a/c" });
  assert.deepEqual(plan("a=1", "a>x", "a=2"), { conflicts: "a" });
});

test("a change goes before a removal", () => {
  assert.deepEqual(plan("a=1", "", "a=2"), { toHere: "a" });
  assert.deepEqual(plan("a=1", "a=2", ""), { toThere: "a" });
});

test("a directory goes after what is in it, and stays where something in it stays", () => {
  assert.deepEqual(plan("d/ d/a=1 d/b=1", "", "d/ d/a=1 d/b=1"), { removeThere: "d/b d/a d" });
  assert.deepEqual(plan("d/ d/a=1 d/b=1", "", "d/ d/a=1 d/b=2"), { removeThere: "d/a", toHere: "d d/b" });
  assert.deepEqual(plan("d/ d/a=1", "d/ d/a=1 d/e/ d/e/c=1", ""), { removeHere: "d/a", toThere: "d d/e d/e/c" });
  assert.deepEqual(plan("", "d/ d/e/ d/e/a=1", ""), { toThere: "d d/e d/e/a" });
});

test("a directory that became a file goes with what was in it, but not with what has changed in it", () => {
  assert.deepEqual(plan("d/ d/a=1", "d=x", "d/ d/a=1"), { removeThere: "d/a", toThere: "d" });
  assert.deepEqual(plan("d/ d/a=1", "d=x", "d/ d/a=2"), { conflicts: "d", toHere: "d/a" });
  assert.deepEqual(plan("d/ d/a=1", "d/ d/a=2", "d=x"), { conflicts: "d", toThere: "d/a" });
  assert.deepEqual(plan("d=x", "d=x", "d/ d/a=1"), { toHere: "d d/a" });
  assert.deepEqual(plan("d>x", "d/ d/a=1", "d>x"), { toThere: "d d/a" });
});

test("names that begin alike are not one in the other", () => {
  assert.deepEqual(plan("d/ d-x=1", "d-x=1", "d/ d-x=1"), { removeThere: "d" });
});
