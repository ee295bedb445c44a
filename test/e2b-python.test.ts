/** E2B's published Python SDKs, unmodified, against a real server with real sandboxes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { type Outcome, Scenarios } from "./e2b-scenarios.ts";
import { environment } from "./python-support.ts";
import { Server } from "./server-support.ts";

const KEY = `e2b_${"0123456789abcdef".repeat(3).slice(0, 40)}`;

test("sandboxes and the code interpreter, sync and async", { timeout: 600_000 }, async () => {
  const python = await environment("python-e2b", ["e2b==2.63.0", "e2b-code-interpreter==2.11.5"]);
  await using server = await Server.create(`auth: {api_key: ${KEY}}\nproviders: {default: qemu}\n`);
  const out = await runTool(python, [join(packageRoot, "test/e2b-python.py")], {
    env: { ...process.env, E2B_API_URL: server.url, E2B_SANDBOX_URL: server.url, E2B_API_KEY: KEY },
    timeoutMs: 400_000,
  });
  const all = new Scenarios();
  for (const line of out.toString("utf8").trim().split("\n")) {
    const { name, outcome, ms, why } = JSON.parse(line);
    all.results.push({ name, outcome: outcome as Outcome, ms, ...(why === null ? {} : { why }) });
  }
  console.log(all.table("e2b and e2b-code-interpreter for Python"));
  assert.deepEqual(all.failed, []);
  assert.ok(all.results.length >= 40, String(all.results.length));
});
