import assert from "node:assert/strict";
import { test } from "node:test";
import { parseMode } from "./file-mode.ts";

test("letters change what is there as chmod does, and octal bits replace it", () => {
  const cases: [string, number, number][] = [
    ["+x", 0o644, 0o755],
    ["u+x", 0o644, 0o744],
    ["a-w", 0o666, 0o444],
    ["+w", 0o444, 0o644],
    ["go=r", 0o777, 0o744],
    ["u=rw,g=r,o=", 0o777, 0o640],
    ["u+x-w", 0o644, 0o544],
    ["g+s,+t", 0o755, 0o3755],
    ["+X", 0o644, 0o644],
    ["a+X", 0o744, 0o755],
  ];
  for (const [text, before, after] of cases) {
    const change = parseMode(text);
    assert.ok(typeof change === "function", text);
    assert.equal(change({ mode: before, kind: "file" }).toString(8), after.toString(8), text);
  }
  assert.equal((parseMode("a+X") as (file: object) => number)({ mode: 0o644, kind: "directory" }), 0o755);
  for (const [text, bits] of [
    ["0644", 0o644],
    ["755", 0o755],
    ["0o4711", 0o4711],
  ] as const)
    assert.equal(parseMode(text), bits);
  for (const text of ["", "x", "899", "+q", "u", "00000644", ",", "+x,", "+x 0644"]) {
    assert.equal(parseMode(text), undefined, text);
  }
});
