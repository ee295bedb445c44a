/** One sandbox's machine as the layers above hold it: its states, and what can be done in each. */
import { randomBytes } from "node:crypto";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Refused } from "../egress/egress.ts";
import { type Egress, type Network, networkEnvironment, PROXY_ENVIRONMENT } from "../egress/network.ts";
import type { Agent, Identity } from "../guest/agent.ts";
import { openAgent } from "../guest/client.ts";
import { type ReconnectingAgent, reconnectingAgent } from "../guest/reconnecting-agent.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { ownRecord, type ProcessRecord } from "../host/process.ts";
import { copySparse } from "../host/sparse.ts";
import { tailLines } from "../host/tail.ts";
import { within } from "../host/within.ts";
import { discard } from "../launcher/launch.ts";
import type { BootReport, Launched } from "../launcher/launcher.ts";
import { type MachineRecord, makeMachineDir, removeMachineDir, writeRecord } from "../launcher/machine-dir.ts";
import type { Target } from "../launcher/target.ts";
import {
  type ExitReport,
  FILES,
  type PausedMachine,
  type RunningMachine,
  type SavedState,
  type Vmm,
} from "../vmm/vmm.ts";
import { machineStats, type StatsBaseline } from "./machine-stats.ts";
import {
  checkpointKey,
  type MachineState,
  type MachineStats,
  type NetworkStatus,
  type SandboxMachine,
} from "./provider.ts";

/** Freezing and thawing are short; an agent that does not answer in this time has other troubles. */
const AGENT_STEP_LIMIT_MS = 10_000;
/** The saved state of a suspended machine, or of one that came back from it: its next difference stands on that. */
const SUSPEND_DIR = "suspended";

/** Directory of a machine that is about to take the place of sandbox `id`'s. */
export function besideId(id: string): string {
  return `${id}-next`;
}

/** What the machine needs from the provider that made it. */
export interface MachineHost {
  readonly vmm: Vmm;
  readonly tmp: string;
  readonly network: Network;
  /** Publishes a finished directory as a snapshot and gives its key. */
  publish(work: string, machine: MicrovmMachine, kind: "checkpoint" | "fork", name: string): Promise<string>;
  startFork(
    key: string,
    id: string,
    options: { env: Record<string, string>; allowedHosts: readonly string[]; signal?: AbortSignal },
  ): Promise<SandboxMachine>;
  startBeside(key: string, id: string, names: Omit<Identity, "entropy">): Promise<Launched>;
  /** Where a published snapshot lies. */
  snapshotDir(key: string): string;
  collectFork(key: string): Promise<void>;
  /** A program in the guest asked for a host that it may not connect to. */
  refused(id: string, refused: Refused): void;
  forget(machine: MicrovmMachine): void;
}

export interface MachineParts {
  id: string;
  dir: string;
  record: MachineRecord;
  target: Target;
  boot: BootReport;
  /** Absent while suspended. */
  machine?: RunningMachine | PausedMachine;
  /** Connected, when there is a running machine. */
  agent?: Agent;
  releaseSnapshot(): void;
}

export class MicrovmMachine implements SandboxMachine {
  readonly id: string;
  readonly boot: BootReport;
  readonly target: Target;
  readonly exited: Promise<ExitReport>;
  readonly #host: MachineHost;
  readonly #dir: string;
  readonly #record: MachineRecord;
  readonly #exited = Promise.withResolvers<ExitReport>();
  readonly #agent: ReconnectingAgent;
  readonly #egress: Egress;
  #releaseSnapshot: () => void;
  readonly #baseline: StatsBaseline = {};
  #machine: RunningMachine | PausedMachine | undefined;
  #state: MachineState;
  #ending: Promise<void> | undefined;
  /** Transitions run one after another; commands and files do not wait for them. */
  #transition: Promise<unknown> = Promise.resolve();

  constructor(host: MachineHost, parts: MachineParts) {
    this.#host = host;
    this.id = parts.id;
    this.boot = parts.boot;
    this.target = parts.target;
    this.#dir = parts.dir;
    this.#record = parts.record;
    this.#machine = parts.machine;
    this.#releaseSnapshot = parts.releaseSnapshot;
    this.#state = parts.machine === undefined ? "suspended" : parts.machine.state;
    this.exited = this.#exited.promise;
    this.#agent = reconnectingAgent((signal) => this.#connect(signal), parts.agent);
    this.#egress = host.network.egress(
      this.#record.allowedHosts ?? [],
      (port, options) => this.#agent.accept(port, options),
      (refused) => host.refused(this.id, refused),
    );
    if (parts.machine !== undefined) this.#watch(parts.machine);
    if (this.#state === "running") this.#egress.start();
  }

  get state(): MachineState {
    return this.#state;
  }

  get agent(): Agent {
    return this.#agent;
  }

  get process(): ProcessRecord | undefined {
    return this.#machine?.record;
  }

  get network(): NetworkStatus {
    return { allowedHosts: this.#record.allowedHosts ?? [], ...this.#egress.status };
  }

  allow(hosts: readonly string[]): Promise<void> {
    return this.#exclusively(async () => {
      this.#egress.allow(this.#host.network.rules(hosts));
      const { identity } = this.#record;
      identity.env = networkEnvironment(hosts, identity.env);
      if (hosts.length > 0) this.#record.allowedHosts = [...hosts];
      else {
        delete this.#record.allowedHosts;
        const ours = Object.entries(PROXY_ENVIRONMENT);
        for (const [name, value] of ours) if (identity.env[name] === value) delete identity.env[name];
      }
      // One that does not run learns its environment when it runs again.
      if (this.#state === "running") await this.#agent.identify({ ...this.#names(), entropy: freshEntropy() });
      await this.#save();
    });
  }

  pause(): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#state === "paused") return;
      const machine = this.#running();
      if (!this.#host.vmm.abilities.pauseResume) {
        throw new StacyError("not-supported", "this version of the machine monitor cannot pause safely", {
          remedy: "use suspend, or another version (see `stacyvm doctor`)",
        });
      }
      this.#machine = await machine.pause();
      this.#state = "paused";
      await this.#save();
    });
  }

  resume(): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#state === "running") return;
      if (this.#state === "suspended") return this.#wake();
      const machine = this.#machine;
      if (machine === undefined || machine.state !== "paused") throw this.#gone();
      this.#machine = await machine.resume();
      this.#state = "running";
      // The guest's clock stood still.
      await this.#agent.identify({ ...this.#names(), entropy: freshEntropy() });
      this.#egress.start();
      await this.#save();
    });
  }

  suspend(): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#state === "suspended") return;
      const machine = this.#machine;
      if (machine === undefined) throw this.#gone();
      this.#egress.stop();
      await this.#agent.disconnect();
      const paused = machine.state === "paused" ? machine : await machine.pause();
      const out = join(this.#dir, SUSPEND_DIR);
      const work = `${out}.new`;
      try {
        await rm(work, { recursive: true, force: true });
        await makeMachineDir(work, this.target.image.base);
        const saved = await paused.save(work, parentOf(this.#record));
        await copySparse(join(this.#dir, FILES.rootfs), join(work, FILES.rootfs));
        await saved.finish();
        // Only now: an earlier state is what this one's difference was laid over.
        await rm(out, { recursive: true, force: true });
        await rename(work, out);
      } catch (error) {
        // Nothing is lost: it goes on where it stood.
        this.#machine = await paused.resume();
        this.#state = "running";
        this.#egress.start();
        await rm(work, { recursive: true, force: true });
        throw error;
      }
      this.#state = "suspended";
      this.#machine = undefined;
      // First the record, then the end of the process: a crash in between must find the saved state.
      await this.#save();
      await paused.kill();
      await rm(join(this.#dir, FILES.rootfs), { force: true });
    });
  }

  async #wake(): Promise<void> {
    const { vmm } = this.#host;
    const from = join(this.#dir, SUSPEND_DIR);
    await rm(join(this.#dir, FILES.rootfs), { force: true });
    await copySparse(join(from, FILES.rootfs), join(this.#dir, FILES.rootfs));
    const loadable = await vmm.prepareLoad({
      dir: this.#dir,
      config: this.target.config,
      memory: "private",
      snapshot: { dir: from },
    });
    const machine = await loadable.load({ dir: from, trackDirty: true });
    this.#record.parent = from;
    this.#machine = machine;
    this.#state = "running";
    this.#watch(machine);
    await this.#agent.identify({ ...this.#names(), entropy: freshEntropy() });
    this.#egress.start();
    await this.#save();
  }

  fork(
    ids: string[],
    options: { env?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<{ machines: SandboxMachine[]; stoppedMs: number }> {
    return this.#exclusively(async () => {
      const { key, stoppedMs } = await this.#saveRunning("fork", `fork of ${this.id}`);
      const inherited = {
        ...options,
        env: { ...this.#record.identity.env, ...options.env },
        allowedHosts: this.#record.allowedHosts ?? [],
      };
      const results = await Promise.allSettled(ids.map((id) => this.#host.startFork(key, id, inherited)));
      const machines = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
      const failed = results.find((result) => result.status === "rejected");
      if (failed !== undefined) {
        // All or none: a caller that asked for three must not have to find out which one is missing.
        await Promise.all(machines.map((machine) => machine.destroy()));
        await this.#host.collectFork(key);
        throw failed.reason;
      }
      return { machines, stoppedMs };
    });
  }

  checkpoint(checkpointId: string): Promise<{ bytes: number; stoppedMs: number }> {
    return this.#exclusively(async () => {
      const { stoppedMs, bytes } = await this.#saveRunning("checkpoint", checkpointId);
      return { bytes, stoppedMs };
    });
  }

  restore(checkpointId: string): Promise<void> {
    return this.#exclusively(async () => {
      const key = checkpointKey(checkpointId);
      const next = await this.#host.startBeside(key, this.id, this.#names());
      try {
        // The next daemon finds it by this, should we die between here and the last rename.
        const record: MachineRecord = { ...this.#record, key, process: next.machine.record, state: "running" };
        await writeRecord(next.dir, { ...record, parent: this.#host.snapshotDir(key) });
        // The new machine's next caller opens the channel anew.
        await next.agent.close();
      } catch (error) {
        await discard(next.dir, next.machine);
        next.releaseSnapshot();
        throw error;
      }
      const old = this.#machine;
      const releaseOld = this.#releaseSnapshot;
      this.#machine = next.machine;
      this.#state = "running";
      this.#releaseSnapshot = () => {
        next.releaseSnapshot();
        void this.#host.collectFork(key);
      };
      this.#egress.stop();
      await this.#agent.disconnect();
      await old?.kill();
      await removeMachineDir(this.#dir);
      await rename(next.dir, this.#dir);
      next.machine.relocate(this.#dir);
      releaseOld();
      Object.assign(this.#record, { key, parent: this.#host.snapshotDir(key) });
      this.#watch(next.machine);
      this.#egress.start();
      await this.#save();
    });
  }

  /** Saves the running machine beside itself; its processes stand still in the copy until the next handshake. */
  async #saveRunning(
    kind: "checkpoint" | "fork",
    name: string,
  ): Promise<{ key: string; stoppedMs: number; bytes: number }> {
    const wasPaused = this.#state === "paused";
    if (!this.#host.vmm.abilities.saveClone) {
      throw new StacyError("not-supported", "this version of the machine monitor cannot save a running machine");
    }
    if (wasPaused) await this.#resumeForSave();
    const machine = this.#running();
    const owner = await ownRecord();
    await mkdir(this.#host.tmp, { recursive: true });
    // The name says whose it is, so that the next start can clear it away when we die.
    const work = join(this.#host.tmp, `${kind}-${randomBytes(4).toString("hex")}-${owner.pid}-${owner.startTime}`);
    try {
      await makeMachineDir(work, this.target.image.base);
      await machine.prepareSave(parentOf(this.#record));
      // From here on the user's processes stand still: in the guest first, then with it.
      const stopped = performance.now();
      let saved: SavedState;
      try {
        saved = await this.#saveFrozen(machine, work);
      } catch (error) {
        // Whatever failed, they go on; the first error says more than one of this.
        await this.#thaw().catch(() => {});
        throw error;
      }
      await this.#thaw();
      const stoppedMs = performance.now() - stopped;
      await saved.finish();
      const key = await this.#host.publish(work, this, kind, name);
      return { key, stoppedMs, bytes: saved.stateBytes + saved.memoryBytes };
    } finally {
      await removeMachineDir(work);
      if (wasPaused && this.#machine?.state === "running") {
        this.#machine = await this.#machine.pause();
        this.#state = "paused";
      }
    }
  }

  async #saveFrozen(machine: RunningMachine, work: string): Promise<SavedState> {
    await limited(this.#agent.freeze(), "freezing the guest's processes");
    if (!this.#host.vmm.abilities.saveKeepsChannel) {
      this.#egress.stop();
      await this.#agent.disconnect();
    }
    const paused = await machine.pause();
    try {
      const saved = await paused.save(work, parentOf(this.#record));
      await copySparse(join(this.#dir, FILES.rootfs), join(work, FILES.rootfs));
      return saved;
    } finally {
      this.#machine = await paused.resume();
    }
  }

  async #thaw(): Promise<void> {
    await limited(this.#agent.thaw(), "thawing the guest's processes");
    this.#egress.start();
  }

  async #resumeForSave(): Promise<void> {
    if (this.#machine?.state !== "paused") return;
    this.#machine = await this.#machine.resume();
    this.#state = "running";
  }

  console(lines: number): Promise<string[]> {
    return tailLines(join(this.#dir, FILES.console), lines);
  }

  stats(): Promise<MachineStats> {
    return machineStats(
      this.#machine?.record.pid,
      this.target.config.memoryMiB,
      join(this.#dir, FILES.rootfs),
      this.#baseline,
    );
  }

  destroy(): Promise<void> {
    this.#ending ??= (async () => {
      this.#egress.stop();
      await this.#agent.close();
      await this.#machine?.kill();
      this.#machine = undefined;
      this.#state = "exited";
      this.#releaseSnapshot();
      this.#host.forget(this);
      await removeMachineDir(this.#dir);
    })().catch((error: unknown) => {
      // Whoever asks again must get another attempt, not this one's failure.
      this.#ending = undefined;
      throw error;
    });
    return this.#ending;
  }

  async release(): Promise<void> {
    this.#ending ??= Promise.resolve();
    this.#host.forget(this);
    this.#egress.stop();
    await this.#agent.close();
    await this.#machine?.release();
  }

  /** Writes `sandbox.json` as things stand. */
  async #save(): Promise<void> {
    this.#record.process = this.#machine?.record ?? null;
    this.#record.state = this.#state === "exited" ? "running" : this.#state;
    await writeRecord(this.#dir, this.#record);
  }

  save(): Promise<void> {
    return this.#save();
  }

  #names(): MachineRecord["identity"] & { sandboxId: string; bootId: string } {
    return { sandboxId: this.id, ...this.#record.identity };
  }

  #running(): RunningMachine {
    const machine = this.#machine;
    if (machine === undefined) throw this.#gone();
    if (machine.state !== "running") {
      throw new StacyError("conflict", `sandbox ${this.id} is paused`, { remedy: "resume it first" });
    }
    return machine;
  }

  #gone(): StacyError {
    return new StacyError("not-found", `the machine of sandbox ${this.id} is gone`);
  }

  async #connect(signal: AbortSignal): Promise<Agent> {
    if (this.#state === "suspended")
      throw new StacyError("conflict", `sandbox ${this.id} is suspended`, { remedy: "resume it first" });
    return openAgent(() => this.#running().connectAgent({ signal }), { signal });
  }

  #watch(machine: RunningMachine | PausedMachine): void {
    void machine.exited.then((report) => {
      // An end that we asked for (destroy, suspend) is not news.
      if (this.#ending !== undefined || this.#machine?.record.pid !== machine.record.pid) return;
      this.#machine = undefined;
      this.#state = "exited";
      this.#egress.stop();
      void this.#agent.close();
      this.#releaseSnapshot();
      this.#exited.resolve(report);
    });
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#transition.then(() => {
      if (this.#ending !== undefined) throw this.#gone();
      return work();
    });
    this.#transition = next.catch(() => {});
    return next;
  }
}

function freshEntropy(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(64));
}

function parentOf(record: MachineRecord): { parent?: string } {
  return record.parent === undefined ? {} : { parent: record.parent };
}

async function limited<T>(work: Promise<T>, doing: string): Promise<T> {
  const late = (): StacyError => new StacyError("timeout", `${doing} took more than ${AGENT_STEP_LIMIT_MS} ms`);
  try {
    return await within(work, AGENT_STEP_LIMIT_MS, late);
  } catch (error) {
    throw asStacyError(error).inPhase("freeze");
  }
}
