/** One sandbox's machine, as the provider hands it out: what can be asked of it, and the changes (changes/) of its life (machine-life.ts). */
import { join } from "node:path";
import type { HostDirectory } from "../directories/directory.ts";
import type { Agent } from "../guest/agent.ts";
import { asStacyError, type StacyError } from "../host/error.ts";
import type { ProcessRecord } from "../host/process.ts";
import { tailLines } from "../host/tail.ts";
import type { BootReport } from "../launcher/launcher.ts";
import { writeFirstRecord } from "../launcher/machine-dir.ts";
import type { Target } from "../launcher/target.ts";
import { type ExitReport, FILES } from "../vmm/vmm.ts";
import { allow } from "./changes/allow.ts";
import { fork, saveRunning } from "./changes/copy.ts";
import { pause, resume } from "./changes/pause.ts";
import { restore } from "./changes/restore.ts";
import { suspend, wake } from "./changes/suspend.ts";
import { attach, detach } from "./changes/volumes.ts";
import type { MachineContext } from "./machine-context.ts";
import { type LifeParts, MachineLife } from "./machine-life.ts";
import { machineStats, type StatsBaseline } from "./machine-stats.ts";
import {
  type ChangeOptions,
  checkpointKey,
  type MachineState,
  type MachineStats,
  type NetworkStatus,
  type ResumeOptions,
  type SandboxMachine,
  type SpecVolume,
  type SuspendOptions,
} from "./provider.ts";
import { writesVolumes } from "./written-volumes.ts";

export class MicrovmMachine implements SandboxMachine {
  readonly id: string;
  readonly boot: BootReport;
  readonly exited: Promise<ExitReport>;
  readonly #context: MachineContext;
  readonly #life: MachineLife;
  readonly #baseline: StatsBaseline = {};

  constructor(context: MachineContext, parts: LifeParts & { boot: BootReport }) {
    this.#context = context;
    this.#life = new MachineLife(context, parts);
    this.id = parts.record.id;
    this.boot = parts.boot;
    this.exited = this.#life.exited;
  }

  get target(): Target {
    return this.#life.target;
  }

  get state(): MachineState {
    return this.#life.state;
  }

  get agent(): Agent {
    return this.#life.agent;
  }

  get process(): ProcessRecord | undefined {
    return this.#life.machine?.record;
  }

  get network(): NetworkStatus {
    return { allowedHosts: this.#life.record.allowedHosts ?? [], ...this.#life.egress.status };
  }

  console(lines: number): Promise<string[]> {
    return tailLines(join(this.#life.dir, FILES.console), lines);
  }

  stats(): Promise<MachineStats> {
    const disk = join(this.#life.dir, FILES.rootfs);
    return machineStats(this.process?.pid, this.target.config.memoryMiB, disk, this.#baseline);
  }

  allow(hosts: readonly string[], options: ChangeOptions = {}): Promise<void> {
    return this.#life.exclusively(options, () => allow(this.#life, hosts));
  }

  secretsChanged(): void {
    this.#life.egress.secretsChanged();
  }

  mountDirectories(list: readonly HostDirectory[]): Promise<void> {
    return this.#life.mountDirectories(list);
  }

  pause(options: ChangeOptions = {}): Promise<void> {
    return this.#life.exclusively(options, () => pause(this.#life));
  }

  resume({ anew = false, ...options }: ResumeOptions = {}): Promise<void> {
    return this.#life.exclusively(options, async (signal) => {
      // Its disk is started from where it was saved.
      if (anew && this.#life.now.state === "paused") await suspend(this.#life, signal);
      await (anew && this.#life.now.state === "suspended"
        ? wake(this.#life, signal, { anew })
        : resume(this.#life, signal));
    });
  }

  suspend({ keeps = "machine", ...options }: SuspendOptions = {}): Promise<void> {
    return this.#life.exclusively(options, async (signal) => {
      const { record, now } = this.#life;
      // Its volumes must rest first, which takes its guest.
      if (now.state === "paused" && writesVolumes(record)) await resume(this.#life, signal);
      await suspend(this.#life, signal, keeps);
    });
  }

  fork(
    ids: string[],
    options: Parameters<SandboxMachine["fork"]>[1] = {},
  ): Promise<{ machines: SandboxMachine[]; stoppedMs: number }> {
    return this.#life.exclusively(options, (signal) => fork(this.#life, ids, signal, options));
  }

  checkpoint(checkpointId: string, options: ChangeOptions = {}): Promise<{ bytes: number; stoppedMs: number }> {
    const key = checkpointKey(checkpointId);
    return this.#life.exclusively(options, (signal) => saveRunning(this.#life, "checkpoint", key, signal));
  }

  restore(checkpointId: string, options: ChangeOptions = {}): Promise<void> {
    return this.#life.exclusively(options, (signal) => restore(this.#life, checkpointKey(checkpointId), signal));
  }

  attach(volume: SpecVolume, options: ChangeOptions = {}): Promise<void> {
    return this.#life.exclusively(options, () => attach(this.#life, volume));
  }

  detach(
    volume: Pick<SpecVolume, "slot" | "name" | "path">,
    { force = false, ...options }: ChangeOptions & { force?: boolean } = {},
  ): Promise<{ reusable: boolean }> {
    return this.#life.exclusively(options, () => detach(this.#life, volume, force));
  }

  /** The record of a new machine; if it cannot be written, the machine is ended. */
  async begin(): Promise<void> {
    try {
      await writeFirstRecord(this.#life.dir, this.#life.record); // P4
    } catch (error) {
      await this.#context.discard(this);
      throw asStacyError(error, "internal", { phase: "record" });
    }
  }

  async destroy(why?: StacyError, stopped?: () => void): Promise<void> {
    await this.#life.destroy(why, stopped);
    this.#context.forget(this);
  }

  async release(): Promise<void> {
    this.#context.forget(this);
    await this.#life.release();
  }
}
