import assert from "node:assert/strict";
import { test } from "node:test";
import { runTool } from "./run.ts";

test("a tool that fails is told in its last words, not in the backtrace behind them", async () => {
  const script =
    "printf 'one\\ntwo\\nerror: no toolchain\\nhelp: install one\\n\\nStack backtrace:\\n 0: main\\n 1: start\\n' >&2; exit 1";
  await assert.rejects(runTool("sh", ["-c", script]), (error: Error) => {
    assert.equal(error.message, "sh failed: one\ntwo\nerror: no toolchain\nhelp: install one");
    return true;
  });
});
