/**
 * E2B's own tests against a server of ours. `STACYVM_E2B_SUITES` names a folder with clones of github.com/e2b-dev/E2B and
 * github.com/e2b-dev/code-interpreter in it; they are copied, and what they need is installed from the registries. What does not pass is
 * named, with its reason, in e2b-suites-known.ts; `STACYVM_E2B_SUITES_ONLY` is a pattern for the names of suites, and `STACYVM_E2B_SUITES_FILES`
 * one for the paths of their files, to look for a fault.
 */
import assert from "node:assert/strict";
import { cp, glob, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { DOMAIN, Domain, noProxy } from "./e2b-domain-support.ts";
import { knownReason } from "./e2b-suites-known.ts";
import { e2bServer, KEY, prepare } from "./e2b-support.ts";
import type { Server } from "./server-support.ts";

const clones = process.env.STACYVM_E2B_SUITES ?? "";
const only = new RegExp(process.env.STACYVM_E2B_SUITES_ONLY ?? "");
const onlyFiles = new RegExp(process.env.STACYVM_E2B_SUITES_FILES ?? "");
const skip =
  clones === "" ? "STACYVM_E2B_SUITES=<folder with the clones> runs it: an hour, and packages of 500 MB" : false;
const INSTALL_MS = 600_000;
const SUITE_MS = 1_800_000;

interface Suite {
  name: string;
  /** Of the package, in the clones. */
  folder: string;
  /** Which of its files, by their paths; those that an earlier suite of the same package has are left out. */
  files: RegExp;
  /** By names below a domain, rather than by the two variables. */
  domain?: true;
  /** Without a server: they have one that is made up, or none. */
  alone?: true;
}

const JS = "E2B/packages/js-sdk";
const PYTHON = "E2B/packages/python-sdk";

/** All of their tests, each in one suite: the first that names its file. */
const SUITES: Suite[] = [
  {
    name: "JavaScript: the client alone",
    folder: JS,
    files: /^tests\/(?!sandbox|api|template)|urls\.test/,
    alone: true,
  },
  { name: "JavaScript: files, commands, terminals", folder: JS, files: /sandbox\/(files|commands|pty)\// },
  { name: "JavaScript: git", folder: JS, files: /sandbox\/git\// },
  { name: "JavaScript: templates", folder: JS, files: /tests\/template\//, domain: true },
  { name: "JavaScript: sandboxes, ports, networks", folder: JS, files: /./, domain: true },
  {
    name: "Python: the client alone",
    folder: PYTHON,
    files: /^tests\/(?!a?sync|shared\/git)|volume|secret/,
    alone: true,
  },
  { name: "Python: git", folder: PYTHON, files: /shared\/git\// },
  { name: "Python, sync: files, commands, terminals", folder: PYTHON, files: /sandbox_sync\/(files|commands|pty)\// },
  { name: "Python, async: files, commands, terminals", folder: PYTHON, files: /sandbox_async\/(files|commands|pty)\// },
  { name: "Python: templates", folder: PYTHON, files: /template_a?sync\//, domain: true },
  { name: "Python: sandboxes, ports, networks", folder: PYTHON, files: /./, domain: true },
  { name: "code interpreter, JavaScript", folder: "code-interpreter/js", files: /./ },
  { name: "code interpreter, Python", folder: "code-interpreter/python", files: /./ },
];

/** The image that tests of templates begin from: here the built-in one has its name, so that they need no Docker Hub. */
const STANDS_FOR = "ubuntu:22.04";

/** Its images are the checkout's until here: that name is for this server alone. */
async function ownImages(server: Server): Promise<void> {
  const images = join(server.root, "images");
  const shared = await realpath(images);
  await server.stop("SIGTERM");
  await rm(images);
  await runTool("cp", ["-a", "--reflink=auto", shared, images]);
  await server.start({}, ["--port", new URL(server.url).port]);
}

/** The tests of a package's copy, by suite. */
async function filesOf(folder: string, wanted: Suite): Promise<string[]> {
  const own = SUITES.filter((suite) => suite.folder === wanted.folder);
  const tests: string[] = [];
  for await (const path of glob("tests/**/{*.test.ts,test_*.py}", { cwd: folder })) {
    if (path.startsWith("tests/runtimes/") || !onlyFiles.test(path)) continue;
    if (own.find(({ files }) => files.test(path)) === wanted) tests.push(path);
  }
  return tests.sort();
}

/** What they need beside what their packages name for everybody. */
const JS_TOOLS = ["vitest", "msw", "dotenv", "error-stack-parser-es"];
const PYTHON_TOOLS = ["pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "pytest-dotenv"];

describe("E2B's own tests", { skip, timeout: 7_200_000 }, () => {
  const suites = SUITES.filter(({ name }) => only.test(name));
  const withCode = suites.some(({ name }) => name.startsWith("code"));
  let server: Server | undefined;
  let dir: string;
  /** Where each package's copy is, with what it needs installed. */
  const installed = new Map<string, Promise<string>>();
  const sums: string[] = [];
  before(async () => {
    dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "suites-"));
    process.env.E2B_API_KEY = KEY;
    if (suites.every(({ alone }) => alone === true)) return;
    // Ports are open to everybody, as E2B's are; those of the code interpreter ask for closed ones, and for no others.
    const open = !suites.every(({ name }) => name.startsWith("code"));
    server = await e2bServer(`server: {preview_domain: ${DOMAIN}, preview_public: ${open}}\n`);
    await prepare(server, "base", ...(withCode ? ["code-interpreter"] : []));
    await ownImages(server);
    const tagged = await fetch(`${server.url}/api/v1/images/tag`, {
      method: "POST",
      headers: { "x-api-key": KEY, "content-type": "application/json" },
      body: JSON.stringify({ reference: "stacyvm/base", name: STANDS_FOR }),
    });
    assert.ok(tagged.ok, await tagged.text());
  });
  after(async () => {
    console.log(sums.join("\n"));
    await server?.[Symbol.asyncDispose]();
    if (dir !== undefined) await rm(dir, { recursive: true, force: true });
  });

  const copyOf = async (from: string): Promise<string> => {
    const folder = await mkdtemp(join(dir, "suite-"));
    const filter = (path: string): boolean => basename(path) !== "node_modules";
    await cp(join(clones, from), folder, { recursive: true, filter });
    await (from.includes("python") ? installPython : installJs)(folder);
    return folder;
  };

  for (const suite of suites) {
    test(suite.name, { skip: suite.domain === true && noProxy }, async () => {
      const copying = installed.get(suite.folder) ?? copyOf(suite.folder);
      installed.set(suite.folder, copying);
      const folder = await copying;
      await using domain = suite.domain === true && server !== undefined ? await Domain.before(server) : undefined;
      const env = { ...process.env, ...(domain === undefined ? {} : byName(domain, folder)) };
      if (suite.alone === true) Object.assign(env, { E2B_API_URL: undefined, E2B_SANDBOX_URL: undefined });
      const tests = await filesOf(folder, suite);
      const outcomes = await (suite.folder.includes("python") ? runPython : runJs)(folder, tests, env);
      const count = (outcome: string): number => outcomes.filter((each) => each.outcome === outcome).length;
      const failed = outcomes.filter(({ outcome }) => outcome === "failed");
      const unknown = failed.filter(({ name }) => knownReason(name) === undefined);
      const known = failed.length - unknown.length;
      sums.push(
        `${suite.name}: ${outcomes.length} tests: ${count("passed")} passed, ${known} known not to pass, ${unknown.length} failed, ${count("skipped")} skipped`,
      );
      console.log(sums.at(-1));
      for (const { name, why } of failed) console.log(`  ${name}: ${knownReason(name) ?? `NOT KNOWN: ${why}`}`);
      assert.ok(count("passed") > 0);
      assert.deepEqual(unknown, []);
    });
  }
});

/** Names below the domain are this host's: what a name server says elsewhere. */
function byName({ env }: Domain, folder: string): Record<string, string | undefined> {
  return {
    ...env,
    ...{ E2B_API_URL: undefined, E2B_SANDBOX_URL: undefined },
    NODE_OPTIONS: `--import=${join(packageRoot, "test/e2b-domain-names.ts")}`,
    PYTHONPATH: join(folder, "names"),
  };
}

/** Run by Python at its start. */
const NAMES = `import os, socket
domain = "." + os.environ.get("E2B_DOMAIN", "").split(":")[0]
getaddrinfo = socket.getaddrinfo
def ours(host, *rest, **named):
    name = host.decode() if isinstance(host, bytes) else host
    return getaddrinfo("127.0.0.1" if name and name.endswith(domain) else host, *rest, **named)
socket.getaddrinfo = ours
`;

interface Outcome {
  name: string;
  outcome: "passed" | "failed" | "skipped";
  /** The failure's first words. */
  why?: string;
}

type Env = Record<string, string | undefined>;

async function installJs(folder: string): Promise<void> {
  const manifest = join(folder, "package.json");
  const { dependencies, type } = JSON.parse(await readFile(manifest, "utf8"));
  await writeFile(manifest, JSON.stringify({ type, dependencies, private: true }));
  const flags = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder];
  await runTool("npm", [...flags, ...JS_TOOLS], { timeoutMs: INSTALL_MS, cwd: folder });
}

async function runJs(folder: string, tests: string[], env: Env): Promise<Outcome[]> {
  const setup = "tests/globalFetchFallback.setup.ts";
  const setupFiles = (await exists(join(folder, setup))) ? [setup] : [];
  // As theirs, with room for machines that are emulated.
  const options = {
    ...{ include: tests, setupFiles },
    ...{ testTimeout: 120_000, hookTimeout: 120_000, maxWorkers: 2, deps: { interopDefault: true } },
  };
  await writeFile(join(folder, "own.config.mjs"), `export default { test: ${JSON.stringify(options)} };`);
  const report = join(folder, "report.xml");
  const run = ["vitest", "run", "--config", "own.config.mjs", "--reporter=junit", `--outputFile=${report}`];
  return await outcomesIn(runTool("npx", run, { cwd: folder, timeoutMs: SUITE_MS, env }), report);
}

async function installPython(folder: string): Promise<void> {
  await runTool("python3", ["-m", "venv", join(folder, "venv")], { package: "python3-venv" });
  await mkdir(join(folder, "names"));
  await writeFile(join(folder, "names", "sitecustomize.py"), NAMES);
  const python = join(folder, "venv/bin/python");
  const install = ["-m", "pip", "install", "--quiet"];
  await runTool(python, [...install, folder, ...PYTHON_TOOLS], { timeoutMs: INSTALL_MS });
  // The code interpreter breaks with newer ones of the package that it stands on; the oldest that it names is what it was made with.
  const [, oldest] = /^e2b = "\^([\d.]+)"$/m.exec(await readFile(join(folder, "pyproject.toml"), "utf8")) ?? [];
  if (oldest !== undefined) await runTool(python, [...install, `e2b==${oldest}`], { timeoutMs: INSTALL_MS });
  // As theirs, with room for machines that are emulated: sandboxes of these tests live 10 s, in which some run ten commands.
  const fixtures = join(folder, "tests/shared/git/conftest.py");
  const text = await readFile(fixtures, "utf8").catch(() => undefined);
  if (text === undefined) return;
  assert.match(text, /timeout=10\b/);
  await writeFile(fixtures, text.replaceAll(/timeout=10\b/g, "timeout=300"));
}

async function runPython(folder: string, tests: string[], env: Env): Promise<Outcome[]> {
  const report = join(folder, "report.xml");
  const flags = ["-m", "pytest", "-q", "--timeout", "120", "-n", "2", `--junitxml=${report}`];
  const run = [...flags, "-o", "addopts=--import-mode=importlib", ...tests];
  return await outcomesIn(
    runTool(join(folder, "venv/bin/python"), run, { cwd: folder, timeoutMs: SUITE_MS, env }),
    report,
  );
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
  await rm(report);
  return [...text.matchAll(/<testcase ([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(([, head = "", body = ""]) => {
    const attribute = (name: string): string => new RegExp(`\\b${name}="([^"]*)"`).exec(head)?.[1] ?? "";
    const name = `${attribute("classname")} ${attribute("name")}`;
    const [, why] = /<(?:failure|error)\b([^>]*)/.exec(body) ?? [];
    if (why !== undefined) return { name, outcome: "failed", why: why.trim().slice(0, 600) };
    return { name, outcome: /<skipped\b/.test(body) ? "skipped" : "passed" };
  });
}
