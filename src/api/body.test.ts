import assert from "node:assert/strict";
import { test } from "node:test";
import { JSON_BOUNDS } from "../host/bounds.ts";
import { readJson } from "./body.ts";

test("a body of too many values is refused in words of its own, whatever its length in bytes may be", async () => {
  const read = (body: string) =>
    readJson(new Request("http://x", { method: "POST", body }), { maxBytes: 0, timeoutMs: 60_000 });
  const values = (count: number) => `[${"[],".repeat(count)}0]`;
  await assert.rejects(read(values(JSON_BOUNDS.clientValues)), {
    code: "invalid",
    message: `the body is JSON of more than ${JSON_BOUNDS.clientValues} values`,
  });
  await assert.rejects(read("{"), { code: "invalid", message: "the body is not valid JSON" });
  assert.equal(((await read(values(1_000))) as unknown[]).length, 1_001);
});
