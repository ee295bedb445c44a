/**
 * The daemon is killed (-9) at random moments under a mix of everything that a sandbox can be asked for, its end beside each, and started
 * again each time. What clients were told must still be true then, and nothing half-made may be left.
 * `STACYVM_CRASH_KILLS=1000` for the long form, `STACYVM_CRASH_VMM=firecracker` with the bare guest, which takes milliseconds for what
 * takes an emulated Linux seconds; `STACYVM_CRASH_MINUTES` to end earlier, `STACYVM_CRASH_SEED` to repeat one.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { type Ask, crashGuest as guest } from "./crash-guests.ts";
import { Server } from "./server-support.ts";

const KILLS = Number(process.env.STACYVM_CRASH_KILLS ?? 8);
/** It ends after so many minutes, however many kills that were. */
const MINUTES = Number(process.env.STACYVM_CRASH_MINUTES ?? Number.POSITIVE_INFINITY);
const SEED = Number(process.env.STACYVM_CRASH_SEED ?? Date.now() % 1_000_000);
const SPAWN = guest.spawn;
/** The kill falls into this time after the load began, ms. */
const SPREAD_MS = guest.spreadMs;
/** From this many on, the oldest are destroyed. */
const KEPT = 3;

type State = "running" | "paused" | "suspended";
const OPERATIONS = ["write", "exec", "fork", "checkpoint", "suspend", "pause"] as const;
/** Of a sandbox that has a checkpoint, every other time: most are gone before they have one. */
const OF_CHECKPOINTS = ["restore", "copy", "forget"] as const;

/** What the clients know of a sandbox. */
interface Known {
  id: string;
  /** What it may be: one state, or more while a change was not answered. */
  states: State[];
  /** What its file and memory may hold: one, or more while a change was not answered. */
  contents: string[];
  counts: number[];
  /** It counts in its memory, by this process if it has any. Absent: nobody answered that it does. */
  counter?: { process?: string };
  checkpoint?: { id: string; contents: string[]; counts: number[] };
}

const skip = (await guest.whyNot()) ?? false;
test(`${KILLS} kills of the daemon under load (${guest.monitor}, seed ${SEED})`, { skip }, async (t) => {
  await using server = await Server.create(guest.config);
  const random = generator(SEED);
  const counts: Record<string, number> = {};
  const known = new Map<string, Known>();
  /** What was answered, and still has to be there. */
  const checkpoints = new Set<string>();

  /** One request; `undefined` when the kill came first. */
  const ask = async (kind: string, method: string, path: string, body?: unknown) => {
    try {
      const answer = await server.call(method, path, body);
      counts[kind] = (counts[kind] ?? 0) + 1;
      return answer;
    } catch {
      counts[`${kind} cut`] = (counts[`${kind} cut`] ?? 0) + 1;
      return undefined;
    }
  };
  /** A request to a sandbox; also `undefined` when that was destroyed meanwhile. */
  const askBox = async (box: Known, kind: string, method: string, path: string, body?: unknown) => {
    const answer = await ask(kind, method, `/sandboxes/${box.id}${path}`, body);
    if (answer === undefined || !known.has(box.id)) return undefined;
    assert.ok(answer.status < 300, `${kind}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer;
  };
  const asking =
    (box: Known, kind: string): Ask =>
    (method, path, body) =>
      askBox(box, kind, method, path, body);
  const newBox = (id: string, of: Partial<Pick<Known, "contents" | "counts" | "counter">> = {}): Known => {
    const { contents = [""], counts = [0], counter } = of;
    const box: Known = { ...{ id, states: ["running"], contents: [...contents], counts: [...counts] } };
    if (counter !== undefined) box.counter = counter;
    known.set(id, box);
    return box;
  };
  const spawnOne = async (): Promise<void> => {
    const answer = await ask("spawn", "POST", "/sandboxes", SPAWN);
    if (answer === undefined) return;
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    const box = newBox(answer.body.id);
    const counter = await guest.begin(asking(box, "exec"));
    if (counter !== undefined) box.counter = counter;
  };
  const change = async (box: Known, kind: string, path: string, to: State): Promise<boolean> => {
    box.states = [...box.states, to];
    if ((await askBox(box, kind, "POST", path)) === undefined) return false;
    box.states = [to];
    return true;
  };
  const perform: Record<(typeof OPERATIONS | typeof OF_CHECKPOINTS)[number], (box: Known) => Promise<unknown>> = {
    write: async (box) => {
      const content = `content-${random()}`;
      box.contents = [...box.contents, content];
      if (await guest.write(asking(box, "write"), content)) box.contents = [content];
    },
    exec: async (box) => {
      const said = await guest.echo(asking(box, "exec"));
      if (said !== undefined) assert.equal(said, "fine");
    },
    fork: async (box) => {
      const answer = await askBox(box, "fork", "POST", "/fork", { count: 2 });
      for (const { id } of answer?.body.sandboxes ?? []) newBox(id, box);
    },
    checkpoint: async (box) => {
      const answer = await askBox(box, "checkpoint", "POST", "/checkpoints", {});
      if (answer === undefined) return;
      box.checkpoint = { id: answer.body.id, contents: [...box.contents], counts: [...box.counts] };
      checkpoints.add(answer.body.id);
    },
    suspend: async (box) =>
      (await change(box, "suspend", "/suspend", "suspended")) && change(box, "wake", "/resume", "running"),
    pause: async (box) =>
      (await change(box, "pause", "/pause", "paused")) && change(box, "resume", "/resume", "running"),
    restore: async (box) => {
      const { checkpoint } = box;
      if (checkpoint === undefined) return;
      box.contents = [...box.contents, ...checkpoint.contents];
      box.counts = [...box.counts, ...checkpoint.counts];
      const answer = await askBox(box, "restore", "POST", "/restore", { checkpoint: checkpoint.id });
      if (answer === undefined) return;
      box.contents = [...checkpoint.contents];
      box.counts = [...checkpoint.counts];
    },
    copy: async (box) => {
      const { checkpoint, counter } = box;
      if (checkpoint === undefined) return;
      const answer = await ask("copy", "POST", "/sandboxes", { checkpoint: checkpoint.id, ttl: SPAWN.ttl });
      if (answer === undefined) return;
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
      newBox(answer.body.id, { ...checkpoint, ...(counter === undefined ? {} : { counter }) });
    },
    forget: async (box) => {
      const { checkpoint } = box;
      if (checkpoint === undefined) return;
      // From here on either outcome is right. Copies, and the sandbox that went back to it, run from it.
      delete box.checkpoint;
      checkpoints.delete(checkpoint.id);
      const answer = await ask("forget", "DELETE", `/checkpoints/${checkpoint.id}`);
      if (answer !== undefined) assert.equal(answer.status, 200, JSON.stringify(answer.body));
    },
  };
  const destroyOne = async (box: Known): Promise<void> => {
    // From here on either outcome is right, and what else it was asked for may fail.
    known.delete(box.id);
    const answer = await ask("destroy", "DELETE", `/sandboxes/${box.id}`);
    if (answer !== undefined) assert.equal(answer.status, 200, JSON.stringify(answer.body));
  };
  const buildOne = async (kill: number): Promise<void> => {
    const shape = { ...SPAWN, setup: [`echo ${SEED}-${kill} >/built`] };
    const answer = await ask("build", "POST", "/snapshots", shape);
    if (answer === undefined) return;
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    await ask("build", "DELETE", `/snapshots/${answer.body.key}`);
  };
  const one = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)] as T;
  const pause = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

  // Spawns restore: most of them can be answered before the kill.
  assert.equal((await server.call("POST", "/snapshots", SPAWN)).status, 201);
  await spawnOne();
  const until = performance.now() + MINUTES * 60_000;
  let kill = 0;
  while (kill < KILLS && performance.now() < until) {
    kill += 1;
    const boxes = [...known.values()];
    const load = boxes.flatMap((box, at) => {
      const operation = box.checkpoint !== undefined && random() < 0.5 ? one(OF_CHECKPOINTS) : one(OPERATIONS);
      const doing = perform[operation](box);
      // The oldest are destroyed, most of them while something else is under way.
      if (at >= boxes.length - KEPT) return [doing];
      return [
        doing,
        random() < 0.3
          ? doing.then(() => destroyOne(box))
          : pause((random() * SPREAD_MS) / 3).then(() => destroyOne(box)),
      ];
    });
    if (boxes.length < 2 * KEPT) load.push(spawnOne(), spawnOne());
    if (kill % 8 === 1) load.push(buildOne(kill));
    const done = Promise.allSettled(load);
    // The moment of the kill is the point of this test, not a wait for something.
    await pause(random() * SPREAD_MS);
    await server.stop("SIGKILL");
    for (const result of await done) if (result.status === "rejected") throw result.reason;
    await server.start();

    const list = (await server.call("GET", "/sandboxes")).body as { id: string; state: State }[];
    const found = new Map(list.map(({ id, state }) => [id, state]));
    const check = async (box: Known): Promise<void> => {
      const where = `kill ${kill}, ${box.id}`;
      const state = found.get(box.id);
      assert.ok(
        state !== undefined && box.states.includes(state),
        `${where}: ${state}, not ${box.states.join(" or ")}`,
      );
      if (state !== "running") {
        const resumed = await server.call("POST", `/sandboxes/${box.id}/resume`);
        assert.equal(resumed.status, 200, `${where}, ${state}: ${JSON.stringify(resumed.body)}`);
      }
      box.states = ["running"];
      const ok: Ask = async (method, path, body) => {
        const answer = await server.call(method, `/sandboxes/${box.id}${path}`, body);
        assert.equal(answer.status, 200, `${where}: ${JSON.stringify(answer.body)}`);
        return answer;
      };
      const content = await guest.read(ok);
      assert.ok(box.contents.includes(content), `${where}: ${content}, not ${box.contents}`);
      box.contents = [content];
      if (box.counter !== undefined) {
        const count = await guest.count(ok);
        assert.ok(box.counts.includes(count - 1), `${where}: counts ${count} after ${box.counts}`);
        box.counts = [count];
      }
      if (box.counter?.process !== undefined) {
        const command = await ok("GET", `/processes/${box.counter.process}`);
        assert.equal(command?.body.running, true, `${where}: ${JSON.stringify(command?.body)}`);
      }
      counts.adopted = (counts.adopted ?? 0) + 1;
    };
    await Promise.all([...known.values()].map(check));
    // What was finished in the moment of the kill, without an answer, is an ordinary sandbox or checkpoint.
    for (const id of found.keys()) {
      if (!known.has(id)) assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
    }
    const saved = ((await server.call("GET", "/checkpoints")).body as { id: string }[]).map(({ id }) => id);
    for (const id of checkpoints) assert.ok(saved.includes(id), `kill ${kill}: checkpoint ${id} is lost`);
    const wanted = new Set([...known.values()].map((box) => box.checkpoint?.id));
    for (const id of saved) {
      if (wanted.has(id)) continue;
      checkpoints.delete(id);
      assert.equal((await server.call("DELETE", `/checkpoints/${id}`)).status, 200);
    }
    assert.deepEqual((await server.machines()).sort(), [...known.keys()].sort(), `directories after kill ${kill}`);
    assert.equal((await processesIn(join(server.root, "tmp"))).length, 0, `half-made machines after kill ${kill}`);
    assert.equal((await server.call("GET", "/diagnostics")).body.store.healthy, true);
    if (kill % 10 === 0) t.diagnostic(`${kill} kills so far: ${JSON.stringify(counts)}`);
  }

  for (const id of known.keys()) assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  for (const id of checkpoints) assert.equal((await server.call("DELETE", `/checkpoints/${id}`)).status, 200);
  await server.stop("SIGTERM");
  assert.deepEqual(await processesIn(server.root), [], "processes");
  assert.deepEqual(await readdir(join(server.root, "sandboxes")), [], "directories of machines");
  assert.deepEqual(await readdir(join(server.root, "tmp")).catch(() => []), [], "temporary directories");
  const snapshots = (await readdir(join(server.root, "snapshots"))).filter((name) => /^[0-9a-f]{64}$/.test(name));
  assert.ok(snapshots.length <= 1 + Math.ceil(KILLS / 8), "no fork's or checkpoint's files are left");
  assert.ok(!(await readFile("/proc/self/mountinfo", "utf8")).includes(server.root), "mounts");
  assert.ok(!(await readFile("/proc/net/unix", "utf8")).includes(server.root), "sockets");
  t.diagnostic(`${kill} kills, seed ${SEED}: ${JSON.stringify(counts)}`);
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
