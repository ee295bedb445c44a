import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs, { mkdir, mkdtemp, rm, stat, symlink } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "./paths.ts";
import { endOwnProcessesIn, isAlive, processesIn, spawnProcess, worksIn } from "./process.ts";

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

test("a pid that became another machine's while a directory's processes were ended is left alone", async (t) => {
  const [{ dir, process: own }, { process: other }] = [await sleeper(t), await sleeper(t)];
  const { readlink } = fs;
  t.after(() => {
    fs.readlink = readlink;
    syncBuiltinESMExports();
  });
  // As it was when it was looked at: the pid was that of a process here.
  let looks = 0;
  fs.readlink = (async (path: string) => {
    if (path === `/proc/${other.record.pid}/cwd` && ++looks === 1) return dir;
    return readlink(path);
  }) as typeof readlink;
  syncBuiltinESMExports();
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
