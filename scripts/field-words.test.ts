/** docs/api.md and the document for programs explain everything: each route, parameter and field, and each in words that are still used. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Document, describeFields } from "../src/api/describe-fields.ts";
import { FIELD_WORDS } from "../src/api/field-words.ts";
import { openApiDocument } from "./openapi.ts";

/** The words of the table are those of no other document. */
function withoutTable(document: Document): Document {
  const words = new Set(Object.values(FIELD_WORDS));
  return JSON.parse(
    JSON.stringify(document, (key, value) => (key === "description" && words.has(value) ? undefined : value)),
  );
}

test("every route says what it does and what it answers; every field and parameter is explained; no words are left over", async () => {
  const document = await openApiDocument();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      assert.ok((operation.summary ?? "").length > 3, `${method} ${path} says what it does`);
      for (const [status, { description }] of Object.entries(operation.responses)) {
        assert.ok(description.length > 1, `${method} ${path} says what ${status} means`);
      }
    }
  }
  const { used, missing } = describeFields(withoutTable(document as Document));
  assert.deepEqual(missing, [], "add words for these to src/api/field-words.ts");
  assert.deepEqual(
    Object.keys(FIELD_WORDS).filter((name) => !used.has(name)),
    [],
    "nothing has these names any longer",
  );
  for (const [name, words] of Object.entries(FIELD_WORDS)) assert.match(words, /^[`A-Z].*[.]$/, name);
});

test("a field without words is found", () => {
  const { missing } = describeFields({ components: { schemas: { Thing: { properties: { never_heard_of: {} } } } } });
  assert.deepEqual(missing, ["Thing.never_heard_of"]);
});
