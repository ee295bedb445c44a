/**
 * `make test`: lint, types and layers, then the Rust tests, then the TypeScript tests: units side by side, files with real
 * machines one after another, since they share two cores. Afterwards nothing of ours may be left running.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { crateSource } from "../src/images/crate-build.ts";

/** How long tests that are told to end may take for it. */
const STOP_LIMIT_MS = 10_000;

process.chdir(packageRoot);
const bin = join(packageRoot, "node_modules", ".bin");
// Names of test files pick them; without names, everything runs.
const only = process.argv.slice(2);

/** Tests work here: images and kernel are shared with `make run`, machines and snapshots are the tests' own. */
const scratch = await mkdtemp(join(tmpdir(), "stacyvm-test-"));
const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, STACYVM_TEST_DIR: scratch };

let failed = false;
let stopped: NodeJS.Signals | undefined;
let running: ChildProcess | undefined;

/** A group of its own, so that ending us ends the tests too, and not only their runner. */
function endGroup(signal: NodeJS.Signals): void {
  try {
    if (running?.pid !== undefined) process.kill(-running.pid, signal);
  } catch {} // it ended by itself
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // The second time it has to be at once.
    endGroup(stopped === undefined ? signal : "SIGKILL");
    stopped = signal;
    setTimeout(() => endGroup("SIGKILL"), STOP_LIMIT_MS).unref();
  });
}

async function step(title: string, command: string, args: string[], cwd = packageRoot): Promise<void> {
  if (stopped !== undefined) return;
  const start = performance.now();
  process.stdout.write(`\n==> ${title}\n`);
  const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit"], env, cwd, detached: true });
  running = child;
  const code = await new Promise<number>((resolve) => {
    child.once("error", (error) => {
      process.stdout.write(`${error.message}\n`);
      resolve(127);
    });
    child.once("exit", (status) => resolve(status ?? 1));
  });
  // What a runner that was ended has left of its group.
  endGroup("SIGKILL");
  running = undefined;
  process.stdout.write(
    `<== ${title}: ${code === 0 ? "passed" : `FAILED (exit ${code})`} in ${((performance.now() - start) / 1000).toFixed(1)} s\n`,
  );
  if (code !== 0) failed = true;
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
const chosen = (files: string[]): string[] =>
  only.length === 0 ? files : files.filter((file) => only.some((name) => file.includes(name)));

try {
  if (only.length === 0) {
    await step("lint, format and layers", join(bin, "biome"), ["check", "."]);
    await step("types", join(bin, "tsc"), ["--noEmit"]);
    await step("types of the console", join(bin, "tsc"), ["--project", "web", "--noEmit"]);
    for (const crate of ["agent", "spawner"]) {
      const source = join(packageRoot, crate);
      const target = join(packageRoot, ".build", `${crate}-test`);
      const test = ["test", "--locked", "--quiet", "--target-dir", target, ...(await crateSource(source))];
      await step(`${crate} (Rust)`, "cargo", test, source);
    }
  }
  const node = ["--test", "--test-reporter=spec", "--test-timeout=900000"];
  if (chosen(units).length > 0) await step("units", "node", [...node, "--test-concurrency=2", ...chosen(units)]);
  if (chosen(machines).length > 0)
    await step("real machines", "node", [...node, "--test-concurrency=1", ...chosen(machines)]);
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
