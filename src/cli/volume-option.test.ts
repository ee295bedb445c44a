import assert from "node:assert/strict";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseVolume, templateVolumeOption } from "./volume-option.ts";

test("a path is a directory of the host, anything else a volume", () => {
  const cwd = process.cwd();
  const source = (text: string) => parseVolume(text).mounts?.[0]?.source;
  assert.equal(source("/srv/a:/work"), "/srv/a");
  assert.equal(source(".:/work"), cwd);
  assert.equal(source("./a:/work"), join(cwd, "a"));
  assert.equal(source("../a:/work"), join(cwd, "../a"));
  assert.equal(source("~/a:/work"), join(homedir(), "a"));
  assert.deepEqual(parseVolume("data:/data:ro"), { volumes: [{ name: "data", path: "/data", readOnly: true }] });
  assert.deepEqual(parseVolume("..data:/data").mounts, undefined);
});

test("one after the other", () => {
  const all = ["data:/data", "/a:/b:ro", "/c:/d:rw"].reduce((earlier, text) => parseVolume(text, earlier), {});
  assert.deepEqual(all, {
    volumes: [{ name: "data", path: "/data", readOnly: false }],
    mounts: [
      { source: "/a", target: "/b", readOnly: true },
      { source: "/c", target: "/d", readOnly: false },
    ],
  });
});

test("what is neither is refused with how to write it", () => {
  for (const text of ["", ":/a", "data", "data:relative", "a:/b:xx", "/a:/b:ro:more"])
    assert.throws(() => parseVolume(text), /write it as/, text);
  assert.throws(() => templateVolumeOption().parseArg?.("./a:/b", undefined), /no directories of the host/);
});
