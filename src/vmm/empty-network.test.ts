import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { cellState, inCell } from "./cell.ts";
import { emptyNetwork, emptyNetworkIfMade } from "./empty-network.ts";

const run = promisify(execFile);

test("one network namespace for all cells of a process, empty, in which no cell has rights", async (t) => {
  const state = await cellState();
  if (!state.usable) return t.skip(state.reason);
  assert.equal(emptyNetworkIfMade(), undefined, "a command has none");
  const dir = await mkdtemp(join(tmpdir(), "network-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const inside = async (script: string): Promise<string> => {
    const args = inCell(state.cell, { dir, read: ["/proc"], write: [] }, "/bin/sh", ["-c", script]);
    return (await run(state.cell.program, args)).stdout.trim();
  };
  const space = "readlink /proc/self/ns/net";
  const own = await readlink("/proc/self/ns/net");
  assert.notEqual(await inside(space), own, "it makes its own");

  const [path, again] = await Promise.all([emptyNetwork(), emptyNetwork()]);
  assert.equal(path, again);
  assert.equal(emptyNetworkIfMade(), path);
  const name = await readlink(path);
  assert.notEqual(name, own);
  assert.deepEqual([await inside(space), await inside(space)], [name, name]);
  assert.match(await inside("cat /proc/self/net/dev"), /^.*\n.*\n *lo:[^\n]*$/);
  // Not even its loopback, by which one could speak to another, can be brought up.
  assert.notEqual(await inside("ip link set lo up 2>/dev/null && echo up || echo down"), "up");
  assert.equal(
    await inside("cat /sys/class/net/lo/operstate 2>/dev/null; grep CapEff /proc/self/status"),
    "CapEff:\t0000000000000000",
  );
  assert.ok(!(await readFile("/proc/self/mountinfo", "utf8")).includes(name), "nothing of it is left on disk");
});
