import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs, { mkdir, mkdtemp, readFile, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { replaceFs } from "../../test/replace-fs.ts";
import { packageRoot } from "./paths.ts";
import { endOwnProcessesIn, hasProcesses, isAlive, processesIn, spawnProcess, worksIn } from "./process.ts";

async function sleeper(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), "process-"));
  const dir = join(root, "data", "machine");
  await mkdir(dir, { recursive: true });
  const process = await spawnProcess({ command: "sleep", args: ["60"], cwd: dir, log: join(root, "log") });
  t.after(async () => {
    await process.kill();
    await rm(root, { recursive: true });
  });
  return { root, dir, process };
}

test("a process that cannot be seen is not gone: without descriptors nobody is told that it ended", async (t) => {
  const { process: child } = await sleeper(t);
  const program = join(packageRoot, "test", "few-descriptors.ts");
  const shell = 'ulimit -n 64; exec "$0" "$@"';
  const args = ["-c", shell, process.execPath, program, JSON.stringify(child.record)];
  const { stdout } = await promisify(execFile)("sh", args);
  const { alive, again, ...rest } = JSON.parse(stdout);
  assert.match(alive, /^unavailable: cannot see process \d+: EMFILE/);
  assert.match(again, /^unavailable: /);
  assert.deepEqual(rest, { gone: false, aliveAfter: true, exited: true });
});

test("processes of a directory are found and ended by whichever name it has", async (t) => {
  const { root, dir, process } = await sleeper(t);
  const link = join(root, "link");
  await symlink("data", link);
  const { pid } = process.record;
  for (const name of [dir, join(root, "data"), link, join(link, "machine")]) {
    assert.deepEqual(await processesIn(name), [pid], name);
  }
  assert.deepEqual(await processesIn(join(root, "dat")), []);
  assert.deepEqual(await processesIn(join(root, "none")), []);
  assert.equal(await worksIn(process.record, join(link, "machine")), true);
  await endOwnProcessesIn(link);
  assert.equal(await isAlive(process.record), false);
});

test("a process in another mount namespace, whose directory only has the same name there, is not one of it", async (t) => {
  const { root, dir, process: own } = await sleeper(t);
  // As a container has it, with a server of its own in it: the same paths, the same mark.
  const script = `mount -t tmpfs none "$1" && mkdir -p "$2" && cd "$2" && echo ready && exec sleep 60`;
  const args = [...["-rm", "sh", "-c", script, "sh"], ...[join(root, "data"), dir]];
  const log = join(root, "other.log");
  const other = await spawnProcess({ command: "unshare", args, cwd: root, log });
  t.after(() => other.kill());
  const ended = other.exited.then(() => true);
  while (!(await readFile(log, "utf8")).startsWith("ready")) {
    if (await Promise.race([ended, delay(5, false)]))
      return t.skip(`no mount namespace: ${await readFile(log, "utf8")}`);
  }
  assert.equal(await readlink(`/proc/${other.record.pid}/cwd`), dir, "it says so");
  for (const place of [dir, join(root, "data")]) assert.deepEqual(await processesIn(place), [own.record.pid], place);
  assert.equal(await worksIn(other.record, dir), false);
  assert.deepEqual(await endOwnProcessesIn(join(root, "data")), [own.record.pid]);
  assert.equal(await isAlive(other.record), true);
  // Without its directory there is nothing that anybody could work in.
  await rm(dir, { recursive: true });
  assert.equal(await hasProcesses(dir), false);
});

test("a process deep below a directory is found, also after its own directory was renamed or removed", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "process-"));
  t.after(() => rm(root, { recursive: true }));
  const place = join(root, "1", "2", "3");
  const dir = join(place, "4");
  await mkdir(dir, { recursive: true });
  const { record, kill } = await spawnProcess({ command: "sleep", args: ["60"], cwd: dir, log: join(root, "log") });
  t.after(() => kill());
  assert.deepEqual(await processesIn(root), [record.pid]);
  await rename(dir, join(place, "5"));
  assert.deepEqual(await processesIn(root), [record.pid]);
  await mkdir(dir);
  assert.deepEqual(await processesIn(dir), [], "another one has the name now");
  await rm(join(place, "5"), { recursive: true });
  assert.deepEqual(await processesIn(root), [record.pid]);
});

test("a pid that became another machine's while a directory's processes were ended is left alone", async (t) => {
  const [{ dir, process: own }, { process: other }] = [await sleeper(t), await sleeper(t)];
  const { stat } = fs;
  // As it was when it was looked at: the pid was that of a process here.
  let looks = 0;
  replaceFs(t, "stat", async (path: string) =>
    stat(path === `/proc/${other.record.pid}/cwd` && ++looks === 1 ? dir : path),
  );
  await endOwnProcessesIn(dir);
  assert.deepEqual([looks > 1, await isAlive(own.record), await isAlive(other.record)], [true, false, true]);
});

test("root without the right to see other users' processes does not take a machine's for gone", async (t) => {
  if (process.getuid?.() !== 0) return t.skip("not root");
  const { dir } = await sleeper(t);
  const as = ["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"];
  const other = await spawnProcess({ command: "setpriv", args: as, cwd: dir, log: join(dir, "log") });
  t.after(() => other.kill());
  while ((await stat(`/proc/${other.record.pid}`)).uid !== 65_534) await new Promise((wake) => setTimeout(wake, 5));
  const ask = async (record: unknown): Promise<string> => {
    const script = `const { worksIn } = await import(${JSON.stringify(join(packageRoot, "src/host/process.ts"))});
      console.log(await worksIn(${JSON.stringify(record)}, ${JSON.stringify(dir)}).catch((error) => error.message));`;
    const args = ["--bounding-set=-sys_ptrace", process.execPath, "--input-type=module", "-e", script];
    return (await promisify(execFile)("setpriv", args)).stdout.trim();
  };
  assert.equal(await worksIn(other.record, dir), true);
  assert.equal(await ask(other.record), `process ${other.record.pid} cannot be looked at`);
  assert.equal(await ask({ ...other.record, startTime: "1" }), "false", "of another process nothing is said");
});
