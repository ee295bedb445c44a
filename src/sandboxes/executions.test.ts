import assert from "node:assert/strict";
import { test } from "node:test";
import { Executions } from "./executions.ts";
import type { Limits } from "./limits.ts";
import type { Lease } from "./sandbox.ts";

type Parts = ConstructorParameters<typeof Executions>[0];

const lease = { sandbox: { record: { owner: "default" } } } as Lease;

/** ms; 0: without a limit. */
function timeouts(standard: number, most: number, ofOwner = 0) {
  const limits = { defaultExecTimeoutMs: standard, maxExecTimeoutMs: most } as Limits;
  const quotas = { effective: () => ({ maxExecTimeoutMs: ofOwner }) } as unknown as Parts["quotas"];
  const executions = new Executions({ limits, quotas } as Parts);
  return {
    waited: (asked?: number) => executions.timeoutOf(lease, asked, true),
    streamed: (asked?: number) => executions.timeoutOf(lease, asked, false),
  };
}

test("a command that names no time is bounded as well where its result is waited for; a stream may go on", () => {
  const { waited, streamed } = timeouts(0, 600);
  assert.deepEqual([waited(), waited(5), streamed(), streamed(5)], [600, 5, 0, 5]);
  for (const each of [waited, streamed]) assert.throws(() => each(601), { code: "limit" });
});

test("the standard time is no way around the limit, be it the server's or the owner's", () => {
  assert.deepEqual([timeouts(300, 600).waited(), timeouts(300, 600).streamed()], [300, 300]);
  assert.deepEqual([timeouts(300, 200).waited(), timeouts(300, 200).streamed()], [200, 200]);
  assert.equal(timeouts(300, 600, 100).waited(), 100);
  assert.deepEqual([timeouts(0, 0).waited(), timeouts(300, 0).waited()], [0, 300]);
});
