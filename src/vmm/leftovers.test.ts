import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { exists } from "../host/exists.ts";
import { isAlive, spawnProcess } from "../host/process.ts";
import { endLeftovers } from "./leftovers.ts";

test("what a jailed machine that no record names held outside of its directory goes with its process", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "leftovers-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const program = `stacyvm-test-${process.pid}`;
  // Version 2 has one hierarchy, version 1 one for each controller.
  const parent = (await exists("/sys/fs/cgroup/cgroup.controllers")) ? "/sys/fs/cgroup" : "/sys/fs/cgroup/pids";
  const groups = join(parent, program);
  const made = await mkdir(groups).then(
    () => true,
    () => false,
  );
  if (!made) return t.skip("needs the right to make control groups");
  t.after(() => rmdir(groups));
  // A sandbox's directory is the machine's; a golden snapshot's has it below.
  for (const [id, place] of [
    ["one", root],
    ["two", join(root, "machine")],
  ] as const) {
    const jailed = join(place, "jail", program, id, "root");
    await mkdir(jailed, { recursive: true });
    await mkdir(join(groups, id));
    t.after(() => rmdir(join(groups, id)).catch(() => {}));
    const process = await spawnProcess({ command: "sleep", args: ["60"], cwd: jailed, log: join(root, "log") });
    t.after(() => process.kill());
    await endLeftovers(root);
    assert.deepEqual([await isAlive(process.record), await exists(join(groups, id))], [false, false]);
  }
});
