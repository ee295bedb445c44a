/**
 * A machine under QEMU with a directory of the host by QEMU's own virtiofs, to be compared with. It is booted by itself: a machine with such a
 * device cannot be saved, so none of the server's can have one. The guest's kernel has the driver as a module in its package.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Agent } from "../src/guest/agent.ts";
import { connectAgent } from "../src/guest/client.ts";
import { StacyError } from "../src/host/error.ts";
import { exists } from "../src/host/exists.ts";
import { dataPaths } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { tscKhz } from "../src/host/tsc.ts";
import { buildInitramfs } from "../src/images/initramfs.ts";
import { findKernel, type Kernel } from "../src/images/kernel.ts";
import { createImages } from "../src/images/store.ts";
import { createWritableLayer } from "../src/images/writable.ts";
import { AGENT_SOCKET, QMP_SOCKET, qemuArguments, RUN_DIR } from "../src/vmm/qemu/arguments.ts";
import { Qmp } from "../src/vmm/qemu/qmp.ts";
import { FILES } from "../src/vmm/vmm.ts";

const SERVERS = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
const TAG = "shared";
const BOOT_LIMIT_MS = 60_000;
/** Loads the module, whose file is named first, and mounts it at the second place. */
const MOUNT = `import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def done(what, result):
    if result != 0: sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
done("the module", libc.syscall(313, os.open(sys.argv[1], os.O_RDONLY), b"", 0))
os.makedirs(sys.argv[2], exist_ok=True)
done("mount", libc.mount(b"${TAG}", sys.argv[2].encode(), b"virtiofs", 0, None))`;

export interface VirtiofsMachine extends AsyncDisposable {
  agent: Agent;
  /** Of virtiofsd. */
  version: string;
}

/** @returns why there can be none here; otherwise where virtiofsd is */
export async function findVirtiofsd(): Promise<{ path: string } | { reason: string }> {
  for (const path of SERVERS) if (await exists(path)) return { path };
  return { reason: `there is no virtiofsd (${SERVERS.join(", ")})` };
}

/**
 * @param source the directory @param at where it is mounted in the guest
 * @throws when the kernel's package cannot be had, or the guest does not come
 */
export async function virtiofsMachine(server: string, source: string, at: string): Promise<VirtiofsMachine> {
  const paths = dataPaths();
  const kernel = await findKernel(paths.assets);
  if (kernel === undefined) throw new Error("no guest kernel: run `stacyvm setup`");
  const ends = new AsyncDisposableStack();
  try {
    const dir = await mkdtemp(join(tmpdir(), "virtiofs-"));
    ends.defer(() => rm(dir, { recursive: true }));
    // The server writes to the guest's memory, so it is a file that both map.
    const memory = await mkdtemp("/dev/shm/virtiofs-");
    ends.defer(() => rm(memory, { recursive: true }));
    const module = await virtiofsModule(kernel, dir);
    const image = await createImages(paths).resolve("stacyvm/python");
    await symlink(image.base, join(dir, FILES.base));
    await createWritableLayer(join(dir, FILES.rootfs), 512);
    await mkdir(join(dir, RUN_DIR));
    const start = async (program: string, argv: string[]): Promise<ChildProcess> => {
      const child = spawn(program, argv, { cwd: dir, stdio: ["ignore", "ignore", "ignore"] });
      const exited = new Promise((resolve) => child.once("exit", resolve));
      ends.defer(async () => {
        child.kill("SIGKILL");
        await exited;
      });
      return child;
    };
    const socket = join(dir, RUN_DIR, "fs.sock");
    await start(server, [`--socket-path=${socket}`, "-o", `source=${source}`, "-o", "cache=auto"]);
    await until(() => exists(socket));
    const initramfs = await buildInitramfs(paths.assets, join(paths.assets, "agent/stacyvm-agent"), kernel.modules);
    const config = {
      ...{ vcpus: 1, memoryMiB: 256, kernel: kernel.vmlinuz, initramfs: initramfs.path },
      cmdline: `stacyvm.base=${image.filesystem}`,
    };
    const ram = { path: join(memory, "ram"), shared: true };
    const machine = qemuArguments(config, "tcg", ram, "boot", await tscKhz(), false);
    // virtiofsd knows devices of virtio 1.0 only, and a microvm's are older by default.
    const modern = ["-global", "virtio-mmio.force-legacy=false"];
    const device = [
      ...modern,
      "-chardev",
      `socket,id=fs,path=${socket}`,
      "-device",
      `vhost-user-fs-device,chardev=fs,tag=${TAG}`,
    ];
    await start("qemu-system-x86_64", [...machine, ...device]);
    const qmp = new Qmp(
      await connected(join(dir, QMP_SOCKET)),
      async () => new StacyError("machine-exited", "QEMU closed its monitor"),
    );
    ends.defer(() => qmp.close());
    await qmp.execute("qmp_capabilities");
    await qmp.execute("cont");
    const stream = await connected(join(dir, AGENT_SOCKET));
    const identity = {
      ...{ sandboxId: "bench", hostname: "bench", machineId: randomBytes(16).toString("hex"), bootId: randomUUID() },
      ...{ entropy: randomBytes(32), env: {} },
    };
    const agent = await connectAgent({ stream, clean: false }, { timeoutMs: BOOT_LIMIT_MS, identity }).catch(
      async (cause) => {
        const said = await readFile(join(dir, FILES.console), "utf8").catch(() => "");
        throw new Error(`the guest with virtiofs does not come: ${said.slice(-2_000)}`, { cause });
      },
    );
    ends.defer(() => agent.close());
    await agent.writeFile("/tmp/virtiofs.ko", await readFile(module));
    const { exitCode, stderr } = await agent.exec({ argv: ["python3", "-c", MOUNT, "/tmp/virtiofs.ko", at] });
    if (exitCode !== 0) throw new Error(`virtiofs in the guest: ${stderr}`);
    const said = await runTool(server, ["--version"]);
    const kept = ends.move();
    return {
      agent,
      version: /version (\S+)/.exec(said.toString())?.[1] ?? "unknown",
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  } finally {
    await ends.disposeAsync();
  }
}

/** Out of the kernel's package, for a guest that has no need of it otherwise. */
async function virtiofsModule(kernel: Kernel, dir: string): Promise<string> {
  const name = `linux-image-${kernel.release}`;
  await runTool("apt-get", ["download", "-qq", name], { cwd: dir, package: "apt", timeoutMs: 120_000 });
  await runTool("sh", ["-c", `dpkg -x ${name}_*.deb package && rm ${name}_*.deb`], { cwd: dir });
  return join(dir, "package/lib/modules", kernel.release, "kernel/fs/fuse/virtiofs.ko");
}

async function until(there: () => Promise<boolean>): Promise<void> {
  for (const begun = performance.now(); !(await there()); await delay(20))
    if (performance.now() - begun > BOOT_LIMIT_MS) throw new Error("virtiofsd or QEMU does not come");
}

async function connected(path: string): Promise<ReturnType<typeof connect>> {
  await until(() => exists(path));
  const socket = connect(path);
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return socket;
}
