/** What clients keep with a file, as it is asked for and told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { keepMetadata, metadataIn, metadataOf } from "./metadata.ts";

const headers = (entries: Record<string, string>): Headers => new Headers(entries);

test("metadata are the headers of that name, and no others", () => {
  const given = { "X-Metadata-Author": "somebody", "x-metadata-empty": "", "content-type": "text/plain" };
  assert.deepEqual(metadataIn(headers(given)), { author: "somebody", empty: "" });
});

test("keys and values that no file keeps are refused before anything is written", () => {
  const wrong = [
    { "x-metadata-": "a key of nothing" },
    { [`x-metadata-${"k".repeat(247)}`]: "too long a key" },
    { "x-metadata-a": "é" },
    { "x-metadata-a": "x".repeat(4096) },
  ];
  for (const each of wrong) assert.throws(() => metadataIn(headers(each)), { code: "invalid" });
  assert.deepEqual(Object.keys(metadataIn(headers({ [`x-metadata-${"k".repeat(246)}`]: "1" }))), ["k".repeat(246)]);
});

test("a file that was written where no attributes are kept is told with what to do", async () => {
  const agent = (code: "not-supported" | "permission") => ({ mark: () => Promise.reject(new StacyError(code, "no")) });
  await assert.rejects(keepMetadata(agent("not-supported"), "/run/x", { a: "b" }), { code: "invalid" });
  await assert.rejects(keepMetadata(agent("permission"), "/x", { a: "b" }), { code: "permission" });
});

test("attributes are told by their keys", () => {
  assert.deepEqual(metadataOf({ attributes: { "user.e2b.a": "1" } }), { a: "1" });
  assert.deepEqual(metadataOf({}), {});
});
