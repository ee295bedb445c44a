/**
 * Machine and server are killed (-9) in turn, and both at once, while programs in a guest write to a volume: nothing that they were told to be on
 * disk is lost, sums are the same, databases and the filesystem whole. Files, SQLite and PostgreSQL, under QEMU. A long form:
 * `STACYVM_VOLUME_CYCLES=100` runs it (volumes.test.ts has a short one, with files).
 */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { runTool } from "../src/host/run.ts";
import { durableServer, type Kept, KILLS, keepKilling, killMachine } from "./durable-support.ts";
import type { Server } from "./server-support.ts";

const CYCLES = Number(process.env.STACYVM_VOLUME_CYCLES ?? 0);
const LONG = CYCLES > 0 ? false : "a long form: STACYVM_VOLUME_CYCLES=100 runs it";
const E2FSPROGS = { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } };

let root: string;
before(async () => {
  root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "durable-"));
});
after(() => rm(root, { recursive: true, force: true }));

/**
 * On a copy, so that the next guest has the journal to replay: that is done here, too, then nothing is to be repaired but the sums of free
 * blocks and inodes, which are no part of the journal. What it needs of the files is taken out of the copy.
 */
async function look(server: Server): Promise<string> {
  const [volume = ""] = await readdir(join(server.root, "volumes"));
  const [copy, out] = [join(root, "copy.ext4"), join(root, "out")];
  await rm(out, { recursive: true, force: true });
  await mkdir(out);
  await runTool("cp", ["--sparse=always", join(server.root, "volumes", volume, "disk.ext4"), copy]);
  await runTool("e2fsck", ["-p", "-E", "journal_only", copy], E2FSPROGS);
  const said = (await runTool("e2fsck", ["-fn", copy], E2FSPROGS)).toString();
  const sums = /^Free (?:blocks|inodes) count wrong \(\d+, counted=\d+\)\.\nFix\? no\n/gm;
  assert.doesNotMatch(said.replaceAll(sums, ""), /WARNING|[Ff]ix/);
  await runTool("debugfs", ["-R", `rdump /files ${out}`, copy], E2FSPROGS);
  for (const name of ["lite", "lite-journal", "lite-wal"])
    await runTool("debugfs", ["-R", `dump /${name} ${join(out, name)}`, copy], E2FSPROGS);
  return out;
}

test(`${CYCLES} kills of machine and server: nothing that was acknowledged is lost, and the filesystem is whole`, {
  skip: LONG,
}, async (t) => {
  const parts = await durableServer(root, "", true);
  await using server = parts.server;
  await server.ok("POST", "/volumes", { name: "data", size_mb: 4_096 });
  const kills: Kept["kills"] = [
    KILLS.machine,
    KILLS.server,
    async (server, id) => {
      await server.stop("SIGKILL");
      await killMachine(server, id);
      await server.start();
      return true;
    },
  ];
  const spawn = { volumes: [{ name: "data", path: "/work" }] };
  const had = await keepKilling(parts, { spawn, kills, look, live: false }, { cycles: CYCLES, postgres: true });
  t.diagnostic(`${had.files} files, ${had.lite} rows of SQLite, ${had.postgres} of PostgreSQL`);
});
