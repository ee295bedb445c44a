/**
 * Sandboxes move between two servers of a fleet, with real machines: with their programs, files and names, over cut connections, and killed
 * (-9) at each step on either side. Then exactly one server has the sandbox, it works, and nothing of it is left on the other.
 * `STACYVM_CRASH_STEPS=O,A,PostgreSQL,drain` runs the steps whose names begin so, the database's death, and a drain.
 */
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { CrashPoint } from "./crash-point.ts";
import { Postgres } from "./postgres.ts";
import { Server } from "./server-support.ts";

const PRELOAD = new URL("crash-point.ts", import.meta.url).href;

const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };

interface Step {
  name: string;
  /** Who is killed: the one that has it, or the one that shall have it. */
  of: "source" | "target";
  at: CrashPoint;
  /** Who has it in the end. */
  owner: "source" | "target";
  /** Of the ordinary run. */
  short?: true;
}

const commit = (match: string, when: CrashPoint["when"] = "after"): CrashPoint => ({ call: "commit", match, when });
/** A row of the sandbox that is on its way no more. */
const SETTLED = '"state":"suspended"(?![^\\n]*"transit")';

/** docs/crash-protocol.md, "Move". */
const STEPS: Step[] = [
  { name: "O1", of: "source", at: commit('"state":"suspended"'), owner: "source" },
  { name: "O2", of: "source", at: commit('"transit":{"is":"leaving"'), owner: "source" },
  { name: "O3 taken", of: "source", at: commit('"state":"destroyed"', "before"), owner: "target" },
  { name: "O4", of: "source", at: commit('"state":"destroyed"'), owner: "target" },
  { name: "A1", of: "target", at: { call: "mkdir", match: "tmp/arrival-", when: "after" }, owner: "source" },
  { name: "A2", of: "target", at: commit('"transit":{"is":"arriving"'), owner: "source" },
  { name: "A3", of: "target", at: { call: "rename", match: "tmp/arrival-[^/]* -> ", when: "after" }, owner: "source" },
  { name: "A4", of: "target", at: commit(SETTLED, "before"), owner: "target", short: true },
  { name: "A5", of: "target", at: commit(SETTLED), owner: "target" },
  { name: "A6", of: "target", at: commit('"state":"running"'), owner: "target" },
];

const PREFIXES = process.env.STACYVM_CRASH_STEPS?.split(",");
const CHOSEN = STEPS.filter(({ name, short }) =>
  PREFIXES === undefined ? short === true : PREFIXES.some((prefix) => name.startsWith(prefix)),
);

describe("sandboxes that move", () => {
  let postgres: Postgres;
  let one: Server;
  let two: Server;

  const config = (name: string): string => `
providers: { default: qemu }
warm: { adaptive: false, max_machines: 0, idle_monitors: 0 }
fleet:
  database_url: ${postgres.url}
  node_name: ${name}
  address: 127.0.0.1:0
  secret: ${"s".repeat(40)}
  heartbeat: 200ms`;

  before(async () => {
    postgres = await Postgres.create();
    [one, two] = await Promise.all([Server.create(config("one")), Server.create(config("two"))]);
  });
  after(async () => {
    await Promise.all([one, two].map((server) => server?.[Symbol.asyncDispose]()));
    await postgres?.[Symbol.asyncDispose]();
  });

  const run = async (server: Server, id: string, command: string): Promise<string> =>
    (await server.ok("POST", `/sandboxes/${id}/exec`, { command })).stdout.trim();
  const owners = async (id: string): Promise<string[]> =>
    (
      await postgres.query(
        `SELECT n.name FROM stacyvm.sandboxes s JOIN stacyvm.nodes n ON n.id = s.node_id WHERE s.id = '${id}'`,
      )
    ).map((row) => String(Object.values(row)[0]));
  /** A sandbox with a program that counts, and a file. */
  const make = async (server: Server, name: string): Promise<string> => {
    const { id } = await server.ok("POST", "/sandboxes", { ...SPAWN, name, metadata: { of: name } });
    if (!(await server.machines()).includes(id))
      await server.ok("POST", `/sandboxes/${id}/move`, { to: nameOf(server) });
    await run(
      server,
      id,
      "echo kept >/root/file; (while :; do date +%s >>/tmp/count; sleep 0.2; done) & echo $! >/tmp/pid",
    );
    return id;
  };
  const nameOf = (server: Server): string => (server === one ? "one" : "two");
  const works = async (id: string): Promise<void> => {
    for (const server of [one, two]) {
      assert.equal(await run(server, id, "cat /root/file; kill -0 $(cat /tmp/pid) && hostname"), `kept\n${id}`);
    }
  };

  test("a running one goes on there: id, name, files, programs, deadline; nothing is left, and it comes back", async () => {
    const id = await make(one, "traveller");
    const before = await one.ok("GET", `/sandboxes/${id}`);
    const moved = await one.ok("POST", `/sandboxes/${id}/move`, { to: "two" });
    assert.deepEqual([moved.node, moved.former_node, moved.state], ["two", "one", "running"]);
    assert.ok(moved.stopped_ms > 0 && moved.bytes > 2 ** 20, JSON.stringify(moved));
    assert.deepEqual(await owners(id), ["two"]);
    await works(id);
    const now = await one.ok("GET", "/sandboxes/traveller");
    for (const key of ["id", "name", "owner", "created_at", "expires_at", "metadata", "memory_mb", "vcpus"]) {
      assert.deepEqual(now[key], before[key], key);
    }
    assert.deepEqual([await one.machines(), await two.machines()], [[], [id]]);
    const counted = Number(await run(two, id, "wc -l </tmp/count"));
    while (Number(await run(two, id, "wc -l </tmp/count")) <= counted) await delay(50);
    // There is nothing to do, and a way back; what the other had is not sent again.
    assert.equal((await one.ok("POST", `/sandboxes/${id}/move`, { to: "two" })).stopped_ms, 0);
    const back = await two.ok("POST", "/sandboxes/traveller/move");
    assert.equal(back.node, "one");
    await works(id);
    assert.deepEqual([await one.machines(), await two.machines()], [[id], []]);
    for (const server of [one, two]) assert.deepEqual(await readdir(join(server.root, "tmp")), []);
    console.log(JSON.stringify({ moved, back }));
    await one.ok("DELETE", `/sandboxes/${id}`);
  });

  test("a golden snapshot that another node has is brought, not built, and machines start from it", async () => {
    const shape = { ...SPAWN, memory_mb: 144 };
    const { key } = await one.ok("POST", "/snapshots", shape);
    const brought = await two.ok("POST", "/snapshots", shape);
    assert.equal(brought.key, key);
    const [built, same] = await Promise.all(
      [one, two].map(async ({ root }) =>
        JSON.parse(await readFile(join(root, "snapshots", key, "manifest.json"), "utf8")),
      ),
    );
    // No two machines that have booted have the same memory.
    for (const name of ["memory.bin", "vmstate.bin", "rootfs.ext4"]) {
      assert.equal(same.files[name].sha256, built.files[name].sha256, name);
    }
    await one.ok("POST", "/nodes/one/drain");
    const made = await two.ok("POST", "/sandboxes", shape);
    assert.equal(made.boot.path, "restored");
    assert.equal(await run(two, made.id, "hostname"), made.id);
    await two.ok("DELETE", `/sandboxes/${made.id}`);
    await one.ok("POST", "/nodes/one/undrain");
    for (const server of [one, two]) assert.deepEqual(await readdir(join(server.root, "tmp")), []);
  });

  // Of itself src/fleet/moving/draining.test.ts holds it.
  const drain = { skip: PREFIXES?.includes("drain") !== true };
  test("a node that is drained gives away what it can, and says what stays and why", drain, async () => {
    const ids = [await make(one, "first"), await make(one, "second")];
    await one.ok("POST", "/volumes", { name: "data", size_mb: 16 });
    const { id: held } = await one.ok("POST", "/sandboxes", { ...SPAWN, volumes: [{ name: "data", path: "/data" }] });
    await assert.rejects(one.ok("POST", `/sandboxes/${held}/move`), /volume/);
    await two.ok("POST", "/nodes/one/drain", { move: true });
    // biome-ignore lint/suspicious/noExplicitAny: as the server says it
    let said: any;
    await until(async () => {
      said = await two.ok("GET", "/nodes/one/drain");
      return !said.moving;
    });
    assert.deepEqual([said.moved, said.left.map(({ id }: { id: string }) => id)], [2, [held]]);
    assert.match(said.left[0].reason, /volume/);
    assert.deepEqual((await two.machines()).sort(), ids.sort());
    for (const id of ids) await works(id);
    await one.ok("POST", "/nodes/one/undrain");
    for (const id of [...ids, held]) await one.ok("DELETE", `/sandboxes/${id}`);
  });

  /** Waits for what comes by itself; a call to a server that is not there yet is no answer. */
  const until = async (holds: () => Promise<boolean>): Promise<void> => {
    while (!(await holds().catch(() => false))) await delay(50);
  };

  const away = { skip: PREFIXES?.includes("PostgreSQL") !== true, timeout: 90_000 };
  test(
    "PostgreSQL dies while files are on their way: nobody wakes it, and all is as before when it is back",
    away,
    async () => {
      const id = await make(one, "away");
      const asked = one.call("POST", `/sandboxes/${id}/move`, { to: "two" });
      await until(async () => (await readdir(join(two.root, "tmp"))).length > 0);
      await postgres.kill();
      const { status, body } = await asked;
      assert.deepEqual([status, body.phase], [503, "move"]);
      assert.deepEqual(await one.machines(), [id], "it stays here until somebody else is known to have it");
      const refused = await one.call("POST", `/sandboxes/${id}/exec`, { command: "true" });
      assert.equal(refused.status, 503);
      await postgres.start();
      await until(async () => (await one.machines()).length + (await two.machines()).length === 1);
      await until(async () => (await run(two, id, "cat /root/file")) === "kept");
      await works(id);
      await one.ok("DELETE", `/sandboxes/${id}`);
    },
  );

  for (const { name, of, at, owner } of CHOSEN) {
    test(`${of} killed at ${name}: the ${owner} has it, and the other nothing of it`, { timeout: 60_000 }, async () => {
      const id = await make(one, `crash-${STEPS.findIndex((step) => step.name === name)}`);
      const victim = of === "source" ? one : two;
      const point = join(victim.root, "crash-point.json");
      await victim.stop("SIGTERM");
      await victim.start({ STACYVM_CRASH_POINT: point, NODE_OPTIONS: `--import=${PRELOAD}` });
      await until(async () => (await two.ok("GET", `/sandboxes/${id}`)).state === "running");
      await writeFile(point, JSON.stringify([at]));
      const ended = victim.ended();
      const asked = one.call("POST", `/sandboxes/${id}/move`, { to: "two" }).catch(() => undefined);
      assert.equal(await ended, "SIGKILL");
      await victim.stop("SIGKILL");
      await victim.start();
      await asked;
      const [has, not] = owner === "source" ? [one, two] : [two, one];
      await until(async () => (await not.machines()).length === 0 && (await has.machines()).join() === id);
      await until(async () => (await owners(id)).join() === nameOf(has));
      // What ran comes back by itself, at once or with this use.
      await until(async () => (await run(not, id, "cat /root/file")) === "kept");
      await works(id);
      const all = await not.ok("GET", "/sandboxes");
      assert.deepEqual(
        all.map((each: { id: string; state: string }) => [each.id, each.state]),
        [[id, "running"]],
      );
      // A golden snapshot may be in the making beside it.
      for (const server of [one, two]) await until(async () => (await readdir(join(server.root, "tmp"))).length === 0);
      await not.ok("DELETE", `/sandboxes/${id}`);
    });
  }
});
