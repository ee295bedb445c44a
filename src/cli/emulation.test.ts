import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../host/paths.ts";
import { EMULATION, emulationNote } from "./emulation.ts";

test("who starts machines is told that emulation is no boundary, in the words that every place has", () => {
  const words = /no boundary against\s+hostile\s+code/;
  assert.match(EMULATION, words);
  for (const place of ["README.md", "docs/quick-start.md", "docs/faq.md", "web/src/pages/sandboxes.ts"])
    assert.match(readFileSync(join(packageRoot, place), "utf8").replaceAll("*", ""), words, place);
});

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
