import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Audit, type AuditEntry, type AuditStore, type AuditTrouble } from "./audit.ts";

const entry = (path: string): AuditEntry => ({
  ...{ at: 1, actor: "root", owner: "default", method: "POST", route: "/keys", path, status: 201, requestId: "r" },
});

/** A database that is full or not, and somebody who says when it is tried again. */
function world() {
  const written: string[] = [];
  const told: AuditTrouble[] = [];
  const state = { full: true };
  const store: AuditStore = {
    async addAudit(record) {
      if (state.full) throw new Error("database or disk is full");
      written.push((record as AuditEntry).path);
    },
    audits: () => [],
  };
  let wake = Promise.withResolvers<void>();
  async function* again(signal: AbortSignal): AsyncGenerator<void> {
    for (;;) {
      const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      await Promise.race([wake.promise, aborted]);
      if (signal.aborted) return;
      wake = Promise.withResolvers();
      yield;
    }
  }
  const audit = new Audit(store, (_, trouble) => told.push(trouble), again);
  const tryAgain = async (): Promise<void> => {
    wake.resolve();
    for (let i = 0; i < 10; i++) await turn();
  };
  return { audit, state, written, told, tryAgain };
}

test("entries that a full database did not take are written when it has room, in their order, and it is said each time", async () => {
  const { audit, state, written, told, tryAgain } = world();
  audit.add(entry("first"));
  await turn();
  audit.add(entry("second"));
  assert.deepEqual(told, [{ waiting: 1, lost: 0 }]);
  await tryAgain();
  assert.deepEqual([written, told.at(-1)], [[], { waiting: 2, lost: 0 }]);
  state.full = false;
  await tryAgain();
  audit.add(entry("third"));
  await turn();
  assert.deepEqual(written, ["first", "second", "third"]);
  assert.deepEqual(audit.trouble, { waiting: 0, lost: 0 });
});

test("what has no room in memory either is counted, and the log says how many are missing", async () => {
  const { audit, state, written, tryAgain } = world();
  audit.add(entry("0"));
  await turn();
  for (let i = 1; i < 10_005; i++) audit.add(entry(String(i)));
  assert.deepEqual(audit.trouble, { waiting: 10_000, lost: 5 });
  state.full = false;
  await tryAgain();
  while (audit.trouble.lost > 0) await turn();
  assert.equal(written.length, 10_001);
  assert.equal(written.at(-1), "5 entries were lost: the database could not be written");
  assert.deepEqual(audit.trouble, { waiting: 0, lost: 0 });
});

test("a server that stops tries once more, and says what it could not keep", async () => {
  const { audit, state, written, told } = world();
  audit.add(entry("first"));
  await turn();
  await audit[Symbol.asyncDispose]();
  assert.deepEqual([written, told.at(-1)], [[], { waiting: 1, lost: 0 }]);
  const other = world();
  other.audit.add(entry("first"));
  await turn();
  other.state.full = false;
  await other.audit[Symbol.asyncDispose]();
  assert.deepEqual(other.written, ["first"]);
  assert.ok(state.full);
});
