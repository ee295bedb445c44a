/** A real Linux guest under QEMU for the agent's tests: kernel, initramfs and agent as set-up makes them, a built-in image. */
import { mkdir, mkdtemp, readFile, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Agent, Identity } from "../src/guest/agent.ts";
import { connectAgent } from "../src/guest/client.ts";
import type { AgentStream } from "../src/host/agent-stream.ts";
import { dataPaths } from "../src/host/paths.ts";
import { buildAgent } from "../src/images/crate-build.ts";
import { buildInitramfs } from "../src/images/initramfs.ts";
import { installKernel } from "../src/images/kernel.ts";
import { createImages } from "../src/images/store.ts";
import { createWritableLayer } from "../src/images/writable.ts";
import { fillSlots } from "../src/launcher/machine-dir.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import type { VolumeAccess } from "../src/vmm/vmm.ts";

const BOOT_LIMIT_MS = 60_000;

export interface GuestOptions {
  image?: "stacyvm/busybox" | "stacyvm/python";
  /** A base disk of the test's own instead. */
  base?: { path: string; filesystem: "erofs" | "ext4" };
  vcpus?: number;
  memoryMiB?: number;
  diskMiB?: number;
  /** A writable disk that another machine has left, which is taken over. */
  disk?: string;
  /** Files of volumes, in its slots; it writes to them. */
  volumes?: string[];
}

export interface Guest extends AsyncDisposable {
  agent: Agent;
  dir: string;
  /** Another stream to the same agent: the newest wins. */
  open(): Promise<AgentStream>;
  connect(identity?: Identity): Promise<Agent>;
  /** Ends the machine as kill -9 does; its directory stays until this is disposed of. */
  kill(): Promise<void>;
  /** Settles when the machine is gone. */
  exited: Promise<unknown>;
  console(): Promise<string>;
}

export function testIdentity(over: Partial<Identity> = {}): Identity {
  return {
    sandboxId: "sb-test",
    hostname: "sb-test",
    machineId: Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("hex"),
    bootId: crypto.randomUUID(),
    entropy: crypto.getRandomValues(new Uint8Array(32)),
    env: {},
    ...over,
  };
}

export async function startGuest(options: GuestOptions = {}): Promise<Guest> {
  const paths = dataPaths();
  await mkdir(paths.assets, { recursive: true });
  const kernel = await installKernel(paths.assets);
  await buildAgent(paths.assets);
  const initramfs = await buildInitramfs(paths.assets, join(paths.assets, "agent", "stacyvm-agent"), kernel.modules);
  const image =
    options.base === undefined ? await createImages(paths).resolve(options.image ?? "stacyvm/busybox") : undefined;
  const base = options.base ?? { path: image?.base ?? "", filesystem: image?.filesystem ?? "erofs" };
  const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "agent-test-"));
  try {
    if (options.disk === undefined) await createWritableLayer(join(dir, "rootfs.ext4"), options.diskMiB ?? 512);
    else await rename(options.disk, join(dir, "rootfs.ext4"));
    await symlink(base.path, join(dir, "base.img"));
    const { volumes = [] } = options;
    const slots = volumes.map((): VolumeAccess => "write");
    await fillSlots(dir, { volumes: slots }, volumes);
    const config = {
      ...(slots.length === 0 ? {} : { volumes: slots }),
      vcpus: options.vcpus ?? 1,
      memoryMiB: options.memoryMiB ?? 256,
      kernel: kernel.vmlinuz,
      initramfs: initramfs.path,
      cmdline: `stacyvm.base=${base.filesystem}`,
    };
    const vmm = await createQemu().prepareBoot({ dir, config, memory: "private" });
    const machine = await vmm.boot();
    const open = () => machine.connectAgent({ timeoutMs: BOOT_LIMIT_MS });
    const connect = async (identity?: Identity) =>
      connectAgent(await open(), { timeoutMs: BOOT_LIMIT_MS, ...(identity === undefined ? {} : { identity }) });
    const guestConsole = () => readFile(join(dir, "console.log"), "utf8").catch(() => "");
    try {
      const agent = await connect(testIdentity());
      return {
        agent,
        dir,
        open,
        connect,
        async kill() {
          await machine.kill();
        },
        exited: machine.exited,
        console: guestConsole,
        async [Symbol.asyncDispose]() {
          await agent.close();
          await machine.kill();
          await rm(dir, { recursive: true, force: true });
        },
      };
    } catch (error) {
      process.stderr.write(await guestConsole());
      await machine.kill();
      throw error;
    }
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

/** Runs a shell command and gives its standard output as text. */
export async function shell(agent: Agent, script: string): Promise<string> {
  const result = await agent.exec({ argv: ["/bin/sh", "-c", script] });
  if (result.exitCode !== 0) throw new Error(`exit ${result.exitCode}: ${result.stderr}`);
  return result.stdout.toString("utf8");
}
