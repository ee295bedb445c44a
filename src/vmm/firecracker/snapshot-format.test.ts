import assert from "node:assert/strict";
import { test } from "node:test";
import { checkFormat } from "./snapshot-format.ts";

const OWN = { version: "1.16.2", snapshotFormat: "10.1.0" };

test("what a release cannot read is told with both releases, and which one to run", () => {
  for (const snapshotFormat of ["6.0.0", "11.0.0", "10.2.0"]) {
    assert.throws(() => checkFormat({ version: "1.12.1", snapshotFormat }, OWN), {
      code: "not-supported",
      message: "it was saved by Firecracker 1.12.1, whose snapshots 1.16.2 cannot load",
      remedy: "run Firecracker 1.12.1 to use it: set STACYVM_FIRECRACKER to its path and start the server with it",
    });
  }
});

test("another release of the same format is no obstacle, nor what does not say its format", () => {
  for (const saved of [
    { version: "1.16.1", snapshotFormat: "10.0.0" },
    { version: "1.16.2", snapshotFormat: "10.1.0" },
    { snapshotFormat: "unknown" },
    {},
  ]) {
    checkFormat(saved, OWN);
  }
});
