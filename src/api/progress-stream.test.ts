import assert from "node:assert/strict";
import { test } from "node:test";
import { progressStream } from "./progress-stream.ts";

test("work that is silent says its last step again, so that nobody takes the answer for dead", {
  timeout: 60_000,
}, async () => {
  const work = Promise.withResolvers<Record<string, unknown>>();
  const answer = progressStream(
    (progress) => {
      progress({ step: "unpacking", done: 1, total: 2 });
      return work.promise;
    },
    "req-1",
    5,
  );
  let text = "";
  for await (const piece of answer.body ?? assert.fail()) {
    text += Buffer.from(piece).toString();
    if (text.split("unpacking").length === 4) work.resolve({ image: "there" });
  }
  const lines = text.trimEnd().split("\n");
  assert.ok(lines.length >= 4);
  assert.deepEqual(JSON.parse(lines.at(-1) ?? ""), { image: "there" });
  for (const line of lines.slice(0, -1)) assert.deepEqual(JSON.parse(line), { step: "unpacking", done: 1, total: 2 });
});
