import assert from "node:assert/strict";
import { test } from "node:test";
import { checkSandboxName } from "./name.ts";
import { newCheckpointId, newSandboxId } from "./record.ts";

test("a name is a short word in lower case that is never taken for an id", () => {
  for (const name of ["a", "web", "web-1", "db", "cafe", "node.js", "my_box", "42", "x".repeat(63)]) {
    assert.equal(checkSandboxName(name), name);
  }
  assert.equal(checkSandboxName(""), undefined);
  assert.equal(checkSandboxName(undefined), undefined);
  const wrong = [
    "Web",
    "-web",
    "web-",
    "a b",
    "a/b",
    "..",
    "a:b",
    "ü",
    "x".repeat(64),
    "a\n",
    "sb-web",
    "cp-1",
    "stats",
  ];
  for (const name of [...wrong, newSandboxId(), newSandboxId().slice(3), newCheckpointId()]) {
    assert.throws(() => checkSandboxName(name), { code: "invalid" }, name);
  }
});
