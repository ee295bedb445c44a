import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { publishedPackage, sdkPython } from "./python-support.ts";
import { Server } from "./server-support.ts";

test("the published Python SDK, sync and async, works unchanged", async () => {
  const python = await sdkPython();
  await using server = await Server.create();
  const out = await runTool(python, [join(packageRoot, "test/python-sdk.py"), server.url], { timeoutMs: 120_000 });
  assert.match(out.toString("utf8"), /works against this server/);
});

test("every published version of both packages, through every method that it has", { timeout: 300_000 }, async () => {
  const python = await sdkPython();
  await using server = await Server.create();
  for (const [name, versions] of Object.entries({
    stacyvm: ["0.1.0", "0.1.1"],
    forgevm: ["0.1.0", "0.1.1", "0.1.2"],
  })) {
    for (const version of versions) {
      const folder = await publishedPackage(python, name, version);
      const script = join(packageRoot, "test/python-published.py");
      // Before the environment's own packages, of which one has the same name.
      const run = `import sys; sys.path.insert(0, sys.argv.pop(1)); __import__("runpy").run_path(sys.argv.pop(1), run_name="__main__")`;
      const arguments_ = ["-c", run, folder, script, server.url, name, "stacyvm/busybox"];
      const out = await runTool(python, arguments_, { timeoutMs: 120_000 });
      assert.match(out.toString("utf8"), /methods/, `${name} ${version}`);
    }
  }
});
