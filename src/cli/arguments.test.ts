import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDuration, parseVariable } from "./arguments.ts";

test("a variable's name alone stands for the value here; one that is not set is an error that says so", () => {
  process.env.STACYVM_TEST_VARIABLE = "a=b";
  const earlier = parseVariable("ONE=1");
  assert.deepEqual(parseVariable("STACYVM_TEST_VARIABLE", earlier), { ONE: "1", STACYVM_TEST_VARIABLE: "a=b" });
  assert.deepEqual(parseVariable("EMPTY="), { EMPTY: "" });
  delete process.env.STACYVM_TEST_VARIABLE;
  assert.throws(() => parseVariable("STACYVM_TEST_VARIABLE"), /is not set here; write it as NAME=value/);
  assert.throws(() => parseVariable("=x"), /write it as NAME=value/);
});

test("a time is a number of seconds, or has units, days too; the server is told in its own form", () => {
  const of = (text: string): string => parseDuration(text);
  assert.deepEqual([of("0"), of("1"), of("90s"), of("1h30m"), of("1.5h")], ["0", "1s", "90s", "1h30m", "1.5h"]);
  assert.deepEqual([of("7d"), of("1d12h"), of("0.5d")], ["168h", "24h12h", "12h"]);
  for (const wrong of ["", "1w", "d", "-1", "1.5"]) assert.throws(() => of(wrong), /90s, 30m, 1h30m or 7d/);
});
