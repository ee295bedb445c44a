import assert from "node:assert/strict";
import { test } from "node:test";
import { TimedLines } from "./timed-lines.ts";

test("each line has the time of its first piece, and the streams' lines are not mixed", async () => {
  const shown: string[] = [];
  const lines = new TimedLines(async (stream, text) => void shown.push(`${stream}: ${text}`));
  await lines.add({ stream: "stdout", text: "be", time: "T1" });
  await lines.add({ stream: "stderr", text: "oops\n", time: "T2" });
  await lines.add({ stream: "stdout", text: "gun\nnext\nopen", time: "T3" });
  await lines.end();
  assert.deepEqual(shown, ["stderr: T2 oops\n", "stdout: T1 begun\nT3 next\n", "stdout: T3 open\n"]);
});
