import assert from "node:assert/strict";
import { test } from "node:test";
import type { VolumeFailure } from "../vmm.ts";
import { VolumeFailures } from "./volume-failures.ts";

const failed = (over: object) => ({
  event: "BLOCK_IO_ERROR",
  data: { "node-name": "volume-1", operation: "read", action: "report", reason: "Input/output error", ...over },
});

test("a volume that fails is told once, until there is another one in its slot; nothing else is told", () => {
  const failures = new VolumeFailures();
  failures.heard(failed({})); // nobody listens yet
  const told: VolumeFailure[] = [];
  failures.listen((failure) => told.push(failure));
  failures.heard(failed({}));
  failures.heard(failed({ operation: "write" }));
  const first = { slot: 1, operation: "read", reason: "Input/output error" };
  assert.deepEqual(told, [first]);
  for (const over of [{ "node-name": "rw" }, { "node-name": undefined }, { action: "stop", nospace: true }])
    failures.heard(failed(over));
  failures.heard({ event: "STOP", data: {} });
  assert.equal(told.length, 1);
  failures.heard(failed({ "node-name": "volume-0", operation: "write" }));
  failures.replaced(1);
  failures.heard(failed({ reason: 7 }));
  assert.deepEqual(told.slice(1), [
    { slot: 0, operation: "write", reason: "Input/output error" },
    { slot: 1, operation: "read", reason: "no reason given" },
  ]);
});
