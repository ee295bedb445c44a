import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeName, nameBytes, nameText } from "./byte-name.ts";

test("every name of bytes has one text, and comes back from it, also through JSON", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const text = nameText(bytes);
      assert.deepEqual(nameBytes(text), Buffer.from(bytes));
      assert.equal(JSON.parse(JSON.stringify(text)), text);
      const encoded = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
      assert.equal(decodeName(encoded), text);
    }),
  );
});

test("text is what it is; other bytes are Python's lone surrogates", () => {
  for (const text of ["", "plain", "grün/日本/😀"]) assert.equal(nameText(Buffer.from(text)), text);
  assert.equal(nameText(Buffer.from("caf\xe9\xff", "latin1")), "caf\udce9\udcff");
  // Encoded surrogates are no UTF-8.
  assert.equal(nameText(Buffer.from([0xed, 0xb3, 0xbf])), "\udced\udcb3\udcbf");
  assert.equal(decodeName("a%2Fb%FFc%C3%A4"), "a/b\udcffcä");
  assert.throws(() => decodeName("100%"), URIError);
});
