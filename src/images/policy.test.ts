import assert from "node:assert/strict";
import { test } from "node:test";
import { matchesPattern } from "./policy.ts";

test("* stands for anything but a slash, ** for anything, all else for itself", () => {
  for (const [pattern, name, matches] of [
    ["alpine", "alpine", true],
    ["alpine", "alpine:3", false],
    ["alpine", "my/alpine", false],
    ["alpine*", "alpine", true],
    ["alpine*", "alpine/x", false],
    ["*", "alpine:3", true],
    ["*", "a/b", false],
    ["**", "a/b:c", true],
    ["**", "", true],
    ["*/*", "a/b", true],
    ["*/*", "a/b/c", false],
    ["**/b", "a/a/b", true],
    ["**/b", "b", false],
    ["a**c", "abc/c", true],
    ["a*b*c", "abbc", true],
    ["a*b*c", "abb/c", false],
    ["a.c", "abc", false],
    ["a+(b)", "a+(b)", true],
  ] as const) {
    assert.equal(matchesPattern(pattern, name), matches, `${pattern} ${name}`);
  }
});

test("a pattern of nothing but wildcards is answered at once", { timeout: 10_000 }, () => {
  const name = "a".repeat(512);
  assert.ok(!matchesPattern(`${"*a".repeat(200)}z`, name));
  assert.ok(!matchesPattern(`${"**".repeat(250)}z`, name));
  assert.ok(matchesPattern("**a".repeat(170), name));
});
