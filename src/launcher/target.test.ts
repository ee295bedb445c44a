/** What makes a machine another one: the kernel that is really booted, its arguments, its modules, and how this host runs it. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataPaths } from "../host/paths.ts";
import { agentPath } from "../images/guest-files.ts";
import type { KernelSetting } from "../images/guest-kernel.ts";
import type { Image, Images } from "../images/image.ts";
import type { Vmm } from "../vmm/vmm.ts";
import { Targets } from "./target.ts";

const PARTS = ["virtio-mmio", "virtio_blk", "overlayfs", "EXT4-fs", "erofs", "vmw_vsock_virtio_transport"];

/** What stands for a kernel with all that guests need. */
function elf(release: string): Buffer {
  const head = Buffer.alloc(64);
  head.writeUInt32BE(0x7f454c46);
  head[4] = 2;
  head.writeUInt16LE(62, 18);
  return Buffer.concat([head, Buffer.from(`Linux version ${release} (me)\0${PARTS.join("\0")}\0`)]);
}

test("the key is that of the kernel, arguments, modules and kind of KVM that a machine really has", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "target-"));
  t.after(() => rm(root, { recursive: true }));
  const paths = dataPaths(root);
  const agent = process.env.STACYVM_AGENT;
  process.env.STACYVM_AGENT = join(root, "agent");
  t.after(() => {
    if (agent === undefined) delete process.env.STACYVM_AGENT;
    else process.env.STACYVM_AGENT = agent;
  });
  await writeFile(agentPath(paths.assets), "the agent");
  const path = join(root, "vmlinux");
  await writeFile(path, elf("6.6.6"));

  const image = { digest: "sha256:0", filesystem: "erofs", config: {} } as Image;
  const images = { resolve: async () => image } as unknown as Images;
  const resolve = (setting: KernelSetting, accelerator: "kvm" | "kvm-interpreted" = "kvm") => {
    const vmm = {
      name: "firecracker",
      probe: async () => ({ usable: true, guests: ["linux"], notes: [] }),
      identity: async () => ({ accelerator }),
      guestKernel: async () => ({ monitor: "firecracker", mode: "native", setting }),
    } as unknown as Vmm;
    const size = { vcpus: 1, memoryMiB: 128, diskMiB: 64, setup: [], setupEnv: {} };
    return new Targets(vmm, images, paths).resolve({ image: "an/image", ...size });
  };

  const { key, config } = await resolve({ path, arguments: "one" });
  assert.deepEqual([config.kernel, config.cmdline], [path, "one stacyvm.base=erofs"]);
  // Where it lies is no matter.
  const elsewhere = join(root, "elsewhere");
  await writeFile(elsewhere, elf("6.6.6"));
  assert.equal((await resolve({ path: elsewhere, arguments: "one" })).key, key);

  const others = [
    await resolve({ path, arguments: "two" }),
    await resolve({ path, arguments: "one" }, "kvm-interpreted"),
  ];
  const modules = join(root, "modules");
  await mkdir(modules);
  for (const content of ["a module", "another"]) {
    await writeFile(join(modules, "00-more.ko"), content);
    others.push(await resolve({ path, arguments: "one", modules }));
  }
  await writeFile(path, elf("6.6.7"));
  others.push(await resolve({ path, arguments: "one" }));
  assert.equal(new Set([key, ...others.map((each) => each.key)]).size, 6);
});
