/**
 * A machine that is killed while its databases write: the disk is whole, and what they had said was written is there. The host
 * stays up, so what a guest has synced is with the host's kernel.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { runTool } from "../src/host/run.ts";
import { type Guest, type GuestOptions, shell, startGuest } from "./agent-support.ts";
import { skipPrograms, startPrograms } from "./programs-support.ts";

/** Prints the number of each row when the database has said that it is written. */
const SQLITE = `
import itertools, sqlite3
d = sqlite3.connect("/rows.db", isolation_level=None)
d.execute("pragma journal_mode=wal"); d.execute("pragma synchronous=full")
d.execute("create table t(a integer primary key, b text)")
for i in itertools.count(1):
    d.execute("insert into t values(?, ?)", (i, "x" * 500))
    print(i, flush=True)`;
const SQLITE_CHECK = `
import sqlite3
d = sqlite3.connect("/rows.db")
print(*d.execute("pragma integrity_check").fetchone(), *d.execute("select count(*), max(a) from t").fetchone())`;

/** Kills the machine when each command has said that many numbers. @returns the last of each, and the disk */
async function killAmidst(guest: Guest, commands: string[][], rows: number): Promise<{ said: number[]; disk: string }> {
  const said = commands.map(() => 0);
  const enough = commands.map(async (argv, at) => {
    const command = await guest.agent.start({ argv });
    const done = Promise.withResolvers<void>();
    void (async () => {
      let text = "";
      for await (const event of command.output()) {
        if (event.type !== "stdout") continue;
        const lines = (text + event.data.toString()).split("\n");
        text = lines.pop() ?? "";
        said[at] = Number(lines.at(-1) ?? said[at]);
        if ((said[at] ?? 0) >= rows) done.resolve();
      }
      done.reject(new Error(`${argv.join(" ")} ended at ${said[at]}`));
    })().catch(done.reject);
    await done.promise;
  });
  // Other files come and go beside.
  await guest.agent.start({
    argv: [
      "sh",
      "-c",
      "i=0; while :; do i=$((i + 1)); mkdir -p /churn/$i; echo $i > /churn/$i/f; mv /churn/$i /churn/m$i; [ $i -lt 20 ] || rm -r /churn/m$((i - 15)); done",
    ],
  });
  await Promise.all(enough);
  await guest.kill();
  return { said, disk: join(guest.dir, "rootfs.ext4") };
}

/** What a mount would do, and then nothing may be left to mend. */
async function assertWhole(disk: string): Promise<void> {
  const fsck = (...options: string[]) =>
    runTool("e2fsck", [...options, disk], {
      package: "e2fsprogs",
      env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: "C" },
    });
  await fsck("-y", "-E", "journal_only");
  await fsck("-f", "-n");
}

async function afterwards(
  check: (guest: Guest, said: number[]) => Promise<void>,
  source: Guest,
  commands: string[][],
  rows: number,
  start: (options: GuestOptions) => Promise<Guest>,
): Promise<void> {
  const { said, disk } = await killAmidst(source, commands, rows);
  await assertWhole(disk);
  await using later = await start({ disk });
  await check(later, said);
}

async function checkSqlite(guest: Guest, said: number): Promise<void> {
  const [state, count, most] = (await shell(guest.agent, `python3 -c '${SQLITE_CHECK}'`)).trim().split(" ");
  assert.deepEqual([state, count], ["ok", most]);
  assert.ok(Number(most) >= said, `${said} rows were said to be written, ${most} are there`);
}

test("SQLite in a machine that is killed: nothing that it had written is lost", async () => {
  await using guest = await startGuest({ image: "stacyvm/python" });
  await afterwards(
    async (later, [said = 0]) => checkSqlite(later, said),
    guest,
    [["python3", "-c", SQLITE]],
    60,
    (options) => startGuest({ image: "stacyvm/python", ...options }),
  );
});

test("PostgreSQL and SQLite beside it in a machine that is killed", { skip: skipPrograms }, async () => {
  await using programs = await startPrograms();
  const { guest, run } = programs;
  const server = (
    data: string,
  ) => `b=$(ls -d /usr/lib/postgresql/*/bin); mkdir -p /run/postgresql; chown postgres /run/postgresql
p() { su postgres -c "cd /; $*"; }; ${data}; p "$b/pg_ctl -D /pg/d -w -t 300 -l /pg/log start > /dev/null"`;
  await run(server('mkdir /pg; chown postgres /pg; p "$b/initdb -D /pg/d -A trust > /dev/null"'));
  await run("su postgres -c \"psql -qc 'create table t(a int primary key, b text)' postgres\"");
  const insert = `i=0; while :; do i=$((i + 1)); echo "insert into t values($i, repeat('x', 500)) returning a;"; done | su postgres -c "psql -qAt postgres"`;
  await afterwards(
    async (later, [postgres = 0, sqlite = 0]) => {
      await checkSqlite(later, sqlite);
      const { stdout, stderr } = await later.agent.exec({
        argv: [
          "bash",
          "-ec",
          `${server("rm -f /pg/d/postmaster.pid")}; su postgres -c "psql -qAtc 'select count(*) = max(a), max(a) from t' postgres"`,
        ],
      });
      const [whole, most] = stdout.toString().trim().split("|");
      assert.equal(whole, "t", `${stdout}${stderr}`);
      assert.ok(Number(most) >= postgres, `${postgres} rows were said to be written, ${most} are there`);
    },
    guest,
    [
      ["bash", "-c", insert],
      ["python3", "-c", SQLITE],
    ],
    200,
    async (options) => (await startPrograms(options)).guest,
  );
});
