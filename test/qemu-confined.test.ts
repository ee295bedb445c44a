/** What is around a QEMU of ours: its filter of system calls, its control group, and the size of its guest's console. */
import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { CONSOLE_BOUNDS } from "../src/host/bounds.ts";
import { exists } from "../src/host/exists.ts";
import { confinement } from "../src/vmm/cgroup.ts";
import { Bench, sh } from "./launcher-support.ts";

test("a restored machine runs under the filter, in its group, and its console stays short", async (t) => {
  await using bench = await Bench.create();
  const launched = await bench.launch();
  const { pid } = launched.machine.record;
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  assert.match(status, /^Seccomp:\s+2$/m);
  assert.match(status, /^NoNewPrivs:\s+1$/m);
  const { controllers, lacks } = await confinement();
  await sh(launched, "true"); // nobody waits for the group: it is made beside the handshake
  let group: string | undefined;
  if (controllers.length === 0) t.diagnostic(`no control groups here: ${lacks}`);
  else {
    const line = (await readFile(`/proc/${pid}/cgroup`, "utf8"))
      .split("\n")
      .find((each) => each.endsWith(`/stacyvm-vm-${pid}`));
    assert.ok(line, "it is in no group of ours");
    group = line.split(":")[2];
  }
  const path = join(launched.dir, "console.log");
  await sh(
    launched,
    `head -c ${2 * CONSOLE_BOUNDS.mostBytes} /dev/zero | tr '\\0' x | fold -w 100 > /dev/console; echo the end > /dev/console`,
  );
  let { size } = await stat(path);
  for (let i = 0; size > CONSOLE_BOUNDS.mostBytes && i < 100; i++) {
    await delay(CONSOLE_BOUNDS.everyMs / 10); // the interval that it is looked at in
    ({ size } = await stat(path));
  }
  assert.ok(size <= CONSOLE_BOUNDS.mostBytes, `${size} bytes`);
  assert.match(await readFile(path, "latin1"), /the end\s*$/);
  await bench.remove(launched);
  while (group !== undefined && (await exists(`/sys/fs/cgroup/memory${group}`))) await delay(10);
});
