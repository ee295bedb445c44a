/**
 * Public suites in a guest, as a long form: what fails is what is named here, with its reason. They are not part of this repository:
 * STACYVM_PJDFSTEST and STACYVM_LTP name directories with a built pjdfstest and an installed LTP (its `runtest/syscalls` and
 * `testcases/bin`). STACYVM_SUITE_PART picks tests by a pattern.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startGuest } from "./agent-support.ts";
import { LTP_FAILURES, LTP_LEFT_OUT, PJDFSTEST_FAILURES } from "./guest-programs/known-failures.ts";

const part = new RegExp(process.env.STACYVM_SUITE_PART ?? "");
const { STACYVM_PJDFSTEST: pjdfstest, STACYVM_LTP: ltp } = process.env;
const skip = (name: string, dir: string | undefined) =>
  dir === undefined ? `${name} is not here; set it to run this suite` : false;

/** A directory of the host as a tar. */
async function* tarOf(dir: string, ...names: string[]): AsyncGenerator<Uint8Array> {
  const child = spawn("tar", ["-C", dir, "-cf", "-", ...names], { stdio: ["ignore", "pipe", "inherit"] });
  yield* child.stdout as AsyncIterable<Uint8Array>;
}

/** Every failure is a known one, and every known one that was asked is a failure still. */
function assertKnown(failed: readonly string[], asked: (name: string) => boolean, known: Record<string, string>): void {
  assert.deepEqual(failed.toSorted(), Object.keys(known).filter(asked).toSorted());
}

test("pjdfstest", { skip: skip("STACYVM_PJDFSTEST", pjdfstest) }, async () => {
  await using guest = await startGuest({ image: "stacyvm/python", memoryMiB: 512, vcpus: 2 });
  const { agent } = guest;
  await agent.tarIn("/pjdfstest", tarOf(pjdfstest ?? "", "pjdfstest", "tests"));
  const list = await agent.exec({ argv: ["sh", "-c", "cd /pjdfstest/tests; find . -name '*.t' | sort"] });
  const files = list.stdout
    .toString()
    .trim()
    .split("\n")
    .filter((file) => part.test(file));
  const failed: string[] = [];
  let held = 0;
  // Two at a time, as many as there are processors.
  const next = files.values();
  const worker = async (at: number) => {
    for (const file of next) {
      const script = `mkdir -p /work${at}; cd /work${at}; sh /pjdfstest/tests/${file} 2>&1`;
      const { stdout } = await agent.exec({ argv: ["sh", "-c", script], timeoutMs: 600_000 });
      const said = stdout.toString().split("\n");
      held += said.filter((line) => line.startsWith("ok ")).length;
      for (const line of said.filter((each) => each.startsWith("not ok"))) {
        process.stdout.write(`# ${file}: ${line}\n`);
        failed.push(`${file.slice(2)} ${/^not ok (\d+)/.exec(line)?.[1]}`);
      }
    }
  };
  await Promise.all([worker(0), worker(1)]);
  process.stdout.write(`# pjdfstest: ${files.length} files, ${held} hold, ${failed.length} do not\n`);
  assert.ok(held > 0);
  assertKnown(failed, (name) => files.some((file) => name.startsWith(`${file.slice(2)} `)), PJDFSTEST_FAILURES);
});

test("LTP's tests of system calls", { skip: skip("STACYVM_LTP", ltp) }, async () => {
  const listed = await readFile(join(ltp ?? "", "runtest/syscalls"), "utf8");
  const cases = listed
    .split("\n")
    .map((line) => /^([A-Za-z]\S*)\s+(.+)$/.exec(line))
    .filter((match) => match !== null)
    .map(([, name = "", command = ""]) => ({ name, command }))
    .filter(({ name }) => part.test(name) && !LTP_LEFT_OUT.some(([pattern]) => pattern.test(name)));
  await using guest = await startGuest({ image: "stacyvm/python", memoryMiB: 768, diskMiB: 2048, vcpus: 2 });
  const { agent } = guest;
  await agent.tarIn("/opt/ltp", tarOf(ltp ?? "", "testcases"));
  const count = { held: 0, notHere: 0 };
  const failed: string[] = [];
  const next = cases.values();
  const worker = async (at: number) => {
    for (const { name, command } of next) {
      const script = `export LTPROOT=/opt/ltp PATH=$PATH:/opt/ltp/testcases/bin TMPDIR=/tmp/ltp${at} LTP_TIMEOUT_MUL=4; mkdir -p $TMPDIR; cd $TMPDIR; command -v ${command.split(" ")[0]} >/dev/null || exit 32; ${command}`;
      const { exitCode, stdout, stderr } = await agent.exec({ argv: ["sh", "-c", script], timeoutMs: 120_000 });
      // tst_test.h: 32 is TCONF, not for this kernel; 4 is a warning.
      if ((exitCode & 3) === 0 && exitCode < 64) count[exitCode & 32 ? "notHere" : "held"]++;
      else {
        failed.push(name);
        const words = `${stdout}${stderr}`.split("\n").filter((line) => /TFAIL|TBROK/.test(line));
        process.stdout.write(`# ${name}: ${exitCode}: ${words.slice(0, 3).join(" / ")}\n`);
      }
    }
  };
  await Promise.all([worker(0), worker(1)]);
  process.stdout.write(`# LTP: ${count.held} hold, ${count.notHere} are not for this guest, ${failed.length} fail\n`);
  assert.ok(count.held > 0);
  assertKnown(failed, (name) => cases.some((each) => each.name === name), LTP_FAILURES);
});
