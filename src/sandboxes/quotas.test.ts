import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";
import type { Events } from "./events.ts";
import { Quotas } from "./quotas.ts";
import type { OwnerQuota } from "./record.ts";
import type { Store } from "./store.ts";

test("of two limits that are set at once, the one that is stored last is the one that counts", async () => {
  const stored: OwnerQuota[] = [];
  const waits = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const putQuota = async (quota: OwnerQuota): Promise<void> => {
    const wait = waits[stored.push(quota) - 1];
    await wait?.promise; // the disk
  };
  const store = { quotas: () => [], putQuota } as unknown as Store;
  const events = { emit() {} } as unknown as Events;
  const quotas = new Quotas({ store, clock: systemClock, events });
  const limits = { maxTtlMs: 0, maxExecTimeoutMs: 0 };
  const both = [1, 2].map((maxSandboxes) => quotas.put("owner", "user", { ...limits, maxSandboxes }));
  for (const { resolve } of waits.reverse()) {
    resolve();
    await new Promise((wake) => setImmediate(wake));
  }
  await Promise.all(both);
  assert.deepEqual([stored.at(-1)?.maxSandboxes, quotas.find("owner", "user")?.maxSandboxes, stored.length], [2, 2, 2]);
});
