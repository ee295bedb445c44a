import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "./error.ts";
import { ping } from "./ping.ts";

test("this host answers itself, or it is said what is missing", async (context) => {
  try {
    assert.equal(await ping("127.0.0.1"), true);
  } catch (error) {
    assert.ok(error instanceof StacyError && error.code === "unavailable" && error.remedy !== undefined);
    context.diagnostic(error.message);
  }
});

test("without the program it is said how to get it", async () => {
  const { PATH } = process.env;
  process.env.PATH = "/nowhere";
  try {
    await assert.rejects(ping("127.0.0.1"), { code: "unavailable", remedy: "install the package iputils-ping" });
  } finally {
    process.env.PATH = PATH;
  }
});
