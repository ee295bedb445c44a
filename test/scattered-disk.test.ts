/**
 * A guest that writes every second block of its disk, so that the file has ten thousands of extents on the host: it is forked, saved,
 * suspended and woken as any other, what is written down of it stays small, and another sandbox's commands go on.
 */
import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { sandboxId } from "../bench/spawning.ts";
import { allocatedRanges } from "../src/host/allocated-ranges.ts";
import { DISK_BOUNDS } from "../src/host/bounds.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import { createImages } from "../src/images/store.ts";
import { parseManifest } from "../src/launcher/manifest.ts";
import { createMicrovmProvider, type MicrovmProvider } from "../src/providers/microvm.ts";
import { checkpointKey, type SandboxMachine } from "../src/providers/provider.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { FILES } from "../src/vmm/vmm.ts";
import { scratchPaths } from "./launcher-support.ts";

const BLOCKS = 40_000;

let paths: Awaited<ReturnType<typeof scratchPaths>>;
let provider: MicrovmProvider;
let program: Buffer;

before(async () => {
  paths = await scratchPaths();
  provider = createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths });
  const built = join(paths.root, "scatter");
  const source = join(packageRoot, "test/guest-programs/scatter.c");
  await runTool("gcc", ["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", built, source], { package: "gcc" });
  program = await readFile(built);
});

after(async () => {
  await provider.close();
  const left = await processesIn(paths.root);
  await rm(paths.root, { recursive: true, force: true });
  assert.deepEqual(left, []);
});

function spawn(over: { checkpoint?: string } = {}): Promise<SandboxMachine> {
  const size = { memoryMiB: 256, vcpus: 1, diskMiB: 256 };
  return provider.spawn({ id: sandboxId(), image: "stacyvm/busybox", ...size, env: {}, setup: [], ...over });
}

async function scatter(machine: SandboxMachine, ...more: string[]): Promise<void> {
  const result = await machine.agent.exec({ argv: ["/root/scatter", "/root/disk", ...more], timeoutMs: 300_000 });
  assert.equal(result.stdout.toString(), `${BLOCKS}\n`, result.stderr.toString());
}

test("a scattered disk is forked, saved and suspended, and nobody waits for it", async (t) => {
  const neighbour = await spawn();
  const hostile = await spawn();
  await hostile.agent.writeFile("/root/scatter", program, { mode: 0o755 });
  await scatter(hostile, String(BLOCKS));
  const disk = join(provider.dir(hostile.id), FILES.rootfs);
  // The guest's kernel wrote what was asked and no more: the holes are there on the host.
  let data = 0;
  const written = await allocatedBytes(disk);
  for await (const { length } of allocatedRanges(disk, Number.MAX_SAFE_INTEGER)) data += length;
  assert.ok(data - written > (BLOCKS / 4) * 4096, `${written} bytes in ${data}`);

  const execs = async (until: Promise<unknown>): Promise<number[]> => {
    let ended = false;
    void until.then(
      () => {
        ended = true;
      },
      () => {
        ended = true;
      },
    );
    const times: number[] = [];
    do {
      const begun = performance.now();
      assert.equal((await neighbour.agent.exec({ argv: ["true"] })).exitCode, 0);
      times.push(performance.now() - begun);
    } while (!ended);
    return times.sort((a, b) => a - b);
  };
  const beside = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const begun = performance.now();
    const done = work();
    const times = await execs(done);
    const result = await done;
    const shown = `p50 ${times[times.length >> 1]?.toFixed(1)}, max ${times.at(-1)?.toFixed(1)} ms (n ${times.length})`;
    t.diagnostic(`${name} ${(performance.now() - begun).toFixed(0)} ms, the neighbour's exec ${shown}`);
    // It was answered all the time: never once for as long as the whole took.
    assert.ok(times.length > 1, `${name}: ${times.length} commands`);
    return result;
  };

  await beside("quiet", () => new Promise((resolve) => setTimeout(resolve, 1000)));
  const { machines } = await beside("fork", () => hostile.fork([sandboxId()]));
  const [fork] = machines as [SandboxMachine];
  await scatter(fork);
  await fork.destroy();

  const checkpoint = `cp-${sandboxId()}`;
  await beside("checkpoint", () => hostile.checkpoint(checkpoint));
  const text = await readFile(join(paths.snapshots, checkpointKey(checkpoint), "manifest.json"), "utf8");
  for (const { extents } of Object.values(parseManifest(text).files)) assert.ok(extents.length <= DISK_BOUNDS.extents);
  assert.ok(text.length < 3 * DISK_BOUNDS.extents * 48 + 16_384, `${text.length} letters`);
  const again = await beside("spawn from it", () => spawn({ checkpoint }));
  await scatter(again);
  await again.destroy();

  await beside("suspend", () => hostile.suspend());
  await beside("wake", () => hostile.resume());
  await scatter(hostile);
  await Promise.all([hostile, neighbour].map((machine) => machine.destroy()));
  await provider.removeSnapshot(checkpointKey(checkpoint));
});
