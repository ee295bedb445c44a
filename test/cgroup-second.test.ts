/**
 * Control groups of version 2, as a unit with `Delegate=` gives them: on a real Linux of a sandbox, since a host with version 1 has none. The server's own
 * module runs there in a Node of its own, in a group that it alone is in.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { createImages } from "../src/images/store.ts";
import { startGuest } from "./agent-support.ts";

/** What systemd does for the unit, and then what the server does. */
const PROGRAM = `
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
const root = "/sys/fs/cgroup", unit = root + "/system.slice/stacyvm.service";
for (const at of [root, root + "/system.slice"]) {
  mkdirSync(root + "/system.slice", { recursive: true });
  writeFileSync(at + "/cgroup.subtree_control", "+cpu +memory +pids +io");
}
mkdirSync(unit);
writeFileSync(unit + "/cgroup.procs", String(process.pid));
const { confinement, MonitorGroup } = await import("/app/vmm/cgroup.ts");
const read = (path) => readFileSync(path, "utf8").trim();
const host = await confinement();
const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
const monitor = new MonitorGroup(child.pid);
await monitor.limit({ vcpus: 2, memoryMiB: 64, accelerator: "kvm" });
const group = unit + "/stacyvm-vm-" + child.pid;
const files = ["memory.max", "memory.oom.group", "pids.max", "cpu.weight", "cpu.max", "io.weight"];
const limits = Object.fromEntries(files.map((file) => [file, existsSync(group + "/" + file) ? read(group + "/" + file) : null]));
const members = [read(group + "/cgroup.procs"), read("/proc/" + child.pid + "/cgroup"), read("/proc/self/cgroup")];
// A limit that is in force, and not only written down: more threads than it may have.
writeFileSync(group + "/pids.max", read(group + "/pids.current"));
const gone = once(child, "exit");
child.kill("SIGKILL");
await gone;
monitor.remove();
while (existsSync(group)) await new Promise((later) => setTimeout(later, 10));
const left = readdirSync(unit).filter((name) => name.startsWith("stacyvm-vm-"));
console.log(JSON.stringify({ host, limits, members, child: child.pid, left }));
`;

test("a delegated group of version 2 is divided: the server in one part, each monitor in another, with its limits", async () => {
  const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "cgroup-"));
  try {
    const tree = join(dir, "tree");
    const node = await realpath(process.execPath);
    const { stdout } = await promisify(execFile)("ldd", [node]);
    const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? "");
    for (const file of [node, ...libraries]) {
      const to = file === node ? "/bin/node" : file;
      await mkdir(join(tree, dirname(to)), { recursive: true });
      await copyFile(file, join(tree, to));
    }
    await cp(join(packageRoot, "src/vmm/cgroup.ts"), join(tree, "app/vmm/cgroup.ts"));
    // What it imports, whatever that is by now.
    await cp(join(packageRoot, "src/host"), join(tree, "app/host"), { recursive: true });
    await writeFile(join(tree, "app/program.mjs"), PROGRAM);
    await writeFile(join(tree, "app/package.json"), '{"type":"module"}');
    const images = createImages(dataPaths(join(dir, "data")), { offline: true });
    const image = await images.import(tree, "node:1");
    await using guest = await startGuest({
      base: { path: image.base, filesystem: image.filesystem },
      memoryMiB: 512,
    });
    const ran = await guest.agent.exec({ argv: ["/bin/node", "/app/program.mjs"], timeoutMs: 180_000 });
    assert.equal(ran.exitCode, 0, ran.stderr.toString());
    const { host, limits, members, child, left } = JSON.parse(ran.stdout.toString());
    assert.deepEqual(host.version, 2);
    assert.deepEqual([...host.controllers].sort(), ["cpu", "io", "memory", "pids"]);
    assert.deepEqual(limits, {
      "memory.max": String((64 + 256) * 1024 * 1024),
      "memory.oom.group": "1",
      "pids.max": "258",
      "cpu.weight": "200",
      "cpu.max": "250000 100000",
      // Only where the kernel has a scheduler for disks that knows weights.
      "io.weight": limits["io.weight"] === null ? null : "default 100",
    });
    const unit = "0::/system.slice/stacyvm.service";
    assert.deepEqual(members, [String(child), `${unit}/stacyvm-vm-${child}`, `${unit}/stacyvm-server`]);
    assert.deepEqual(left, []);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
