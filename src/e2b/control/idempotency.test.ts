import assert from "node:assert/strict";
import { test } from "node:test";
import { Idempotency } from "./idempotency.ts";

test("a request that comes again is done once; many keys of one owner make no other's forgotten", async () => {
  const once = new Idempotency<number>();
  let done = 0;
  const ask = (owner: string, key: string, request: unknown = "x"): Promise<number> =>
    once.once(owner, key, request, async () => ++done);
  assert.deepEqual([await ask("a", "first"), await ask("a", "first"), await ask("b", "first")], [1, 1, 2]);
  await assert.rejects(ask("a", "first", "another"), { code: "conflict" });
  for (let i = 0; i < 2_000; i++) await ask("b", `key ${i}`);
  assert.equal(await ask("a", "first"), 1);
  assert.equal(await ask("b", "key 1999"), 2_002);
  assert.equal(await ask("b", "first"), 2_003, "its own oldest one was");
  const fails = (): Promise<number> => once.once("a", "fails", "x", () => Promise.reject(new Error("no")));
  await assert.rejects(fails(), /no/);
  assert.equal(await ask("a", "fails"), 2_004);
});
