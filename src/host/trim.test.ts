import assert from "node:assert/strict";
import { test } from "node:test";
import { withoutEnd } from "./trim.ts";

test("a character goes from the end, however often it is there, and nowhere else", () => {
  assert.equal(withoutEnd("//a//b//", "/"), "//a//b");
  assert.equal(withoutEnd("///", "/"), "");
  assert.equal(withoutEnd("", "/"), "");
  assert.equal(withoutEnd("a", "/"), "a");
});

test("a long run of it with something behind takes no time", () => {
  const text = `${"/".repeat(1 << 20)}a`;
  const begun = performance.now();
  assert.equal(withoutEnd(text, "/"), text);
  assert.ok(performance.now() - begun < 1_000);
});
