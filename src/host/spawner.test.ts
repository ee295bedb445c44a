import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { dataPaths } from "./paths.ts";
import { type HostProcess, isAlive, processStartTime } from "./process.ts";
import { Spawner, spawnerPath } from "./spawner.ts";

const { assets } = dataPaths();
let dir: string;
let spawner: Spawner;

before(async () => {
  dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "spawner-"));
  spawner = new Spawner(spawnerPath(assets));
});

after(async () => {
  spawner[Symbol.dispose]();
  await rm(dir, { recursive: true, force: true });
});

const sh = (script: string, more: { fds?: number[]; env?: Record<string, string> } = {}): Promise<HostProcess> =>
  spawner.spawn({ command: "/bin/sh", args: ["-c", script], cwd: dir, log: join(dir, "log"), ...more });

test("a child has its directory, environment and log, its own session, and says how it ended", async () => {
  const child = await sh('pwd; echo "$A-$HOME-$STACYVM_MACHINE" >&2; ps -o sid= -p $$; echo $$; exit 7', {
    env: { A: "é x=y" },
  });
  assert.deepEqual(await child.exited, { exitCode: 7 });
  const [cwd, env, session, pid] = (await readFile(join(dir, "log"), "utf8")).split("\n");
  assert.deepEqual(
    [cwd, env, session?.trim(), pid],
    [dir, "é x=y--1", String(child.record.pid), String(child.record.pid)],
  );
});

test("files of ours are the child's by number, as they were opened", async () => {
  await writeFile(join(dir, "in"), "read me");
  await using input = await open(join(dir, "in"));
  await using output = await open(join(dir, "out"), "w");
  const child = await sh("cat <&3 >&4; echo no >&3", { fds: [input.fd, output.fd] });
  assert.notEqual((await child.exited).exitCode, 0, "3 was opened for reading");
  assert.equal(await readFile(join(dir, "out"), "utf8"), "read me");
});

test("a process is named by its start, killed once, and killed again without harm", async () => {
  const child = await sh("exec sleep 100");
  assert.equal(child.record.startTime, await processStartTime(child.record.pid));
  assert.deepEqual(await Promise.all([child.kill(), child.kill()]), [{ signal: "SIGKILL" }, { signal: "SIGKILL" }]);
  assert.equal(await isAlive(child.record), false);
  assert.deepEqual(await child.kill(), { signal: "SIGKILL" });
});

test("a program that is not there is an error, and others go on", async () => {
  const log = join(dir, "log");
  await assert.rejects(spawner.spawn({ command: "/no/such", args: [], cwd: dir, log }), {
    code: "unavailable",
    message: "cannot start /no/such: ENOENT",
  });
  await assert.rejects(spawner.spawn({ command: "/bin/true", args: [], cwd: join(dir, "none"), log }), /ENOENT/);
  assert.deepEqual(await (await sh("exit 0")).exited, { exitCode: 0 });
});

test("many at once, each with its own end", async () => {
  const ends = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => (await (await sh(`exit ${i}`)).exited).exitCode),
  );
  assert.deepEqual(
    ends,
    Array.from({ length: 100 }, (_, i) => i),
  );
});

test("when the spawner dies its children live, are still looked after, and the next start has another one", async () => {
  const own = new Spawner(spawnerPath(assets));
  const start = (script: string): Promise<HostProcess> =>
    own.spawn({ command: "/bin/sh", args: ["-c", script], cwd: dir, log: join(dir, "log") });
  const [lives, ends] = [await start("exec sleep 100"), await start("exec sleep 1")];
  const parent = Number((await readFile(`/proc/${lives.record.pid}/stat`, "utf8")).split(" ")[3]);
  process.kill(parent, "SIGKILL");
  assert.deepEqual(await ends.exited, {}, "how it ended only its parent knew");
  assert.equal(await isAlive(lives.record), true);
  await lives.kill();
  assert.equal(await isAlive(lives.record), false);
  assert.deepEqual(await (await start("exit 3")).exited, { exitCode: 3 });
  own[Symbol.dispose]();
});

test("a kill that the spawner did not live to carry out is carried out", async () => {
  const own = new Spawner(spawnerPath(assets));
  const child = await own.spawn({ command: "/bin/sleep", args: ["100"], cwd: dir, log: join(dir, "log") });
  const parent = Number((await readFile(`/proc/${child.record.pid}/stat`, "utf8")).split(" ")[3]);
  process.kill(parent, "SIGSTOP");
  const killed = child.kill();
  setTimeout(() => process.kill(parent, "SIGKILL"), 50);
  await killed;
  assert.equal(await isAlive(child.record), false);
  own[Symbol.dispose]();
});

test("where the spawner cannot run, the server starts its processes itself", async () => {
  const path = join(dir, "no-program");
  await writeFile(path, "", { mode: 0o600 });
  const own = new Spawner(path);
  const log = join(dir, "log");
  const start = (): Promise<HostProcess> => own.spawn({ command: "/bin/sh", args: ["-c", "exit 3"], cwd: dir, log });
  assert.deepEqual(await (await start()).exited, { exitCode: 3 });
  assert.deepEqual(await (await start()).exited, { exitCode: 3 });
  own[Symbol.dispose]();
});
