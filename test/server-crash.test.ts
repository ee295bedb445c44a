/**
 * The daemon is killed (-9) at random moments under a mixed load, and started again each time. What clients were told must still
 * be true then, and nothing half-made may be left. `STACYVM_CRASH_KILLS=100` for the long form, `STACYVM_CRASH_SEED` to repeat one.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { Server } from "./server-support.ts";

const KILLS = Number(process.env.STACYVM_CRASH_KILLS ?? 6);
const SEED = Number(process.env.STACYVM_CRASH_SEED ?? Date.now() % 1_000_000);
const SPAWN = { image: "stacyvm/busybox", memory_mb: 128, ttl: "2h" };
/** From this many on, the oldest are destroyed. */
const KEPT = 3;

/** What the clients know of a sandbox. */
interface Known {
  id: string;
  /** The content whose write was answered, and one whose write was cut off. */
  content?: string;
  pending?: string;
  /** A command that was started and answered runs until the end. */
  process?: string;
}

test(`${KILLS} kills of the daemon under load (seed ${SEED})`, async (t) => {
  await using server = await Server.create();
  const random = generator(SEED);
  const counts = { spawn: 0, exec: 0, file: 0, destroy: 0, snapshot: 0, cut: 0, adopted: 0 };
  const known = new Map<string, Known>();
  /** Whose end was asked for and not answered: either outcome is right. */
  const doomed = new Set<string>();

  /** One request; `undefined` when the kill came first. */
  const ask = async (kind: keyof typeof counts, method: string, path: string, body?: unknown) => {
    try {
      const answer = await server.call(method, path, body);
      counts[kind] += 1;
      return answer;
    } catch {
      counts.cut += 1;
      return undefined;
    }
  };
  const spawnOne = async (): Promise<void> => {
    const answer = await ask("spawn", "POST", "/sandboxes", SPAWN);
    if (answer === undefined) return;
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    const box: Known = { id: answer.body.id };
    known.set(box.id, box);
    const started = await ask("exec", "POST", `/sandboxes/${box.id}/processes`, { command: "sleep 100000" });
    if (started?.status === 201) box.process = started.body.id;
  };
  const writeOne = async (box: Known): Promise<void> => {
    const content = `content ${random()}`;
    box.pending = content;
    const answer = await ask("file", "POST", `/sandboxes/${box.id}/files`, { path: "/workspace/f", content });
    if (answer === undefined) return;
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    box.content = content;
    delete box.pending;
  };
  const execOne = async (box: Known): Promise<void> => {
    const answer = await ask("exec", "POST", `/sandboxes/${box.id}/exec`, { command: "echo yes" });
    if (answer !== undefined) assert.equal(answer.body.stdout, "yes\n", JSON.stringify(answer.body));
  };
  const destroyOne = async (box: Known): Promise<void> => {
    known.delete(box.id);
    doomed.add(box.id);
    const answer = await ask("destroy", "DELETE", `/sandboxes/${box.id}`);
    if (answer === undefined) return;
    assert.equal(answer.status, 200);
    doomed.delete(box.id);
  };
  const buildOne = async (kill: number): Promise<void> => {
    const shape = { ...SPAWN, setup: [`echo ${SEED}-${kill} >/built`] };
    const answer = await ask("snapshot", "POST", "/snapshots", shape);
    if (answer === undefined) return;
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    await ask("snapshot", "DELETE", `/snapshots/${answer.body.key}`);
  };

  // Spawns restore: most of them can be answered before the kill.
  assert.equal((await server.call("POST", "/snapshots", SPAWN)).status, 201);
  await spawnOne();
  for (let kill = 1; kill <= KILLS; kill++) {
    const boxes = [...known.values()];
    const load: Promise<void>[] = boxes.map((box) => (random() < 0.5 ? writeOne(box) : execOne(box)));
    load.push(spawnOne(), spawnOne());
    if (boxes.length >= KEPT) {
      for (const [at, box] of boxes.slice(0, 2).entries())
        load.push((load[at] ?? Promise.resolve()).then(() => destroyOne(box)));
    }
    if (kill % 4 === 1) load.push(buildOne(kill));
    // The moment of the kill is the point of this test, not a wait for something.
    await new Promise((resolve) => setTimeout(resolve, random() * 1_800));
    await server.stop("SIGKILL");
    await Promise.all(load);
    await server.start();

    const list = (await server.call("GET", "/sandboxes")).body as { id: string; state: string }[];
    const states = new Map(list.map(({ id, state }) => [id, state]));
    for (const box of known.values()) {
      const where = `kill ${kill}, ${box.id}`;
      assert.equal(states.get(box.id), "running", where);
      const alive = await server.call("POST", `/sandboxes/${box.id}/exec`, { command: "cat /workspace/f 2>/dev/null" });
      assert.equal(alive.status, 200, `${where}: ${JSON.stringify(alive.body)}`);
      if (box.content !== undefined || box.pending !== undefined) {
        assert.ok([box.content ?? "", box.pending].includes(alive.body.stdout), `${where}: ${alive.body.stdout}`);
        if (alive.body.stdout !== "") box.content = alive.body.stdout;
        delete box.pending;
      }
      if (box.process !== undefined) {
        const found = await server.call("GET", `/sandboxes/${box.id}/processes/${box.process}`);
        assert.equal(found.body.running, true, `${where}: ${JSON.stringify(found.body)}`);
      }
      counts.adopted += 1;
    }
    // A spawn whose answer was cut off may have been finished in the same moment: then it is an ordinary sandbox.
    for (const id of states.keys()) {
      if (known.has(id)) continue;
      assert.equal(states.get(id), "running", `kill ${kill}, ${id} was never answered`);
      await server.call("DELETE", `/sandboxes/${id}`);
    }
    doomed.clear();
    assert.deepEqual((await server.machines()).sort(), [...known.keys()].sort(), `directories after kill ${kill}`);
    assert.equal((await server.call("GET", "/diagnostics")).body.database.check, "ok");
  }

  for (const id of known.keys()) assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  await server.stop("SIGTERM");
  assert.deepEqual(await processesIn(server.root), [], "processes");
  assert.deepEqual(await readdir(join(server.root, "sandboxes")), [], "directories of machines");
  assert.deepEqual(await readdir(join(server.root, "tmp")).catch(() => []), [], "temporary directories");
  assert.ok(!(await readFile("/proc/self/mountinfo", "utf8")).includes(server.root), "mounts");
  assert.ok(!(await readFile("/proc/net/unix", "utf8")).includes(server.root), "sockets");
  t.diagnostic(`${KILLS} kills, seed ${SEED}: ${JSON.stringify(counts)}`);
});

/** Mulberry32: small, and the same everywhere for a seed. */
function generator(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
