import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { problemOf } from "./problem.ts";

test("what will never fit is 413 and not 429, which clients repeat", () => {
  assert.equal(problemOf(new StacyError("too-large", "too many arguments")).status, 413);
  assert.equal(problemOf(new StacyError("limit", "too many at once")).status, 429);
});

test("an answer says why its sandbox is gone, and what a command had put out before its time was over", () => {
  const gone = new StacyError("not-found", "sandbox x was ended", { data: { ended: "ttl" } });
  assert.deepEqual(problemOf(gone), {
    status: 404,
    body: { code: "NOT_FOUND", message: "sandbox x was ended", ended: "ttl" },
  });
  const late = new StacyError("timeout", "too long", { data: { stdout: "so far", stderr: "" } });
  assert.deepEqual(problemOf(late).body, { code: "TIMEOUT", message: "too long", stdout: "so far", stderr: "" });
  const other = new StacyError("invalid", "bad", { data: { stdout: 7, secret: "x" } });
  assert.deepEqual(Object.keys(problemOf(other).body), ["code", "message"]);
});

test("a full disk is told as such, whoever found it full; its path is not", async () => {
  const full = await writeFile("/dev/full", "x").catch((error: unknown) => error);
  const { status, body } = problemOf(full);
  assert.deepEqual([status, body.code], [507, "NO_SPACE"]);
  assert.equal(body.message, "there is no space left on a disk of the server");
  assert.match(body.remedy ?? "", /free disk space/);
});
