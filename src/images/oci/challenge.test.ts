import assert from "node:assert/strict";
import { test } from "node:test";
import { parseChallenge } from "./challenge.ts";

test("a scheme and its parameters, whatever their case and order", () => {
  assert.deepEqual(parseChallenge('BEARER Realm="https://a/t?x=1",service="s, \\"q\\"" ,SCOPE="repository:a:pull"'), {
    scheme: "bearer",
    fields: { realm: "https://a/t?x=1", service: 's, \\"q\\"', scope: "repository:a:pull" },
  });
  assert.deepEqual(parseChallenge("Basic"), { scheme: "basic", fields: {} });
  assert.deepEqual(parseChallenge(""), { scheme: "", fields: {} });
  assert.deepEqual(parseChallenge("Bearer realm=plain"), { scheme: "bearer", fields: {} });
});

test("a long one that means nothing takes no time", () => {
  for (const piece of ["a", 'a="', 'a="\\', '"', "a=", " ", 'a="\\"']) {
    const begun = performance.now();
    parseChallenge(`Bearer ${piece.repeat(200_000 / piece.length)}`);
    assert.ok(performance.now() - begun < 1_000, piece);
  }
});
