/** `firecracker.jail: true`: a real server whose machines all run under the real jailer, on the same path as others. */
import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { EventStream } from "./event-stream.ts";
import { whyNot } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

const UID_BASE = 310_000;
const CONFIG = `
providers: { default: firecracker }
firecracker: { jail: true, jail_uid_base: ${UID_BASE} }
warm: { adaptive: false }
`;
const SPAWN = { image: "stacyvm/bare", memory_mb: 128 };
const skip =
  (await whyNot()) ?? (process.getuid?.() === 0 ? false : "the jailer needs root: run the tests as root to include it");

describe("a server whose machines are jailed", { skip, timeout: 120_000 }, () => {
  let server: Server;
  before(async () => {
    server = await Server.create(CONFIG);
  });
  after(() => server[Symbol.asyncDispose]());

  const run = async (id: string, ...argv: string[]): Promise<string> => {
    const [command, ...args] = argv;
    const { status, body } = await server.call("POST", `/sandboxes/${id}/exec`, { command, args, mode: "argv" });
    assert.equal(status, 200, JSON.stringify(body));
    return body.stdout.trim();
  };
  /** Owner of the machine's process, which must be the only one there and have its own root. */
  const owner = async (id: string): Promise<number> => {
    const pids = await processesIn(join(server.root, "sandboxes", id));
    assert.equal(pids.length, 1);
    const status = await readFile(`/proc/${pids[0]}/status`, "utf8");
    assert.match(status, /^CapEff:\t0+$/m);
    assert.notEqual((await stat(`/proc/${pids[0]}/root/`)).ino, (await stat("/")).ino);
    return Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
  };

  test("cold, restored, warm and idle ones, forks, woken and adopted ones: each has a user of its own", async () => {
    const spawn = async (path: string, more: object = {}): Promise<string> => {
      const { status, body } = await server.call("POST", "/sandboxes", { ...SPAWN, ...more });
      assert.equal(status, 201, JSON.stringify(body));
      assert.equal(body.boot.path, path, JSON.stringify(body.boot));
      return body.id;
    };
    const cold = await spawn("cold");
    assert.equal((await server.call("POST", "/snapshots", SPAWN)).status, 201);
    const restored = await spawn("restored", { forkable: true });
    await using events = await EventStream.open(server.url, { type: "pool.filled" });
    assert.ok((await server.call("POST", "/templates", { ...SPAWN, name: "ready", pool_size: 1 })).status < 300);
    await events.next((event) => event.data?.warm === 1);
    const warm = await spawn("warm");
    const forked = await server.call("POST", `/sandboxes/${restored}/fork`, { count: 2 });
    assert.ok(forked.status < 300, JSON.stringify(forked.body));
    const ids = [cold, restored, warm, ...forked.body.sandboxes.map((copy: { id: string }) => copy.id)];
    assert.equal(await run(restored, "counter"), "1");
    assert.equal((await server.call("POST", `/sandboxes/${restored}/suspend`)).status, 200);
    assert.deepEqual(await processesIn(join(server.root, "sandboxes", restored)), []);
    assert.equal((await server.call("POST", `/sandboxes/${restored}/resume`)).status, 200);
    await server.stop("SIGKILL");
    await server.start();
    assert.equal(await run(restored, "counter"), "2");
    const uids = await Promise.all(ids.map(owner));
    assert.equal(new Set(uids).size, ids.length);
    assert.ok(uids.every((uid) => uid >= UID_BASE && uid < UID_BASE + 10_000));
    // The next daemon knows whose users are taken.
    ids.push((await server.call("POST", "/sandboxes", SPAWN)).body.id);
    assert.ok(!uids.includes(await owner(ids.at(-1) as string)));
    const names = await Promise.all(ids.map((id) => run(id, "hostname")));
    assert.deepEqual(names, ids);
    await server.call("DELETE", "/templates/ready");
    for (const id of ids) assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  });
});
