import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { printable, printableColoured, printableJson, printableLines } from "./printable.ts";

const ORDERS = [
  "\x1b]0;title\x07",
  "\x1b[2J",
  "\x9b31m",
  "\u202eevil",
  "\u2066x\u2069",
  "a\nforged row",
  "a\rb",
  "\u2028",
  "\u200b",
  "\x7f",
  "\ud800",
  "\ufeff",
];
// What a terminal takes for text: the letters of all scripts, marks, emoji with their joiner's number in between.
const WORDS = ["plain", "größer", "日本語", "עברית", "emoji 🦊", "tab-free, comma; ok", ""];

test("no text keeps an order for a terminal, a mark for its direction or a line end", () => {
  for (const text of ORDERS) {
    assert.doesNotMatch(printable(text), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u, JSON.stringify(text));
    assert.notEqual(printable(text), text);
  }
  for (const text of WORDS) assert.equal(printable(text), text);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.test(printable(text))),
  );
});

test("lines stay lines where they may, and colours of our own stay", () => {
  assert.equal(printableLines("a\n\tb\x1b[2J"), "a\n\tb\\x1b[2J");
  assert.equal(printableColoured("\x1b[31mred\x1b[0m\x1b[2J\x07\n"), "\x1b[31mred\x1b[0m\\x1b[2J\\x07\n");
});

test("JSON stays the same value", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const json = printableJson(JSON.stringify({ text }, null, 2));
      assert.doesNotMatch(json, /[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/u);
      assert.deepEqual(JSON.parse(json), { text });
    }),
  );
});
