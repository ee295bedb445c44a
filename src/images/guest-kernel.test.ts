/** A kernel of the user's own: what is taken, and what an error says of one that will not do. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadGuestKernel } from "./guest-kernel.ts";

const DISK_PARTS = ["virtio-mmio", "virtio_blk", "overlayfs", "EXT4-fs"];
const BUILT_IN = [...DISK_PARTS, "erofs", "vmw_vsock_virtio_transport", "virtio_console"];

/** What stands for an ELF kernel: a header, a version and the names of its parts. */
function elf(parts: string[], machine = 62): Buffer {
  const head = Buffer.alloc(64);
  head.writeUInt32BE(0x7f454c46);
  head[4] = 2;
  head.writeUInt16LE(machine, 18);
  return Buffer.concat([head, Buffer.from(`Linux version 6.6.6-mine (me)\0${parts.join("\0")}\0`)]);
}

async function scratch(t: { after(work: () => Promise<void>): void }): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "kernel-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

const own = (path: string, more: object = {}) =>
  loadGuestKernel("/nowhere", { monitor: "firecracker", mode: "native", setting: { path, ...more } });

test("a kernel of one's own is named by its release, its arguments and its content", async (t) => {
  const path = join(await scratch(t), "vmlinux");
  await writeFile(path, elf(BUILT_IN));
  const kernel = await own(path, { arguments: "noxsave" });
  assert.deepEqual(
    [kernel.release, kernel.path, kernel.arguments, kernel.modules],
    ["6.6.6-mine", path, "noxsave", []],
  );
  await writeFile(path, elf([...BUILT_IN, "changed"]));
  assert.notEqual((await own(path)).digest, kernel.digest, "a replaced file is another kernel");
});

test("what it lacks is named, and may come as modules", async (t) => {
  const dir = await scratch(t);
  const path = join(dir, "vmlinux");
  // What other parts call by the same word does not count.
  await writeFile(path, elf(["virtio-mmio", "virtio_blk", "arp_overlay", "overlay_memory"]));
  await assert.rejects(own(path), /has no overlay, erofs, ext4, virtio-vsock, which guests need/);
  await writeFile(path, elf(DISK_PARTS));
  await assert.rejects(own(path), (error: Error & { remedy?: string }) => {
    assert.match(error.message, /has no erofs, virtio-vsock, which guests need/);
    assert.match(error.remedy ?? "", /firecracker\.kernel_modules/);
    return true;
  });
  const modules = join(dir, "modules");
  await mkdir(modules);
  for (const name of ["01-vmw_vsock_virtio_transport.ko", "00-erofs.ko", "notes.txt"]) {
    await writeFile(join(modules, name), "");
  }
  const kernel = await own(path, { modules });
  assert.deepEqual(
    kernel.modules,
    ["00-erofs.ko", "01-vmw_vsock_virtio_transport.ko"].map((name) => join(modules, name)),
  );
});

test("no ELF file, one for another processor, a bzImage, none at all: each says what to name instead", async (t) => {
  const path = join(await scratch(t), "vmlinux");
  const refused = async (content: Buffer | undefined, words: RegExp): Promise<void> => {
    await (content === undefined ? rm(path) : writeFile(path, content));
    await assert.rejects(own(path), (error: Error & { code?: string }) => {
      assert.equal(error.code, "invalid");
      assert.match(error.message, words);
      return true;
    });
  };
  await refused(Buffer.alloc(4096), /no 64-bit ELF file/);
  await refused(elf(BUILT_IN, 183), /another processor/);
  const bzImage = Buffer.alloc(4096);
  bzImage.write("HdrS", 0x202);
  await refused(bzImage, /but a bzImage/);
  await refused(undefined, /cannot be read \(ENOENT\)/);
});

test("without the kernel for an interpreting KVM, the error says how to get one", async () => {
  await assert.rejects(loadGuestKernel("/nowhere", { monitor: "firecracker", mode: "interpreted" }), {
    code: "unavailable",
    remedy: "run `stacyvm setup interpreted-kernel`",
  });
});
