/** QEMU's `microvm` behind the `Vmm` contract, by the recipe of qemu.md. */
import {
  chmod,
  lstat,
  mkdir,
  open,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { StacyError } from "../../host/error.ts";
import { hostIdentity } from "../../host/host-identity.ts";
import { isRoot } from "../../host/is-root.ts";
import { kvmState } from "../../host/kvm.ts";
import { adoptProcess, type ProcessRecord, type SpawnProcess, spawnProcess } from "../../host/process.ts";
import { tscKhz } from "../../host/tsc.ts";
import type { KernelChoice, KernelSetting } from "../../images/guest-kernel.ts";
import { cellState, inCell } from "../cell.ts";
import { exitReport } from "../exit.ts";
import { takeBack } from "../take-back.ts";
import {
  type AnswerLimits,
  type ConnectOptions,
  EMPTY_VOLUME_BYTES,
  FILES,
  type LoadableVmm,
  type MachineConfig,
  type PausedMachine,
  type RunningMachine,
  SNAPSHOT_FILES,
  type SnapshotSource,
  type StartOptions,
  type Vmm,
  type VmmAbilities,
  type VmmProbe,
  type VolumeAccess,
  volumeFile,
} from "../vmm.ts";
import { sizeToAllow } from "../volume-size.ts";
import {
  type Accelerator,
  cpuModel,
  kernelCommandLine,
  MACHINE_TYPE,
  type MemorySource,
  qemuArguments,
  RUN_DIR,
  type Start,
} from "./arguments.ts";
import { BootableQemu, LoadableQemu, memoryMode, PausedQemu, type QemuContext, RunningQemu } from "./machine.ts";
import { cancelMigration, incomingUri, loadState, STREAM_FILE } from "./migration.ts";
import { probeQemu } from "./probe.ts";
import { QemuProcess, removeSockets } from "./process.ts";
import { hasFileUri, mostSaved } from "./save-file.ts";
import { hideVolumes } from "./volume-files.ts";

/** Starting QEMU takes some 30 ms; on a loaded host, seconds. */
const START_LIMIT_MS = 20_000;
/** Huge pages for its heap where the host grants them: a start then meets 2,500 page faults instead of 4,500. */
const ENVIRONMENT = { GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" };
/** In the list of its devices: by it the guest says which memory it has no use for. */
const REPORTER = "balloon";
/** The descriptor that a process inherits the open state file as. */
const STATE_FD = 3;

type Usable = Extract<VmmProbe, { usable: true }> & { accelerator: Accelerator };

export interface QemuOptions {
  path?: string;
  /** The user's own kernel for Linux guests. */
  kernel?: KernelSetting;
  /** Default: from this process. */
  spawn?: SpawnProcess;
}

export function createQemu(options: QemuOptions = {}): Vmm {
  return new Qemu(options);
}

class Qemu implements Vmm {
  readonly name = "qemu" as const;
  readonly abilities: VmmAbilities = {
    diskBeforeStart: true,
    pauseResume: true,
    saveClone: true,
    saveKeepsChannel: true,
    jail: false,
    // Its command line is the machine.
    blank: false,
    tellsVolumeSizes: false,
  };
  /**
   * A boot under emulation takes seconds; on a busy host, many. But QEMU 7.2's emulation loses the very first timer tick in about one
   * boot of twenty: the guest then waits for it in `calibrate_delay` for ever. So the first attempt is short.
   */
  readonly answerMs: AnswerLimits = { booted: [20_000, 90_000], restored: 15_000 };
  readonly #options: QemuOptions;
  #probed: Promise<VmmProbe> | undefined;

  constructor(options: QemuOptions) {
    this.#options = options;
  }

  probe(): Promise<VmmProbe> {
    this.#probed ??= probeQemu(this.#options.path).then((probe) => {
      // What cannot be used may be mended, for example when its package is being replaced at this moment.
      if (!probe.usable) this.#probed = undefined;
      return probe;
    });
    return this.#probed;
  }

  async identity(): Promise<Record<string, string>> {
    const { version, accelerator } = await this.#usable();
    const emulated = {
      version,
      accelerator,
      machine: MACHINE_TYPE,
      cpu: cpuModel(accelerator),
      devices: (await this.#reports()) ? `serial,agent,base,rw,${REPORTER}` : "serial,agent,base,rw",
      cmdline: kernelCommandLine(accelerator),
    };
    // An emulated guest counts with the host's TSC, at the frequency that it was told at its boot.
    if (accelerator === "tcg") return { ...emulated, tscKhz: String((await tscKhz()) ?? "measured") };
    const host = await hostIdentity();
    return { ...emulated, hostCpu: host.cpu, hostKernel: host.kernel };
  }

  async checkLoadable({ devices = "" }: Record<string, string>): Promise<void> {
    if (!devices.split(",").includes(REPORTER) || (await this.#reports())) return;
    throw new StacyError(
      "not-supported",
      "it was saved by a QEMU in a cell, and QEMU cannot have one on this host now",
      {
        phase: "load",
        remedy: "`stacyvm doctor` says why it cannot; mend that and try again",
      },
    );
  }

  /**
   * Whether memory that a guest has no use for is given back. QEMU frees its place in the file behind it, too, which for all that are loaded
   * from a snapshot is the snapshot's own: only in a cell is that kept from it (cell/read-only-memory.c).
   */
  async #reports(): Promise<boolean> {
    return (await cellState()).usable;
  }

  async guestKernel(): Promise<KernelChoice> {
    return { monitor: "qemu", mode: (await kvmState()).mode, setting: this.#options.kernel };
  }

  async prepareBoot(options: StartOptions): Promise<BootableQemu> {
    const shared = options.memory === "shared";
    if (shared) await makeMemoryFile(options.dir, options.config);
    const memory: MemorySource = { path: shared ? SNAPSHOT_FILES.memory : undefined, shared };
    const process = await this.#start(options, memory, "boot");
    return new BootableQemu(process, await this.#context(options.config, shared));
  }

  async prepareLoad(options: StartOptions & { snapshot: SnapshotSource }): Promise<LoadableVmm> {
    const { version } = await this.#usable();
    const statePath = join(options.snapshot.dir, SNAPSHOT_FILES.state);
    const state = await open(statePath, "r").catch((cause) => {
      throw new StacyError("corrupt", `the snapshot's ${SNAPSHOT_FILES.state} cannot be opened`, {
        cause,
        phase: "vmm",
      });
    });
    try {
      const memory = { path: join(options.snapshot.dir, SNAPSHOT_FILES.memory), shared: false };
      const process = await this.#start(options, memory, "load", { path: statePath, fd: state.fd });
      return new LoadableQemu(
        process,
        await this.#context(options.config, false),
        incomingUri(version, statePath, STATE_FD),
      );
    } finally {
      await state.close();
    }
  }

  prepareBlank(): Promise<never> {
    return Promise.reject(new StacyError("not-supported", "QEMU is started for one machine"));
  }

  async adopt(
    dir: string,
    record: ProcessRecord,
    config: MachineConfig,
    { timeoutMs = 2_000, signal }: ConnectOptions = {},
  ): Promise<RunningMachine | PausedMachine | undefined> {
    const found = await adoptProcess(record);
    if (found === undefined) return undefined;
    const process = new QemuProcess(found, dir, false);
    try {
      const wait = { timeoutMs, ...(signal === undefined ? {} : { signal }) };
      const qmp = await process.connectMonitor(timeoutMs, signal);
      await qmp.execute("qmp_capabilities", undefined, wait);
      const { status } = await qmp.execute<{ status: string }>("query-status", undefined, wait);
      const context = await this.#context(config, false);
      // An earlier daemon died while it saved: the machine must not go on under a stream that is still written.
      if (status !== "running") {
        process.stands();
        await cancelMigration(qmp);
      }
      return status === "running" ? new RunningQemu(process, context) : new PausedQemu(process, context);
    } catch (error) {
      await process.release();
      throw error;
    }
  }

  async end(dir: string, record: ProcessRecord): Promise<void> {
    const found = await adoptProcess(record);
    if (found !== undefined) await new QemuProcess(found, dir, false).kill();
  }

  async #usable(): Promise<Usable> {
    const probe = await this.probe();
    if (!probe.usable)
      throw new StacyError("unavailable", `QEMU cannot be used: ${probe.reason}`, { remedy: probe.remedy });
    return { ...probe, accelerator: probe.accelerator === "kvm" ? "kvm" : "tcg" };
  }

  async #context(config: MachineConfig, sharedMemory: boolean): Promise<QemuContext> {
    const { version, accelerator } = await this.#usable();
    const share = { vcpus: config.vcpus, memoryMiB: config.memoryMiB, accelerator };
    return {
      version,
      volumes: config.volumes ?? [],
      sharedMemory,
      share,
      normalise: (dir) => this.#normalise(dir, config),
    };
  }

  async #start(
    options: Pick<StartOptions, "dir" | "config" | "signal">,
    memory: MemorySource,
    start: Start,
    state?: { path: string; fd: number },
  ): Promise<QemuProcess> {
    const { path, accelerator, version } = await this.#usable();
    const { dir, config, signal } = options;
    await Promise.all([removeSockets(dir), hideVolumes(dir)]);
    const tsc = accelerator === "tcg" ? await tscKhz() : undefined;
    const args = qemuArguments(config, accelerator, memory, start, tsc, await this.#reports());
    const host = await (this.#options.spawn ?? spawnProcess)({
      ...(await confined(path, args, dir, {
        memoryMiB: config.memoryMiB,
        boot: start === "boot" ? config : undefined,
        volumes: config.volumes ?? [],
        memory,
        // Read by its name where QEMU can do that.
        state: hasFileUri(version) ? state?.path : undefined,
      })),
      cwd: dir,
      log: join(dir, FILES.log),
      signal,
      ...(state === undefined ? {} : { fds: [state.fd] }),
    });
    const process = new QemuProcess(host, dir, true);
    try {
      const qmp = await process.connectMonitor(START_LIMIT_MS, signal);
      await qmp.execute("qmp_capabilities", undefined, signal === undefined ? {} : { signal });
      return process;
    } catch (error) {
      await process.kill();
      // One that was killed says nothing about the host; one that gave up does.
      if (error instanceof StacyError && exitReport(error)?.exitCode !== undefined) throw startError(error);
      throw error;
    }
  }

  /**
   * A clone's stream carries its RAM. A QEMU that never runs the guest takes it in with the RAM as a shared file, and
   * saves again: then every snapshot has the same form and loads equally fast.
   */
  async #normalise(dir: string, config: MachineConfig): Promise<void> {
    const { version } = await this.#usable();
    const work = join(dir, "normalise");
    await mkdir(work);
    await makeMemoryFile(work, config);
    // The guest does not run, so its disk only has to have the size.
    await makeHole(join(work, FILES.rootfs), (await stat(join(dir, FILES.rootfs))).size);
    for (const slot of (config.volumes ?? []).keys()) await makeHole(join(work, volumeFile(slot)), EMPTY_VOLUME_BYTES);
    await symlink(join("..", FILES.base), join(work, FILES.base));
    const stream = await open(join(dir, STREAM_FILE), "r");
    try {
      const memory = { path: SNAPSHOT_FILES.memory, shared: true };
      const state = { path: join(dir, STREAM_FILE), fd: stream.fd };
      const process = await this.#start({ dir: work, config }, memory, "load", state);
      try {
        await loadState(await process.monitor(), incomingUri(version, join(dir, STREAM_FILE), STATE_FD), false, false);
        await process.save(version, join(work, SNAPSHOT_FILES.state), 0);
      } finally {
        await process.kill();
      }
    } finally {
      await stream.close();
    }
    await takeBack(join(work, SNAPSHOT_FILES.memory), join(dir, SNAPSHOT_FILES.memory), memoryMode());
    await rename(join(work, SNAPSHOT_FILES.state), join(dir, SNAPSHOT_FILES.state));
    await rm(work, { recursive: true });
    await rm(join(dir, STREAM_FILE));
  }
}

/** QEMU's command line in its cell, where this host can have one. */
async function confined(
  path: string,
  args: string[],
  dir: string,
  needs: {
    memoryMiB: number;
    boot: MachineConfig | undefined;
    volumes: readonly VolumeAccess[];
    memory: MemorySource;
    state: string | undefined;
  },
): Promise<{ command: string; args: string[]; env: Record<string, string> }> {
  await mkdir(join(dir, RUN_DIR), { recursive: true, mode: 0o700 });
  const found = await cellState();
  if (!found.usable) return { command: path, args, env: ENVIRONMENT };
  const { cell } = found;
  // QEMU appends to it; made by it, it would lie where QEMU may not write.
  await (await open(join(dir, FILES.console), "a", 0o600)).close();
  const { memoryMiB, boot, volumes, memory, state } = needs;
  const clones = memory.path !== undefined && !memory.shared;
  const own = await realpath(dir);
  const disks = await Promise.all(
    volumes.map(async (access, slot) => ({ access, path: await placeOf(own, volumeFile(slot)) })),
  );
  const disksTo = (wanted: VolumeAccess): string[] =>
    disks.flatMap(({ access, path }) => (access === wanted ? [path] : []));
  const read = [
    await placeOf(own, FILES.base),
    boot?.kernel,
    boot?.initramfs,
    clones ? memory.path : undefined,
    state,
    ...disksTo("read"),
  ].filter((file) => file !== undefined);
  if (isRoot()) {
    // QEMU's user has to get to what it was given, by names; what a suspended machine wakes from lies in a directory below.
    const below = read.filter((file) => file.startsWith(`${own}/`)).map((file) => dirname(file));
    await Promise.all([...new Set([own, ...below])].map((each) => chmod(each, 0o711)));
    // Its other readers are other users. No user gets to it by its name: what it lies in is ours alone.
    await Promise.all(disks.map(({ access, path }) => chmod(path, access === "read" ? 0o644 : 0o600)));
    // Saved by a server that was not root: too much for a copy.
    if (clones && memory.path !== undefined && ((await stat(memory.path)).mode & 0o004) === 0)
      await chmod(memory.path, memoryMode());
  }
  const shared = memory.shared ? [SNAPSHOT_FILES.memory] : [];
  const write = [RUN_DIR, FILES.rootfs, FILES.console, ...shared].map((name) => join(own, name));
  const sizeOf = async (path: string): Promise<number> => (await stat(path)).size;
  const volumeBytes = await Promise.all(disksTo("write").map(async (path) => sizeToAllow(await sizeOf(path))));
  const fileBytes = Math.max(mostSaved(memoryMiB), await sizeOf(join(own, FILES.rootfs)), ...volumeBytes);
  const files = { dir: own, read, write: [...write, ...disksTo("write")], clones, fileBytes };
  return { command: cell.program, args: inCell(cell, files, path, args), env: ENVIRONMENT };
}

/** A file of the machine's, or where the link says that it is: what that passes on the way may be a link too, and is not there in a cell. */
async function placeOf(dir: string, name: string): Promise<string> {
  const path = join(dir, name);
  return (await lstat(path)).isSymbolicLink() ? resolve(dir, await readlink(path)) : path;
}

async function makeHole(path: string, bytes: number): Promise<void> {
  await writeFile(path, "");
  await truncate(path, bytes);
}

async function makeMemoryFile(dir: string, config: MachineConfig): Promise<void> {
  const file = await open(join(dir, SNAPSHOT_FILES.memory), "wx", 0o600);
  await file.truncate(config.memoryMiB * 1024 * 1024);
  await file.close();
}

/** QEMU says why it does not start in its log; the common reasons get a remedy. */
function startError(error: StacyError): StacyError {
  const { message } = error;
  const remedy = /Could not access KVM|failed to initialize kvm/i.test(message)
    ? "KVM cannot be used: set STACYVM_ACCEL=tcg, or see `stacyvm doctor`"
    : /Cannot allocate memory|cannot set up guest memory/i.test(message)
      ? "ask for less memory, or free some on the host"
      : /qboot.rom/.test(message)
        ? "install qemu-system-data, which has qboot.rom"
        : "see `stacyvm doctor`";
  return new StacyError("unavailable", message, { cause: error, phase: "vmm", remedy });
}
