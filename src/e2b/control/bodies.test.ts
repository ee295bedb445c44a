import assert from "node:assert/strict";
import { test } from "node:test";
import * as bodies from "./bodies.ts";

test("lists of hosts are as short as those of our own API", () => {
  const hosts = (count: number) => Array.from({ length: count }, (_, i) => `${i}.example`);
  for (const field of ["allowOut", "denyOut"]) {
    const made = (count: number) =>
      bodies.NewSandbox.safeParse({ templateID: "base", network: { [field]: hosts(count) } }).success;
    const changed = (count: number) => bodies.Network.safeParse({ [field]: hosts(count) }).success;
    for (const takes of [made, changed]) assert.deepEqual([takes(256), takes(257)], [true, false], field);
  }
});
