/**
 * Machine, server and helper are killed (-9) in turn while programs in a guest write into a directory of the host: nothing that they were told to
 * be on disk is lost, sums are the same, databases whole, and where the machine goes on, so do they. Files and SQLite, under QEMU.
 * `STACYVM_DIRECTORY_CYCLES=100` is the long form; `STACYVM_DIRECTORY_PROGRAMS=1` adds PostgreSQL.
 */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { servers } from "./directory-support.ts";
import { durableServer, type Kept, KILLS, keepKilling } from "./durable-support.ts";

const CYCLES = Number(process.env.STACYVM_DIRECTORY_CYCLES ?? 3);
const POSTGRES = process.env.STACYVM_DIRECTORY_PROGRAMS === "1";

let root: string;
let dir: string;
before(async () => {
  root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "durable-"));
  dir = join(root, "work");
  await mkdir(dir);
});
after(() => rm(root, { recursive: true, force: true }));

test(`${CYCLES} kills of machine, server and helper: nothing that was acknowledged is lost`, async (t) => {
  const parts = await durableServer(root, `mounts: { allow: [${JSON.stringify(dir)}] }\n`, POSTGRES);
  await using _server = parts.server;
  const kills: Kept["kills"] = [
    KILLS.machine,
    KILLS.server,
    async () => {
      const [helper] = await servers(dir);
      assert.ok(helper !== undefined);
      process.kill(helper, "SIGKILL");
      return false;
    },
  ];
  const look = async (): Promise<string> => dir;
  const spawn = { mounts: [{ source: dir, target: "/work" }] };
  const had = await keepKilling(parts, { spawn, kills, look, live: true }, { cycles: CYCLES, postgres: POSTGRES });
  while ((await servers(dir)).length > 0) await delay(20);
  t.diagnostic(`${had.files} files, ${had.lite} rows of SQLite, ${had.postgres} of PostgreSQL`);
});
