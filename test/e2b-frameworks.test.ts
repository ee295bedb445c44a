/**
 * What is built on E2B's SDKs, unmodified but for variables, with scripted models: each its shortest example (STACYVM_E2B=all). The
 * packages are installed for the run alone, from their registries.
 */
import assert from "node:assert/strict";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { e2bServer, prepare } from "./e2b-support.ts";
import type { Server } from "./server-support.ts";

const skip = process.env.STACYVM_E2B === "all" ? false : "STACYVM_E2B=all runs it: it installs 700 MB of packages";
const EXAMPLES = join(packageRoot, "test/e2b-frameworks");
const INSTALL_MS = 600_000;
const RUN_MS = 300_000;

const PYTHON = [
  { name: "smolagents", packages: ["smolagents[e2b]==1.26.0"], answer: "answer: 42" },
  { name: "openai_agents", packages: ["openai-agents[e2b]==0.24.0"], answer: "answer: read the workspace: True" },
  { name: "deepagents", packages: ["deepagents==0.6.12", "langchain-e2b==0.0.6"], answer: "answer: it is done" },
];
const JAVASCRIPT = [
  { name: "mastra", packages: ["@mastra/core@1.71.0", "@mastra/e2b@0.8.0"], answer: "answer: 42 user 0" },
  { name: "ai-sdk", packages: ["ai@7.0.173", "zod@4.6.7", "@e2b/code-interpreter@2.8.0"], answer: "answer: it is 120" },
];

describe("what is built on E2B's SDKs", { skip, timeout: 3_600_000 }, () => {
  let server: Server;
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "frameworks-"));
    // Mastra's default template installs packages.
    server = await e2bServer("defaults: {allowed_hosts: ['@debian']}\n");
    await prepare(server, "code-interpreter", "base");
  });
  after(async () => {
    await server?.[Symbol.asyncDispose]();
    if (dir !== undefined) await rm(dir, { recursive: true, force: true });
  });

  for (const { name, packages, answer } of PYTHON) {
    test(name, async () => {
      const venv = join(dir, name);
      await runTool("python3", ["-m", "venv", venv], { package: "python3-venv" });
      const python = join(venv, "bin/python");
      await runTool(python, ["-m", "pip", "install", "--quiet", ...packages], { timeoutMs: INSTALL_MS });
      const out = await runTool(python, [join(EXAMPLES, `${name}_example.py`)], {
        env: process.env,
        timeoutMs: RUN_MS,
      });
      assert.ok(out.toString("utf8").includes(answer), out.toString("utf8"));
    });
  }

  for (const { name, packages, answer } of JAVASCRIPT) {
    test(name, async () => {
      const folder = await mkdtemp(join(dir, `${name}-`));
      await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
      const flags = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder];
      await runTool("npm", [...flags, ...packages], { timeoutMs: INSTALL_MS });
      await copyFile(join(EXAMPLES, `${name}.mjs`), join(folder, "example.mjs"));
      const out = await runTool(process.execPath, [join(folder, "example.mjs")], {
        env: process.env,
        timeoutMs: RUN_MS,
      });
      assert.ok(out.toString("utf8").includes(answer), out.toString("utf8"));
    });
  }
});
