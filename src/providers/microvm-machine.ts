/**
 * One sandbox's machine: its states, and the ways between them. What is on disk at each step of a change, and what the next daemon
 * makes of it, is one page: docs/crash-protocol.md. The steps here carry its names.
 *
 * Changes come one at a time (the queue is the sandbox's). The end may come beside one: it takes the monitor away, so that
 * whatever waits for it fails at once, lets the change clean up behind itself, and removes what is left.
 */
import { rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Egress, networkEnvironment, PROXY_ENVIRONMENT } from "../egress/network.ts";
import type { Agent } from "../guest/agent.ts";
import { openAgent } from "../guest/client.ts";
import { type ReconnectingAgent, reconnectingAgent } from "../guest/reconnecting-agent.ts";
import { syncPath } from "../host/durable.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import type { ProcessRecord } from "../host/process.ts";
import { copySparse } from "../host/sparse.ts";
import { tailLines } from "../host/tail.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import { discard } from "../launcher/launch.ts";
import type { BootReport } from "../launcher/launcher.ts";
import { type MachineRecord, removeMachineDir, writeFirstRecord, writeRecord } from "../launcher/machine-dir.ts";
import { SavedWork } from "../launcher/saved.ts";
import { SuspendedState } from "../launcher/suspended.ts";
import type { Target } from "../launcher/target.ts";
import { type ExitReport, FILES, type PausedMachine, type RunningMachine, type VmmProcess } from "../vmm/vmm.ts";
import { machineStats, type StatsBaseline } from "./machine-stats.ts";
import type { MachineContext } from "./microvm.ts";
import {
  type ChangeOptions,
  checkpointKey,
  type MachineState,
  type MachineStats,
  type NetworkStatus,
  type SandboxMachine,
} from "./provider.ts";

/** Freezing, thawing and handshakes take milliseconds; a guest that does not answer in this time has other troubles. */
const AGENT_STEP_LIMIT_MS = 15_000;
/** So long a change waits for the guest's processes to go on; the attempts themselves go on until they do. */
const THAW_WAIT_MS = 30_000;
const RESUME_ATTEMPTS = 4;
const THAW_PAUSE_MS = { first: 50, most: 5_000 };

/** Directory of a machine that is about to take the place of sandbox `id`'s. */
export function nextId(id: string): string {
  return `${id}-next`;
}

/** Directory of a machine whose place another one has taken. */
export function formerId(id: string): string {
  return `${id}-former`;
}

/** Where the machine is in its life; what can be done is in the types. */
type Life =
  | { state: "running"; machine: RunningMachine }
  | { state: "paused"; machine: PausedMachine }
  /** It runs, but its guest does not know yet that it was away: to everybody else it still is where it came from. */
  | { state: "returning"; from: "paused" | "suspended"; machine: RunningMachine }
  | { state: "suspended" }
  | { state: "exited" };

export interface MachineParts {
  dir: string;
  record: MachineRecord;
  target: Target;
  boot: BootReport;
  /** Absent while suspended. */
  machine?: RunningMachine | PausedMachine;
  /** Connected, when there is a running machine. */
  agent?: Agent;
  /** Gives back the snapshot that it runs from. */
  releaseSnapshot(): void;
}

export class MicrovmMachine implements SandboxMachine {
  readonly id: string;
  readonly boot: BootReport;
  readonly target: Target;
  readonly exited: Promise<ExitReport>;
  readonly #context: MachineContext;
  readonly #record: MachineRecord;
  readonly #exited = Promise.withResolvers<ExitReport>();
  readonly #agent: ReconnectingAgent;
  readonly #egress: Egress;
  readonly #baseline: StatsBaseline = {};
  /** Where it belongs. */
  readonly #place: string;
  /** Where it is: beside its place only if a move failed. */
  #dir: string;
  #life: Life;
  #releaseSnapshot: () => void;
  /** Aborted when this daemon has nothing more to do with it. */
  readonly #over = new AbortController();
  #change: Promise<void> | undefined;
  #end: Promise<void> | undefined;
  /** The guest's processes stand still, and it has not confirmed yet that they go on. */
  #frozen = false;
  #thawing: { done: Promise<void>; stop: AbortController } | undefined;
  /** A monitor of ours that would not die; nothing may start before it has. */
  #dying: VmmProcess | undefined;

  constructor(context: MachineContext, parts: MachineParts) {
    this.#context = context;
    this.id = parts.record.id;
    this.boot = parts.boot;
    this.target = parts.target;
    this.#dir = parts.dir;
    this.#place = parts.dir;
    this.#record = parts.record;
    this.#releaseSnapshot = parts.releaseSnapshot;
    this.#life = lifeOf(parts.machine);
    this.exited = this.#exited.promise;
    this.#agent = reconnectingAgent((signal) => this.#connect(signal), parts.agent);
    this.#egress = context.network.egress(this.#record.allowedHosts ?? [], this.#agent, {
      id: this.id,
      authority: this.#record.authority,
      refused: (refused) => context.emit({ type: "network.refused", sandboxId: this.id, data: { ...refused } }),
    });
    if (parts.machine !== undefined) this.#watch(parts.machine);
    if (this.#life.state === "running") this.#egress.start();
  }

  get state(): MachineState {
    return this.#life.state === "returning" ? this.#life.from : this.#life.state;
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

  allow(hosts: readonly string[], options: ChangeOptions = {}): Promise<void> {
    return this.#exclusively(options, async () => {
      const rules = this.#context.network.rules(hosts);
      const { allowedHosts = [] } = this.#record;
      const { env } = this.#record.identity;
      this.#setHosts(hosts, networkEnvironment(hosts, env));
      try {
        await this.#write(this.#record.state);
        // One that does not run learns its environment when it runs again.
        if (this.#life.state === "running") await this.#identify();
      } catch (error) {
        this.#setHosts(allowedHosts, env);
        await this.#write(this.#record.state).catch(() => {}); // the first error says more
        throw error;
      }
      this.#egress.allow(rules);
    });
  }

  secretsChanged(): void {
    this.#egress.secretsChanged();
  }

  #setHosts(hosts: readonly string[], env: Record<string, string>): void {
    const { identity } = this.#record;
    identity.env = { ...env };
    if (hosts.length > 0) this.#record.allowedHosts = [...hosts];
    else {
      delete this.#record.allowedHosts;
      const ours = Object.entries(PROXY_ENVIRONMENT);
      for (const [name, value] of ours) if (identity.env[name] === value) delete identity.env[name];
    }
  }

  pause(options: ChangeOptions = {}): Promise<void> {
    return this.#exclusively(options, async () => {
      if (this.state === "paused") return;
      const { machine } = this.#running();
      if (!this.#context.launcher.vmm.abilities.pauseResume) {
        throw new StacyError("not-supported", "this version of the machine monitor cannot pause safely", {
          remedy: "use suspend, or another version (see `stacyvm doctor`)",
        });
      }
      const paused = await machine.pause(); // U1
      this.#become({ state: "paused", machine: paused });
      try {
        await this.#write("paused"); // U2
      } catch (error) {
        await this.#goOn(paused);
        throw error;
      }
    });
  }

  resume(options: ChangeOptions = {}): Promise<void> {
    return this.#exclusively(options, async (signal) => {
      const life = this.#life;
      if (life.state === "running") return;
      if (life.state === "suspended") return this.#wake(signal);
      if (life.state === "exited") throw this.#gone();
      // Running again already when an earlier attempt got no further than that.
      const machine = life.state === "returning" ? life.machine : await life.machine.resume(); // R1
      this.#become({ state: "returning", from: "paused", machine });
      try {
        await this.#identify(); // R2: its clock stood still
        await this.#write("running"); // R3
        this.#become({ state: "running", machine });
      } catch (error) {
        if (this.#life.state === "returning") {
          const paused = await machine.pause().catch(() => undefined);
          if (paused !== undefined && this.#life.state === "returning")
            this.#life = { state: "paused", machine: paused };
          await this.#write("paused").catch(() => {}); // it may say `running` there
        }
        throw error;
      }
      this.#egress.start();
    });
  }

  suspend(options: ChangeOptions = {}): Promise<void> {
    return this.#exclusively(options, async (signal) => {
      if (this.state === "suspended") return;
      const before = this.#alive();
      const suspended = new SuspendedState(this.#dir);
      let paused: PausedMachine | undefined;
      let committed = false;
      try {
        this.#egress.stop();
        await this.#agent.disconnect();
        paused = before.state === "paused" ? before : await before.pause({ toSave: true }); // S1
        this.#become({ state: "paused", machine: paused });
        await suspended.save(paused, this.target.image.base); // S2
        this.#counts(signal);
        committed = true;
        await suspended.commit(); // S3
        await this.#write("suspended"); // S4
      } catch (error) {
        await suspended.discard(committed).catch(() => {});
        // Nothing is lost: it goes on where it stood.
        if (before.state === "running") await this.#goOn(paused);
        else if (committed) await this.#write("paused").catch(() => {}); // it may say `suspended` there
        throw error;
      }
      this.#life = { state: "suspended" };
      await this.#kill(paused); // S5
      await rm(join(this.#dir, FILES.rootfs), { force: true }).catch(() => {}); // the next wake writes it anew
    });
  }

  async #wake(signal: AbortSignal): Promise<void> {
    await this.#dying?.kill();
    const suspended = new SuspendedState(this.#dir);
    await suspended.verify(); // W1
    const disk = join(this.#dir, FILES.rootfs);
    await rm(disk, { force: true });
    const from = suspended.dir;
    let loading: VmmProcess | undefined;
    const stop = (): void => void this.#kill(loading);
    signal.addEventListener("abort", stop, { once: true });
    try {
      await copySparse(join(from, FILES.rootfs), disk); // W2
      const loadable = await this.#context.launcher.vmm.prepareLoad({
        ...{ dir: this.#dir, config: this.target.config, memory: "private", snapshot: { dir: from } },
        signal,
      });
      loading = loadable;
      this.#counts(signal);
      const machine = await loadable.load({ dir: from, trackDirty: true }); // W3
      loading = machine;
      this.#counts(signal);
      this.#become({ state: "returning", from: "suspended", machine });
      await this.#identify(); // W4
      await this.#write("running"); // W5
      this.#become({ state: "running", machine });
      this.#watch(machine);
    } catch (error) {
      // What is saved is what counts, and it is as it was.
      this.#life = { state: "suspended" };
      await this.#agent.disconnect();
      await this.#kill(loading);
      await this.#write("suspended").catch(() => {}); // it may say `running` there
      await rm(disk, { force: true }).catch(() => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
    this.#egress.start();
  }

  fork(
    ids: string[],
    options: ChangeOptions & { env?: Record<string, string> } = {},
  ): Promise<{ machines: SandboxMachine[]; stoppedMs: number }> {
    return this.#exclusively(options, async (signal) => {
      const { launcher } = this.#context;
      const key = forkKey();
      const { stoppedMs } = await this.#saveRunning("fork", key, signal);
      // Held until the children are there: the first of them that ends must not take it from the others.
      const release = launcher.store.use(key);
      try {
        const env = { ...this.#record.identity.env, ...options.env };
        const allowedHosts = this.#record.allowedHosts ?? [];
        const start = async (id: string): Promise<SandboxMachine> => {
          const network = allowedHosts.length > 0;
          const launched = await launcher.launchSaved(key, "fork", { id, env, network, trackDirty: true, signal });
          // What the parent's programs trust, its copies' do.
          const { authority } = this.#record;
          return this.#context.own(launched, { id, allowedHosts, authority });
        };
        const results = await Promise.allSettled(ids.map(start)); // F7
        const machines = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
        const failed = results.find((result) => result.status === "rejected");
        if (failed !== undefined) {
          // All or none: a caller that asked for three must not have to find out which one is missing.
          await Promise.allSettled(machines.map((machine) => machine.destroy()));
          throw failed.reason;
        }
        return { machines, stoppedMs };
      } finally {
        release();
      }
    });
  }

  checkpoint(checkpointId: string, options: ChangeOptions = {}): Promise<{ bytes: number; stoppedMs: number }> {
    return this.#exclusively(options, (signal) => this.#saveRunning("checkpoint", checkpointKey(checkpointId), signal));
  }

  restore(checkpointId: string, options: ChangeOptions = {}): Promise<void> {
    return this.#exclusively(options, async (signal) => {
      if (this.#life.state === "exited") throw this.#gone();
      const { launcher } = this.#context;
      const key = checkpointKey(checkpointId);
      await this.#dying?.kill();
      await this.#takePlace(); // what an earlier restore left undone
      const names = this.#names();
      const next = await launcher.launchSaved(key, "checkpoint", {
        ...{ id: nextId(this.id), names, trackDirty: true, signal },
      }); // B1
      const former = this.#life;
      let replaced = false;
      try {
        // From here on the next daemon finds it: it is the sandbox's as soon as the old one is dead.
        await writeRecord(next.dir, {
          ...{ ...this.#record, key, process: next.machine.record, state: "running" },
        }); // B2
        // The new machine's next caller opens the channel anew.
        await next.agent.close();
        this.#egress.stop();
        await this.#agent.disconnect();
        this.#counts(signal);
        // Not the end of this sandbox's machine: whoever watches the old one must see the new one in its place.
        this.#become({ state: "running", machine: next.machine });
        replaced = true;
        if ("machine" in former) await former.machine.kill(); // B3
      } catch (error) {
        if (replaced) this.#life = former;
        await discard(next.dir, next.machine);
        next.releaseSnapshot();
        if (this.#life.state === "running" && !this.#over.signal.aborted) this.#egress.start();
        throw error;
      }
      const releaseFormer = this.#releaseSnapshot;
      this.#releaseSnapshot = next.releaseSnapshot;
      this.#dir = next.dir;
      this.#frozen = false;
      this.#record.key = key;
      this.#watch(next.machine);
      releaseFormer();
      try {
        await this.#takePlace(); // B4
        await this.#write("running"); // B5
      } finally {
        // It runs, wherever it is.
        if (this.#life.state === "running" && !this.#over.signal.aborted) this.#egress.start();
      }
    });
  }

  /** Moves from beside its place into it, if it is not there. */
  async #takePlace(): Promise<void> {
    if (this.#dir === this.#place) return;
    const root = dirname(this.#place);
    const former = join(root, formerId(this.id));
    await removeMachineDir(former);
    await rename(this.#place, former).catch((error: unknown) => {
      if (errno(error) !== "ENOENT") throw error; // moved away by the attempt before
    });
    await rename(this.#dir, this.#place);
    this.#dir = this.#place;
    this.#machine?.relocate(this.#place);
    await syncPath(root);
    await removeMachineDir(former);
  }

  /** Saves the running machine beside itself; its processes stand still in the copy until the next handshake. */
  async #saveRunning(
    kind: "checkpoint" | "fork",
    key: string,
    signal: AbortSignal,
  ): Promise<{ stoppedMs: number; bytes: number }> {
    const { launcher } = this.#context;
    if (!launcher.vmm.abilities.saveClone) {
      throw new StacyError("not-supported", "this version of the machine monitor cannot save a running machine");
    }
    const before = this.#alive();
    await using work = await SavedWork.begin(launcher.paths.tmp, kind, this.target); // F1
    const machine = before.state === "paused" ? await before.resume() : before;
    if (before.state === "paused") this.#become({ state: "returning", from: "paused", machine });
    let stoppedMs: number;
    try {
      await machine.prepareSave();
      this.#counts(signal);
      // From here on the user's processes stand still: in the guest first, then with it.
      const stopped = performance.now();
      const saving = this.#standingStill(machine, (paused) => work.save(paused));
      await saving.catch(() => {});
      const thawed = await this.#thaw().catch(asStacyError); // F6
      await saving; // its error says more than one of the thaw
      if (thawed !== undefined) throw thawed;
      stoppedMs = performance.now() - stopped;
    } finally {
      // It was paused before, and is again.
      if (this.#life.state === "returning") {
        this.#become({ state: "paused", machine: await this.#life.machine.pause() });
      }
    }
    this.#counts(signal);
    const bytes = await work.publish(launcher.store, { key, kind, origin: this.id });
    return { stoppedMs, bytes };
  }

  /** Freezes the guest, stops it, does the work, and lets it go on, whatever becomes of the work. */
  async #standingStill(machine: RunningMachine, work: (paused: PausedMachine) => Promise<void>): Promise<void> {
    this.#frozen = true;
    await limited(this.#agent.freeze(), "freezing the guest's processes"); // F2
    if (!this.#context.launcher.vmm.abilities.saveKeepsChannel) {
      this.#egress.stop();
      await this.#agent.disconnect();
    }
    const before = this.#life;
    const paused = await machine.pause({ toSave: true }); // F3
    this.#become({ state: "paused", machine: paused });
    const working = work(paused); // F4
    await working.catch(() => {});
    const going = await this.#resumeAgain(paused); // F5
    this.#become(
      before.state === "returning"
        ? { state: "returning", from: before.from, machine: going }
        : { state: "running", machine: going },
    );
    await working;
  }

  /** One monitor that does not answer once must not make the machine stand still for good. */
  async #resumeAgain(paused: PausedMachine): Promise<RunningMachine> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await paused.resume();
      } catch (error) {
        if (attempt === RESUME_ATTEMPTS || this.#over.signal.aborted || this.#life.state === "exited") throw error;
        await delay(100 * attempt);
      }
    }
  }

  /**
   * Asks the guest to let its processes go on, over new connections too, until it confirms it. Rejects when that takes long; the
   * attempts go on beside, until the next change or the end.
   */
  async #thaw(): Promise<void> {
    if (!this.#frozen) return;
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, this.#over.signal]);
    const done = (async () => {
      for (let pause = THAW_PAUSE_MS.first; !signal.aborted; pause = Math.min(2 * pause, THAW_PAUSE_MS.most)) {
        if (!("machine" in this.#life) || this.#life.state === "paused") return; // whoever brings it back thaws it
        try {
          await limited(this.#agent.thaw(), "thawing the guest's processes");
          this.#frozen = false;
          return;
        } catch (error) {
          // A guest that cannot freeze has nothing to thaw.
          if (asStacyError(error).code === "not-supported") return;
          await this.#agent.disconnect();
          await delay(pause, undefined, { signal }).catch(() => {});
        }
      }
    })();
    this.#thawing = { done, stop };
    const late = (): StacyError =>
      new StacyError("timeout", "the guest does not let its processes go on; it is asked again and again", {
        phase: "freeze",
      });
    await withTimeLimit(done, THAW_WAIT_MS, late);
    if (this.#life.state === "running") this.#egress.start();
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

  destroy(why?: StacyError): Promise<void> {
    this.#end ??= this.#destroy(why).catch((error: unknown) => {
      // Whoever asks again must get another attempt, not this one's failure.
      this.#end = undefined;
      throw error;
    });
    return this.#end;
  }

  async #destroy(why: StacyError = this.#gone()): Promise<void> {
    this.#letGo();
    // First the monitor: whatever waits for it, or for the guest, fails at once.
    await Promise.all([this.#agent.close(why), this.#machine?.kill()]);
    await this.#change;
    // A change may have brought another one in the meantime, or left one behind.
    await Promise.all([this.#machine?.kill(), this.#dying?.kill()]);
    this.#life = { state: "exited" };
    this.#releaseSnapshot();
    const root = dirname(this.#place);
    const beside = [nextId(this.id), formerId(this.id)].map((name) => join(root, name));
    await Promise.all([this.#place, ...beside].map(removeMachineDir));
    this.#context.forget(this);
  }

  async release(): Promise<void> {
    this.#letGo();
    this.#end ??= Promise.resolve();
    this.#context.forget(this);
    const stops = new StacyError("disconnected", `the server stops; sandbox ${this.id} goes on`, {
      remedy: "ask again when it is back, and attach to the command",
      data: { ended: "server-stop" },
    });
    await this.#agent.close(stops);
    await this.#machine?.release();
  }

  #letGo(): void {
    this.#over.abort(this.#gone());
    this.#egress.stop();
  }

  /** The record of a new machine; if it cannot be written, the machine is ended. */
  async begin(): Promise<void> {
    try {
      await writeFirstRecord(this.#dir, this.#record); // P4
    } catch (error) {
      await this.destroy();
      throw asStacyError(error, "internal", { phase: "record" });
    }
  }

  /** Writes `sandbox.json` as things are; the state is what the next daemon makes it again. */
  async #write(state: MachineRecord["state"]): Promise<void> {
    const before = { process: this.#record.process, state: this.#record.state };
    this.#record.process = this.#machine?.record ?? null;
    this.#record.state = state;
    try {
      await writeRecord(this.#dir, this.#record);
    } catch (error) {
      Object.assign(this.#record, before);
      throw error;
    }
  }

  get #machine(): RunningMachine | PausedMachine | undefined {
    return "machine" in this.#life ? this.#life.machine : undefined;
  }

  /** The next state, unless the machine ended while the change waited for something. */
  #become(life: Life): void {
    if (this.#life.state === "exited" || this.#over.signal.aborted) throw this.#gone();
    this.#life = life;
  }

  /** A change looks after each of its waits whether it still counts. */
  #counts(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#life.state === "exited") throw this.#gone();
  }

  /** After a change that failed: it runs on. What stands still all the same is `paused`, and `resume` brings it back. */
  async #goOn(paused: PausedMachine | undefined): Promise<void> {
    if (this.#life.state === "exited" || this.#over.signal.aborted) return;
    try {
      if (paused !== undefined && this.#life.state === "paused") {
        this.#become({ state: "running", machine: await paused.resume() });
      }
      this.#egress.start();
      // Also when it says so here: the write that failed may have reached the disk.
      await this.#write("running");
    } catch {} // the first error says more
  }

  /** Ends a monitor whose machine is not needed any more; one that resists is tried again before anything else starts. */
  async #kill(process: VmmProcess | undefined): Promise<void> {
    if (process === undefined) return;
    this.#dying = process;
    try {
      await process.kill();
      this.#dying = undefined;
    } catch {} // kept in `#dying`
  }

  #names(): MachineRecord["identity"] & { sandboxId: string; bootId: string; network: boolean } {
    const network = (this.#record.allowedHosts?.length ?? 0) > 0;
    return { sandboxId: this.id, network, ...this.#record.identity };
  }

  /** Clock, entropy and names anew, and whatever stood still goes on. */
  async #identify(): Promise<void> {
    const entropy = crypto.getRandomValues(new Uint8Array(64));
    await limited(this.#agent.identify({ ...this.#names(), entropy, thaw: true }), "telling the guest who it is");
    this.#frozen = false;
  }

  #running(): { machine: RunningMachine } {
    const life = this.#life;
    if (life.state === "running" || life.state === "returning") return life;
    if (life.state === "exited") throw this.#gone();
    throw new StacyError("conflict", `sandbox ${this.id} is ${life.state}`, { remedy: "resume it first" });
  }

  #alive(): RunningMachine | PausedMachine {
    if (this.#life.state === "suspended") this.#running(); // throws and says so
    if (!("machine" in this.#life)) throw this.#gone();
    return this.#life.machine;
  }

  #gone(): StacyError {
    return new StacyError("not-found", `the machine of sandbox ${this.id} is gone`);
  }

  async #connect(signal: AbortSignal): Promise<Agent> {
    return openAgent(() => this.#running().machine.connectAgent({ signal }), { signal });
  }

  #watch(machine: RunningMachine | PausedMachine): void {
    void machine.exited.then((report) => {
      // An end that we asked for (destroy, suspend, a restore in its place) is not news.
      if (this.#over.signal.aborted || this.#machine?.record.pid !== machine.record.pid) return;
      this.#life = { state: "exited" };
      this.#egress.stop();
      void this.#agent.close(
        new StacyError("machine-exited", `the machine of sandbox ${this.id} has ended by itself`, {
          data: { ended: "crash" },
        }),
      );
      this.#releaseSnapshot();
      this.#exited.resolve(report);
    });
  }

  #exclusively<T>(options: ChangeOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#over.signal.aborted) return Promise.reject(this.#gone());
    if (this.#change !== undefined) {
      return Promise.reject(new StacyError("conflict", `another change of sandbox ${this.id} is under way`));
    }
    const { signal: asked } = options;
    const signal = asked === undefined ? this.#over.signal : AbortSignal.any([asked, this.#over.signal]);
    const change = (async () => {
      this.#thawing?.stop.abort();
      await this.#thawing?.done;
      this.#counts(signal);
      return work(signal);
    })();
    const settled = (): void => {
      this.#change = undefined;
      // A change that came between the attempts to thaw the guest hands them on.
      if (this.#frozen && this.#life.state === "running") void this.#thaw().catch(() => {});
    };
    this.#change = change.then(settled, settled);
    return change;
  }
}

function lifeOf(machine: RunningMachine | PausedMachine | undefined): Life {
  if (machine === undefined) return { state: "suspended" };
  return machine.state === "running" ? { state: "running", machine } : { state: "paused", machine };
}

function forkKey(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
}

async function limited<T>(work: Promise<T>, doing: string): Promise<T> {
  const late = (): StacyError => new StacyError("timeout", `${doing} took more than ${AGENT_STEP_LIMIT_MS} ms`);
  try {
    return await withTimeLimit(work, AGENT_STEP_LIMIT_MS, late);
  } catch (error) {
    throw asStacyError(error).inPhase("freeze");
  }
}
