import assert from "node:assert/strict";
import { test } from "node:test";
import type { SandboxInfo } from "../../sdk/src/index.ts";
import { bootNote } from "./boot-note.ts";

test("a start that boots says why, one that is restored how long it took", () => {
  const of = (boot?: Partial<NonNullable<SandboxInfo["boot"]>>) =>
    bootNote({ image: "i", memoryMb: 1024, vcpus: 2, boot: boot && { totalMs: 12.4, ...boot } } as SandboxInfo);
  assert.equal(of(), undefined);
  assert.equal(of({ path: "restored" }), "restored in 12 ms");
  assert.match(of({ path: "cold" }) ?? "", /^cold in 12 ms: the first of i with 1024 MiB and 2 CPUs boots once/);
  assert.match(of({ path: "cold", fallback: "torn" }) ?? "", /could not be restored \(torn\)$/);
});
