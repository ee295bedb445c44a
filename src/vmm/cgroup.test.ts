import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { replaceFs } from "../../test/replace-fs.ts";
import { exists } from "../host/exists.ts";
import { confinement, MonitorGroup } from "./cgroup.ts";

test("a process gets a group with limits, also its threads; the group goes with it", async (t) => {
  const { controllers, version, lacks } = await confinement();
  if (!controllers.includes("memory"))
    return t.skip(`no memory controller here (${lacks}); root with cgroups v1, or a delegated group`);
  const child = spawn("sleep", ["60"]);
  const pid = child.pid ?? 0;
  const monitor = new MonitorGroup(pid);
  try {
    await monitor.limit({ vcpus: 2, memoryMiB: 64, accelerator: "kvm" });
    const lines = (await readFile(`/proc/${pid}/cgroup`, "utf8")).split("\n");
    const group = lines.find((line) => (version === 2 ? line.startsWith("0::") : line.split(":")[1] === "memory"));
    assert.match(group ?? "", new RegExp(`/stacyvm-vm-${pid}$`));
    assert.equal(
      lines.filter((line) => line.endsWith(`/stacyvm-vm-${pid}`)).length,
      version === 2 ? 1 : controllers.length,
    );
  } finally {
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }
  monitor.remove();
  for (const name of controllers) {
    while (await exists(`/sys/fs/cgroup/${name === "io" ? "blkio" : name}/stacyvm-vm-${pid}`)) await sleep(10);
  }
});

test("a host that had no descriptor when it was asked for its groups is asked again", async (t) => {
  const restore = replaceFs(t, "readFile", async () => {
    throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
  });
  // One that has not looked yet.
  const url = `${new URL("./cgroup.ts", import.meta.url).href}?fresh`;
  const fresh = (await import(url)) as typeof import("./cgroup.ts");
  assert.match((await fresh.confinement()).lacks ?? "", /EMFILE/);
  restore();
  assert.deepEqual(await fresh.confinement(), await confinement());
});
