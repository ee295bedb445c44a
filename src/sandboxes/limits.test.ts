import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { validateConfig } from "../config/load.ts";
import { limitsOf } from "../config/options.ts";
import { type AdmissionInput, decideAdmission, type EffectiveQuota, effectiveMax, explain } from "./limits.ts";

const LIMITS = { ...limitsOf(validateConfig({}, "")), maxTtlMs: 0 };
const QUOTA: EffectiveQuota = { maxSandboxes: 0, maxSandboxesOfAll: 0, maxTtlMs: 0, maxExecTimeoutMs: 0 };

function decide(over: Partial<AdmissionInput> & { max?: number; overflow?: "reject" | "queue"; maxOwner?: number }) {
  const { max = 0, overflow = "reject", maxOwner = 0, ...rest } = over;
  const limits = { ...LIMITS, maxSandboxes: max, maxSandboxesPerOwner: maxOwner, overflow };
  return decideAdmission({
    limits,
    quota: QUOTA,
    ttlMs: 1,
    active: 0,
    activeOwner: undefined,
    activeOfAll: 0,
    count: 1,
    ...rest,
  });
}

test("0 is no limit, and the last place may be taken", () => {
  assert.equal(decide({ active: 1e6, activeOwner: 1e6 }).allowed, true);
  assert.equal(decide({ max: 3, active: 2 }).allowed, true);
  assert.equal(decide({ max: 3, active: 3 }).reason, "max_sandboxes");
  assert.equal(decide({ max: 3, active: 2, count: 2 }).reason, "max_sandboxes", "a fork needs room for all of it");
});

test("only what room would help waits: not more than there ever is, not an owner at its own limit, not a ttl", () => {
  const queue = { max: 2, overflow: "queue" } as const;
  assert.equal(decide({ ...queue, active: 2 }).queueable, true);
  assert.equal(decide({ ...queue, active: 2, count: 3 }).queueable, false);
  assert.equal(decide({ ...queue, active: 2, activeOwner: 1, maxOwner: 1 }).queueable, false);
  const quota = { ...QUOTA, maxTtlMs: 10 };
  assert.deepEqual(
    [decide({ ...queue, ttlMs: 11, quota }).reason, decide({ ...queue, ttlMs: 11, quota }).queueable],
    ["max_ttl", false],
  );
});

test("all users of an owner together have a limit of their own", () => {
  const quota = { ...QUOTA, maxSandboxes: 5, maxSandboxesOfAll: 3 };
  assert.equal(decide({ activeOwner: 1, activeOfAll: 2, quota }).allowed, true);
  const refused = decide({ activeOwner: 1, activeOfAll: 3, quota });
  assert.deepEqual(
    [refused.reason, refused.activeOwnerSandboxes, refused.maxOwnerSandboxes],
    ["max_sandboxes_per_owner", 3, 3],
  );
});

test("an owner's quota decides over the server's limit per owner, and its times only tighten", () => {
  assert.equal(decide({ activeOwner: 4, maxOwner: 2, quota: { ...QUOTA, maxSandboxes: 5 } }).allowed, true);
  assert.equal(decide({ activeOwner: 5, maxOwner: 9, quota: { ...QUOTA, maxSandboxes: 5 } }).allowed, false);
  const limit = fc.nat(1_000);
  fc.assert(
    fc.property(limit, limit, (server, owner) => {
      const max = effectiveMax(server, owner);
      assert.equal(max, server === 0 ? owner : owner === 0 ? server : Math.min(server, owner));
    }),
  );
});

test("a refusal names the number, and what to do", () => {
  for (const refused of [
    decide({ max: 2, active: 2 }),
    decide({ activeOwner: 2, maxOwner: 2 }),
    decide({ ttlMs: 5_000, quota: { ...QUOTA, maxTtlMs: 2_000 } }),
  ]) {
    const { message, remedy } = explain(refused);
    assert.match(message, /2/);
    assert.ok(remedy.length > 10);
  }
});
