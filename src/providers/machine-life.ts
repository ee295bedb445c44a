/**
 * Where one sandbox's machine is in its life, its one queue of changes, and its end. The changes themselves are
 * in changes/: each is a function of this, and its steps carry the names of docs/crash-protocol.md.
 *
 * Changes come one at a time (the queue is the sandbox's). The end may come beside one: it takes the monitor away, so that
 * whatever waits for it fails at once, lets the change clean up behind itself, and removes what is left.
 */
import { rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { HostDirectory } from "../directories/directory.ts";
import { ServedDirectories } from "../directories/serving.ts";
import type { Egress } from "../egress/network.ts";
import type { Agent } from "../guest/agent.ts";
import { openAgent } from "../guest/client.ts";
import { type ReconnectingAgent, reconnectingAgent } from "../guest/reconnecting-agent.ts";
import { syncPath } from "../host/durable.ts";
import { StacyError } from "../host/error.ts";
import { isThere } from "../host/exists.ts";
import { isSameProcess } from "../host/process.ts";
import { type MachineRecord, removeMachineDir, removeWithProcesses } from "../launcher/machine-dir.ts";
import type { Target } from "../launcher/target.ts";
import type { ExitReport, PausedMachine, RunningMachine, VmmProcess } from "../vmm/vmm.ts";
import { agentStep, Freeze } from "./freeze.ts";
import type { MachineContext } from "./machine-context.ts";
import type { ChangeOptions, MachineState } from "./provider.ts";
import { RecordFile } from "./record-file.ts";
import { writesVolumes } from "./written-volumes.ts";

/** For what waits in a guest's memory to be written to its volumes. */
const CLOSE_LIMIT_MS = 15_000;

/** Directory of a machine that is about to take the place of sandbox `id`'s. */
export function nextId(id: string): string {
  return `${id}-next`;
}

/** Directory of a machine whose place another one has taken. */
export function formerId(id: string): string {
  return `${id}-former`;
}

/** The sandbox whose machine may be there: in its place, or while one takes another's. */
export function sandboxAt(dir: string): string {
  return basename(dir).replace(/-(next|former)$/, "");
}

/** Where the machine is in its life; what can be done is in the types. */
export type Life =
  | { state: "running"; machine: RunningMachine }
  | { state: "paused"; machine: PausedMachine }
  /** It runs, but its guest does not know yet that it was away: to everybody else it still is where it came from. */
  | { state: "returning"; from: "paused" | "suspended"; machine: RunningMachine }
  | { state: "suspended" }
  | { state: "exited" };

export interface LifeParts {
  dir: string;
  record: MachineRecord;
  target: Target;
  /** Absent while suspended. */
  machine?: RunningMachine | PausedMachine;
  /** Connected, when there is a running machine. */
  agent?: Agent;
  /** Gives back the snapshot that it runs from. */
  releaseSnapshot(): void;
}

export class MachineLife {
  readonly id: string;
  readonly context: MachineContext;
  target: Target;
  readonly record: MachineRecord;
  /** `sandbox.json`: `state` there is what the next daemon makes it again. */
  readonly recordFile: RecordFile;
  readonly agent: ReconnectingAgent;
  readonly egress: Egress;
  readonly directories: ServedDirectories;
  readonly freeze: Freeze;
  readonly exited: Promise<ExitReport>;
  /** Where it belongs. */
  readonly place: string;
  /** Where it is: beside its place only if a move failed. */
  dir: string;
  releaseSnapshot: () => void;
  readonly #exited = Promise.withResolvers<ExitReport>();
  /** Aborted when this daemon has nothing more to do with it. */
  readonly #over = new AbortController();
  #now: Life;
  #change: Promise<void> | undefined;
  #end: Promise<void> | undefined;
  /** A monitor of ours that would not die; nothing may start before it has. */
  #dying: VmmProcess | undefined;

  constructor(context: MachineContext, parts: LifeParts) {
    this.context = context;
    this.id = parts.record.id;
    this.target = parts.target;
    this.dir = parts.dir;
    this.place = parts.dir;
    this.record = parts.record;
    this.releaseSnapshot = parts.releaseSnapshot;
    this.#now = lifeOf(parts.machine);
    this.exited = this.#exited.promise;
    this.recordFile = new RecordFile({
      record: parts.record,
      dir: () => this.dir,
      process: () => this.machine?.record ?? null,
      over: this.#over.signal,
    });
    const limitMs = (): number => this.answerMs;
    this.agent = reconnectingAgent((signal) => this.#connect(signal), { limitMs, first: parts.agent });
    this.freeze = new Freeze({
      agent: this.agent,
      limitMs,
      runs: () => this.#now.state === "running" || this.#now.state === "returning",
      thawed: () => this.startTraffic(),
      over: this.#over.signal,
    });
    this.egress = context.network.egress(this.record.allowedHosts ?? [], this.agent, {
      id: this.id,
      authority: this.record.authority,
      refused: (refused) => context.emit({ type: "network.refused", sandboxId: this.id, data: { ...refused } }),
    });
    this.directories = new ServedDirectories(this.agent, this.record.directories ?? [], {
      ...context.directories,
      machineDir: () => this.dir,
      failed: ({ source }, error) =>
        context.emit({
          type: "directory.failed",
          sandboxId: this.id,
          data: { source, reason: error.message, ...(error.remedy === undefined ? {} : { remedy: error.remedy }) },
        }),
    });
    if (parts.machine !== undefined) this.watch(parts.machine);
    this.settle(this.#now);
    this.startTraffic();
  }

  // Where it is

  get now(): Life {
    return this.#now;
  }

  get state(): MachineState {
    return this.#now.state === "returning" ? this.#now.from : this.#now.state;
  }

  /** It has ended, or this daemon has let it go: what a change still meant to do for it is of no use. */
  get over(): boolean {
    return this.#now.state === "exited" || this.#over.signal.aborted;
  }

  get machine(): RunningMachine | PausedMachine | undefined {
    return "machine" in this.#now ? this.#now.machine : undefined;
  }

  /** As long as the guest of a loaded machine may take on this host: where KVM interprets its kernel, a wake is slow too. */
  get answerMs(): number {
    return this.context.launcher.vmm.answerMs.restored;
  }

  /** @throws StacyError `conflict`, `not-found` */
  running(): RunningMachine {
    const { state } = this.#now;
    if (state === "running" || state === "returning") return this.#now.machine;
    if (state === "exited") throw this.gone();
    throw new StacyError("conflict", `sandbox ${this.id} is ${state}`, { remedy: "resume it first" });
  }

  /** @throws StacyError `conflict` while it is suspended, `not-found` */
  alive(): RunningMachine | PausedMachine {
    return this.#now.state === "paused" ? this.#now.machine : this.running();
  }

  gone(): StacyError {
    return new StacyError("not-found", `the machine of sandbox ${this.id} is gone`);
  }

  // What a change does to it

  /** The next state. @throws StacyError when the machine ended while the change waited for something */
  become(life: Life): void {
    if (this.over) throw this.gone();
    this.settle(life);
  }

  /** What it is after all, whatever happened meanwhile. */
  settle(life: Life): void {
    this.#now = life;
    this.agent.standsStill(life.state === "paused");
  }

  /** A change looks after each of its waits whether it still counts. */
  counts(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#now.state === "exited") throw this.gone();
  }

  /**
   * After a change that failed: it runs on. What stands still all the same is `paused`, and `resume` brings it back.
   * @param recorded the change had begun to write the record
   */
  async goOn(paused: PausedMachine | undefined, recorded: boolean): Promise<void> {
    try {
      if (paused !== undefined && this.#now.state === "paused" && !this.over) {
        this.become({ state: "running", machine: await paused.resume() });
      }
      if (!this.over) this.startTraffic();
    } catch {} // the first error says more
    if (recorded) await this.recordFile.correct("running");
  }

  /** What goes in and out of a running machine goes on; also after a change that failed. */
  startTraffic(): void {
    if (this.#now.state !== "running" || this.#over.signal.aborted) return;
    this.egress.start();
    this.directories.start();
  }

  /** Before its channel is closed, or it is saved. */
  stopTraffic(): void {
    this.egress.stop();
    this.directories.stop();
  }

  /** In a new guest, before anybody's program runs in it. */
  async mountDirectories(list: readonly HostDirectory[]): Promise<void> {
    this.record.directories = [...(await this.directories.mount(list))];
    await this.recordFile.write("running");
    this.startTraffic();
  }

  /** Ends a monitor whose machine is not needed any more; one that resists is tried again before anything else starts. */
  async kill(process: VmmProcess | undefined): Promise<void> {
    if (process === undefined) return;
    this.#dying = process;
    try {
      await process.kill();
      this.#dying = undefined;
    } catch {} // kept in `#dying`
  }

  /** Before another monitor may start in its place. @throws when the former one still resists */
  async lastOneDied(): Promise<void> {
    await this.#dying?.kill();
  }

  names(): MachineRecord["identity"] & { sandboxId: string; bootId: string; network: boolean } {
    const network = (this.record.allowedHosts?.length ?? 0) > 0;
    return { sandboxId: this.id, network, ...this.record.identity };
  }

  /** Clock, entropy and names anew, and whatever stood still goes on. */
  async identify(): Promise<void> {
    const entropy = crypto.getRandomValues(new Uint8Array(64));
    const identity = { ...this.names(), entropy, thaw: true };
    await agentStep(this.agent.identify(identity, { limitMs: this.answerMs }), "telling the guest who it is");
    this.freeze.ended();
  }

  /** Whatever is in its place gives way to the machine that is beside it (B4). */
  async moveAside(): Promise<void> {
    if (!(await isThere(this.place))) return;
    const former = join(dirname(this.place), formerId(this.id));
    await removeMachineDir(former);
    await rename(this.place, former);
  }

  /** Moves from beside its place into it, if it is not there. */
  async takePlace(): Promise<void> {
    const { place } = this;
    if (this.dir === place) return;
    await this.lastOneDied(); // it works in that place
    await this.moveAside();
    await rename(this.dir, place);
    this.dir = place;
    this.machine?.relocate(place);
    const root = dirname(place);
    await syncPath(root);
    await removeMachineDir(join(root, formerId(this.id)));
  }

  watch(machine: RunningMachine | PausedMachine): void {
    machine.onVolumeFailure?.((failure) =>
      this.context.emit({ type: "volume.failed", sandboxId: this.id, data: { ...failure } }),
    );
    void machine.exited.then((report) => {
      // An end that we asked for (destroy, suspend, a restore in its place) is not news.
      if (this.#over.signal.aborted || !isSameProcess(this.machine?.record, machine.record)) return;
      this.#now = { state: "exited" };
      this.stopTraffic();
      void this.agent.close(
        new StacyError("machine-exited", `the machine of sandbox ${this.id} has ended by itself`, {
          data: { ended: "crash" },
        }),
      );
      this.releaseSnapshot();
      this.#exited.resolve(report);
    });
  }

  /** One change at a time. Its signal is aborted by the caller's, and by the end. */
  exclusively<T>(options: ChangeOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#over.signal.aborted) return Promise.reject(this.gone());
    if (this.#change !== undefined) {
      return Promise.reject(new StacyError("conflict", `another change of sandbox ${this.id} is under way`));
    }
    const { signal: asked } = options;
    const signal = asked === undefined ? this.#over.signal : AbortSignal.any([asked, this.#over.signal]);
    const change = (async () => {
      await this.freeze.stopTrying();
      await this.recordFile.settle();
      this.counts(signal);
      await this.takePlace(); // what an earlier restore left undone
      return work(signal);
    })();
    const settled = (): void => {
      this.#change = undefined;
      // A change that came between the attempts to thaw the guest hands them on.
      if (this.freeze.frozen && this.#now.state === "running") {
        this.freeze.thaw().catch(() => {});
      }
    };
    this.#change = change.then(settled, settled);
    return change;
  }

  async #connect(signal: AbortSignal): Promise<Agent> {
    return openAgent((greeting) => this.running().connectAgent({ signal, greeting }), { signal });
  }

  // Its end

  destroy(why?: StacyError, stopped?: () => void): Promise<void> {
    this.#end ??= this.#destroy(why, stopped).catch((error: unknown) => {
      // Whoever asks again must get another attempt, not this one's failure.
      this.#end = undefined;
      throw error;
    });
    return this.#end;
  }

  async #destroy(why: StacyError = this.gone(), stopped?: () => void): Promise<void> {
    await this.#closeVolumes();
    this.#letGo();
    // While a change is under way, or one has left something behind, there may be another machine than this.
    const alone = this.#change === undefined && this.#dying === undefined && this.dir === this.place;
    // First the monitor: whatever waits for it, or for the guest, fails at once.
    await Promise.all([this.agent.close(why), this.machine?.kill(alone ? stopped : undefined)]);
    await this.#change;
    await this.recordFile.close(this.gone());
    // A change may have brought another one in the meantime, or left one behind.
    await Promise.all([this.machine?.kill(), this.#dying?.kill()]);
    this.#now = { state: "exited" };
    this.releaseSnapshot();
    const root = dirname(this.place);
    const removed = await Promise.allSettled([
      removeMachineDir(this.place),
      ...[nextId(this.id), formerId(this.id)].map(async (name) => {
        // There is one only if a restore was cut off; what runs in it may be one that resisted.
        const beside = join(root, name);
        if (await isThere(beside)) await removeWithProcesses(beside);
      }),
    ]);
    // What could be removed is gone, whatever could not.
    for (const each of removed) if (each.status === "rejected") throw each.reason;
  }

  /**
   * What its guest has written to volumes is on their disks, which are closed as if unmounted. A guest that does not answer ends all the same, as
   * by a power cut: the journal is replayed when the volume is next mounted.
   */
  async #closeVolumes(): Promise<void> {
    if (!writesVolumes(this.record)) return;
    try {
      const before = this.#now;
      // While a change is under way the monitor is that one's.
      if (before.state === "paused" && this.#change === undefined)
        this.become({ state: "returning", from: "paused", machine: await before.machine.resume() });
      const { state } = this.#now;
      if (state === "running" || state === "returning") await this.agent.still({ limitMs: CLOSE_LIMIT_MS });
    } catch {} // it ends
  }

  /** This daemon stops; the machine goes on. */
  async release(): Promise<void> {
    this.#letGo();
    this.#end ??= Promise.resolve();
    const stops = new StacyError("disconnected", `the server stops; sandbox ${this.id} goes on`, {
      remedy: "ask again when it is back, and attach to the command",
      data: { ended: "server-stop" },
    });
    await this.agent.close(stops);
    await this.recordFile.settle().catch(() => {}); // the next daemon reads what is there
    await this.machine?.release();
  }

  #letGo(): void {
    this.#over.abort(this.gone());
    this.stopTraffic();
  }
}

function lifeOf(machine: RunningMachine | PausedMachine | undefined): Life {
  if (machine === undefined) return { state: "suspended" };
  return machine.state === "running" ? { state: "running", machine } : { state: "paused", machine };
}
