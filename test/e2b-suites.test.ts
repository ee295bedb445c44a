/**
 * E2B's own integration tests against a server of ours. `STACYVM_E2B_SUITES` names a folder with clones of github.com/e2b-dev/E2B and
 * github.com/e2b-dev/code-interpreter in it; they are copied, and what they need is installed from the registries. What does not pass is
 * named, with its reason, in e2b-suites-known.ts; `STACYVM_E2B_SUITES_ONLY` is a pattern for the names of suites.
 */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runTool } from "../src/host/run.ts";
import { knownReason } from "./e2b-suites-known.ts";
import { e2bServer, prepare } from "./e2b-support.ts";
import type { Server } from "./server-support.ts";

const clones = process.env.STACYVM_E2B_SUITES ?? "";
const only = new RegExp(process.env.STACYVM_E2B_SUITES_ONLY ?? "");
const skip =
  clones === "" ? "STACYVM_E2B_SUITES=<folder with the clones> runs it: minutes, and packages of 500 MB" : false;
const INSTALL_MS = 600_000;
const SUITE_MS = 1_800_000;

interface Suite {
  name: string;
  /** Of the package, in the clones. */
  folder: string;
  /** Those that drive a sandbox; the others test the client alone, with a server that is made up. */
  tests: string[];
}

const ONE = ["files", "commands", "pty"];
const JS = "E2B/packages/js-sdk";
const PYTHON = "E2B/packages/python-sdk";
const LIFE = ["create", "kill", "connect", "host", "fork", "metrics", "secure", "snapshot", "timeout"];
const NETWORK = ["network.test", "internetAccess", "lifecyclePayload"];

const SUITES: Suite[] = [
  { name: "JavaScript: files, commands, terminals", folder: JS, tests: ONE.map(sandboxTest) },
  { name: "JavaScript: git", folder: JS, tests: ["tests/sandbox/git"] },
  { name: "JavaScript: sandboxes", folder: JS, tests: ["tests/api", ...LIFE.map(sandboxTest)] },
  { name: "JavaScript: networks", folder: JS, tests: NETWORK.map(sandboxTest) },
  { name: "Python, sync: files, commands, terminals", folder: PYTHON, tests: python("sync", ONE) },
  { name: "Python, async: files, commands, terminals", folder: PYTHON, tests: python("async", ONE) },
  {
    name: "Python: sandboxes",
    folder: PYTHON,
    tests: ["sync", "async"].flatMap((way) => [...python(way, []), api(way)]),
  },
  { name: "code interpreter, JavaScript", folder: "code-interpreter/js", tests: ["tests"] },
  { name: "code interpreter, Python", folder: "code-interpreter/python", tests: ["tests"] },
];

function sandboxTest(name: string): string {
  return `tests/sandbox/${name}`;
}

/** @param parts empty: what is beside these parts */
function python(way: string, parts: string[]): string[] {
  const folder = `tests/${way}/sandbox_${way}`;
  if (parts.length > 0) return parts.map((part) => `${folder}/${part}`);
  return [folder, ...ONE.map((part) => `--ignore=${folder}/${part}`)];
}

function api(way: string): string {
  return `tests/${way}/api_${way}`;
}

/** What they need beside what their packages name for everybody. */
const JS_TOOLS = ["vitest", "msw", "dotenv", "error-stack-parser-es"];
const PYTHON_TOOLS = ["pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "pytest-dotenv"];

describe("E2B's own integration tests", { skip, timeout: 7_200_000 }, () => {
  let server: Server;
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "suites-"));
    server = await e2bServer();
    await prepare(server, "base");
  });
  after(async () => {
    await server?.[Symbol.asyncDispose]();
    if (dir !== undefined) await rm(dir, { recursive: true, force: true });
  });

  for (const suite of SUITES.filter(({ name }) => only.test(name))) {
    test(suite.name, async () => {
      const folder = await mkdtemp(join(dir, "suite-"));
      if (suite.name.startsWith("code")) await prepare(server, "code-interpreter");
      const filter = (path: string): boolean => basename(path) !== "node_modules";
      await cp(join(clones, suite.folder), folder, { recursive: true, filter });
      const outcomes = await (suite.folder.includes("python") ? runPython : runJs)(folder, suite);
      const count = (outcome: string): number => outcomes.filter((each) => each.outcome === outcome).length;
      console.log(`${suite.name}: ${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped`);
      const failed = outcomes.filter(({ outcome }) => outcome === "failed").map(({ name }) => name);
      for (const name of failed) console.log(`  ${name}: ${knownReason(name) ?? "NOT KNOWN"}`);
      assert.ok(count("passed") > 0);
      assert.deepEqual(
        failed.filter((name) => knownReason(name) === undefined),
        [],
      );
    });
  }
});

interface Outcome {
  name: string;
  outcome: "passed" | "failed" | "skipped";
}

async function runJs(folder: string, { tests }: Suite): Promise<Outcome[]> {
  const manifest = join(folder, "package.json");
  const { dependencies, type } = JSON.parse(await readFile(manifest, "utf8"));
  await writeFile(manifest, JSON.stringify({ type, dependencies, private: true }));
  const flags = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder];
  await runTool("npm", [...flags, ...JS_TOOLS], { timeoutMs: INSTALL_MS, cwd: folder });
  // As theirs, with room for machines that are emulated.
  const config = `export default { test: { include: ["tests/**/*.test.ts"], exclude: ["tests/runtimes/**"], testTimeout: 120_000,
    hookTimeout: 120_000, maxWorkers: 2, deps: { interopDefault: true } } };`;
  await writeFile(join(folder, "own.config.mjs"), config);
  const report = join(folder, "report.xml");
  const run = ["vitest", "run", "--config", "own.config.mjs", "--reporter=junit", `--outputFile=${report}`, ...tests];
  return await outcomesIn(runTool("npx", run, { cwd: folder, timeoutMs: SUITE_MS, env: process.env }), report);
}

async function runPython(folder: string, { tests }: Suite): Promise<Outcome[]> {
  await runTool("python3", ["-m", "venv", join(folder, "venv")], { package: "python3-venv" });
  const python = join(folder, "venv/bin/python");
  await runTool(python, ["-m", "pip", "install", "--quiet", folder, ...PYTHON_TOOLS], { timeoutMs: INSTALL_MS });
  const report = join(folder, "report.xml");
  const flags = ["-m", "pytest", "-q", "--timeout", "120", "-n", "2", `--junitxml=${report}`];
  const run = [...flags, "-o", "addopts=--import-mode=importlib", ...tests];
  return await outcomesIn(runTool(python, run, { cwd: folder, timeoutMs: SUITE_MS, env: process.env }), report);
}

/** A run whose tests do not all pass fails; its report says which. */
async function outcomesIn(run: Promise<unknown>, report: string): Promise<Outcome[]> {
  const failure = await run.then(
    () => undefined,
    (error: unknown) => error,
  );
  const text = await readFile(report, "utf8").catch(() => {
    throw failure;
  });
  return [...text.matchAll(/<testcase ([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(([, head = "", body = ""]) => {
    const attribute = (name: string): string => new RegExp(`\\b${name}="([^"]*)"`).exec(head)?.[1] ?? "";
    const name = `${attribute("classname")} ${attribute("name")}`;
    if (/<(failure|error)\b/.test(body)) return { name, outcome: "failed" };
    return { name, outcome: /<skipped\b/.test(body) ? "skipped" : "passed" };
  });
}
