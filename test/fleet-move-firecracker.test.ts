/** The same move under the real Firecracker, with the bare guest: what it holds in memory and on its disk comes along, there and back. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Ask, CRASH_GUESTS } from "./crash-guests.ts";
import { whyNot } from "./firecracker-support.ts";
import { Postgres } from "./postgres.ts";
import { Server } from "./server-support.ts";

const guest = CRASH_GUESTS.firecracker;

test("a Firecracker sandbox moves to another node and back", { skip: await whyNot() }, async () => {
  await using postgres = await Postgres.create();
  const config = (name: string): string => `
${guest.config}
warm: { adaptive: false, max_machines: 0, idle_monitors: 0 }
fleet:
  database_url: ${postgres.url}
  node_name: ${name}
  address: 127.0.0.1:0
  secret: ${"s".repeat(40)}
  heartbeat: 200ms`;
  await using one = await Server.create(config("one"));
  await using two = await Server.create(config("two"));
  // So that the first machine is this node's.
  await one.ok("POST", "/nodes/two/drain");
  const { id } = await one.ok("POST", "/sandboxes", guest.spawn);
  await one.ok("POST", "/nodes/two/undrain");
  assert.deepEqual(await one.machines(), [id]);
  const through =
    (server: Server): Ask =>
    async (method, path, body) => ({ body: await server.ok(method, `/sandboxes/${id}${path}`, body) });
  assert.equal(await guest.count(through(one)), 1);
  assert.ok(await guest.write(through(one), "kept"));
  const moves: object[] = [];
  for (const [to, server, other] of [
    ["two", two, one],
    ["one", one, two],
    ["two", two, one],
  ] as const) {
    const moved = await one.ok("POST", `/sandboxes/${id}/move`, { to });
    moves.push(moved);
    assert.deepEqual([moved.node, moved.state], [to, "running"]);
    assert.deepEqual([await server.machines(), await other.machines()], [[id], []]);
    assert.equal(await guest.count(through(other)), 1 + moves.length, "its memory goes on");
    assert.equal(await guest.read(through(server)), "kept");
  }
  for (const server of [one, two]) assert.deepEqual(await readdir(join(server.root, "tmp")), []);
  console.log(JSON.stringify(moves));
});
