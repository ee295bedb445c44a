import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, FakeUnreachable } from "../../test/fake-provider.ts";
import { Reaper } from "./reaper.ts";
import type { SandboxRecord } from "./record.ts";
import { Sandbox } from "./sandbox.ts";

function world(...rows: Partial<SandboxRecord>[]) {
  const clock = new FakeClock();
  const now = clock.now();
  const all = rows.map((row, at) => {
    const over = { id: `sb-${at}`, state: "running", expiresAt: now + 1e9, idleTimeoutMs: 0, ...row };
    return new Sandbox(over as SandboxRecord, () => clock.now());
  });
  const seen: string[] = [];
  const reaper = new Reaper(clock, {
    all: () => all,
    expire: ({ id }) => seen.push(`${id} expires`),
    idle: (sandbox) => {
      seen.push(`${sandbox.id} is idle`);
      sandbox.lastUsedAt = clock.now();
    },
    retry: () => {},
  });
  return { clock, now, all, seen, reaper };
}

test("a time that is over ends it, in whichever state but one that is still being made", async () => {
  const at = 1_000_000 + 3_000;
  const states = ["running", "paused", "suspended", "error", "creating", "destroyed"] as const;
  const w = world(...states.map((state) => ({ state, expiresAt: at })));
  w.reaper.start();
  await w.clock.pass(2_000);
  assert.deepEqual(w.seen, []);
  await w.clock.pass(1_000);
  assert.deepEqual(w.seen, ["sb-0 expires", "sb-1 expires", "sb-2 expires", "sb-3 expires"]);
  w.reaper.stop();
  await w.clock.pass(5_000);
  assert.equal(w.seen.length, 4, "a stopped one does nothing");
});

test("idle is what runs, is not in use, and was not used for its time", async () => {
  const w = world({ idleTimeoutMs: 5_000 }, { idleTimeoutMs: 5_000, state: "paused" }, { idleTimeoutMs: 0 });
  w.reaper.start();
  await w.clock.pass(4_000);
  assert.deepEqual(w.seen, []);
  await w.clock.pass(2_000);
  assert.deepEqual(w.seen, ["sb-0 is idle"]);
  await w.clock.pass(3_000);
  assert.equal(w.seen.length, 1, "what was tried is not tried every second");
  w.reaper.stop();
});

test("the clock set back ends nothing early, and a jump forward ends what is over once", async () => {
  const w = world({ expiresAt: 1_000_000 + 10_000 });
  assert.deepEqual(w.reaper.sweep(), []);
  await w.clock.pass(11_000);
  assert.equal(w.reaper.sweep().length, 1);
});

test("one whose machine does not answer is not idle, and its time ends it all the same", async () => {
  const w = world({ idleTimeoutMs: 5_000, expiresAt: 1_000_000 + 20_000 });
  const [sandbox] = w.all;
  if (sandbox !== undefined) sandbox.unreachable = new FakeUnreachable(sandbox.id);
  await w.clock.pass(10_000);
  assert.deepEqual([w.reaper.sweep(), w.seen], [[], []]);
  await w.clock.pass(10_000);
  w.reaper.sweep();
  assert.deepEqual(w.seen, ["sb-0 expires"]);
});
