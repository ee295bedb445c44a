import assert from "node:assert/strict";
import { test } from "node:test";
import { parseVariable } from "./arguments.ts";

test("a variable's name alone stands for the value here; one that is not set is an error that says so", () => {
  process.env.STACYVM_TEST_VARIABLE = "a=b";
  const earlier = parseVariable("ONE=1");
  assert.deepEqual(parseVariable("STACYVM_TEST_VARIABLE", earlier), { ONE: "1", STACYVM_TEST_VARIABLE: "a=b" });
  assert.deepEqual(parseVariable("EMPTY="), { EMPTY: "" });
  delete process.env.STACYVM_TEST_VARIABLE;
  assert.throws(() => parseVariable("STACYVM_TEST_VARIABLE"), /is not set here; write it as NAME=value/);
  assert.throws(() => parseVariable("=x"), /write it as NAME=value/);
});
