/**
 * A directory of the host in a Linux sandbox under the real Firecracker: both ways, over suspend and wake, a fork that reads, kill -9 of the server
 * and of the helper. A long form where its kernel is interpreted.
 */
import assert from "node:assert/strict";
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { servers } from "./directory-support.ts";
import { whyNotLinux } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

const SHAPE = { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256 };

test("a directory of the host under Firecracker", { skip: (await whyNotLinux({ long: true })) ?? false }, async (t) => {
  const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "directory-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  await using server = await Server.create(
    `mounts: { allow: [${JSON.stringify(dir)}] }\nproviders: { default: firecracker }\nwarm: { adaptive: false }\n`,
  );
  const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const exec = (of: string, command: string) => good("POST", `/sandboxes/${of}/exec`, { command });
  const run = async (of: string, command: string): Promise<string> => {
    const { exit_code, stdout, stderr } = await exec(of, command);
    assert.equal(exit_code, 0, `${command}: ${stderr}`);
    return stdout.trim();
  };
  await good("POST", "/snapshots", SHAPE);
  const { id, boot } = await good("POST", "/sandboxes", { ...SHAPE, mounts: [{ source: dir, target: "/work" }] });
  assert.deepEqual([boot.path, boot.vmm], ["restored", "firecracker"]);
  /** Both sides see what the other has just written, in new files and in one that both have. */
  const bothWays = async (of: string, step: string): Promise<void> => {
    await mkdir(join(dir, step));
    await writeFile(join(dir, step, "host"), `host ${step}`);
    await appendFile(join(dir, "shared"), `host ${step}\n`);
    const seen = await run(of, `cd /work/${step} && cat host && echo guest ${step} | tee guest >> /work/shared`);
    assert.equal(seen, `host ${step}`);
    assert.equal(await readFile(join(dir, step, "guest"), "utf8"), `guest ${step}\n`);
    assert.match(await readFile(join(dir, "shared"), "utf8"), new RegExp(`host ${step}\nguest ${step}\n$`));
  };
  /** A program that has had a file open since the beginning goes on writing to it. */
  const goesOn = async (): Promise<void> => {
    const length = async (): Promise<number> => (await readFile(join(dir, "log"), "utf8").catch(() => "")).length;
    const before = await length();
    while ((await length()) < before + 10) await delay(200);
  };

  await bothWays(id, "spawned");
  await run(id, "cp /bin/busybox /work/busybox && /work/busybox true");
  await good("POST", `/sandboxes/${id}/processes`, {
    command: "exec 3>>/work/log; while echo line >&3; do sleep 1; done; echo failed > /failed",
  });
  await goesOn();

  await t.test("inotify tells of what the host changes", async () => {
    const source = join(packageRoot, "test/guest-programs/watch.c");
    await runTool("gcc", ["-static", "-O1", "-o", join(dir, "watch"), source]);
    await mkdir(join(dir, "watched"));
    await good("POST", `/sandboxes/${id}/processes`, { command: "exec /work/watch /work/watched > /tmp/events" });
    const until = (line: string) => run(id, `until grep -qsx '${line}' /tmp/events; do sleep 1; done`);
    await until("ready");
    await writeFile(join(dir, "watched", "file"), "");
    await until("n /work/watched file");
    await appendFile(join(dir, "watched", "file"), "more");
    await until("c /work/watched file");
    await rm(join(dir, "watched", "file"));
    await until("d /work/watched file");
  });

  await t.test("suspended and woken", async () => {
    await good("POST", `/sandboxes/${id}/suspend`);
    assert.deepEqual(await servers(dir), []);
    await good("POST", `/sandboxes/${id}/resume`);
    await goesOn();
    await bothWays(id, "woken");
  });

  await t.test("a copy reads it, the source goes on writing", async () => {
    const copy = (await good("POST", `/sandboxes/${id}/fork`, {})).sandboxes[0].id;
    await writeFile(join(dir, "both"), "for both");
    assert.equal(await run(copy, "cat /work/both"), "for both");
    const { exit_code, stderr } = await exec(copy, "echo no > /work/both");
    assert.notEqual(exit_code, 0);
    assert.match(stderr, /[Rr]ead-only/);
    assert.equal(await readFile(join(dir, "both"), "utf8"), "for both");
    await goesOn();
    await bothWays(id, "forked");
    await good("DELETE", `/sandboxes/${copy}`);
  });

  await t.test("kill -9 of the server, and of the helper", async () => {
    await server.stop("SIGKILL");
    await server.start();
    await goesOn();
    await bothWays(id, "adopted");
    const [helper] = await servers(dir);
    assert.ok(helper !== undefined);
    process.kill(helper, "SIGKILL");
    await goesOn();
    await bothWays(id, "served-anew");
  });

  await t.test("nothing of it is left, but what was written", async () => {
    assert.notEqual((await exec(id, "cat /failed")).exit_code, 0);
    await good("DELETE", `/sandboxes/${id}`);
    while ((await servers(dir)).length > 0) await delay(50);
    assert.ok((await readdir(dir)).includes("log"));
  });
});
