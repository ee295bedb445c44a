import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { Server } from "./server-support.ts";

/** Installed once per checkout, from the package index by name and version. */
async function sdkPython(): Promise<string> {
  const venv = join(packageRoot, ".build", "python-sdk");
  const python = join(venv, "bin", "python");
  const done = join(venv, "lib", "installed");
  if (
    !(await stat(done).then(
      () => true,
      () => false,
    ))
  ) {
    await runTool("python3", ["-m", "venv", venv], { package: "python3-venv" });
    await runTool(python, ["-m", "pip", "install", "--quiet", "stacyvm==0.1.1"]);
    await runTool("touch", [done]);
  }
  return python;
}

test("the published Python SDK, sync and async, works unchanged", async () => {
  const python = await sdkPython();
  await using server = await Server.create();
  const out = await runTool(python, [join(packageRoot, "test/python-sdk.py"), server.url], { timeoutMs: 120_000 });
  assert.match(out.toString("utf8"), /works against this server/);
});
