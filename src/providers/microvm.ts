/** The provider behind which the microVMs stand: spawns through the launcher, finds machines again, saves and forks them. */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, rename } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Refused } from "../egress/egress.ts";
import { Network, networkEnvironment } from "../egress/network.ts";
import type { Identity } from "../guest/agent.ts";
import { openAgent } from "../guest/client.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import type { DataPaths } from "../host/paths.ts";
import { isAlive, processesIn } from "../host/process.ts";
import type { ImageUse } from "../images/care.ts";
import type { Images } from "../images/image.ts";
import { sweepTemporary } from "../launcher/golden.ts";
import { imageUse } from "../launcher/image-use.ts";
import { machineDir } from "../launcher/launch.ts";
import { type BootReport, type Launched, Launcher } from "../launcher/launcher.ts";
import { type MachineRecord, readRecord, removeMachineDir } from "../launcher/machine-dir.ts";
import type { PoolLimits } from "../launcher/pool.ts";
import { type LaunchSpec, targetOf } from "../launcher/target.ts";
import type { Vmm } from "../vmm/vmm.ts";
import { besideId, type MachineHost, MicrovmMachine } from "./microvm-machine.ts";
import {
  checkpointKey,
  type PoolStatus,
  type Provider,
  type ProviderEvent,
  type ProviderHealth,
  type SandboxMachine,
  type SandboxSpec,
  type SnapshotInfo,
} from "./provider.ts";

export interface MicrovmOptions {
  vmm: Vmm;
  images: Images;
  paths: DataPaths;
  /** Keep machines ready; absent: none. */
  pool?: Partial<PoolLimits>;
  /** What sandboxes may reach of what they ask for. */
  network?: Network;
}

export function createMicrovmProvider(options: MicrovmOptions): MicrovmProvider {
  return new MicrovmProvider(options);
}

export class MicrovmProvider implements Provider, MachineHost {
  readonly vmm: Vmm;
  readonly launcher: Launcher;
  readonly tmp: string;
  readonly network: Network;
  readonly #paths: DataPaths;
  readonly #machines = new Map<string, MicrovmMachine>();
  readonly #listeners = new Set<(event: ProviderEvent) => void>();

  constructor(options: MicrovmOptions) {
    this.vmm = options.vmm;
    this.#paths = options.paths;
    this.tmp = options.paths.tmp;
    this.network = options.network ?? new Network();
    this.launcher = new Launcher({ ...options, network: this.network });
    const { events } = this.launcher;
    events.on("snapshot.built", (report) => this.#emit({ type: "snapshot.built", data: { ...report } }));
    events.on("snapshot.rejected", (data) => this.#emit({ type: "snapshot.rejected", data }));
    events.on("restore.failed", ({ id, ...data }) => this.#emit({ type: "restore.failed", sandboxId: id, data }));
    events.on("pool.filled", (data) => this.#emit({ type: "pool.filled", data: { ...data } }));
    events.on("pool.replaced", (data) => this.#emit({ type: "pool.replaced", data: { ...data } }));
    events.on("pool.failed", ({ error: _error, ...data }) =>
      this.#emit({ type: "restore.failed", data: { ...data, phase: "refill" } }),
    );
    events.on("golden.failed", ({ error, ...data }) =>
      this.#emit({ type: "snapshot.rejected", data: { ...data, reason: error.message, phase: error.phase } }),
    );
  }

  get name(): "firecracker" | "qemu" {
    return this.vmm.name;
  }

  async health(): Promise<ProviderHealth> {
    const probe = await this.vmm.probe();
    if (!probe.usable) {
      return {
        healthy: false,
        detail: probe.reason,
        remedy: probe.remedy,
        ...(probe.version === undefined ? {} : { version: probe.version }),
      };
    }
    return {
      healthy: true,
      detail: [`guests: ${probe.guests.join(", ")}`, ...probe.notes].join("; "),
      version: probe.version,
      accelerator: probe.accelerator,
    };
  }

  async spawn(spec: SandboxSpec): Promise<SandboxMachine> {
    const allowedHosts = this.network.rules(spec.allowedHosts ?? []).list;
    const options = {
      id: spec.id,
      env: networkEnvironment(allowedHosts, spec.env),
      trackDirty: spec.forkable ?? true,
      ...(spec.signal === undefined ? {} : { signal: spec.signal, resolve: { signal: spec.signal } }),
    };
    const launched =
      spec.checkpoint === undefined
        ? await this.launcher.launch(launchSpec(spec), options)
        : await this.launcher.launchSaved(checkpointKey(spec.checkpoint), "checkpoint", options);
    return this.#own(launched, spec.id, { tracked: options.trackDirty, allowedHosts });
  }

  async startFork(
    key: string,
    id: string,
    options: { env: Record<string, string>; allowedHosts: readonly string[]; signal?: AbortSignal },
  ): Promise<SandboxMachine> {
    const { allowedHosts, ...rest } = options;
    const launched = await this.launcher.launchSaved(key, "fork", { id, trackDirty: true, ...rest });
    return this.#own(launched, id, { tracked: true, allowedHosts });
  }

  /** From a launched machine to one that this provider keeps; if its record cannot be written, it is ended. */
  async #own(
    launched: Launched,
    id: string,
    { tracked, allowedHosts }: { tracked: boolean; allowedHosts: readonly string[] },
  ): Promise<MicrovmMachine> {
    const { target, identity, boot } = launched;
    const restored = boot.path !== "cold";
    const record: MachineRecord = {
      version: 1,
      id,
      role: "sandbox",
      vmm: this.vmm.name,
      guest: target.guest,
      key: target.key,
      image: target.image.reference,
      imageDigest: target.image.digest,
      config: target.config,
      process: launched.machine.record,
      state: "running",
      identity: {
        hostname: identity.hostname,
        machineId: identity.machineId,
        bootId: identity.bootId,
        env: identity.env,
        ...(identity.cwd === undefined ? {} : { cwd: identity.cwd }),
        ...(identity.user === undefined ? {} : { user: identity.user }),
      },
      ...(allowedHosts.length === 0 ? {} : { allowedHosts: [...allowedHosts] }),
      ...(restored && tracked ? { parent: this.launcher.store.path(target.key) } : {}),
      shape: target.shape,
      imageConfig: target.image.config,
      boot,
      createdAt: Date.now(),
    };
    const machine = new MicrovmMachine(this, {
      id,
      dir: launched.dir,
      record,
      target,
      boot,
      machine: launched.machine,
      agent: launched.agent,
      releaseSnapshot: () => {
        launched.releaseSnapshot();
        void this.collectFork(target.key);
      },
    });
    this.#machines.set(id, machine);
    try {
      await machine.save();
    } catch (error) {
      await machine.destroy();
      throw asStacyError(error, "internal", { phase: "record" });
    }
    return machine;
  }

  async publish(work: string, machine: MicrovmMachine, kind: "checkpoint" | "fork", name: string): Promise<string> {
    const key = kind === "checkpoint" ? checkpointKey(name) : randomBytes(32).toString("hex");
    const { target } = machine;
    await this.launcher.store.publish(work, {
      key,
      kind,
      origin: machine.id,
      image: target.image.reference,
      imageConfig: target.image.config,
      config: target.config,
      shape: target.shape,
      frozen: true,
    });
    return key;
  }

  snapshotDir(key: string): string {
    return this.launcher.store.path(key);
  }

  /** Starts the checkpoint beside the machine that it will replace; a failure leaves that one as it is. */
  startBeside(key: string, id: string, names: Omit<Identity, "entropy">): Promise<Launched> {
    return this.launcher.launchSaved(key, "checkpoint", { id: besideId(id), names, trackDirty: true });
  }

  refused(id: string, refused: Refused): void {
    this.#emit({ type: "network.refused", sandboxId: id, data: { ...refused } });
  }

  /** A fork's snapshot goes with the last machine that came from it. */
  async collectFork(key: string): Promise<void> {
    if (this.launcher.store.users(key) > 0) return;
    const found = (await this.launcher.store.list()).find(({ manifest }) => manifest.key === key);
    if (found?.manifest.kind !== "fork") return;
    await this.launcher.store.remove(key).catch(() => {}); // a new user came first
  }

  forget(machine: MicrovmMachine): void {
    this.#machines.delete(machine.id);
  }

  async adopt(wanted: ReadonlySet<string>): Promise<{ adopted: SandboxMachine[]; removed: string[] }> {
    const root = this.#paths.sandboxes;
    await mkdir(root, { recursive: true, mode: 0o700 });
    const removed = await sweepTemporary(this.#paths);
    await this.#finishReplacements(root);
    const names = (await readdir(root)).filter((name) => !this.#machines.has(name));
    const adopted: SandboxMachine[] = [];
    await Promise.all(
      names.map(async (name) => {
        const dir = join(root, name);
        const record = await readRecord(dir);
        // Another provider's machine is not ours to judge.
        if (record !== undefined && record.vmm !== this.vmm.name) return;
        const machine =
          record !== undefined && wanted.has(record.id) && record.role === "sandbox"
            ? await this.#adoptOne(dir, record)
            : undefined;
        if (machine !== undefined) {
          adopted.push(machine);
          return;
        }
        await this.#removeLeftover(dir, record);
        removed.push(name);
      }),
    );
    removed.push(...(await this.launcher.store.sweep()));
    for (const { manifest } of await this.launcher.store.list()) {
      // Of machines that were lost while nobody looked.
      if (manifest.kind === "fork" && manifest.shape.vmm === this.vmm.name) await this.collectFork(manifest.key);
    }
    for (const name of removed) this.#emit({ type: "reconcile.action", data: { action: "removed", name } });
    // A server that stays starts the next sandboxes of this host: what a start of the host has made slow is put right beside.
    if (this.launcher.pool !== undefined) this.launcher.readAhead();
    return { adopted, removed };
  }

  async #adoptOne(dir: string, record: MachineRecord): Promise<MicrovmMachine | undefined> {
    if (basename(dir) !== record.id) return undefined;
    const target = targetOf(
      {
        version: 1,
        key: record.key,
        kind: "golden",
        image: record.image,
        imageConfig: record.imageConfig,
        config: record.config,
        shape: record.shape,
        createdAt: record.createdAt,
        files: {},
      },
      this.#paths,
    );
    const release = this.launcher.store.use(record.key);
    const parts = {
      id: record.id,
      dir,
      record,
      target,
      boot: record.boot as BootReport,
      releaseSnapshot: () => {
        release();
        void this.collectFork(record.key);
      },
    };
    if (record.state === "suspended") {
      // A daemon that died while it woke the machine left a process that nobody was told of: what is saved is what counts.
      await endProcesses(dir);
      return this.#keep(new MicrovmMachine(this, parts));
    }
    if (record.process === null) {
      release();
      return undefined;
    }
    let found: Awaited<ReturnType<Vmm["adopt"]>>;
    try {
      found = await this.vmm.adopt(dir, record.process, record.config);
      if (found === undefined) {
        release();
        return undefined;
      }
      if (found.state === "paused") return this.#keep(new MicrovmMachine(this, { ...parts, machine: found }));
      const machine = found;
      const limit = { timeoutMs: 10_000 };
      const agent = await openAgent(() => machine.connectAgent(limit), limit);
      return this.#keep(new MicrovmMachine(this, { ...parts, machine: found, agent }));
    } catch {
      // Ended here, over the connection that there is: its monitor serves one client at a time, a second would wait for ever.
      await found?.kill().catch(() => {});
      release();
      return undefined;
    }
  }

  #keep(machine: MicrovmMachine): MicrovmMachine {
    this.#machines.set(machine.id, machine);
    return machine;
  }

  /** A daemon that died while a checkpoint took a machine's place: once the old one is dead, the new one is the sandbox's. */
  async #finishReplacements(root: string): Promise<void> {
    for (const name of await readdir(root)) {
      const record = await readRecord(join(root, name));
      if (record === undefined || name !== besideId(record.id) || record.vmm !== this.vmm.name) continue;
      const place = join(root, record.id);
      const old = await readRecord(place);
      if (old?.process && (await isAlive(old.process))) continue;
      await endProcesses(place);
      await removeMachineDir(place);
      await rename(join(root, name), place);
    }
  }

  /** Ends whatever still runs in a directory, and removes it. */
  async #removeLeftover(dir: string, record: MachineRecord | undefined): Promise<void> {
    if (record?.process) {
      const found = await this.vmm.adopt(dir, record.process, record.config).catch(() => undefined);
      await found?.kill();
    }
    await endProcesses(dir);
    await removeMachineDir(dir);
  }

  async snapshots(): Promise<SnapshotInfo[]> {
    return (await this.launcher.store.list())
      .filter(({ manifest }) => manifest.shape.vmm === this.vmm.name && manifest.kind !== "fork")
      .map(({ manifest, bytes, lastUsedAt }) => ({
        key: manifest.key,
        kind: manifest.kind === "checkpoint" ? ("checkpoint" as const) : ("golden" as const),
        image: manifest.image,
        imageDigest: manifest.shape.imageDigest,
        vmm: manifest.shape.vmm,
        vcpus: manifest.shape.vcpus,
        memoryMiB: manifest.shape.memoryMiB,
        diskMiB: manifest.shape.diskMiB,
        createdAt: manifest.createdAt,
        lastUsedAt,
        bytes,
        inUse: this.launcher.store.users(manifest.key),
      }));
  }

  async buildSnapshot(spec: Omit<SandboxSpec, "id" | "checkpoint">): Promise<SnapshotInfo> {
    const target = await this.launcher.targets.resolve(launchSpec(spec));
    await this.launcher.ensureGolden(target, spec.signal);
    const info = (await this.snapshots()).find(({ key }) => key === target.key);
    if (info === undefined) throw new StacyError("internal", "the snapshot vanished after its build");
    return info;
  }

  async removeSnapshot(key: string): Promise<void> {
    // Machines that only wait are no reason to keep it.
    await this.launcher.pool?.empty(key);
    const { store } = this.launcher;
    const kind = store.users(key) === 0 ? undefined : (await store.get(key))?.manifest.kind;
    await (kind === "checkpoint" ? store.retire(key) : store.remove(key));
    this.#emit({ type: "snapshot.removed", data: { key } });
  }

  imageUse(): Promise<ImageUse> {
    return imageUse(this.#paths, this.launcher.store, this.vmm.name);
  }

  pool(): PoolStatus[] {
    return (this.launcher.pool?.status() ?? []).map(({ target, wanted, warm, idle, filling }) => ({
      key: target.key,
      image: target.image.reference,
      vcpus: target.spec.vcpus,
      memoryMiB: target.spec.memoryMiB,
      warm,
      idle,
      target: wanted,
      filling,
    }));
  }

  /** Builds the golden snapshot first, if needed. */
  async pin(spec: Omit<SandboxSpec, "id" | "checkpoint">, count: number): Promise<void> {
    const target = await this.launcher.targets.resolve(launchSpec(spec));
    if (count > 0) await this.launcher.ensureGolden(target, spec.signal);
    this.launcher.pool?.pin(target, count);
  }

  async close(): Promise<void> {
    await this.launcher.close();
    await Promise.all([...this.#machines.values()].map((machine) => machine.release()));
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: ProviderEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Where a sandbox's machine lives. */
  dir(id: string): string {
    return machineDir(this.#paths.sandboxes, id);
  }
}

/** Ends what runs in a machine's directory, and waits until it is gone. */
async function endProcesses(dir: string): Promise<void> {
  for (;;) {
    const pids = await processesIn(dir);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {} // it ended by itself
    }
    await new Promise((wake) => setTimeout(wake, 2));
  }
}

function launchSpec(spec: Omit<SandboxSpec, "id">): LaunchSpec {
  return {
    image: spec.image,
    vcpus: spec.vcpus,
    memoryMiB: spec.memoryMiB,
    diskMiB: spec.diskMiB,
    setup: spec.setup,
    setupEnv: spec.setup.length === 0 ? {} : spec.env,
    ...(spec.allowedHosts === undefined ? {} : { setupHosts: [...spec.allowedHosts] }),
  };
}
