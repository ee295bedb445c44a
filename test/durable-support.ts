/**
 * Programs in a guest that write what has to last (test/guest-programs/durable.py), while what is around them is killed (-9): what they were
 * told to be on disk is there, sums are the same, databases whole, and where the machine goes on, so do they.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { borrow } from "../bench/borrow.ts";
import { exists } from "../src/host/exists.ts";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { packageTree } from "../src/images/packages.ts";
import { createImages } from "../src/images/store.ts";
import { Server } from "./server-support.ts";

export interface Kept {
  /** What a spawn says of it: it is at `/work`. */
  spawn: object;
  /** What is killed, in turn. @returns whether the machine is, too */
  kills: readonly ((server: Server, id: string) => Promise<boolean>)[];
  /** What the guest has written, as it lies on the host when no machine has it. @returns a directory */
  look(server: Server): Promise<string>;
  /** The host sees it while a machine has it, too. */
  live: boolean;
}

export interface Acknowledged {
  files: number;
  lite: number;
  postgres: number;
}

/** Its images are its own with PostgreSQL, for which some 100 MB are fetched once: who makes it is kept in `.build`. */
export async function durableServer(
  root: string,
  config: string,
  postgres: boolean,
): Promise<{ server: Server; image: string }> {
  const data = join(root, "data");
  await borrow(data);
  await writeFile(join(data, "stacyvm.yaml"), `${config}providers: { default: qemu }\nwarm: { adaptive: false }\n`);
  if (!postgres) return { server: await Server.open(data), image: "stacyvm/python" };
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

/** Ends the machine as a crash does. */
export async function killMachine(server: Server, id: string): Promise<void> {
  const record = await readFile(join(server.root, "sandboxes", id, "sandbox.json"), "utf8");
  process.kill(JSON.parse(record).process.pid, "SIGKILL");
}

/** Each says whether the machine is gone with it. */
export const KILLS: Record<"machine" | "server", Kept["kills"][number]> = {
  async machine(server, id) {
    await killMachine(server, id);
    return true;
  },
  async server(server) {
    await server.stop("SIGKILL");
    await server.start();
    return false;
  },
};

/** @returns how much of what was acknowledged was there in the end */
export async function keepKilling(
  { server, image }: { server: Server; image: string },
  kept: Kept,
  { cycles, postgres }: { cycles: number; postgres: boolean },
): Promise<Acknowledged> {
  const program = await readFile(join(packageRoot, "test/guest-programs/durable.py"), "utf8");
  const kinds = ["file", "lite", ...(postgres ? ["postgres"] : [])];
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
    const shape = { image, memory_mb: postgres ? 512 : 256, disk_mb: 512 };
    id = (await server.ok("POST", "/sandboxes", { ...shape, ...kept.spawn })).id;
    await server.ok("POST", `/sandboxes/${id}/files`, { path: "/tmp/durable.py", content: program });
    const journal = cycle % 2 === 0 ? "wal" : "delete";
    const command = `exec python3 /tmp/durable.py ${sums.size} ${journal} ${postgres ? "yes" : "no"}`;
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
    while (!kinds.every((kind) => told.has(kind))) {
      await acknowledged();
      // Each look is a process in a guest whose processor is emulated.
      await delay(1_000);
    }
  };
  const filesAreWhole = async (dir: string): Promise<void> => {
    for (const [name, sum] of sums) {
      const content = await readFile(join(dir, "files", name));
      assert.equal(createHash("sha256").update(content).digest("hex"), sum, name);
    }
  };
  const databaseIsWhole = async (dir: string): Promise<void> => {
    using database = new DatabaseSync(join(dir, "lite"));
    assert.deepEqual({ ...database.prepare("pragma integrity_check").get() }, { integrity_check: "ok" });
    const { n } = database.prepare("select count(*) n from t where n < ?").get(rows.lite ?? 0) as { n: number };
    assert.equal(n, rows.lite);
  };

  for (let cycle = 0; cycle < cycles; cycle++) {
    if (id === undefined) await begin(cycle);
    await goesOn();
    await delay((cycle * 137) % 1_000);
    await acknowledged();
    const kill = kept.kills[cycle % kept.kills.length];
    assert.ok(id !== undefined && kill !== undefined);
    if (await kill(server, id)) {
      await server.ok("DELETE", `/sandboxes/${id}`);
      id = undefined;
      const dir = await kept.look(server);
      await filesAreWhole(dir);
      await databaseIsWhole(dir);
    } else if (kept.live) await filesAreWhole(await kept.look(server));
  }
  // And PostgreSQL's are all there for the next one.
  if (id === undefined) await begin(cycles);
  await goesOn();
  await server.ok("DELETE", `/sandboxes/${id}`);
  await filesAreWhole(await kept.look(server));
  return { files: sums.size, lite: rows.lite ?? 0, postgres: rows.postgres ?? 0 };
}
