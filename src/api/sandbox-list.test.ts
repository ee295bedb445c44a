/** Lists of sandboxes are what their records say now. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { SandboxRecord } from "../sandboxes/record.ts";
import { SandboxList } from "./sandbox-list.ts";

function record(id: string): SandboxRecord {
  return { id, state: "running", expiresAt: 1, metadata: {}, resumeOnUse: true } as SandboxRecord;
}

test("a record is written once, and again when anything of it has changed, was added or is gone", () => {
  let written = 0;
  const list = new SandboxList((record) => {
    written += 1;
    return { ...record };
  });
  const [one, two] = [record("one"), record("two")];
  const changes: (() => void)[] = [
    () => {},
    () => Object.assign(one, { state: "paused" }),
    () => Object.assign(one, { failure: { code: "x" } }),
    () => Object.assign(one, { metadata: { a: "b" } }),
    () => delete one.resumeOnUse,
  ];
  for (const [i, change] of changes.entries()) {
    change();
    for (let again = 0; again < 2; again++) assert.deepEqual(JSON.parse(list.text([one, two])), [one, two]);
    assert.equal(written, i + 2, "the other one is not written again");
  }
  assert.equal(list.text([]), "[]\n");
});
