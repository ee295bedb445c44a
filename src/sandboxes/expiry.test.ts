import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { systemClock } from "./clock.ts";
import { Expiry } from "./expiry.ts";
import { silentLog } from "./observer.ts";
import type { SandboxRecord } from "./record.ts";
import { Sandbox } from "./sandbox.ts";
import type { StateChanges } from "./state-changes.ts";

const keepMs = 600_000;

/** One whose time is over, and which cannot be suspended. @param more what happens meanwhile */
async function expired(why: StacyError, more: (record: SandboxRecord) => void = () => {}): Promise<SandboxRecord> {
  const record = { id: "sb-1", state: "running", expiresAt: 1_000, onExpiry: { keepMs } } as SandboxRecord;
  const sandbox = new Sandbox(record, () => 0);
  const to = async (): Promise<never> => {
    more(record);
    throw why;
  };
  const changes = { to } as unknown as StateChanges;
  const save = async (): Promise<void> => {};
  new Expiry({ clock: systemClock, log: silentLog, changes, save, end: () => assert.fail() }).expire(sandbox);
  await sandbox.autoStop;
  return record;
}

test("one that can never be suspended has its end again", async () => {
  const record = await expired(new StacyError("not-supported", "this monitor cannot"));
  assert.deepEqual(record, { id: "sb-1", state: "running", expiresAt: 1_000 } as SandboxRecord);
});

test("one that cannot be suspended now is kept and tried again", async () => {
  const before = systemClock.now();
  const { expiresAt, onExpiry } = await expired(new StacyError("no-space", "the disk is full"));
  assert.ok(expiresAt >= before + 60_000 && expiresAt <= systemClock.now() + 60_000, String(expiresAt));
  assert.ok((onExpiry?.over ?? 0) >= before, "its time to be kept has begun");
});

test("time that was given to it meanwhile stays, and what happens at the end of that", async () => {
  const later = systemClock.now() + 3_600_000;
  const { expiresAt, onExpiry } = await expired(new StacyError("not-supported", "this monitor cannot"), (record) => {
    record.expiresAt = later;
  });
  assert.deepEqual([expiresAt, onExpiry?.keepMs], [later, keepMs]);
});
