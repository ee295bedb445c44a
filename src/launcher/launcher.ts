/**
 * Which way a sandbox's machine is started: a warm one > an idle VMM > a restore > a cold boot. Nothing above can tell them
 * apart, except that its report says which it was. Warm ones are taken at once, restores have their turn (starts.ts), and no lock is held over a start.
 */
import { EventEmitter } from "node:events";
import { mkdir, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { Network } from "../egress/network.ts";
import type { Agent, Identity } from "../guest/agent.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { hostMemory } from "../host/host-memory.ts";
import type { DataPaths } from "../host/paths.ts";
import { Phases } from "../host/phases.ts";
import type { Images, ResolveOptions } from "../images/image.ts";
import { endedFromOutside } from "../vmm/exit.ts";
import type { BlankVmm, GuestKind, JailConfig, RunningMachine, Vmm, VmmName } from "../vmm/vmm.ts";
import { GoldenBuilder, type GoldenReport } from "./golden.ts";
import { makeIdentity } from "./identity.ts";
import { bootCold, discard, loadInto, machineDir, type Place, prepareIdle, type Started } from "./launch.ts";
import type { Manifest } from "./manifest.ts";
import { DEFAULT_POOL, Pool, type PoolEvents, type PoolLimits } from "./pool.ts";
import { readAhead } from "./read-ahead.ts";
import { needsSetup, runSetup } from "./setup.ts";
import { FILES_GONE, type Snapshot, SnapshotStore } from "./snapshot-store.ts";
import { Starts } from "./starts.ts";
import { type LaunchSpec, specOf, type Target, Targets, targetOf } from "./target.ts";
import { WritableTemplates } from "./writable-templates.ts";

export interface BootReport {
  path: "warm" | "restored" | "cold";
  /** The VMM process was there already. */
  idle?: boolean;
  vmm: VmmName;
  guest: GuestKind;
  key: string;
  /** Why a better way was tried and failed. */
  fallback?: string;
  /** ms by name */
  phases: Record<string, number>;
  totalMs: number;
}

export interface Launched {
  dir: string;
  target: Target;
  identity: Identity;
  machine: RunningMachine;
  agent: Agent;
  boot: BootReport;
  /** Gives back the snapshot that it runs from. Call it when the machine is gone. */
  releaseSnapshot(): void;
}

export interface LaunchOptions {
  /** The sandbox's id and its directory's name. */
  id: string;
  /** Whose turn it is while many start. */
  owner?: string;
  env?: Record<string, string>;
  /** It has hosts that it may connect to. */
  network?: boolean;
  jail?: JailConfig;
  /** Files of the volumes in its slots; where there is none the slot has an empty disk. */
  volumes?: readonly (string | undefined)[];
  /** Of one that was saved while its programs stood still: they still do. */
  still?: boolean;
  trackDirty?: boolean;
  /** Names that it keeps, where it takes the place of another machine of the same sandbox. */
  names?: Omit<Identity, "entropy">;
  signal?: AbortSignal;
  resolve?: ResolveOptions;
  /** `cold`: do not use snapshots. `restore`: build the snapshot first if needed. Default: restore, else cold and build beside. */
  mode?: "auto" | "cold" | "restore";
}

export interface LauncherEvents extends PoolEvents {
  "snapshot.built": [GoldenReport & { image: string }];
  "snapshot.rejected": [{ key: string; reason: string }];
  "restore.failed": [{ id: string; key: string; phase: string | undefined; reason: string }];
  "golden.failed": [{ key: string; image: string; error: StacyError }];
}

export interface LauncherOptions {
  vmm: Vmm;
  images: Images;
  paths: DataPaths;
  /** Keep machines ready. Absent: none, as for a one-shot command. */
  pool?: Partial<PoolLimits>;
  /** What set-up commands may reach of what they ask for. */
  network?: Network;
}

/** Failures of a restore that say nothing against the snapshot or that a cold boot would meet as well. */
const NO_FALLBACK = new Set(["invalid", "no-space", "cancelled", "limit", "permission", "not-supported"]);

/** What the host lacks for a moment: it says nothing about the snapshot. */
const LACKING: ReadonlySet<string | undefined> = new Set(["EMFILE", "ENFILE", "ENOMEM", "EAGAIN"]);

/** Golden snapshots of one owner that are still to be built beside its sandboxes. */
const MOST_WAITING = 16;

export class Launcher {
  readonly vmm: Vmm;
  readonly paths: DataPaths;
  readonly store: SnapshotStore;
  readonly targets: Targets;
  readonly golden: GoldenBuilder;
  readonly events = new EventEmitter<LauncherEvents>();
  readonly pool: Pool | undefined;
  readonly #disks: WritableTemplates;
  readonly #network: Network;
  readonly #starts = new Starts();
  readonly #background = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  /**
   * Restores of a key, in a row, whose agent did not answer or whose VMM was killed while it loaded. One can be the host's
   * fault; two speak against the snapshot.
   */
  readonly #failures = new Map<string, number>();

  constructor(options: LauncherOptions) {
    this.vmm = options.vmm;
    this.paths = options.paths;
    this.store = new SnapshotStore(options.paths.snapshots);
    this.targets = new Targets(options.vmm, options.images, options.paths);
    this.#disks = new WritableTemplates(options.paths.assets);
    this.#network = options.network ?? new Network();
    this.golden = new GoldenBuilder(options.vmm, options.paths, this.store, this.#disks, this.#network);
    this.pool = options.pool === undefined ? undefined : this.#makePool(options.pool);
  }

  /** Starts a machine for `spec` in `<data>/sandboxes/<id>`. @throws StacyError with the phase */
  async launch(spec: LaunchSpec, options: LaunchOptions): Promise<Launched> {
    const phases = new Phases();
    const target = await phases.phase("resolve", () => this.targets.resolve(spec, options.resolve));
    const pooled = options.mode !== "cold" && fromPool(options);
    const spawned = pooled ? this.pool?.arrive(target) : undefined;
    try {
      return await this.#launch(target, options, phases);
    } finally {
      spawned?.();
    }
  }

  async #launch(target: Target, options: LaunchOptions, phases: Phases): Promise<Launched> {
    const dir = machineDir(this.paths.sandboxes, options.id);
    const place = this.#place(dir, options);
    const identity = makeIdentity(options.id, target.image, options.env ?? {}, { network: options.network === true });
    let fallback: string | undefined;
    const pooled = options.mode !== "cold" && fromPool(options);
    const warm = pooled ? await this.#tryWarm(target, dir, identity, phases, options) : undefined;
    if (warm !== undefined) return warm;
    await mkdir(dirname(dir), { recursive: true, mode: 0o700 });
    if (options.mode !== "cold") {
      if (options.mode === "restore") await this.golden.ensure(target, options.signal);
      using _turn = await this.#turn(options, phases);
      const idle = pooled ? await this.#tryIdle(target, dir, identity, phases, options) : undefined;
      if (idle !== undefined) return idle;
      const restored = await this.#tryRestore(target, place, identity, phases, options);
      if (restored !== undefined && "started" in restored) {
        return this.#launched(target, dir, identity, phases, "restored", restored.started, restored.release);
      }
      fallback = restored?.failed;
    }
    // Made once per size, so it is no part of copying.
    const disk = await phases.phase("resolve", () => this.#disks.get(target.spec.diskMiB));
    options.resolve?.progress?.({ step: `booting ${target.spec.image}` });
    const started = await bootCold(this.vmm, target, disk, place, identity, phases);
    await this.#setUp(target, started, dir, phases, options.signal);
    if (options.mode !== "cold") this.#buildBeside(target);
    const launched = this.#launched(target, dir, identity, phases, "cold", started, () => {});
    if (fallback !== undefined) launched.boot.fallback = fallback;
    return launched;
  }

  /** A machine that did not come from the golden one has not seen the setup commands: nobody above may notice a difference. */
  async #setUp(
    target: Target,
    started: Started,
    dir: string,
    phases: Phases,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (!needsSetup(target.spec)) return;
    try {
      await phases.phase("setup", () => runSetup(started.agent, target.spec, this.#network, signal));
    } catch (error) {
      await started.agent.close();
      await discard(dir, started.machine);
      throw error;
    }
  }

  /**
   * Starts a machine from a saved one, a checkpoint or a fork. There is no cold boot to fall back to.
   * @throws StacyError `not-found`, `corrupt`
   */
  async launchSaved(key: string, kind: "checkpoint" | "fork", options: LaunchOptions): Promise<Launched> {
    const phases = new Phases();
    const snapshot = await phases.phase("resolve", async () => {
      const found = await this.store.get(key, kind);
      if (found === undefined && kind === "checkpoint") throw new StacyError("corrupt", FILES_GONE);
      return found;
    });
    // A checkpoint that was deleted while machines use it is kept as a fork, for them alone.
    if (snapshot?.manifest.kind !== kind) throw new StacyError("not-found", `there is no ${kind} ${key.slice(0, 12)}`);
    const target = targetOf(snapshot.manifest, this.paths);
    await this.vmm.checkLoadable?.(target.shape.vmmIdentity);
    const fresh = makeIdentity(options.id, target.image, options.env ?? {}, {
      thaw: snapshot.manifest.frozen === true && options.still !== true,
      network: options.network === true,
    });
    const identity = { ...fresh, ...options.names };
    const dir = machineDir(this.paths.sandboxes, options.id);
    using _turn = await this.#turn(options, phases);
    const release = this.store.use(key);
    try {
      const started = await this.#restore(target, snapshot, this.#place(dir, options), identity, phases, options);
      void this.store.touch(key);
      return this.#launched(target, dir, identity, phases, "restored", started, release);
    } catch (error) {
      release();
      throw error;
    }
  }

  /** The golden snapshot, built now if needed. @param queued is told when its turn does not come at once */
  async ensureGolden(target: Target, signal?: AbortSignal, queued?: () => void): Promise<Snapshot> {
    const report = await this.golden.ensure(target, signal, queued);
    if (report !== undefined) this.events.emit("snapshot.built", { ...report, image: target.image.reference });
    const snapshot = await this.store.get(target.key);
    if (snapshot === undefined) throw new StacyError("internal", "the golden snapshot vanished after its build");
    return snapshot;
  }

  /** Brings the snapshots that were used last into the host's memory, beside everything else. */
  readAhead(): void {
    const wanted = ({ kind, shape }: Manifest): boolean => kind !== "fork" && shape.vmm === this.vmm.name;
    const resolve = (manifest: Manifest): Promise<Target> =>
      this.targets.resolve(specOf(manifest), { pull: "never", signal: this.#closing.signal });
    this.#beside(readAhead(this.store, wanted, resolve, this.#closing.signal));
  }

  /** Waits for the builds in the background. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#background]);
  }

  /** Cancels the builds in the background and waits until nothing of them is left. */
  async close(): Promise<void> {
    this.#closing.abort(new StacyError("cancelled", "the launcher is closing"));
    await Promise.all([this.pool?.close(), this.settle()]);
  }

  #turn({ owner = "", signal }: LaunchOptions, phases: Phases): Promise<Disposable> {
    return phases.phase("turn", () => this.#starts.enter(owner, signal));
  }

  /** A warm machine from the pool. One that fails is thrown away, and the next one is tried. */
  async #tryWarm(
    target: Target,
    dir: string,
    identity: Identity,
    phases: Phases,
    options: LaunchOptions,
  ): Promise<Launched | undefined> {
    const { pool } = this;
    if (pool === undefined) return undefined;
    for (let warm = pool.takeWarm(target.key); warm !== undefined; warm = pool.takeWarm(target.key)) {
      try {
        const started = await warm.item.claim(dir, identity, phases);
        return this.#launched(target, dir, identity, phases, "warm", started, warm.release);
      } catch (thrown) {
        await warm.item.discard();
        warm.release();
        this.events.emit("restore.failed", {
          id: options.id,
          key: target.key,
          phase: "claim",
          reason: asStacyError(thrown).message,
        });
      }
    }
    return undefined;
  }

  /** A machine that is loaded into an idle VMM of the pool. */
  async #tryIdle(
    target: Target,
    dir: string,
    identity: Identity,
    phases: Phases,
    options: LaunchOptions,
  ): Promise<Launched | undefined> {
    const idle = this.pool?.takeIdle(target.key);
    if (idle === undefined) return undefined;
    try {
      const snapshot = await this.store.get(target.key);
      if (snapshot === undefined) throw new StacyError("not-found", "its snapshot is gone");
      await rename(idle.item.dir, dir);
      idle.item.relocate(dir);
      const started = await loadInto(this.vmm, idle.item, snapshot, identity, phases, {
        ...(options.trackDirty === undefined ? {} : { trackDirty: options.trackDirty }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
      const launched = this.#launched(target, dir, identity, phases, "restored", started, idle.release);
      launched.boot.idle = true;
      return launched;
    } catch (thrown) {
      await discard(idle.item.dir, idle.item);
      idle.release();
      this.events.emit("restore.failed", {
        id: options.id,
        key: target.key,
        phase: "idle",
        reason: asStacyError(thrown).message,
      });
      if (options.signal?.aborted) throw thrown;
      return undefined;
    }
  }

  #makePool(limits: Partial<PoolLimits>): Pool {
    return new Pool(
      {
        vmm: this.vmm,
        sandboxes: this.paths.sandboxes,
        store: this.store,
        memory: hostMemory,
        events: this.events,
        build: (target) => this.ensureGolden(target, this.#closing.signal),
        relaxed: () => this.readAhead(),
        now: () => performance.now(),
      },
      { ...DEFAULT_POOL, ...limits },
    );
  }

  async #tryRestore(
    target: Target,
    place: Place,
    identity: Identity,
    phases: Phases,
    options: LaunchOptions,
  ): Promise<{ started: Started; release: () => void } | { failed: string } | undefined> {
    let release = (): void => {};
    try {
      const snapshot = await phases.phase("resolve", () => this.store.get(target.key));
      if (snapshot === undefined) return undefined;
      release = this.store.use(target.key);
      const started = await this.#restore(target, snapshot, place, identity, phases, options);
      this.#failures.delete(target.key);
      void this.store.touch(target.key);
      return { started, release };
    } catch (thrown) {
      release();
      const error = asStacyError(thrown);
      if (options.signal?.aborted || NO_FALLBACK.has(error.code)) throw error;
      this.events.emit("restore.failed", {
        id: options.id,
        key: target.key,
        phase: error.phase,
        reason: error.message,
      });
      await this.#judge(target.key, error);
      return { failed: `${error.phase ?? "restore"}: ${error.message}` };
    }
  }

  async #restore(
    target: Target,
    snapshot: Snapshot,
    place: Place,
    identity: Identity,
    phases: Phases,
    options: LaunchOptions,
  ): Promise<Started> {
    const start = async (blank?: BlankVmm): Promise<Started> => {
      const idle = await prepareIdle(this.vmm, target, snapshot, place, phases, blank);
      return loadInto(this.vmm, idle, snapshot, identity, phases, {
        ...(options.trackDirty === undefined ? {} : { trackDirty: options.trackDirty }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
    };
    const blank = place.jail === undefined ? this.pool?.takeBlank() : undefined;
    if (blank === undefined) return start();
    try {
      return await start(blank);
    } catch (thrown) {
      const { code, phase, message: reason } = asStacyError(thrown);
      // One that has ended while it waited says nothing about the snapshot, and nobody has been told who he is by then.
      const unusable = phase === "vmm" || (phase === "load" && code === "machine-exited");
      if (!unusable || options.signal?.aborted) throw thrown;
      this.events.emit("restore.failed", { id: options.id, key: snapshot.key, phase: "idle", reason });
      return start();
    }
  }

  #place(dir: string, options: LaunchOptions): Place {
    return {
      dir,
      ...(options.jail === undefined ? {} : { jail: options.jail }),
      ...(options.volumes === undefined ? {} : { volumes: options.volumes }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    };
  }

  /** Sets a snapshot aside that does not load, or from which two machines in a row came to nothing. */
  async #judge(key: string, error: StacyError): Promise<void> {
    if (LACKING.has(errno(error.cause))) return;
    if (error.phase === "agent" || (error.phase === "load" && endedFromOutside(error))) {
      const failures = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, failures);
      if (failures < 2) return;
    } else if (error.code !== "corrupt" && error.phase !== "load") return;
    this.#failures.delete(key);
    await this.store.setAside(key);
    this.events.emit("snapshot.rejected", { key, reason: error.message });
  }

  #buildBeside(target: Target): void {
    if (this.#closing.signal.aborted || this.golden.building.has(target.key)) return;
    // Somebody starts one shape after another: the next start of this one is soon enough.
    if (this.golden.waiting(target) >= MOST_WAITING) return;
    this.#beside(
      this.ensureGolden(target, this.#closing.signal).catch((thrown) => {
        if (this.#closing.signal.aborted) return;
        this.events.emit("golden.failed", {
          key: target.key,
          image: target.image.reference,
          error: asStacyError(thrown),
        });
      }),
    );
  }

  #beside(work: Promise<unknown>): void {
    const kept = work
      .catch(() => {}) // it reports its own failures
      .finally(() => this.#background.delete(kept));
    this.#background.add(kept);
  }

  #launched(
    target: Target,
    dir: string,
    identity: Identity,
    phases: Phases,
    path: BootReport["path"],
    started: Started,
    releaseSnapshot: () => void,
  ): Launched {
    const boot: BootReport = {
      path,
      vmm: this.vmm.name,
      guest: target.guest,
      key: target.key,
      phases: phases.ms,
      totalMs: phases.total,
    };
    return { dir, target, identity, ...started, boot, releaseSnapshot };
  }
}

/** A machine that waits has opened its disks, and is in no jail of its own. */
function fromPool({ jail, volumes }: LaunchOptions): boolean {
  return jail === undefined && volumes === undefined;
}
