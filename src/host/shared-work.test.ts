import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedWork } from "./shared-work.ts";

/** Work that ends when it is told to, or is cancelled. */
function task() {
  const told = Promise.withResolvers<string>();
  let begun = 0;
  let cancelled = false;
  return {
    work: (signal: AbortSignal): Promise<string> => {
      begun += 1;
      signal.addEventListener("abort", () => {
        cancelled = true;
        told.reject(signal.reason);
      });
      return told.promise;
    },
    finish: told.resolve,
    get begun() {
      return begun;
    },
    get cancelled() {
      return cancelled;
    },
  };
}

test("the first caller's leaving does not cancel the work of those who joined", async () => {
  const shared = new SharedWork<string>();
  const joint = task();
  const first = new AbortController();
  const one = shared.join("a", first.signal, joint.work);
  const two = shared.join("a", undefined, joint.work);
  first.abort(new Error("the first has left"));
  await assert.rejects(one, /the first has left/);
  joint.finish("done");
  assert.equal(await two, "done");
  assert.equal(joint.cancelled, false);
  assert.equal(shared.keys.size, 0);
});

test("when the last one has left, the work is cancelled, and a newcomer begins anew", async () => {
  const shared = new SharedWork<string>();
  const old = task();
  const leave = new AbortController();
  const both = [shared.join("a", leave.signal, old.work), shared.join("a", leave.signal, old.work)];
  leave.abort(new Error("gone"));
  for (const result of await Promise.allSettled(both)) assert.equal(result.status, "rejected");
  assert.equal(old.cancelled, true);
  assert.equal(old.begun, 1);
  const fresh = task();
  const later = shared.join("a", undefined, fresh.work);
  fresh.finish("new");
  assert.equal(await later, "new");
});
