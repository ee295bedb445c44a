/**
 * Machine, server and helper are killed (-9) in turn while programs in a guest write into a directory of the host: nothing that they were told to
 * be on disk is lost, sums are the same, databases whole, and where the machine goes on, so do they. Files and SQLite, under QEMU.
 * `STACYVM_DIRECTORY_CYCLES=100` is the long form; `STACYVM_DIRECTORY_PROGRAMS=1` adds PostgreSQL, for whose image some 100 MB are fetched once.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pipeline } from "node:stream/promises";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { borrow } from "../bench/borrow.ts";
import { exists } from "../src/host/exists.ts";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { packageTree } from "../src/images/packages.ts";
import { createImages } from "../src/images/store.ts";
import { servers } from "./directory-support.ts";
import { Server } from "./server-support.ts";

const KILLED = ["machine", "server", "helper"] as const;
const CYCLES = Number(process.env.STACYVM_DIRECTORY_CYCLES ?? KILLED.length);
const POSTGRES = process.env.STACYVM_DIRECTORY_PROGRAMS === "1";
const KINDS = ["file", "lite", ...(POSTGRES ? ["postgres"] : [])];

let root: string;
let dir: string;
before(async () => {
  root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "durable-"));
  dir = join(root, "work");
  await mkdir(dir);
});
after(() => rm(root, { recursive: true, force: true }));

/** Its images are its own with PostgreSQL: who makes it is kept in `.build`. */
async function startServer(): Promise<{ server: Server; image: string }> {
  const data = join(root, "data");
  await borrow(data);
  const config = `mounts: { allow: [${JSON.stringify(dir)}] }\nproviders: { default: qemu }\nwarm: { adaptive: false }\n`;
  await writeFile(join(data, "stacyvm.yaml"), config);
  if (!POSTGRES) return { server: await Server.open(data), image: "stacyvm/python" };
  const images = join(packageRoot, ".build/databases-images");
  if (!(await exists(join(images, "refs.json")))) {
    const tree = join(root, "tree.tar");
    const packages = ["postgresql", "python3-minimal", "libpython3-stdlib"];
    await pipeline(packageTree({ variant: "minbase", packages }), createWriteStream(tree));
    const made = `${images}.${process.pid}`;
    const config = { user: "postgres" };
    await createImages({ ...dataPaths(), images: made }).import(tree, "test/databases", { as: "rootfs", config });
    await rename(made, images);
    await rm(tree);
  }
  await rm(join(data, "images"));
  await symlink(images, join(data, "images"));
  return { server: await Server.open(data), image: "test/databases" };
}

test(`${CYCLES} kills of machine, server and helper: nothing that was acknowledged is lost`, async (t) => {
  const { server, image } = await startServer();
  await using _server = server;
  const program = await readFile(join(packageRoot, "test/guest-programs/durable.py"), "utf8");
  /** By file. */
  const sums = new Map<string, string>();
  /** Of rows: how many there are at least. */
  const rows: Record<string, number> = { lite: 0, postgres: 0 };
  let id: string | undefined;
  let lines = 0;
  let told = new Set<string>();

  const exec = async (command: string): Promise<string> => {
    const { exit_code, stdout, stderr } = await server.ok("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(exit_code, 0, `${command}: ${stderr}`);
    return stdout;
  };
  const begin = async (cycle: number): Promise<void> => {
    const shape = { image, memory_mb: POSTGRES ? 512 : 256, disk_mb: 512 };
    id = (await server.ok("POST", "/sandboxes", { ...shape, mounts: [{ source: dir, target: "/work" }] })).id;
    await server.ok("POST", `/sandboxes/${id}/files`, { path: "/tmp/durable.py", content: program });
    const journal = cycle % 2 === 0 ? "wal" : "delete";
    const command = `exec python3 /tmp/durable.py ${sums.size} ${journal} ${POSTGRES ? "yes" : "no"}`;
    await server.ok("POST", `/sandboxes/${id}/processes`, { command });
    lines = 0;
  };
  /** What the programs were told since the last time. */
  const acknowledged = async (): Promise<void> => {
    const said = await exec(`tail -n +${lines + 1} /tmp/acknowledged 2>/dev/null || true`);
    for (const line of said.split("\n").slice(0, -1)) {
      lines += 1;
      const [kind = "", number = "", sum = ""] = line.split(" ");
      assert.notEqual(kind, "failed", line);
      const of = kind.replace("has-", "");
      if (kind.startsWith("has-")) assert.ok(Number(number) >= (rows[of] ?? 0), `${line}, of ${rows[of]}`);
      else if (kind === "file") sums.set(number, sum);
      else rows[kind] = Number(number) + 1;
      told.add(kind);
    }
  };
  const goesOn = async (): Promise<void> => {
    told = new Set();
    while (!KINDS.every((kind) => told.has(kind))) {
      await acknowledged();
      await delay(50);
    }
  };
  const filesAreWhole = async (): Promise<void> => {
    for (const [name, sum] of sums) {
      const content = await readFile(join(dir, "files", name));
      assert.equal(createHash("sha256").update(content).digest("hex"), sum, name);
    }
  };

  for (let cycle = 0; cycle < CYCLES; cycle++) {
    if (id === undefined) await begin(cycle);
    await goesOn();
    await delay((cycle * 137) % 1_000);
    await acknowledged();
    const killed = KILLED[cycle % KILLED.length];
    if (killed === "server") {
      await server.stop("SIGKILL");
      await server.start();
    } else if (killed === "helper") {
      const [helper] = await servers(dir);
      assert.ok(helper !== undefined);
      process.kill(helper, "SIGKILL");
    } else {
      const record = await readFile(join(server.root, "sandboxes", id ?? "", "sandbox.json"), "utf8");
      process.kill(JSON.parse(record).process.pid, "SIGKILL");
      await server.ok("DELETE", `/sandboxes/${id}`);
      id = undefined;
      while ((await servers(dir)).length > 0) await delay(20);
      using database = new DatabaseSync(join(dir, "lite"));
      assert.deepEqual({ ...database.prepare("pragma integrity_check").get() }, { integrity_check: "ok" });
      const { n } = database.prepare("select count(*) n from t where n < ?").get(rows.lite ?? 0) as { n: number };
      assert.equal(n, rows.lite);
    }
    await filesAreWhole();
    if (id !== undefined) await goesOn();
  }
  // And PostgreSQL's are all there for the next one.
  if (id === undefined) await begin(CYCLES);
  await goesOn();
  await filesAreWhole();
  t.diagnostic(`${sums.size} files, ${rows.lite} rows of SQLite, ${rows.postgres} of PostgreSQL`);
  await server.ok("DELETE", `/sandboxes/${id}`);
});
