import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { versionTraits } from "./versions.ts";

function refusal(version: string): StacyError {
  try {
    versionTraits(version);
  } catch (error) {
    assert.ok(error instanceof StacyError);
    return error;
  }
  assert.fail(`${version} was accepted`);
}

test("1.12.1 calls tracking by its old name and refuses Diff without it", () => {
  const traits = versionTraits("1.12.1");
  assert.equal(traits.trackField, "enable_diff_snapshots");
  assert.equal(traits.diffWithoutTracking, false);
  assert.equal(traits.pauseResume, true);
});

test("1.15.1 inherits what 1.13 changed and has sound diffs of large guests", () => {
  const traits = versionTraits("1.15.1");
  assert.equal(traits.trackField, "track_dirty_pages");
  assert.equal(traits.diffWithoutTracking, true);
  assert.equal(traits.diffAbove3GiB, true);
  assert.equal(traits.pauseResume, true);
});

test("data is held back until the guest has lost its old connections from 1.16 on, not before", () => {
  for (const version of ["1.12.1", "1.13.2", "1.14.4", "1.15.1"]) {
    assert.equal(versionTraits(version).holdsBack, false, version);
  }
  for (const version of ["1.16.1", "1.16.2", "1.17.0"]) assert.equal(versionTraits(version).holdsBack, true, version);
});

test("releases that nobody has run with it say so, those that were run do not", () => {
  for (const version of ["1.13.1", "1.14.0", "1.15.1", "1.16.2", "1.17.0"]) {
    assert.match(versionTraits(version).notes.join(), /not been run/, version);
  }
  for (const version of ["1.12.1", "1.16.1"]) assert.doesNotMatch(versionTraits(version).notes.join(), /not been run/);
});

test("1.16.0 is refused with the reason and what to install instead", () => {
  const error = refusal("1.16.0");
  assert.equal(error.code, "not-supported");
  assert.match(error.message, /vsock/);
  assert.match(error.remedy ?? "", /1\.16\.2/);
});

test("1.16.1 works, without bare pause and resume, and says so", () => {
  const traits = versionTraits("1.16.1");
  assert.equal(traits.pauseResume, false);
  assert.match(traits.notes.join(), /vsock/);
});

test("1.16.2 and 1.17.0 pause and resume again", () => {
  for (const version of ["1.16.2", "1.17.0"]) assert.equal(versionTraits(version).pauseResume, true, version);
});

test("releases before 1.12 and nonsense are refused", () => {
  assert.equal(refusal("1.9.0").code, "not-supported");
  assert.equal(refusal("banana").code, "not-supported");
});

test("a later release than the table knows is used, with a word of warning", () => {
  assert.match(versionTraits("1.18.3").notes.join(), /not been run/);
});
