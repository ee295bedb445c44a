import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { exists } from "../host/exists.ts";
import { isAlive, spawnProcess } from "../host/process.ts";
import { confinement, MonitorGroup } from "./cgroup.ts";
import { endLeftovers } from "./leftovers.ts";

test("the control groups of a jailed machine that no record names go with its process", async (t) => {
  const { version } = await confinement();
  if (version !== 1) return t.skip("the groups of version 2 are divided where they are delegated");
  const root = await mkdtemp(join(tmpdir(), "leftovers-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  // A sandbox's directory is the machine's; a golden snapshot's has it below.
  for (const place of [root, join(root, "machine")]) {
    const jailed = join(place, "jail", "firecracker", "one", "root");
    await mkdir(jailed, { recursive: true });
    const process = await spawnProcess({ command: "sleep", args: ["60"], cwd: jailed, log: join(root, "log") });
    t.after(() => process.kill());
    await new MonitorGroup(process.record.pid).enter();
    const groups = await readFile(`/proc/${process.record.pid}/cgroup`, "utf8");
    const path = /^\d+:pids:(.*)$/m.exec(groups)?.[1] ?? "";
    const group = join("/sys/fs/cgroup/pids", path);
    assert.ok(group.endsWith(`/stacyvm-vm-${process.record.pid}`) && (await exists(group)), groups);
    await endLeftovers(root);
    assert.equal(await isAlive(process.record), false);
    // Beside whatever comes next.
    while (await exists(group)) await delay(5);
  }
});
