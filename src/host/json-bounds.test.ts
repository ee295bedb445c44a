import assert from "node:assert/strict";
import { before, test } from "node:test";
import { JSON_BOUNDS } from "./bounds.ts";
import { boundJsonLevels, parseClientJson } from "./json-bounds.ts";

const { levels, clientValues } = JSON_BOUNDS;
before(boundJsonLevels);

test("a text that nests too deep is refused before the parser sees it, whole or broken off", () => {
  for (const text of [
    '{"a":1,"b":'.repeat(20_000),
    `${'{"a":1,"b":'.repeat(20_000)}"\u0001`,
    `${"[".repeat(levels + 1)}${"]".repeat(levels + 1)}`,
    `{"\\\\":${"[".repeat(levels)}`,
  ]) {
    assert.throws(() => JSON.parse(text), { name: "SyntaxError", message: `JSON of more than ${levels} levels` });
  }
});

test("what is allowed is parsed as ever: brackets in strings, quotes that are escaped, revivers", () => {
  const deep = `${"[".repeat(levels)}${"]".repeat(levels)}`;
  assert.equal(JSON.stringify(JSON.parse(deep)), deep);
  const brackets = { '[{"\\': "[{".repeat(2_000), "\\": ['"', '\\"[[['.repeat(1_000)], wide: Array(3_000).fill([]) };
  assert.deepEqual(JSON.parse(JSON.stringify(brackets)), brackets);
  assert.equal(JSON.parse("[1, 2]", (_key, value) => (typeof value === "number" ? -value : value)).join(), "-1,-2");
  assert.throws(() => JSON.parse(`"${"x".repeat(2_000)}`), SyntaxError);
});

test("what a client sends has few values, however long its strings are; our own documents may have more", () => {
  const most = JSON.stringify(Array(clientValues).fill(1));
  assert.equal((parseClientJson(most) as number[]).length, clientValues);
  const long = { [",[{".repeat(clientValues)]: ",".repeat(2 * clientValues) };
  assert.deepEqual(parseClientJson(JSON.stringify(long)), long);
  const map = JSON.stringify(Object.fromEntries(Array.from({ length: clientValues + 1 }, (_, i) => [`A${i}`, ""])));
  for (const text of [`[${most}]`, "[],".repeat(clientValues), map]) {
    const refused = { name: "SyntaxError", message: `JSON of more than ${clientValues} values` };
    assert.throws(() => parseClientJson(text), refused);
  }
  assert.equal(Object.keys(JSON.parse(map)).length, clientValues + 1);
});
