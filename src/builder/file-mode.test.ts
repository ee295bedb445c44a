import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileMode, isFileMode } from "./file-mode.ts";

const MODES = [
  ...["644", "0755", "7", "04711", "u=rwx,go=r", "a+x", "+x", "-w", "go-rwx", "u=rwX,go=rX", "+X", "g=u", "o=g,u+s"],
  ...["ug+s", "+t", "o+t", "u-s,g-s", "a=", "go=", "u=rw+x-r", "=rx", "g+w,o-x,u=rx", "o=u-w"],
];

test("a mode is what chmod takes it for, without a mask", (t) => {
  const dir = mkdtempSync(join(tmpdir(), "mode-"));
  t.after(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, "file"), "");
  mkdirSync(join(dir, "directory"));
  for (const mode of MODES) {
    assert.ok(isFileMode(mode), mode);
    for (const [name, before] of [
      ["file", 0o640],
      ["file", 0o7751],
      ["directory", 0o710],
    ] as const) {
      const path = join(dir, name);
      chmodSync(path, before);
      execFileSync("sh", ["-c", 'umask 0; exec chmod -- "$1" "$2"', "sh", mode, path]);
      const expected = statSync(path).mode & 0o7777;
      assert.equal(fileMode(mode, before, name === "directory").toString(8), expected.toString(8), `${mode} ${before}`);
    }
  }
});

test("what chmod would not take is no mode", () => {
  for (const mode of ["", "8", "77777", "x", "u", "z+x", "u+y", "u=rw,", "u+ug", "u+rg", " 644", "+x u"])
    assert.ok(!isFileMode(mode), mode);
});
