import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { sdkPython } from "./python-support.ts";
import { Server } from "./server-support.ts";

test("the published Python SDK, sync and async, works unchanged", async () => {
  const python = await sdkPython();
  await using server = await Server.create();
  const out = await runTool(python, [join(packageRoot, "test/python-sdk.py"), server.url], { timeoutMs: 120_000 });
  assert.match(out.toString("utf8"), /works against this server/);
});
