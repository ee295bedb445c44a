/** What is around a QEMU of ours: its filter of system calls, its control group, and the size of its guest's console. */
import assert from "node:assert/strict";
import { readdir, readFile, readlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { CONSOLE_BOUNDS } from "../src/host/bounds.ts";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { cellState } from "../src/vmm/cell.ts";
import { confinement } from "../src/vmm/cgroup.ts";
import { mostSaved } from "../src/vmm/qemu/save-file.ts";
import { Bench, sh } from "./launcher-support.ts";

test("a restored machine runs under the filter, in its group, and its console stays short", async (t) => {
  await using bench = await Bench.create();
  const launched = await bench.launch({}, { mode: "restore" });
  const { pid } = launched.machine.record;
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  assert.match(status, /^Seccomp:\s+2$/m);
  assert.match(status, /^NoNewPrivs:\s+1$/m);
  const { controllers, lacks } = await confinement();
  let group: string | undefined;
  if (controllers.length === 0) t.diagnostic(`no control groups here: ${lacks}`);
  else {
    // Nobody waits for the group: it is made beside the handshake.
    group = await eventually(
      "it is in no group of ours",
      async () =>
        (await readFile(`/proc/${pid}/cgroup`, "utf8"))
          .split("\n")
          .find((each) => each.endsWith(`/stacyvm-vm-${pid}`))
          ?.split(":")[2],
    );
  }
  const cell = await cellState();
  if (!cell.usable) t.diagnostic(`no cell here: ${cell.reason}`);
  else {
    const uid = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]);
    if (process.getuid?.() === 0) assert.ok(uid > 0x7000_0000, `it runs as uid ${uid}`);
    // No file that it writes grows beyond its disk or its memory, saved.
    const most = Math.max(mostSaved(launched.target.spec.memoryMiB), launched.target.spec.diskMiB * 2 ** 20);
    const limits = await readFile(`/proc/${pid}/limits`, "utf8");
    assert.match(limits, new RegExp(`^Max file size\\s+${most}\\s+${most}\\s`, "m"));
    const inside = (path: string): string => `/proc/${pid}/root${path}`;
    for (const path of ["/proc/self", "/etc/passwd", "/var/lib", join(packageRoot, "package.json")]) {
      assert.equal(await exists(inside(path)), false, path);
    }
    assert.deepEqual(await readdir(inside(bench.paths.sandboxes)), [basename(launched.dir)]);
    assert.equal((await readdir(inside(bench.paths.snapshots))).length, 1);
    // What all machines of the snapshot share is open for reading.
    const names = await readdir(`/proc/${pid}/fd`);
    const links = await Promise.all(names.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => "")));
    const memory = names[links.findIndex((link) => link.endsWith("/memory.bin"))];
    assert.ok(memory, links.join(", "));
    const info = await readFile(`/proc/${pid}/fdinfo/${memory}`, "utf8");
    assert.equal(Number.parseInt(/^flags:\s+(\d+)/m.exec(info)?.[1] ?? "", 8) & 3, 0, info);
    assert.deepEqual(await processesIn(bench.paths.sandboxes), [pid], "it is found by its directory");
    // And what it may write leads nobody elsewhere.
    const record = join(launched.dir, "run");
    assert.deepEqual((await readdir(record)).sort(), ["agent.sock", "qmp.sock"]);
  }
  assert.equal((await sh(launched, "ls /sys/class/net")).trim(), "lo");
  const path = join(launched.dir, "console.log");
  await sh(
    launched,
    `head -c ${CONSOLE_BOUNDS.mostBytes + 128 * 1024} /dev/zero | tr '\\0' x | fold -w 100 > /dev/console; echo the end > /dev/console`,
  );
  // It is looked at from time to time; and the guest's command is over before its last lines are through the port.
  await eventually("it stays long, or its end is missing", async () => {
    const text = await readFile(path, "latin1");
    return (text.length <= CONSOLE_BOUNDS.mostBytes && /the end\s*$/.test(text)) || undefined;
  });
  await bench.remove(launched);
  if (group !== undefined)
    await eventually("its group is left", async () => !(await exists(`/sys/fs/cgroup/memory${group}`)) || undefined);
});

/** What nobody tells of, looked for until it is there. */
async function eventually<T>(otherwise: string, look: () => Promise<T | undefined>): Promise<T> {
  const until = performance.now() + 60_000;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    assert.ok(performance.now() < until, otherwise);
    await delay(20);
  }
}
