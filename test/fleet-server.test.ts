/** Two real servers with real machines and a real PostgreSQL, over HTTP and by commands: nodes, draining, a crash, removal. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { packageRoot } from "../src/host/paths.ts";
import { Postgres } from "./postgres.ts";
import { Server } from "./server-support.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };

let postgres: Postgres;
let a: Server;
let b: Server;
const settings = (name: string) =>
  `fleet: { database_url: ${JSON.stringify(postgres.url)}, node_name: ${name}, heartbeat: 200ms }\nwarm: { adaptive: false }\n`;
before(async () => {
  postgres = await Postgres.create();
  a = await Server.create(settings("a"));
  b = await Server.create(settings("b"));
});
after(async () => {
  await Promise.all([a, b].map((server) => server?.[Symbol.asyncDispose]()));
  await postgres?.[Symbol.asyncDispose]();
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await delay(20);
}

interface Shown {
  name: string;
  state: string;
  draining: boolean;
  self: boolean;
  load: { sandboxes: number };
}
const nodesAt = (server: Server): Promise<Shown[]> => server.ok("GET", "/nodes");
const nodeAt = (server: Server, name: string): Promise<Shown> => server.ok("GET", `/nodes/${name}`);
const run = async (server: Server, ...args: string[]): Promise<string> => {
  const main = join(packageRoot, "src/cli/main.ts");
  const { stdout } = await promisify(execFile)(process.execPath, [main, ...args], {
    env: { ...process.env, STACYVM_URL: server.url },
  });
  return stdout;
};

test("servers of a fleet know one another; a drained one makes no new sandboxes, and a killed one is silent and comes back as it was", async () => {
  for (const [server, name] of [
    [a, "a"],
    [b, "b"],
  ] as const)
    await until(async () => {
      const all = await nodesAt(server);
      return (
        all.length === 2 && all.every(({ state, self, ...node }) => state === "up" && self === (node.name === name))
      );
    });
  const made = await a.ok("POST", "/sandboxes", { ...SPAWN, name: "work" });
  await until(async () => (await nodeAt(b, "a")).load.sandboxes === 1);
  const rows = () => postgres.query("SELECT id, name, state FROM stacyvm.sandboxes");
  await until(async () => (await rows())[0]?.state === "running");

  // The other one says it, here and by a command.
  assert.match(await run(b, "node", "ls"), /^a +up +1 .*\n?b \(this\) +up +0 /m);
  await run(b, "node", "drain", "a");
  await until(async () => (await nodeAt(a, "a")).draining);
  const refused = await a.call("POST", "/sandboxes", SPAWN);
  assert.equal(refused.status, 503);
  assert.ok(Number(refused.headers.get("retry-after")) > 0);
  assert.match(refused.body.message, /drained/);
  assert.equal((await a.ok("POST", `/sandboxes/${made.id}/exec`, { command: "echo still" })).stdout, "still\n");
  await run(b, "node", "undrain", "a");
  await until(async () => !(await nodeAt(a, "a")).draining);

  await a.stop("SIGKILL");
  await until(async () => (await nodeAt(b, "a")).state === "silent");
  const numbers: string = await b.ok("GET", "/metrics/prometheus");
  assert.match(numbers, /^stacyvm_fleet_nodes\{state="silent"\} 1$/m);
  assert.match(numbers, /^stacyvm_fleet_sandboxes\{node="b"\} \d+$/m);
  assert.deepEqual(await rows(), [{ id: made.id, name: "work", state: "running" }]);
  assert.equal((await b.call("DELETE", "/nodes/a")).status, 409);
  await a.start();
  await until(async () => (await nodeAt(b, "a")).state === "up");
  assert.equal((await a.ok("POST", `/sandboxes/${made.id}/exec`, { command: "echo again" })).stdout, "again\n");
  assert.deepEqual(await rows(), [{ id: made.id, name: "work", state: "running" }]);

  assert.match(await run(b, "node", "rm", "--force", "--json", "a"), new RegExp(made.id));
  await until(async () => /removed/.test((await a.call("POST", "/sandboxes", SPAWN)).body.message));
  assert.equal((await a.ok("POST", `/sandboxes/${made.id}/exec`, { command: "echo on" })).stdout, "on\n");
  assert.equal((await b.call("GET", "/nodes/a")).status, 404);
  assert.deepEqual(await rows(), []);
});
