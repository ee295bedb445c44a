import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { statSync } from "node:fs";
import { mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { isThere } from "./exists.ts";
import { dataPaths } from "./paths.ts";
import {
  adoptProcess,
  type HostProcess,
  isAlive,
  processesIn,
  processStartTime,
  type SpawnOptions,
  type SpawnProcess,
  spawnProcess,
} from "./process.ts";
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

test("whoever kills hears that nothing of the program runs any more: a child of the spawner, one of ours, and one that was adopted", async () => {
  const log = join(dir, "log");
  const counts = { command: "/bin/sh", args: ["-c", "while :; do echo >> count; done"], cwd: dir, log };
  const adopted: SpawnProcess = async (options) =>
    (await adoptProcess((await spawner.spawn(options)).record)) as HostProcess;
  for (const start of [spawner.spawn, spawnProcess, adopted]) {
    await rm(join(dir, "count"), { force: true });
    const child = await start(counts);
    while (!(await isThere(join(dir, "count")))) await delay(5);
    const told: number[] = [];
    await child.kill(() => told.push(statSync(join(dir, "count")).size));
    assert.equal(told.length, 1);
    assert.deepEqual(told, [(await stat(join(dir, "count"))).size]);
    await child.kill(() => told.push(-1));
  }
  // A spawner that is killed has told nobody anything.
  const own = new Spawner(spawnerPath(assets));
  const child = await own.spawn(counts);
  process.kill(await ownSpawner(child), "SIGSTOP");
  let told = 0;
  const killed = child.kill(() => (told += 1));
  process.kill(await ownSpawner(child), "SIGKILL");
  await killed;
  assert.ok(told <= 1);
  own[Symbol.dispose]();
});

test("no file becomes larger by what a process writes: a child of the spawner, one of ours, and one that was adopted", async () => {
  const log = join(dir, "log");
  const waits = { command: "/bin/sh", args: ["-c", "read -r _ < go; head -c 100000 /dev/zero > big"], cwd: dir, log };
  const own = new Spawner(spawnerPath(assets));
  const starts = [spawner.spawn, spawnProcess, own.spawn];
  for (const start of starts) {
    for (const name of ["go", "big"]) await rm(join(dir, name), { force: true });
    await promisify(execFile)("mkfifo", [join(dir, "go")]);
    const child = await start(waits);
    // Its child is looked after without it from now on.
    if (start === own.spawn) process.kill(await ownSpawner(child), "SIGKILL");
    await child.limitFiles(50_000);
    await writeFile(join(dir, "go"), "\n");
    await child.exited;
    assert.equal((await stat(join(dir, "big"))).size, 50_000);
  }
  own[Symbol.dispose]();
  const gone = await sh("exit 0");
  await gone.exited;
  await gone.limitFiles(1);
});

/** The parent of its children. */
async function ownSpawner({ record }: HostProcess): Promise<number> {
  const status = await readFile(`/proc/${record.pid}/status`, "utf8");
  return Number(/^PPid:\t(\d+)$/m.exec(status)?.[1]);
}

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

/** A spawner of its own that is stopped, as one that hangs in a file of a disk that does not answer, and a child of it. */
async function stopped(t: TestContext, lookMs?: number) {
  const own = new Spawner(spawnerPath(assets), lookMs);
  t.after(() => own[Symbol.dispose]());
  const place = await mkdtemp(join(dir, "stopped-"));
  const start = (more: Partial<SpawnOptions> = {}): Promise<HostProcess> =>
    own.spawn({ command: "/bin/sleep", args: ["100"], cwd: place, log: join(place, "log"), ...more });
  const child = await start();
  t.after(() => child.kill());
  const pid = Number((await readFile(`/proc/${child.record.pid}/stat`, "utf8")).split(" ")[3]);
  process.kill(pid, "SIGSTOP");
  return { child, start, place, pid };
}

test("a spawner that hangs keeps nobody from ending what it has started", async (t) => {
  const { child } = await stopped(t);
  assert.deepEqual(await child.kill(), {}, "how it ended only its parent knows");
  assert.deepEqual([await isAlive(child.record), await child.exited], [false, {}]);
});

test("a spawner that answers nothing is replaced: who waits for it hears so, and its children are looked after", async (t) => {
  const { child, start, pid } = await stopped(t, 20);
  await assert.rejects(start(), { code: "unavailable", message: /the spawner did not answer/ });
  while ((await processStartTime(pid)) !== undefined) await setImmediate();
  const other = await start();
  process.kill(child.record.pid, "SIGKILL");
  assert.deepEqual([await child.exited, await other.kill()], [{}, { signal: "SIGKILL" }]);
});

test("one that owes the news of an end is replaced too", async (t) => {
  const { child, pid } = await stopped(t, 20);
  process.kill(child.record.pid, "SIGKILL");
  child.check(); // its socket closed
  assert.deepEqual(await child.exited, {});
  while ((await processStartTime(pid)) !== undefined) await setImmediate();
});

test("what is no longer wanted is not waited for, and ended if it starts all the same", async (t) => {
  const { child, start, place, pid } = await stopped(t);
  const unwanted = new AbortController();
  const starting = start({ signal: unwanted.signal });
  setTimeout(() => unwanted.abort(new Error("nobody wants it")), 10);
  await assert.rejects(starting, /nobody wants it/);
  process.kill(pid, "SIGCONT");
  const next = await start();
  while ((await processesIn(place)).length > 2) await setImmediate();
  assert.deepEqual(
    await processesIn(place),
    [child.record.pid, next.record.pid].sort((a, b) => a - b),
  );
  await next.kill();
});

test("what the spawner has forked is ours before it has become another program", async (t) => {
  const { pid } = await stopped(t);
  assert.match(await readFile(`/proc/${pid}/environ`, "latin1"), /STACYVM_MACHINE=1/);
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
