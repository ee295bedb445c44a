/** Memory that a guest has freed goes back to the host, and neither the snapshot that it was loaded from nor other machines of that notice. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { dataPaths } from "../src/host/paths.ts";
import { processMemory } from "../src/host/process-memory.ts";
import { findKernel } from "../src/images/kernel.ts";
import type { Launched } from "../src/launcher/launcher.ts";
import { cellState } from "../src/vmm/cell.ts";
import { SNAPSHOT_FILES } from "../src/vmm/vmm.ts";
import { Bench, sh } from "./launcher-support.ts";

const MIB = 2 ** 20;
const MEMORY = { memoryMiB: 768 };
const ROOM = `set -e; mkdir /room; mount -t tmpfs -o size=700m none /room; head -c ${4 * MIB} /dev/urandom > /room/seed`;
/** So many times the seed, which no other machine has. */
const much = (times: number): string => `for i in $(seq ${times}); do cat /room/seed; done`;
const BURST = 48;
const ZEROS_MIB = 64;
/** Beside a fifth of what it had. Without a bound the processor's list of free pages alone has up to 54. */
const REST_MIB = 24;

const skip = await whyNot();

async function whyNot(): Promise<string | false> {
  const cell = await cellState();
  if (!cell.usable) return `QEMU has no cell here (${cell.reason}), and gives nothing back without one`;
  const { wanted = [] } = (await findKernel(dataPaths().assets)) ?? {};
  return wanted.includes("virtio_balloon")
    ? false
    : "the guest's kernel lacks virtio_balloon: `stacyvm setup` brings it";
}

test("after a burst a guest has as much of the host's memory as before, and all else is as it was", {
  skip,
}, async () => {
  await using bench = await Bench.create();
  const target = await bench.golden(MEMORY);
  const saved = join(bench.paths.snapshots, target.key, SNAPSHOT_FILES.memory);
  const before = await digestOf(saved);
  const [one, other] = [await bench.launch(MEMORY), await bench.launch(MEMORY)];
  assert.deepEqual([one.boot.path, other.boot.path], ["restored", "restored"]);
  const own = async ({ machine }: Launched): Promise<number> => (await processMemory(machine.record.pid)).privateBytes;
  const burst = `set -e; ${much(BURST)} > /room/much`;
  const compared = `[ "$(${much(BURST)} | md5sum)" = "$(md5sum < /room/much)" ]`;
  // What the programs themselves need, emulated code among it, is there before.
  await sh(one, `${ROOM}; ${much(2)} > /room/much; rm /room/much; md5sum < /room/seed`);
  const least = await own(one);
  await sh(one, burst);
  assert.ok((await own(one)) > least + 2 * BURST * MIB, "the burst is in its memory");
  await sh(one, "rm /room/much");
  // All but a rest of small pieces: the guest tells of whole blocks of 2 MiB and more, and keeps few pages in its processor's list.
  for (const begun = performance.now(); (await own(one)) > 1.2 * least + REST_MIB * MIB; await sleep(100)) {
    const [is, was] = [await own(one), least].map((bytes) => Math.round(bytes / MIB));
    assert.ok(performance.now() - begun < 120_000, `it has ${is} MiB, and had ${was}`);
  }
  assert.equal(await digestOf(saved), before, "the snapshot is what it was");
  // What it uses anew is its own, and clean.
  await sh(one, `${burst}; ${compared}; rm /room/much`);
  const zeros = createHash("md5")
    .update(Buffer.alloc(ZEROS_MIB * MIB))
    .digest("hex");
  assert.equal(
    await sh(one, `head -c ${ZEROS_MIB * MIB} /dev/zero > /room/zeros; md5sum < /room/zeros`),
    `${zeros}  -`,
  );
  const third = await bench.launch(MEMORY);
  assert.equal(third.boot.path, "restored");
  for (const each of [other, third])
    await sh(
      each,
      `${ROOM}; ${much(8)} | md5sum > /room/sum; ${much(8)} > /room/much; md5sum < /room/much | cmp - /room/sum`,
    );
});

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
