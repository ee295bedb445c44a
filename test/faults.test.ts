/**
 * Every call may fail, and the daemon may die before every call. Short form: some points of each operation and kind. All of them:
 * `STACYVM_FAULTS=all`, or only some operations: `STACYVM_FAULTS=fork,checkpoint`, or kinds: `STACYVM_FAULTS_KINDS=db,agent`;
 * `STACYVM_FAULTS_VMM=qemu` or `firecracker-linux` for Linux guests, `STACYVM_FAULTS_MOST` for at most so many points of each operation and kind,
 * `STACYVM_FAULTS_MINUTES` for an end after that time of each test, `STACYVM_FAULTS_FROM=9` to go on with the ninth point of each where a
 * run ended so, `STACYVM_FAULTS_SEED` to repeat an order.
 */

import assert from "node:assert/strict";
import { mkdtempDisposable } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { arm, choose, disarm, type Kind } from "./faults/points.ts";
import { describePoints, type RunOptions, tryPoints } from "./faults/run.ts";
import { tryStops } from "./faults/stops.ts";
import { MONITORS, type Monitor, World } from "./faults/world.ts";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";

const WHICH = process.env.STACYVM_FAULTS ?? "";
const MONITOR = (process.env.STACYVM_FAULTS_VMM ?? "firecracker") as Monitor;
assert.ok(MONITOR in MONITORS, `STACYVM_FAULTS_VMM is one of ${Object.keys(MONITORS).join(", ")}`);
const SHORT_MS = { fail: 45_000, stop: 20_000 };
/** Points below which a run says little; a busy host takes longer for them. A long form that is to end after some minutes says how many. */
const LEAST = WHICH === "" ? { fail: 20, stop: 4 } : { fail: 1, stop: 1 };
const MINUTES = Number(process.env.STACYVM_FAULTS_MINUTES ?? Number.POSITIVE_INFINITY);
const MOST = Number(process.env.STACYVM_FAULTS_MOST ?? Number.POSITIVE_INFINITY);
const KINDS_ONLY = process.env.STACYVM_FAULTS_KINDS ?? "";
// The short form tries the same points each time, as far as it comes.
const SEED = Number(process.env.STACYVM_FAULTS_SEED ?? (WHICH === "" ? 884_941 : Date.now() % 1_000_000));

const options = (shortMs: number, least: number): RunOptions => ({
  ...(WHICH === "" ? { most: 2 } : Number.isFinite(MOST) ? { most: MOST } : {}),
  from: Number(process.env.STACYVM_FAULTS_FROM ?? 1),
  until: performance.now() + (WHICH === "" ? shortMs : MINUTES * 60_000),
  ...(WHICH === "" || WHICH === "all" ? {} : { operations: WHICH.split(",") }),
  ...(KINDS_ONLY === "" ? {} : { kinds: KINDS_ONLY.split(",") as Kind[] }),
  least,
  seed: SEED,
  say: WHICH === "" ? () => {} : (line) => process.stderr.write(`${line}\n`),
});

test("a point that is armed fails once", async () => {
  const { readFile } = await import("node:fs/promises");
  arm("fs.open", 2);
  await readFile(import.meta.filename);
  await assert.rejects(readFile(import.meta.filename), { code: "EMFILE" });
  await readFile(import.meta.filename);
  const { calls, reached } = disarm();
  assert.deepEqual([calls["fs.open"]?.length, reached], [3, true]);
});

test("every call is tried, but of those from one place over and over some", () => {
  const once = Array.from({ length: 20 }, (_, i) => `place ${i}`);
  assert.deepEqual(
    choose(once),
    Array.from(once, (_, i) => i + 1),
  );
  const chosen = choose([...once, ...Array.from({ length: 1_000 }, () => "a loop"), "after it"]);
  assert.equal(chosen.length, 33);
  for (const n of [20, 21, 1_020, 1_021]) assert.ok(chosen.includes(n), `${n} of ${chosen}`);
  assert.deepEqual(choose(once, 2), [1, 20]);
});

test("a monitor and an agent are known by their sockets, however these are opened", async () => {
  const { connectUnix, listenUnix } = await import("../src/host/unix-socket.ts");
  await using dir = await mkdtempDisposable(join(tmpdir(), "faults-"));
  for (const [name, kind] of [
    ["qmp.sock", "monitor"],
    ["qmp.sock", "monitor.mute"],
    ["agent.sock", "agent"],
    ["v.sock", "agent.mute"],
    ["api.sock", "monitor.cut"],
  ] as const) {
    const server = createServer((socket) => socket.resume());
    await listenUnix(server, dir.path, name);
    arm(kind, 1);
    const socket = await connectUnix(dir.path, name, { timeoutMs: 60_000 });
    socket.write("{}");
    assert.ok(disarm().reached, `${name} is no ${kind}`);
    socket.destroy();
    await new Promise((closed) => server.close(closed));
  }
});

const WHY_NOT = { qemu: async () => undefined, firecracker: whyNot, "firecracker-linux": whyNotLinux };
const skip = (await WHY_NOT[MONITOR]()) ?? false;
test("whatever call fails: an answer, no orphan, all else works, and a retry succeeds", { skip }, async (t) => {
  await using world = await World.create(MONITOR);
  t.diagnostic(`${MONITOR}, seed ${SEED}`);
  const tried = await tryPoints(world, options(SHORT_MS.fail, LEAST.fail));
  t.diagnostic(`${tried.points} points, ${tried.refused} of them an error of the operation`);
  for (const line of describePoints(tried)) t.diagnostic(line);
  assert.deepEqual(tried.failures, []);
  assert.ok(tried.points >= LEAST.fail, "too few points to mean anything");
});

test("wherever the daemon is stopped: the next one finds all of it, leaves nothing, and a retry succeeds", {
  skip,
}, async (t) => {
  await using world = await World.create(MONITOR);
  t.diagnostic(`${MONITOR}, seed ${SEED}`);
  const tried = await tryStops(world, MONITOR, options(SHORT_MS.stop, LEAST.stop));
  t.diagnostic(`stopped at ${tried.points} points`);
  for (const line of describePoints(tried)) t.diagnostic(line);
  assert.deepEqual(tried.failures, []);
  assert.ok(tried.points >= LEAST.stop, "too few points to mean anything");
});
