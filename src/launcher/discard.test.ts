import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import type { VmmProcess } from "../vmm/vmm.ts";
import { discard } from "./launch.ts";

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
