/**
 * `make test`: lint, types and layers, then the Rust tests, then the TypeScript tests: units, and files with real machines two at a
 * time, since most of them wait as long as they work. A file that failed beside another, units too, is run once more by itself, and the end says
 * so: what fails only beside others is a busy machine's, or a race to be looked at; with STACYVM_TEST_STRICT=1 it fails the run.
 * Afterwards nothing of ours may be left running.
 */
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { mkdtemp, open, readdir, readFile, rm } from "node:fs/promises";
import { availableParallelism, constants, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { crateSource } from "../src/images/crate-build.ts";

/** How long tests that are told to end may take for it. */
const STOP_LIMIT_MS = 10_000;
/** Files with real machines at a time. */
const LANES = 2;
const IMAGES = ["stacyvm/busybox", "stacyvm/python", "stacyvm/base"];
/** So many files that failed are run once more. */
const MOST_AGAIN = 6;

process.chdir(packageRoot);
const bin = join(packageRoot, "node_modules", ".bin");
// Names of test files pick them; without names, everything runs.
const only = process.argv.slice(2);

/** Tests work here: images and kernel are shared with `make run`, machines and snapshots are the tests' own. */
const scratch = await mkdtemp(join(tmpdir(), "stacyvm-test-"));
const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, STACYVM_TEST_DIR: scratch };

let failed = false;
/** Reasons for which tests of real machines were left out, and how many tests or suites each. */
const leftOut = new Map<string, number>();
let stopped: NodeJS.Signals | undefined;
const running = new Set<ChildProcess>();

/** Groups of their own, so that ending us ends the tests too, and not only their runners. */
function endGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch {} // it ended by itself
}

function endAll(signal: NodeJS.Signals): void {
  for (const child of running) endGroup(child, signal);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // The second time it has to be at once.
    endAll(stopped === undefined ? signal : "SIGKILL");
    stopped = signal;
    setTimeout(() => endAll("SIGKILL"), STOP_LIMIT_MS).unref();
  });
}

interface Step {
  title: string;
  passed: boolean;
  seconds: number;
}

/** @param together what it prints comes in one piece, at its end: others print too */
async function run(title: string, command: string, args: string[], cwd: string, together: boolean): Promise<Step> {
  const start = performance.now();
  if (!together) process.stdout.write(`\n==> ${title}\n`);
  // A file and no pipe: what a test leaves behind by mistake would hold that open.
  const printed = together ? await open(join(scratch, `${basename(title)}.log`), "w+") : undefined;
  const output = printed?.fd ?? "inherit";
  const stdio: StdioOptions = ["ignore", output, output];
  const child = spawn(command, args, { stdio, env, cwd, detached: true });
  running.add(child);
  const code = await new Promise<number>((resolve) => {
    child.once("error", (error) => {
      process.stdout.write(`${error.message}\n`);
      resolve(127);
    });
    child.once("exit", (status) => resolve(status ?? 1));
  });
  // What a runner that was ended has left of its group.
  endGroup(child, "SIGKILL");
  running.delete(child);
  const seconds = (performance.now() - start) / 1000;
  if (printed !== undefined) {
    const text = await readFile(join(scratch, `${basename(title)}.log`), "utf8");
    process.stdout.write(`\n==> ${title}\n${text}`);
    // As the reporter prints them: `﹣ name (0.1ms) # reason`.
    for (const [, reason] of text.matchAll(/^ *﹣ .* # (.+)$/gm)) {
      leftOut.set(reason as string, (leftOut.get(reason as string) ?? 0) + 1);
    }
    await printed.close();
  }
  process.stdout.write(`<== ${title}: ${code === 0 ? "passed" : `FAILED (exit ${code})`} in ${seconds.toFixed(1)} s\n`);
  return { title, passed: code === 0, seconds };
}

async function step(title: string, command: string, args: string[], cwd = packageRoot): Promise<void> {
  if (stopped !== undefined) return;
  if (!(await run(title, command, args, cwd, false)).passed) failed = true;
}

/** All in one runner. Files that failed in it are run once more, each by itself. */
async function unitStep(files: string[]): Promise<void> {
  if (stopped !== undefined || files.length === 0) return;
  process.stdout.write(`\n${files.length} files of units, two at a time\n`);
  const all = await run("units", "node", [...node, "--test-concurrency=2", ...files], packageRoot, true);
  if (all.passed) return;
  // As the reporter has it at its end: `test at FILE:LINE:COLUMN`.
  const text = await readFile(join(scratch, "units.log"), "utf8");
  const named = new Set([...text.matchAll(/^test at (.+):\d+:\d+$/gm)].map(([, file]) => file as string));
  const again = files.filter((file) => named.has(file) || named.has(join(packageRoot, file)));
  if (again.length === 0 || again.length > MOST_AGAIN) failed = true;
  else for (const file of again) await onceMore(file);
}

/** Only when it fails by itself too, or nobody is to be forgiven, the run fails. */
async function onceMore(file: string): Promise<void> {
  const passed = stopped === undefined && (await run(file, "node", [...node, file], packageRoot, false)).passed;
  if (!passed || process.env.STACYVM_TEST_STRICT === "1") failed = true;
  if (passed) process.stdout.write(`${file}: FAILED beside others, passed by itself\n`);
}

/** Each file by a runner of its own: its time is known, and it can be run again. */
async function machineSteps(files: string[]): Promise<void> {
  const lanes = Math.min(LANES, availableParallelism(), files.length);
  const test = (file: string, together: boolean): Promise<Step> =>
    run(file, "node", [...node, file], packageRoot, together);
  const waiting = [...files];
  const done: Step[] = [];
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (let file = waiting.shift(); file !== undefined && stopped === undefined; file = waiting.shift()) {
        done.push(await test(file, files.length > 1));
      }
    }),
  );
  const again = done.filter(({ passed }) => !passed).map(({ title }) => title);
  const flaky: string[] = [];
  for (const file of again) {
    if (stopped !== undefined) return;
    // Many that fail have one cause, which a second time does not change.
    if (lanes === 1 || again.length > MOST_AGAIN || !(await test(file, false)).passed) failed = true;
    else flaky.push(file);
  }
  if (files.length === 1) return;
  process.stdout.write("\nReal machines, by time:\n");
  for (const { title, passed, seconds } of done.sort((a, b) => b.seconds - a.seconds)) {
    const word = passed ? "" : flaky.includes(title) ? "  FAILED beside another file, passed by itself" : "  FAILED";
    process.stdout.write(`  ${seconds.toFixed(1).padStart(6)} s  ${title}${word}\n`);
  }
  if (leftOut.size > 0) process.stdout.write("\nLeft out, tests or groups of them, and why:\n");
  for (const [reason, count] of [...leftOut].sort(([, a], [, b]) => b - a)) {
    process.stdout.write(`  ${String(count).padStart(4)}  ${reason}\n`);
  }
  if (flaky.length > 0 && process.env.STACYVM_TEST_STRICT === "1") failed = true;
}

async function testFiles(dir: string): Promise<string[]> {
  const names = await readdir(dir, { recursive: true }).catch(() => []);
  return names
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => join(dir, name))
    .sort();
}

const units = [
  ...(await testFiles("src")),
  ...(await testFiles("bench")),
  ...(await testFiles("scripts")),
  ...(await testFiles("sdk")),
];
const machines = await testFiles("test");
const node = ["--test", "--test-reporter=spec", "--test-timeout=600000"];
const chosen = (files: string[]): string[] =>
  only.length === 0 ? files : files.filter((file) => only.some((name) => file.includes(name)));

try {
  if (only.length === 0) {
    await step("lint, format and layers", join(bin, "biome"), ["check", "."]);
    await step("types", join(bin, "tsc"), ["--noEmit"]);
    await step("types of the console", join(bin, "tsc"), ["--project", "web", "--noEmit"]);
    for (const crate of ["agent", "spawner", "directory"]) {
      const source = join(packageRoot, crate);
      const target = join(packageRoot, ".build", `${crate}-test`);
      const test = ["test", "--locked", "--quiet", "--target-dir", target, ...(await crateSource(source))];
      await step(`${crate} (Rust)`, "cargo", test, source);
    }
  }
  await unitStep(chosen(units));
  // Made before the tests that start from them, so that it counts against no test's time.
  for (const image of only.length === 0 ? IMAGES : []) {
    await step(`image ${image}`, "node", ["src/cli/main.ts", "image", "pull", image]);
  }
  await machineSteps(chosen(machines));
  // Printed, and no more: how busy a host is that also runs tests decides about times, not about whether these pass.
  if (only.length === 0 && stopped === undefined) {
    await run("ratios beside earlier runs", "node", ["bench/main.ts", "check"], packageRoot, false);
  }
  const left = await processesIn(scratch);
  if (left.length > 0) {
    for (const pid of left) process.kill(pid, "SIGKILL");
    // Tests that were ended had no time to clean up after themselves.
    if (stopped === undefined) {
      process.stdout.write(`\nFAILED: processes left behind in ${scratch}: ${left.join(", ")}\n`);
      failed = true;
    }
  }
} finally {
  await rm(scratch, { recursive: true, force: true });
}
if (stopped !== undefined) {
  process.stdout.write(`\nEnded by ${stopped}.\n`);
  process.exit(128 + constants.signals[stopped]);
}
process.stdout.write(failed ? "\nSome tests FAILED.\n" : "\nAll tests passed; nothing is left running.\n");
process.exitCode = failed ? 1 : 0;
