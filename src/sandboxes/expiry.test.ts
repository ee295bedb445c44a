import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";
import { Expiry } from "./expiry.ts";
import { silentLog } from "./observer.ts";
import type { SandboxRecord } from "./record.ts";
import { Sandbox } from "./sandbox.ts";
import type { StateChanges } from "./state-changes.ts";

function expiring(more: (record: { expiresAt: number }) => void): Sandbox {
  const record = { id: "sb-1", expiresAt: 1_000, onExpiry: { keepMs: 60_000 } };
  const sandbox = new Sandbox({ ...record, state: "running" } as unknown as SandboxRecord, () => 0);
  const to = async (): Promise<never> => {
    more(sandbox.record as typeof record);
    throw new Error("the disk is full");
  };
  const changes = { to } as unknown as StateChanges;
  new Expiry({ clock: systemClock, log: silentLog, changes, end: () => assert.fail() }).expire(sandbox);
  return sandbox;
}

test("one that cannot be suspended has its end again", async () => {
  const sandbox = expiring(() => {});
  await sandbox.autoStop;
  assert.deepEqual(sandbox.record, { id: "sb-1", state: "running", expiresAt: 1_000 });
});

test("time that was given to it meanwhile stays, and what happens at the end of that", async () => {
  const expiresAt = systemClock.now() + 3_600_000;
  const sandbox = expiring((record) => {
    record.expiresAt = expiresAt;
  });
  await sandbox.autoStop;
  assert.deepEqual(sandbox.record, { id: "sb-1", state: "running", expiresAt, onExpiry: { keepMs: 60_000 } });
});
