import assert from "node:assert/strict";
import { test } from "node:test";
import type { SandboxRecord } from "../../sandboxes/record.ts";
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

test("metadata are the client's: what a template adds is not among them, in a fork neither", () => {
  const added = { template: "base" };
  const shown = (client: Record<string, string> | undefined, more: object) => {
    const body = { templateID: "base", ...(client === undefined ? {} : { metadata: client }) } as bodies.NewSandbox;
    return bodies.metadataOf({
      metadata: { ...added, ...bodies.remembered(body) },
      ...more,
    } as unknown as SandboxRecord);
  };
  for (const more of [{ template: "base" }, { forkedFrom: "sb-1" }]) {
    assert.deepEqual(shown(undefined, more), {});
    assert.deepEqual(shown({ purpose: "x" }, more), { purpose: "x" });
    for (const template of ["mine", "base"]) assert.deepEqual(shown({ template }, more), { template });
  }
  assert.deepEqual(
    bodies.metadataOf({ metadata: { ...added, a: "b" }, template: "base" } as unknown as SandboxRecord),
    { a: "b" },
  );
});
