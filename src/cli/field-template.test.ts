import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFieldTemplate } from "./field-template.ts";

test("fields are written as Docker's --format writes them; a field that is not there is named with those that are", () => {
  const value = { id: "sb-1", boot: { path: "cold", phases: { vmm: 3 } }, metadata: { a: "b" } };
  const of = (text: string) => parseFieldTemplate(text, ["id", "name", "boot", "metadata"])(value);
  assert.equal(of("{{.id}}\\t{{ .boot.path }}!"), "sb-1\tcold!");
  assert.equal(of("{{json .boot.phases}} {{.metadata}} {{json .name}}"), '{"vmm":3} {"a":"b"} null');
  assert.equal(of("[{{.name}}{{.boot.constructor}}]"), "[]");
  assert.equal(of("{{json .}}"), JSON.stringify(value));
  assert.throws(() => of("{{.State.Status}}"), /no field State; there are: id, name, boot, metadata/);
  for (const text of ["{{range .x}}", "{{id}}", "{{.}}"]) assert.throws(() => of(text), /\{\{\.state\}\}/);
});
