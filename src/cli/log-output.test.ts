/** Real descriptors: a pipe that takes no more, one that nobody reads, and the kernel's device that is always full. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "../host/paths.ts";
import { LogOutput } from "./log-output.ts";

/** A pipe with a name: it can be opened so that a write does not wait. */
function pipe(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "log-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, "pipe");
  assert.equal(spawnSync("mkfifo", [path]).status, 0);
  return path;
}

function drained(fd: number): string {
  const chunk = Buffer.alloc(1 << 20);
  let text = "";
  for (;;) {
    try {
      text += chunk.toString("utf8", 0, readSync(fd, chunk));
    } catch {
      return text; // EAGAIN: it is empty
    }
  }
}

test("lines that find no room are dropped and counted, and the next that finds some comes after their number, on a line of its own", (t) => {
  const fd = openSync(pipe(t), constants.O_RDWR | constants.O_NONBLOCK);
  t.after(() => closeSync(fd));
  const output = new LogOutput(fd);
  const line = (n: number): string => `${JSON.stringify({ n, words: "x".repeat(10_000) })}\n`;
  let sent = 0;
  while (output.dropped === 0) output.write(line(sent++));
  output.write(line(sent++));
  output.write(line(sent++));
  assert.equal(output.dropped, 3);
  const before = drained(fd).split("\n");
  assert.equal(before.length - 1, sent - 3, "whole lines, and the beginning of one");
  assert.notEqual(before.at(-1), "", "this pipe was to take a part of a line");

  output.write(line(sent++));
  output.write(line(sent++));
  const [end, missing, ...after] = drained(fd).trimEnd().split("\n");
  assert.equal(end, "", "what was torn ends");
  const { level, dropped, msg } = JSON.parse(missing ?? "");
  assert.deepEqual([level, dropped], [40, 3]);
  assert.equal(msg, "3 lines of this log could not be written here (EAGAIN), and were dropped");
  assert.deepEqual(
    after.map((each) => JSON.parse(each).n),
    [sent - 2, sent - 1],
  );
  assert.equal(output.dropped, 0);
});

test("a reader that has gone, and a disk that is full, are no errors", (t) => {
  const path = pipe(t);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, "w");
  closeSync(reader);
  const full = openSync("/dev/full", "w");
  t.after(() => [writer, full].forEach((fd) => void closeSync(fd)));
  for (const fd of [writer, full]) {
    const output = new LogOutput(fd);
    for (let i = 0; i < 3; i++) output.write("{}\n");
    assert.equal(output.dropped, 3);
  }
});

test("a line for people is told in their form, the number of missing ones too", (t) => {
  const fd = openSync(pipe(t), constants.O_RDWR | constants.O_NONBLOCK);
  t.after(() => closeSync(fd));
  const output = new LogOutput(fd, (line) => `${JSON.parse(line).msg}\n`);
  while (output.dropped === 0) output.write(`{"msg":"${"x".repeat(4_095)}"}\n`);
  drained(fd);
  output.write('{"msg":"again"}\n');
  assert.match(drained(fd), /^\n?1 line of this log could not be written here \(EAGAIN\), and was dropped\nagain\n$/);
});

test("a command whose stderr takes nothing does its work all the same", () => {
  const full = openSync("/dev/full", "w");
  try {
    const main = join(packageRoot, "src/cli/main.ts");
    const { status } = spawnSync(process.execPath, [main, "no-such-command"], { stdio: ["ignore", "pipe", full] });
    assert.equal(status, 2, "that it was used wrongly, and not that this could not be said");
  } finally {
    closeSync(full);
  }
});
