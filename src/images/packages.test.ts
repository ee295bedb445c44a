import assert from "node:assert/strict";
import { test } from "node:test";
import { stepOf } from "./packages.ts";

test("of mmdebstrap's words people see what they wait for, and neither its directories nor its choices", () => {
  const said = [
    "I: automatically chosen mode: root",
    "I: chroot architecture amd64 is equal to the host's architecture",
    "I: using /tmp/mmdebstrap.XXXXXXXXXX as tempdir",
    "I: running apt-get update...",
    "done",
    "I: downloading packages with apt...",
    "I: extracting archives...",
    "I: installing essential packages...",
    "I: installing remaining packages inside the chroot...",
    "I: cleaning package lists and apt cache...",
    "I: creating tarball...",
    "I: success in 150.1510 seconds",
    "E: downloading packages failed",
  ];
  assert.deepEqual(
    said.flatMap((line) => stepOf(line) ?? []),
    [
      "reading the distribution's package lists",
      "downloading packages",
      "unpacking packages",
      "installing packages",
      "installing packages",
      "collecting the files",
    ],
  );
});
