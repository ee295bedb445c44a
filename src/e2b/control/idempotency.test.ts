import assert from "node:assert/strict";
import { test } from "node:test";
import { Idempotency } from "./idempotency.ts";

test("a request that comes again is done once; many keys of one owner make no other's forgotten", async () => {
  const once = new Idempotency<number>();
  let done = 0;
  const none = () => undefined;
  const ask = (owner: string, key: string, request: unknown = "x"): Promise<number> =>
    once.once({ owner, key, request }, async () => ++done, none);
  assert.deepEqual([await ask("a", "first"), await ask("a", "first"), await ask("b", "first")], [1, 1, 2]);
  await assert.rejects(ask("a", "first", "another"), { code: "conflict" });
  for (let i = 0; i < 2_000; i++) await ask("b", `key ${i}`);
  assert.equal(await ask("a", "first"), 1);
  assert.equal(await ask("b", "key 1999"), 2_002);
  assert.equal(await ask("b", "first"), 2_003, "its own oldest one was");
  const fails = (): Promise<number> =>
    once.once({ owner: "a", key: "fails", request: "x" }, () => Promise.reject(new Error("no")), none);
  await assert.rejects(fails(), /no/);
  assert.equal(await ask("a", "fails"), 2_004);
  const keyless = (): Promise<number> =>
    once.once({ owner: "a", key: undefined, request: "x" }, async () => ++done, none);
  assert.deepEqual([await keyless(), await keyless()], [2_005, 2_006]);
  assert.deepEqual(await Promise.all([ask("a", "at once"), ask("a", "at once")]), [2_007, 2_007]);
});

test("a later server answers with what an earlier one has made, as long as the key is good", async () => {
  let kept = { key: "", digest: "" };
  const asked = { owner: "a", key: "k", request: { x: 1 } };
  const before = new Idempotency<string>();
  const made = await before.once(
    asked,
    async ({ request }) => {
      if (request !== undefined) kept = request;
      return "first";
    },
    () => undefined,
  );
  const known = { ...kept, at: Date.now(), result: made };
  const later = new Idempotency<string>();
  const again = (request: unknown, at = known.at): Promise<string> =>
    later.once(
      { ...asked, request },
      async () => "second",
      (key) => (key === kept.key ? { ...known, at } : undefined),
    );
  assert.equal(await again({ x: 1 }), "first");
  await assert.rejects(again({ x: 2 }), { code: "conflict" });
  assert.equal(await again({ x: 1 }, Date.now() - 25 * 3_600_000), "second");
});
