import assert from "node:assert/strict";
import { test } from "node:test";
import { Ignored } from "./ignored.ts";

test("rules hold below their directory, the nearest first, and of directories with a slash", () => {
  const ignored = new Ignored(false);
  ignored.add("", "*.log\n/build\nout/\n");
  ignored.add("sub", "!keep.log\nbuild\n");
  const is = (path: string, directory = false): boolean => ignored.test(path, directory);
  assert.deepEqual(
    ["a.log", "sub/a.log", "sub/keep.log", "keep.log"].map((path) => is(path)),
    [true, true, false, true],
  );
  assert.deepEqual(
    ["build", "sub/build", "other/build"].map((path) => is(path)),
    [true, true, false],
  );
  assert.deepEqual([is("out", true), is("out"), is("deep/out", true)], [true, false, true]);
  assert.deepEqual([is(".git", true), is("sub/.git"), is(".github", true)], [true, true, false]);
  assert.equal(new Ignored(true).test(".git", true), false);
});
