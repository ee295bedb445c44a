import assert from "node:assert/strict";
import { test } from "node:test";
import type { StacyError } from "./error.ts";
import { runTool } from "./run.ts";

test("a tool that fails is told in its last words, not in the backtrace behind them", async () => {
  const script =
    "printf 'one\\ntwo\\nerror: no toolchain\\nhelp: install one\\n\\nStack backtrace:\\n 0: main\\n 1: start\\n' >&2; exit 1";
  await assert.rejects(runTool("sh", ["-c", script]), (error: Error) => {
    assert.equal(error.message, "sh failed: one\ntwo\nerror: no toolchain\nhelp: install one");
    return true;
  });
});

test("a tool that finds no room on a disk says so in one sentence, with a remedy; its own words are the cause", async () => {
  // More lines than are told of other failures come after it.
  await assert.rejects(
    runTool("sh", ["-c", "LC_ALL=C cat /dev/zero >/dev/full || seq 9 >&2; exit 1"]),
    (error: StacyError) => {
      assert.deepEqual(
        [error.code, error.message],
        ["no-space", "there is no space left on the disk that sh writes to"],
      );
      assert.match(error.remedy ?? "", /^free disk space/);
      assert.match((error.cause as Error).message, /No space left on device/);
      return true;
    },
  );
});
