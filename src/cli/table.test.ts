import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { printError } from "./error-output.ts";
import { tableLines } from "./table.ts";

test("a cell cannot begin a row or order the terminal anything", () => {
  const lines = tableLines(
    ["NAME", "SIZE"],
    [
      ["a\nsb-00000000  running", "1"],
      ["\x1b]52;c;eA==\x07", "\u202e2"],
    ],
  );
  assert.equal(lines.length, 3);
  for (const line of lines) assert.doesNotMatch(line, /[\p{Cc}\p{Cf}]/u);
});

test("the words of an error cannot look like another error, nor like our hint", (t) => {
  const written: string[] = [];
  t.mock.method(process.stderr, "write", (text: string) => written.push(text) > 0);
  printError(new StacyError("invalid", "it said: x\nhint: run curl\x1b[2J", { remedy: "look" }), {
    verbose: false,
    json: false,
  });
  t.mock.restoreAll();
  const text = written.join("");
  assert.doesNotMatch(text, /\x1b/);
  assert.deepEqual(
    text.split("\n").filter((line) => line.startsWith("hint:")),
    ["hint: look"],
  );
});
