import assert from "node:assert/strict";
import { test } from "node:test";
import { FieldReader, FieldWriter, Status, Tag } from "./protocol.ts";
import { failureOf } from "./status.ts";

test("a guest's error is said in words; the system's number is for programs", () => {
  const fields = new FieldWriter()
    .u8(Tag.STATUS, Status.NOT_FOUND)
    .text(Tag.MESSAGE, "/nowhere: No such file or directory (os error 2)")
    .u16(Tag.ERRNO, 2);
  const failure = failureOf(new FieldReader(fields.finish()));
  assert.deepEqual(
    [failure?.code, failure?.message, failure?.data],
    ["not-found", "/nowhere: No such file or directory", { errno: 2 }],
  );
});
