/** Firecracker behind the `Vmm` contract. */
import { realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import { asStacyError, StacyError } from "../../host/error.ts";
import { hostIdentity } from "../../host/host-identity.ts";
import { isRoot } from "../../host/is-root.ts";
import { kvmState } from "../../host/kvm.ts";
import { dataPaths } from "../../host/paths.ts";
import { type ProcessRecord, type SpawnProcess, spawnProcess } from "../../host/process.ts";
import { Stamped } from "../../host/stamp.ts";
import type { KernelChoice, KernelSetting } from "../../images/guest-kernel.ts";
import { interpretedKernelRecord } from "../../images/interpreted-kernel.ts";
import { type Cell, type CellState, cellState } from "../cell.ts";
import {
  type AnswerLimits,
  type BlankVmm,
  type BootableVmm,
  type ConnectOptions,
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
  volumeFile,
} from "../vmm.ts";
import { type Shown, tryInCell } from "./cell-jail.ts";
import { mustNotCall } from "./hypercalls.ts";
import type { FirecrackerPaths, LocateOptions } from "./install.ts";
import { JailUsers } from "./jail-users.ts";
import {
  BlankFirecracker,
  BOOT_FILES,
  BootableFirecracker,
  baseCommandLine,
  type Life,
  LoadableFirecracker,
  PausedFirecracker,
  RunningFirecracker,
} from "./machine.ts";
import { findGround, GROUND } from "./memory-file.ts";
import { type Probed, probeFirecracker } from "./probe.ts";
import { FirecrackerProcess, type JailPlan, mostWritten } from "./process.ts";
import { checkFormat } from "./snapshot-format.ts";
import { traitsOf } from "./versions.ts";

export interface FirecrackerOptions extends LocateOptions {
  /** Where set-up puts the binaries. Default: the data directory's. */
  assets?: string;
  /** The user's own kernel for Linux guests. */
  kernel?: KernelSetting;
  /** Every machine is jailed, unless its start says how itself: by the jailer where we are root, else in a cell. */
  jail?: JailPolicy;
  /** Default: from this process. */
  spawn?: SpawnProcess;
}

/** For the jailer: a cell has no users of its own. */
export interface JailPolicy {
  /** Machines run as this uid and the ones after it. */
  uidBase: number;
  /** Path of a network namespace. Default: an empty one. */
  netns?: string;
}

/** So many machines at once; the uids above belong to others. */
const JAIL_UIDS = 10_000;

/** A kernel that is interpreted boots in 40 s on a quiet host; at a load of 15 on two cores it took five minutes. */
const INTERPRETED_ANSWER_MS: AnswerLimits = { booted: [600_000], restored: 60_000 };

export function createFirecracker(options: FirecrackerOptions = {}): Vmm {
  return new Firecracker(options);
}

class Firecracker implements Vmm {
  readonly name = "firecracker" as const;
  readonly #options: FirecrackerOptions;
  readonly #users: JailUsers | undefined;
  readonly #spawn: SpawnProcess;
  readonly #probed: Stamped<Probed>;
  #abilities: VmmAbilities = {
    diskBeforeStart: false,
    pauseResume: true,
    saveClone: true,
    // The snapshot resets the guest's end of every vsock connection (firecracker.md 13.7).
    saveKeepsChannel: false,
    jail: true,
    blank: true,
    tellsVolumeSizes: true,
  };

  answerMs: AnswerLimits = { booted: [90_000], restored: 15_000 };

  constructor(options: FirecrackerOptions) {
    this.#options = options;
    this.#spawn = options.spawn ?? spawnProcess;
    const assets = options.assets ?? dataPaths().assets;
    this.#probed = new Stamped(async () => {
      const probed = await this.#probe(assets);
      // What it was told by; either may be replaced or come while the server runs. One that cannot be used is looked for again.
      const paths = [probed.found?.paths.firecracker ?? "", interpretedKernelRecord(assets)];
      return { value: probed, paths, keep: probed.probe.usable };
    });
    if (options.jail === undefined) return;
    if (isRoot()) this.#users = new JailUsers(options.jail.uidBase, JAIL_UIDS);
    // A jail is made for one machine: its limits are the machine's size, and its files are there from its start.
    this.#abilities = { ...this.#abilities, blank: false };
  }

  /** Exact once `probe` has answered. */
  get abilities(): VmmAbilities {
    return this.#abilities;
  }

  async probe(): Promise<VmmProbe> {
    return (await this.#look()).probe;
  }

  /** A spawn asks several times: what is known costs two calls of `stat`. */
  #look(): Promise<Probed> {
    return this.#probed.get();
  }

  async #probe(assets: string): Promise<Probed> {
    const probed = await probeFirecracker(assets, this.#options, this.#options.kernel);
    if (probed.found === undefined) return probed;
    if (probed.probe.usable && probed.probe.accelerator === "kvm-interpreted") this.answerMs = INTERPRETED_ANSWER_MS;
    const { traits, paths } = probed.found;
    this.#abilities = {
      ...this.#abilities,
      pauseResume: traits.pauseResume,
      jail: paths.jailer !== undefined && isRoot(),
    };
    const lacks = this.#options.jail && (await lacksJail(this.#options.jail, paths));
    return lacks === undefined ? probed : { probe: unjailed(probed.probe, lacks) };
  }

  async #usable(): Promise<Required<Probed>["found"]> {
    const { probe, found } = await this.#look();
    if (found !== undefined) return found;
    const { reason, remedy } = probe as Extract<VmmProbe, { usable: false }>;
    throw new StacyError("unavailable", `Firecracker cannot be used: ${reason}`, { remedy });
  }

  async identity(config: MachineConfig): Promise<Record<string, string>> {
    const [{ probe, found }, host] = await Promise.all([this.#look(), hostIdentity()]);
    return {
      version: probe.version ?? "none",
      snapshotFormat: found?.snapshotFormat ?? "none",
      accelerator: probe.usable ? probe.accelerator : "none",
      devices: config.initramfs === undefined ? "rootfs,base,vsock" : "rootfs,base,vsock,entropy",
      cmdline: baseCommandLine(config),
      ...(mustNotCall(config, await interpreted()) ? { features: "no hypercalls" } : {}),
      hostCpu: host.cpu,
      hostKernel: host.kernel,
    };
  }

  async checkLoadable(identity: Record<string, string>): Promise<void> {
    const { probe, found } = await this.#look();
    // One that is not there says so when it is to be started.
    if (found === undefined || probe.version === undefined) return;
    checkFormat(identity, { version: probe.version, snapshotFormat: found.snapshotFormat });
  }

  async guestKernel(): Promise<KernelChoice> {
    return { monitor: "firecracker", mode: (await kvmState()).mode, setting: this.#options.kernel };
  }

  async prepareBoot(options: StartOptions): Promise<BootableVmm> {
    // Tracking makes the golden snapshot a matter of ms and KiB; a private machine that is never saved does without.
    const golden = options.memory === "shared";
    // An earlier machine of this directory may have left one.
    await rm(join(options.dir, GROUND), { force: true });
    const life = { ...(await this.#life(golden, "nothing")), golden };
    const { kernel, initramfs } = options.config;
    const files: Shown[] = [[kernel, BOOT_FILES.kernel]];
    if (initramfs !== undefined) files.push([initramfs, BOOT_FILES.initramfs]);
    const start = await this.#start(options, files, options.dir);
    return new BootableFirecracker(start, { ...life, config: options.config });
  }

  async prepareLoad(options: StartOptions & { snapshot: SnapshotSource }): Promise<LoadableVmm> {
    const life = await this.#life(false, "unknown");
    const files = Object.values(SNAPSHOT_FILES).map((name): Shown => [join(options.snapshot.dir, name), name]);
    const start = await this.#start(options, files, options.snapshot.dir);
    return new LoadableFirecracker(start, { ...life, config: options.config });
  }

  async prepareBlank({ dir, signal }: Pick<StartOptions, "dir" | "signal">): Promise<BlankVmm> {
    const life = await this.#life(false, "unknown");
    const found = await this.#usable();
    const { firecracker } = found.paths;
    const process = await FirecrackerProcess.start({ firecracker, dir, jail: undefined, signal, spawn: this.#spawn });
    await process.enterGroup();
    return new BlankFirecracker(process, life, async () => (await this.#look()).found === found);
  }

  async #life(tracking: boolean, ground: Life["ground"]): Promise<Omit<Life, "config">> {
    return { traits: (await this.#usable()).traits, tracking, ground, interpreted: await interpreted() };
  }

  async adopt(
    dir: string,
    record: ProcessRecord,
    config: MachineConfig,
    { timeoutMs = 2_000, signal }: ConnectOptions = {},
  ): Promise<RunningMachine | PausedMachine | undefined> {
    // Before anything else: a process that is gone needs no Firecracker to be installed.
    const process = await FirecrackerProcess.find(dir, record);
    if (process === undefined) return undefined;
    try {
      await process.connect(timeoutMs, signal);
      const quick = { phase: "adopt", timeoutMs };
      const { state, vmm_version } = await process.api.get<{ state: string; vmm_version?: string }>("/", quick);
      const { track_dirty_pages } = await process.api.get<{ track_dirty_pages?: boolean }>("/machine-config", quick);
      // It is of the release that started it, which need not be the one that is installed now, if one is.
      const traits = traitsOf(vmm_version) ?? (await this.#usable()).traits;
      const tracking = track_dirty_pages === true;
      const life: Life = { traits, config, tracking, ground: await findGround(dir), interpreted: await interpreted() };
      if (state === "Running") return await RunningFirecracker.adopted(process, life);
      if (state === "Paused") return new PausedFirecracker(process, life, { ready: false, reset: "unknown" });
      throw new StacyError("unavailable", `Firecracker says that its machine is ${JSON.stringify(state)}`);
    } catch (error) {
      await process.release();
      throw error;
    }
  }

  async end(dir: string, record: ProcessRecord): Promise<void> {
    const process = await FirecrackerProcess.find(dir, record);
    await process?.kill();
  }

  /** @param files what a cell has to show beside the base @param disks where there is a disk of the size of its own, which may still be on its way */
  async #start(
    { dir, config, jail, signal }: StartOptions,
    files: readonly Shown[],
    disks: string,
  ): Promise<FirecrackerProcess> {
    const { paths } = await this.#usable();
    const { firecracker, jailer } = paths;
    // (Of a file that is missing whoever opens it says so.)
    const fileBytes = await mostWritten(config, disks, dir).catch(() => undefined);
    const start = (plan: JailPlan | undefined): Promise<FirecrackerProcess> =>
      FirecrackerProcess.start({ firecracker, dir, jail: plan, fileBytes, signal, spawn: this.#spawn });
    const bound = fileBytes === undefined ? {} : { fileMaxBytes: fileBytes };
    if (jail !== undefined) return start({ by: "jailer", jailer, config: { ...bound, ...jail } });
    if (this.#options.jail === undefined) return start(undefined);
    const users = this.#users;
    if (users === undefined) {
      const shown: Shown[] = [...files, [await realpath(join(dir, FILES.base)), FILES.base]];
      const volumes = (config.volumes ?? []).flatMap((access, slot) => (access === "read" ? [volumeFile(slot)] : []));
      return start({ by: "cell", cell: await usableCell(), files: shown, volumes });
    }
    const netns = this.#options.jail.netns === undefined ? {} : { netns: this.#options.jail.netns };
    const uid = await users.take();
    try {
      const process = await start({ by: "jailer", jailer, config: { uid, gid: uid, ...netns, ...bound } });
      void process.exited.then(() => users.give(uid));
      return process;
    } catch (error) {
      users.give(uid);
      throw error;
    }
  }
}

async function interpreted(): Promise<boolean> {
  return (await kvmState()).mode === "interpreted";
}

interface Lack {
  reason: string;
  remedy: string;
}

/** What is missing for the jail that is asked for. */
async function lacksJail({ netns }: JailPolicy, { firecracker, jailer }: FirecrackerPaths): Promise<Lack | undefined> {
  if (isRoot()) {
    if (jailer !== undefined) return undefined;
    return { reason: "there is no jailer beside this Firecracker", remedy: "set `firecracker.jailer` to its path" };
  }
  if (netns !== undefined) {
    const reason = "`firecracker.jail_netns` needs a server that runs as root";
    return {
      reason,
      remedy: "leave it out: without root machines are in a network namespace with nothing in it",
    };
  }
  let state: CellState;
  try {
    state = await cellState();
  } catch (error) {
    const { message: reason, remedy = "try again" } = asStacyError(error);
    return { reason, remedy };
  }
  if (state.usable) {
    return tryInCell(state.cell, firecracker).then(
      () => undefined,
      (error: unknown) => ({
        reason: `it does not run by itself, with nothing of the host's: ${asStacyError(error).message}`,
        remedy: "use a Firecracker that is linked statically, as its releases are",
      }),
    );
  }
  const remedy = "allow user namespaces to this user (`stacyvm doctor` says more), run the server as root";
  return { reason: `there is no cell for it: ${state.reason}`, remedy };
}

/** @throws StacyError `unavailable` */
async function usableCell(): Promise<Cell> {
  const state = await cellState();
  if (state.usable) return state.cell;
  throw new StacyError("unavailable", `there is no cell for Firecracker: ${state.reason}`);
}

/** The jail is on, and it cannot be had: nothing is started without it. */
function unjailed({ version }: VmmProbe, { reason, remedy }: Lack): VmmProbe {
  return {
    usable: false,
    ...(version === undefined ? {} : { version }),
    reason: `\`firecracker.jail\` is on, but ${reason}`,
    remedy: `${remedy}, or set \`firecracker.jail: false\``,
  };
}
