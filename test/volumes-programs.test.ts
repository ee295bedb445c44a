/**
 * Real programs on a volume, over kills of its machine: what they were told to be on disk is there, and the filesystem is whole. The short form
 * asks what POSIX promises about files. `STACYVM_VOLUME_PROGRAMS=CYCLES` is the long one: git, npm, a compiler, SQLite and PostgreSQL at
 * work in so many machines, one after the other, each of which is killed. It makes an image of the distribution's packages once (in
 * `.build`), for which some hundred MB are fetched.
 */
import assert from "node:assert/strict";
import { chmod, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { createImages } from "../src/images/store.ts";
import { formatVolume } from "../src/volumes/format.ts";
import { type Guest, shell, startGuest } from "./agent-support.ts";
import { scratchPaths } from "./launcher-support.ts";
import { fsx, pjdfstest, suitesTree } from "./posix-suites.ts";
import { packagesBase, runIn } from "./programs-support.ts";

const CYCLES = Number(process.env.STACYVM_VOLUME_PROGRAMS ?? 0);
const LONG = CYCLES > 0 ? false : "a long form: STACYVM_VOLUME_PROGRAMS=100 runs it";
const PACKAGES = ["git", "gcc", "make", "libc6-dev", "nodejs", "npm", "sqlite3", "postgresql", "procps"];
const MIB = 2 ** 20;
const E2FSCK = { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } };

let root: string;
before(async () => {
  root = (await scratchPaths()).root;
});
after(() => rm(root, { recursive: true, force: true }));

async function makeVolume(name: string, mebibytes: number): Promise<string> {
  const path = join(root, name);
  await using file = await open(path, "wx", 0o600);
  await file.truncate(mebibytes * MIB);
  await formatVolume(path);
  return path;
}

async function mounted(guest: Guest, bytes: number): Promise<void> {
  await guest.agent.mount({ name: "data", slot: 0, bytes, path: "/data", readOnly: false, probe: true });
}

/**
 * Of one that was not closed: its journal is replayed first, as the next mount does; then nothing is to be repaired. The sums of free blocks
 * and inodes are no part of the journal: each mount counts them anew.
 */
async function assertWhole(path: string): Promise<void> {
  await runTool("e2fsck", ["-p", "-E", "journal_only", path], E2FSCK);
  const said = (await runTool("e2fsck", ["-fn", path], E2FSCK)).toString();
  const sums = /^Free (?:blocks|inodes) count wrong \(\d+, counted=\d+\)\.\nFix\? no\n/gm;
  assert.doesNotMatch(said.replaceAll(sums, ""), /WARNING|[Ff]ix/);
}

describe("what POSIX promises about files holds on a volume", () => {
  test("names, links, owners, times, locks, attributes; and random writes, maps and holes against a model", async () => {
    const path = await makeVolume("posix", 256);
    await using guest = await startGuest({ volumes: [path] });
    await mounted(guest, 256 * MIB);
    const program = join(root, "posix-program");
    const source = join(packageRoot, "test/guest-programs/posix.c");
    await runTool("gcc", ["-static", "-O1", "-o", program, source]);
    await chmod(program, 0o755);
    await using file = await open(program);
    await guest.agent.writeFile("/data/posix", await file.readFile(), { mode: 0o755 });
    assert.match(await shell(guest.agent, "/data/posix new /data/new"), /^asked 1\d\d, not so 0\n$/);
    await shell(guest.agent, "/data/posix fsx /data/fsx 2000 1");
    await shell(guest.agent, "/data/posix fsx /data/fsx2 2000 2");
    await guest.agent.still();
    await guest.kill();
    await assertWhole(path);
  });
});

describe("public suites of file systems on a volume", { skip: LONG }, () => {
  test("pjdfstest finds nothing that does not hold, fsx no difference", async () => {
    const paths = await scratchPaths();
    const own = { ...paths, images: join(root, "suites-images") };
    const tree = join(root, "suites");
    await suitesTree(tree);
    const { base } = await createImages(own).import(tree, "test/suites");
    const path = await makeVolume("suites-volume", 1_024);
    await using guest = await startGuest({
      base: { path: base, filesystem: "erofs" },
      ...{ memoryMiB: 512, diskMiB: 512, vcpus: 1, volumes: [path] },
    });
    await mounted(guest, 1_024 * MIB);
    const { passed, failed, skipped } = await pjdfstest(guest.agent, "/data/asked");
    assert.deepEqual(failed, []);
    // What needs the filesystem mounted anew to read only.
    assert.deepEqual(
      skipped.filter((name) => !/erofs_|link_count_max/.test(name)),
      [],
    );
    assert.ok(passed >= 340, `${passed} passed`);
    for (const seed of [1, 2]) await fsx(guest.agent, `/data/made-${seed}`, 20_000, seed);
    await guest.agent.still();
    await guest.kill();
    await assertWhole(path);
  });
});

describe("programs on a volume whose machines are killed", { skip: LONG }, () => {
  const BYTES = 2_048 * MIB;
  let base: string;
  let path: string;
  before(async () => {
    base = await packagesBase(join(packageRoot, ".build/volume-programs.img"), PACKAGES);
    path = await makeVolume("programs", 2_048);
  });

  const start = async (): Promise<{ guest: Guest; run: ReturnType<typeof runIn> }> => {
    const guest = await startGuest({
      base: { path: base, filesystem: "erofs" },
      ...{ memoryMiB: 768, diskMiB: 512, vcpus: 1, volumes: [path] },
    });
    try {
      await mounted(guest, BYTES);
      return { guest, run: runIn(guest.agent) };
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  };

  const POSTGRES = `b=$(ls -d /usr/lib/postgresql/*/bin); mkdir -p /run/postgresql; chown postgres /run/postgresql; p() { su postgres -c "cd /; $*"; }
up() { rm -f /data/pg/postmaster.pid; p "$b/pg_ctl -D /data/pg -w -t 600 -l /data/pg.log start > /dev/null"; }`;

  test("once: a clone, an installation, a build, and databases that are made", async () => {
    const { guest, run } = await start();
    await using _guest = guest;
    const repository = `cd /data; git config --global user.name n; git config --global user.email e@x; git config --global --add safe.directory '*'; git init -q r; cd r
for i in $(seq 200); do echo $i > f$i; done; git add .; git commit -qm one; cd ..; git clone -q --no-local r c; git -C c fsck --full --strict; git -C c log --oneline | wc -l`;
    assert.equal(await run(repository), "1");
    const installation = `mkdir -p /data/thing /data/app; cd /data/thing; echo '{"name": "thing", "version": "1.2.3", "main": "index.js"}' > package.json; echo 'module.exports = 42' > index.js
npm pack --silent; cd /data/app; npm init -y > /dev/null; npm install --silent --offline /data/thing/thing-1.2.3.tgz; node -p 'require("thing")'`;
    assert.match(await run(installation), /42$/);
    const build = `mkdir -p /data/m; cd /data/m; for i in $(seq 20); do echo "int f$i(void) { return $i; }" > f$i.c; done
{ seq 20 | sed 's/.*/int f&(void);/'; echo '#include <stdio.h>'; echo 'int main(void) { int s = 0;'; seq 20 | sed 's/.*/s += f&();/'; echo 'printf("%d\\n", s); }'; } > main.c
gcc -o p *.c; ./p`;
    assert.equal(await run(build), "210");
    await run(`cd /data; sqlite3 d 'pragma journal_mode=wal; create table t(a integer)'`);
    const made = `${POSTGRES}; mkdir -p /data/pg; chown postgres /data/pg; touch /data/pg.log; chown postgres /data/pg.log; p "$b/initdb -D /data/pg -A trust > /dev/null"; up
p "psql -qc 'create table t(a integer)' postgres"; p "$b/pg_ctl -D /data/pg -w stop > /dev/null"; sync`;
    await run(made);
    await guest.agent.still();
    await guest.kill();
    await assertWhole(path);
  });

  test(`${CYCLES} machines: nothing that was acknowledged is lost, sums are the same, and the filesystem is whole`, async (t) => {
    /** By file. */
    const sums = new Map<string, string>();
    let acknowledged = { lite: 0, postgres: 0 };
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      const { guest, run } = await start();
      await using _guest = guest;
      for (const [name, sum] of [...sums].slice(-10))
        assert.equal(await run(`sha256sum < /data/${name} | cut -d' ' -f1`), sum, name);
      const databases = `cd /data; git -C c -c safe.directory='*' fsck --full --strict; node -p 'require("/data/app/node_modules/thing")'; ./m/p; sqlite3 d 'pragma integrity_check; select count(*) from t'
${POSTGRES}; up; p "psql -qtAc 'select count(*) from t' postgres"`;
      const [thing, built, whole, lite, postgres] = (await run(databases)).split("\n").slice(-5);
      assert.deepEqual([thing, built, whole], ["42", "210", "ok"], `cycle ${cycle}`);
      assert.ok(Number(lite) >= acknowledged.lite, `SQLite has ${lite} of ${acknowledged.lite} rows, cycle ${cycle}`);
      assert.ok(Number(postgres) >= acknowledged.postgres, `PostgreSQL has ${postgres} of ${acknowledged.postgres}`);
      const name = `file-${cycle}`;
      const written = `head -c ${4_096 * (1 + (cycle % 64))} /dev/urandom > /data/${name}; sync /data/${name}; sha256sum < /data/${name} | cut -d' ' -f1`;
      sums.set(name, await run(written));
      // What they acknowledge they say; of what comes after that they say nothing any more.
      const writer = `cd /data; n=${lite}; while sqlite3 -cmd 'pragma synchronous=full' d "insert into t values($n)"; do n=$((n + 1)); echo lite $n; done &
n=${postgres}; while su postgres -c "psql -qc 'insert into t values($n)' postgres"; do n=$((n + 1)); echo postgres $n; done &
while true; do git -C /data/c gc -q --prune=now; cp -r /data/m /data/copy; rm -rf /data/copy; done`;
      const command = await guest.agent.start({ argv: ["/bin/bash", "-c", writer] });
      let said = "";
      void (async () => {
        for await (const part of command.output()) if (part.type === "stdout") said += part.data.toString();
      })().catch(() => {});
      const most = (who: string): number =>
        Math.max(0, ...[...said.matchAll(new RegExp(`^${who} (\\d+)$`, "gm"))].map((found) => Number(found[1])));
      while (most("lite") <= Number(lite) || most("postgres") <= Number(postgres)) await delay(50);
      await delay((cycle * 37) % 1_000);
      const last = { lite: most("lite"), postgres: most("postgres") };
      await guest.kill();
      acknowledged = last;
      await assertWhole(path);
    }
    t.diagnostic(`${acknowledged.lite} rows of SQLite and ${acknowledged.postgres} of PostgreSQL, ${sums.size} files`);
  });
});
