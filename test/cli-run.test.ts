/** `stacyvm run` as a user types it: the first run boots cold and saves the golden snapshot, the next one restores. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { borrow } from "../bench/borrow.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";

test("run passes on output and exit code, with and without --, and leaves no machine", async () => {
  const data = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "run-"));
  await borrow(data);
  const run = (...args: string[]) => runWith([], ...args);
  const runWith = (options: string[], ...args: string[]): Promise<{ code: unknown; stdout: string; stderr: string }> =>
    new Promise((resolve) => {
      execFile(
        process.execPath,
        [
          join(packageRoot, "src/cli/main.ts"),
          "run",
          "--provider",
          "qemu",
          "--report",
          ...options,
          "stacyvm/busybox",
          ...args,
        ],
        { env: { ...process.env, STACYVM_DATA_DIR: data, STACYVM_BACKGROUND: "1s" } },
        (error, stdout, stderr) => resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
      );
    });
  try {
    const first = await run("--", "sh", "-c", "echo out; echo err >&2; exit 7");
    assert.deepEqual([first.code, first.stdout], [7, "out\n"], first.stderr);
    assert.match(first.stderr, /"path":"cold"[\s\S]*^err$/m);
    const second = await run("echo", "--", "-n");
    assert.deepEqual([second.code, second.stdout], [0, "-- -n\n"], second.stderr);
    assert.match(second.stderr, /"path":"restored"/);
    // As shells have it, without a server too.
    const line = await run("--", "ls / | wc");
    assert.equal(line.code, 127);
    assert.match(
      line.stderr,
      /ls \/ \| wc: No such file or directory \(phase: start\)\nhint: .* sh -c 'ls \/ \| wc'\n$/,
    );
    assert.equal((await run("--", "/etc/passwd")).code, 126);
    // What only a server has brings one.
    const seen = await runWith(["-p", "80"], "echo", "served");
    assert.deepEqual([seen.code, seen.stdout], [0, "served\n"], seen.stderr);
    assert.match(
      seen.stderr,
      /started a server in the background[\s\S]*^port 80: http:\/\/80-sb-[0-9a-f]{8}\.localhost:\d+$/m,
    );
    while ((await processesIn(data)).length > 0) await new Promise((wake) => setTimeout(wake, 50));
    assert.deepEqual(
      await readdir(join(data, "tmp")),
      [],
      "a one-shot machine lives in a directory of its own process",
    );
  } finally {
    await rm(data, { recursive: true, force: true });
  }
});
