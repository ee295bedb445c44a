/** The unit in packaging/, judged by systemd itself; with `STACYVM_SYSTEMD=1` started by one, too. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { exists } from "../src/host/exists.ts";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { createImages } from "../src/images/store.ts";
import { SystemdHost, whyNoSystemd } from "./systemd-host.ts";

const run = promisify(execFile);

async function exposure(unit: string): Promise<number> {
  return exposureOf((await run("systemd-analyze", ["security", "--offline=true", unit])).stdout);
}

function exposureOf(stdout: string): number {
  const level = /Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1];
  assert.ok(level, stdout);
  return Number(level);
}

const unit = join(packageRoot, "packaging", "stacyvm.service");

test("the unit's exposure is low", async (t) => {
  const known = await run("systemd-analyze", ["--version"]).catch(() => undefined);
  if (known === undefined) return t.skip("systemd-analyze is not here; the package systemd has it");
  assert.ok((await exposure(unit)) < 3);
});

test("it leaves what the monitors' cells are made of, and makes no root: the jail needs none", async () => {
  const settings = (await readFile(unit, "utf8")).split("\n");
  assert.ok(settings.includes("User=stacyvm"));
  const allowed = (name: string): string => settings.filter((line) => line.startsWith(`${name}=`)).join(" ");
  for (const space of ["user", "mnt", "net", "ipc", "uts"])
    assert.match(allowed("RestrictNamespaces"), new RegExp(`\\b${space}\\b`));
  for (const call of [
    "@mount",
    "pivot_root",
    "unshare",
    "setns",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "seccomp",
  ])
    assert.match(allowed("SystemCallFilter"), new RegExp(`${call}\\b`));
  assert.ok(settings.includes("CapabilityBoundingSet="));
});

const long =
  process.env.STACYVM_SYSTEMD === "1" ? await whyNoSystemd() : "STACYVM_SYSTEMD=1 starts it by a systemd of its own";

test("started by systemd it makes sandboxes, which live over its restart and its death", {
  skip: long,
  timeout: 900_000,
}, async (t) => {
  const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "systemd-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const [state, units] = [join(root, "state"), join(root, "units")];
  for (const dir of [state, units]) await mkdir(dir);
  // There is no network there.
  await createImages(dataPaths()).resolve("stacyvm/busybox");
  for (const part of ["assets", "images"])
    await run("cp", ["-r", "--reflink=auto", "--sparse=always", join(dataPaths().root, part), state]);
  await using host = await SystemdHost.start(state, units);
  const cli = (...args: string[]): Promise<string> => host.run("/opt/stacyvm/bin/stacyvm", ...args);
  const until = async (what: string, look: () => Promise<boolean>): Promise<void> => {
    for (let tries = 0; !(await look().catch(() => false)); tries++) {
      assert.ok(tries < 600, `${what}: ${await host.run("systemctl", "status", "stacyvm").catch(String)}`);
      await delay(200);
    }
  };
  const answers = (): Promise<boolean> => cli("ls").then(() => true);
  const mainPid = (): Promise<string> => host.run("systemctl", "show", "--property=MainPID", "--value", "stacyvm");
  await until("it does not come up", answers);
  assert.equal(await host.run("systemctl", "is-active", "stacyvm"), "active");
  assert.ok(exposureOf(await host.run("systemd-analyze", "security", "stacyvm")) < 3);

  const id = await cli("spawn", "stacyvm/busybox");
  assert.equal(await cli("exec", id, "--", "sh", "-c", "echo kept > /note; cat /note"), "kept");
  const [monitor = 0, ...others] = await processesIn(join(state, "sandboxes", id));
  assert.deepEqual(others, []);
  const user = await readFile(`/proc/${monitor}/status`, "utf8");
  assert.match(user, /^Uid:\t64999\t64999\t/m);
  assert.match(user, /^CapEff:\t0+$/m);
  // It is in its cell under the unit's own filters.
  assert.equal(await exists(`/proc/${monitor}/root/opt`), false);
  const networkOf = (pid: number): Promise<string> => readlink(`/proc/${pid}/ns/net`);
  const other = await cli("spawn", "stacyvm/busybox");
  const [beside = 0] = await processesIn(join(state, "sandboxes", other));
  assert.equal(await networkOf(beside), await networkOf(monitor), "one network namespace for all, with nothing in it");
  await cli("rm", other);

  await host.run("systemctl", "restart", "stacyvm");
  await until("it does not come up again", answers);
  assert.equal(await cli("exec", id, "--", "cat", "/note"), "kept");
  const before = await mainPid();
  await host.run("kill", "-9", before);
  await until("it is not started again", async () => (await mainPid()) !== before && (await answers()));
  assert.equal(await cli("exec", id, "--", "cat", "/note"), "kept");
  assert.deepEqual(await processesIn(join(state, "sandboxes", id)), [monitor], "the same machine all the time");
  await cli("rm", id);
  assert.deepEqual(await processesIn(join(state, "sandboxes")), []);
  await host.run("systemctl", "stop", "stacyvm");
});
