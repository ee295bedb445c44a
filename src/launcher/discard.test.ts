import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { Phases } from "../host/phases.ts";
import { type HostProcess, isAlive, spawnProcess } from "../host/process.ts";
import type { Vmm, VmmProcess } from "../vmm/vmm.ts";
import { Blanks } from "./blanks.ts";
import { bootCold, discard, prepareIdle } from "./launch.ts";
import type { Snapshot } from "./snapshot-store.ts";
import type { Target } from "./target.ts";

/** A monitor that resists its first ends, in a directory of its own. */
async function resisting(t: TestContext, times: number) {
  const root = await mkdtemp(join(tmpdir(), "discard-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const dir = join(root, "sb-1");
  await mkdir(dir);
  let kills = 0;
  const kill = async (): Promise<void> => {
    kills += 1;
    if (kills <= times) throw new StacyError("timeout", "it does not end");
  };
  return { dir, process: { kill } as unknown as VmmProcess, kills: () => kills };
}

const until = async (done: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await done())) await delay(20);
};

test("a monitor that resists the end of its failed start hides no error, and is ended later, with its directory", async (t) => {
  const { dir, process, kills } = await resisting(t, 1);
  await discard(dir, process);
  assert.equal(await exists(dir), true);
  await until(async () => !(await exists(dir)));
  assert.equal(kills(), 2);
});

test("what has been made under its name meanwhile is another machine's", async (t) => {
  const { dir, process, kills } = await resisting(t, 1);
  await discard(dir, process);
  await rm(dir, { recursive: true });
  await mkdir(dir);
  await writeFile(join(dir, "another"), "");
  await delay(1_300);
  assert.equal(await exists(join(dir, "another")), true);
  assert.equal(kills(), 1);
});

/** A monitor that nobody can name: whoever started it died before telling. */
async function unnamed(t: TestContext, dir: string): Promise<HostProcess> {
  const monitor = await spawnProcess({ command: "sleep", args: ["100"], cwd: dir, log: join(dir, "log") });
  t.after(() => monitor.kill());
  return monitor;
}

test("a monitor that was started and never told of is ended with its directory", async (t) => {
  const { dir } = await resisting(t, 0);
  const monitor = await unnamed(t, dir);
  await discard(dir, undefined);
  assert.deepEqual([await isAlive(monitor.record), await exists(dir)], [false, false]);
});

test("the same of one that was to wait for a machine", async (t) => {
  const { dir } = await resisting(t, 0);
  let monitor: HostProcess | undefined;
  const prepareBlank: Vmm["prepareBlank"] = async (place) => {
    monitor = await unnamed(t, place.dir);
    throw new StacyError("unavailable", "the spawner ended");
  };
  await assert.rejects(new Blanks({ prepareBlank } as Vmm, dir, 1).add(), /the spawner ended/);
  assert.ok(monitor);
  assert.deepEqual([await isAlive(monitor.record), await readdir(dir)], [false, []]);
});

test("a start in a place that is taken leaves what is there alone", async (t) => {
  const { dir } = await resisting(t, 0);
  const monitor = await unnamed(t, dir);
  const target = { image: { base: dir } } as Target;
  const phases = new Phases();
  await assert.rejects(prepareIdle({} as Vmm, target, {} as Snapshot, { dir }, phases), { code: "EEXIST" });
  const vmm = { answerMs: { booted: [1] } } as unknown as Vmm;
  await assert.rejects(bootCold(vmm, target, {} as Snapshot["disk"], { dir }, undefined, phases), { code: "EEXIST" });
  assert.deepEqual([await isAlive(monitor.record), await exists(dir)], [true, true]);
});
