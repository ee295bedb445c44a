/**
 * Every call may fail. Short form: some points of each operation and kind. All of them: `STACYVM_FAULTS=all`, or only some
 * operations: `STACYVM_FAULTS=fork,checkpoint`, or kinds: `STACYVM_FAULTS_KINDS=db,agent`; `STACYVM_FAULTS_VMM=qemu` for Linux guests,
 * `STACYVM_FAULTS_SEED` to repeat an order.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { dataPaths } from "../src/host/paths.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { arm, disarm, type Kind } from "./faults/points.ts";
import { tryPoints } from "./faults/run.ts";
import { World } from "./faults/world.ts";
import { whyNot } from "./firecracker-support.ts";

const WHICH = process.env.STACYVM_FAULTS ?? "";
const QEMU = process.env.STACYVM_FAULTS_VMM === "qemu";
const SHORT_MS = 75_000;
const KINDS_ONLY = process.env.STACYVM_FAULTS_KINDS ?? "";
// The short form tries the same points each time, as far as it comes.
const SEED = Number(process.env.STACYVM_FAULTS_SEED ?? (WHICH === "" ? 884_941 : Date.now() % 1_000_000));

const bare = { image: "stacyvm/bare", memoryMiB: 128, diskMiB: 64 };
const linux = { image: "stacyvm/busybox", memoryMiB: 128, diskMiB: 64 };

test("a point that is armed fails once", async () => {
  const { readFile } = await import("node:fs/promises");
  arm("fs.open", 2);
  await readFile(import.meta.filename);
  await assert.rejects(readFile(import.meta.filename), { code: "EMFILE" });
  await readFile(import.meta.filename);
  assert.deepEqual(disarm(), { calls: 3, reached: true });
});

const skip = QEMU ? false : ((await whyNot()) ?? false);
test("whatever call fails: an answer, no orphan, all else works, and a retry succeeds", { skip }, async (t) => {
  const vmm = QEMU ? createQemu() : createFirecracker({ assets: dataPaths().assets });
  await using world = await World.create(vmm, QEMU ? linux : bare);
  t.diagnostic(`seed ${SEED}`);
  const tried = await tryPoints(world, {
    ...(WHICH === "" ? { most: 2, until: performance.now() + SHORT_MS } : {}),
    ...(WHICH === "" || WHICH === "all" ? {} : { operations: WHICH.split(",") }),
    ...(KINDS_ONLY === "" ? {} : { kinds: KINDS_ONLY.split(",") as Kind[] }),
    seed: SEED,
    say: WHICH === "" ? () => {} : (line) => process.stderr.write(`${line}\n`),
  });
  t.diagnostic(`${tried.points} points, ${tried.refused} of them an error of the operation`);
  assert.deepEqual(tried.failures, []);
  assert.ok(tried.points > 20, "too few points to mean anything");
});
