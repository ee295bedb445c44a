/** Volumes in the slots of real machines, below everything that knows whose they are. */
import assert from "node:assert/strict";
import { open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { dataPaths } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import type { Launched } from "../src/launcher/launcher.ts";
import type { LaunchSpec } from "../src/launcher/target.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { Vmm, VolumeAccess } from "../src/vmm/vmm.ts";
import { formatVolume } from "../src/volumes/format.ts";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";
import { Bench, sh } from "./launcher-support.ts";

const MIB = 2 ** 20;

async function makeVolume(bench: Bench, name: string, bytes: number): Promise<string> {
  const path = join(bench.paths.root, name);
  const file = await open(path, "wx", 0o600);
  await file.truncate(bytes);
  await file.close();
  await formatVolume(path);
  return path;
}

/** @returns what it finds; nothing is repaired */
async function checkFilesystem(path: string): Promise<string> {
  const out = await runTool("e2fsck", ["-fn", path], { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } });
  return out.toString();
}

function linux(makeVmm: () => Vmm): void {
  let bench: Bench;
  before(async () => {
    bench = await Bench.create(makeVmm());
  });
  after(() => bench[Symbol.asyncDispose]());

  const start = (volumes: string[], access: VolumeAccess[]): Promise<Launched> =>
    bench.launch({ slots: access }, { volumes, mode: "restore" });
  async function mount(machine: Launched, slot: number, file: string, path: string, readOnly = false): Promise<void> {
    const { size: bytes } = await stat(file);
    const probe = !bench.launcher.vmm.abilities.tellsVolumeSizes;
    await machine.agent.mount({ name: `vol${slot}`, slot, bytes, path, readOnly, probe });
  }

  test("what is written to a volume is there in the next machine, of another size than the one that was saved", async () => {
    const data = await makeVolume(bench, "data", 300 * MIB);
    const first = await start([data], ["write"]);
    assert.equal(first.boot.path, "restored");
    await mount(first, 0, data, "/data");
    const blocks = await sh(first, "df -Pm /data | tail -n 1 | awk '{ print $2 }'");
    assert.ok(Number(blocks) > 250, blocks);
    await sh(first, "echo kept > /data/word; seq 100000 > /data/numbers; sync");
    await first.agent.still();
    await bench.remove(first);
    assert.match(await checkFilesystem(data), /clean|files \(/);

    const second = await start([data], ["read"]);
    await mount(second, 0, data, "/data", true);
    assert.equal(await sh(second, "cat /data/word; tail -n 1 /data/numbers"), "kept\n100000");
    assert.match(await sh(second, "touch /data/no 2>&1 || true"), /[Rr]ead-only/);
    // By the disk, and not by how it is mounted.
    assert.match(
      await sh(
        second,
        "dd if=/dev/zero of=$(awk '$2 == \"/data\" { print $1 }' /proc/mounts) bs=512 count=1 2>&1 || true",
      ),
      /not permitted|denied|[Rr]ead-only/,
    );
    await bench.remove(second);
    assert.ok((await allocatedBytes(data)) < 20 * MIB);
  });

  test("what was not closed in order is whole again in the next machine that may write, and refused by name to one that may not", async () => {
    const data = await makeVolume(bench, "torn", 100 * MIB);
    const first = await start([data], ["write"]);
    await mount(first, 0, data, "/data");
    await sh(first, "echo synced > /data/word; sync /data/word; mkdir /data/later");
    await bench.remove(first);
    const reader = await start([data], ["read"]);
    await assert.rejects(mount(reader, 0, data, "/data", true), /volume vol0: it was not closed in order/);
    await bench.remove(reader);
    const second = await start([data], ["write"]);
    await mount(second, 0, data, "/data");
    assert.equal(await sh(second, "cat /data/word"), "synced");
    await second.agent.still();
    await bench.remove(second);
    assert.match(await checkFilesystem(data), /clean|files \(/);
  });

  test("a volume that has grown is grown, and a damaged one is refused by name", async () => {
    const data = await makeVolume(bench, "grown", 64 * MIB);
    await using file = await open(data, "r+");
    await file.truncate(1024 * MIB);
    const first = await start([data], ["write"]);
    await mount(first, 0, data, "/data");
    const megabytes = Number(await sh(first, "df -Pm /data | tail -n 1 | awk '{ print $2 }'"));
    assert.ok(megabytes > 900, String(megabytes));
    await first.agent.still();
    await bench.remove(first);
    assert.match(await checkFilesystem(data), /clean|files \(/);
    await file.write(Buffer.alloc(65_536, 0x5a), 0, 65_536, 1024);
    const second = await start([data], ["write"]);
    await assert.rejects(mount(second, 0, data, "/data"), /volume vol0: it holds no ext4/);
    await bench.remove(second);
  });
}

describe("volumes in Linux machines under the real QEMU", () => linux(() => createQemu()));

describe(
  "volumes in Linux machines under the real Firecracker",
  { skip: (await whyNotLinux({ long: true })) ?? false },
  () => linux(() => createFirecracker({ assets: dataPaths().assets })),
);

describe("volumes in bare machines under the real Firecracker", { skip: (await whyNot()) ?? false }, () => {
  test("a machine that is restored reads and writes the volume in its slot", async () => {
    await using bench = await Bench.create(createFirecracker({ assets: dataPaths().assets }));
    const spec: Partial<LaunchSpec> = {
      image: "stacyvm/bare",
      memoryMiB: 128,
      diskMiB: 64,
      slots: ["write", "read"],
    };
    const [one, two] = [await makeVolume(bench, "one", 64 * MIB), await makeVolume(bench, "two", 64 * MIB)];
    const block = async (machine: Launched, ...words: string[]): Promise<string> => {
      const { exitCode, stdout, stderr } = await machine.agent.exec({ argv: ["block", ...words] });
      assert.equal(exitCode, 0, stderr.toString());
      return stdout.toString().trim();
    };
    const first = await bench.launch(spec, { volumes: [one, two], mode: "restore" });
    assert.equal(first.boot.path, "restored");
    await block(first, "write", "2", "mine");
    await assert.rejects(block(first, "write", "3", "not mine"));
    await bench.remove(first);
    const second = await bench.launch(spec, { volumes: [two, one], mode: "restore" });
    assert.equal(await block(second, "read", "3"), "mine");
    assert.equal(await block(second, "read", "2"), "");
    await bench.remove(second);
    for (const path of [one, two]) await rm(path);
    assert.deepEqual(await readdir(bench.paths.sandboxes), []);
  });
});
