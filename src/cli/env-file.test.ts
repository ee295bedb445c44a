import assert from "node:assert/strict";
import { test } from "node:test";
import { parseEnvFile, variables } from "./env-file.ts";

test("an environment file is read as Docker does: quotes stay, comments and blanks go, a name alone has its value here", () => {
  process.env.STACYVM_TEST_VARIABLE = "of this host";
  const text = '\uFEFFA=1\r\n\n# comment\n  B="two words"\nC=a=b\nD=\nSTACYVM_TEST_VARIABLE\nSTACYVM_TEST_NOT_SET\n';
  assert.deepEqual(parseEnvFile(text), {
    ...{ A: "1", B: '"two words"', C: "a=b", D: "" },
    STACYVM_TEST_VARIABLE: "of this host",
  });
  delete process.env.STACYVM_TEST_VARIABLE;
  assert.throws(() => parseEnvFile("A=1\nno name=2"), /line 2/);
  assert.throws(() => parseEnvFile("=x"), /line 1/);
});

test("what is said with -e goes before the file", () => {
  assert.deepEqual(variables({ env: { A: "e" }, envFile: { A: "f", B: "f" } }), { A: "e", B: "f" });
  assert.equal(variables({}), undefined);
});
