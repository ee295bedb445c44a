import assert from "node:assert/strict";
import { test } from "node:test";
import { startRemedy } from "./start-remedy.ts";

test("a line of shell that was taken for a program's name is answered with how to run it", () => {
  assert.match(startRemedy(["ls -l | wc"]), /a line of shell is sh -c 'ls -l \| wc'$/);
  assert.match(startRemedy(["echo it's"]), /sh -c 'echo it'\\''s'$/);
  for (const argv of [["nothing"], ["ls -l", "x"], []]) assert.match(startRemedy(argv), /^name a program/);
});
