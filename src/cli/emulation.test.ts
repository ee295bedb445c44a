import assert from "node:assert/strict";
import { test } from "node:test";
import { emulationNote } from "./emulation.ts";

test("a first start without KVM says that emulation is slow and no boundary; later ones and those with KVM say nothing", () => {
  assert.match(emulationNote("cold", "tcg") ?? "", /slower, and no boundary/);
  for (const [path, accelerator] of [
    ["restored", "tcg"],
    ["warm", "tcg"],
    ["cold", "kvm"],
    [undefined, undefined],
  ])
    assert.equal(emulationNote(path, accelerator), undefined);
});
