/** The provider behind which the microVMs stand: spawns through the launcher, finds machines again, saves and forks them. */
import { mkdir } from "node:fs/promises";
import { basename, join } from "node:path";
import type { ServingOptions } from "../directories/serving.ts";
import { Network, networkEnvironment } from "../egress/network.ts";
import { type Authority, makeAuthority } from "../egress/secrets/authority.ts";
import { TRUST_ENVIRONMENT } from "../egress/secrets/trust.ts";
import { attempts } from "../host/attempts.ts";
import { directoryHelperPath } from "../host/directory-helper.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { isThere } from "../host/exists.ts";
import type { DataPaths } from "../host/paths.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { ImageUse } from "../images/care.ts";
import type { Images } from "../images/image.ts";
import { sweepTemporary } from "../launcher/golden.ts";
import { imageUse } from "../launcher/image-use.ts";
import { discard, machineDir } from "../launcher/launch.ts";
import { type Launched, Launcher } from "../launcher/launcher.ts";
import type { MachineRecord } from "../launcher/machine-dir.ts";
import type { PoolLimits } from "../launcher/pool.ts";
import type { LaunchSpec } from "../launcher/target.ts";
import { installTrust } from "../launcher/trust.ts";
import { type Vmm, volumeFile } from "../vmm/vmm.ts";
import {
  attempt,
  type Entry,
  FIRST_LIMIT_MS,
  type Found,
  finishReplacements,
  holdsMachine,
  readEntries,
  removeLater,
  removeLeftover,
  Unreachable,
} from "./adoption.ts";
import type { MachineContext } from "./machine-context.ts";
import { formerId, nextId, sandboxAt } from "./machine-life.ts";
import { MicrovmMachine } from "./microvm-machine.ts";
import {
  type Adoption,
  checkpointKey,
  type PoolStatus,
  type Provider,
  type ProviderEvent,
  type ProviderHealth,
  type SandboxMachine,
  type SandboxSpec,
  type SnapshotInfo,
  type SpecVolume,
  type Travel,
} from "./provider.ts";
import { differences, goldenFiles, outline, pack, packedFile, unpack } from "./travel.ts";
import { volumeError } from "./volume-error.ts";

/** The certificate of a sandbox's authority is a few files; it takes milliseconds. */
const TRUST_LIMIT_MS = 60_000;
/** What could not be pinned is left alone for so many times as long as it took to fail. */
const PIN_REST = 10;

export interface MicrovmOptions {
  vmm: Vmm;
  images: Images;
  paths: DataPaths;
  /** Keep machines ready; absent: none. */
  pool?: Partial<PoolLimits>;
  /** What sandboxes may reach of what they ask for. */
  network?: Network;
  /** Of directories of the host (`withinMs` of their serving). */
  directoryAnswerMs?: number;
}

export function createMicrovmProvider(options: MicrovmOptions): MicrovmProvider {
  return new MicrovmProvider(options);
}

export class MicrovmProvider implements Provider, MachineContext {
  readonly vmm: Vmm;
  readonly launcher: Launcher;
  readonly network: Network;
  readonly directories: ServingOptions;
  readonly #paths: DataPaths;
  readonly #machines = new Map<string, SandboxMachine>();
  readonly #unreachable = new Set<Unreachable>();
  readonly #background = new Set<Promise<void>>();
  /** Wishes for warm machines, by who has them. */
  readonly #pinning = new Map<string, AbortController>();
  readonly #closing = new AbortController();
  readonly #listeners = new Set<(event: ProviderEvent) => void>();

  constructor(options: MicrovmOptions) {
    this.vmm = options.vmm;
    this.#paths = options.paths;
    this.network = options.network ?? new Network();
    const program = directoryHelperPath(options.paths.assets);
    const limit = options.directoryAnswerMs === undefined ? {} : { withinMs: options.directoryAnswerMs };
    this.directories = { program, hidden: options.paths.root, ...limit };
    this.launcher = new Launcher({ ...options, network: this.network });
    const { events } = this.launcher;
    events.on("snapshot.built", (report) => this.emit({ type: "snapshot.built", data: { ...report } }));
    events.on("snapshot.rejected", (data) => this.emit({ type: "snapshot.rejected", data }));
    events.on("restore.failed", ({ id, ...data }) => this.emit({ type: "restore.failed", sandboxId: id, data }));
    events.on("pool.filled", (data) => this.emit({ type: "pool.filled", data: { ...data } }));
    events.on("pool.replaced", (data) => this.emit({ type: "pool.replaced", data: { ...data } }));
    events.on("pool.failed", ({ error: _error, ...data }) =>
      this.emit({ type: "restore.failed", data: { ...data, phase: "refill" } }),
    );
    events.on("golden.failed", ({ error, ...data }) =>
      this.emit({ type: "snapshot.rejected", data: { ...data, reason: error.message, phase: error.phase } }),
    );
  }

  get name(): "firecracker" | "qemu" {
    return this.vmm.name;
  }

  async health(): Promise<ProviderHealth> {
    const probe = await this.vmm.probe();
    // Known once it was looked at.
    const { pauseResume, saveClone } = this.vmm.abilities;
    const abilities = { canPause: pauseResume, canCopy: saveClone };
    if (!probe.usable) {
      return {
        ...abilities,
        healthy: false,
        detail: probe.reason,
        remedy: probe.remedy,
        ...(probe.version === undefined ? {} : { version: probe.version }),
      };
    }
    return {
      ...abilities,
      healthy: true,
      detail: [`guests: ${probe.guests.join(", ")}`, ...probe.notes].join("; "),
      version: probe.version,
      accelerator: probe.accelerator,
    };
  }

  async spawn(spec: SandboxSpec): Promise<SandboxMachine> {
    const allowedHosts = this.network.rules(spec.allowedHosts ?? []).list;
    const { secrets } = spec;
    const making = secrets === undefined ? undefined : makeAuthority();
    making?.catch(() => {}); // awaited when the machine is there
    const env = secrets === undefined ? spec.env : { ...TRUST_ENVIRONMENT, ...spec.env, ...secrets };
    const files = filesOf(spec);
    const options = {
      id: spec.id,
      env: networkEnvironment(allowedHosts, env),
      network: allowedHosts.length > 0,
      trackDirty: spec.forkable ?? true,
      ...(spec.owner === undefined ? {} : { owner: spec.owner }),
      ...(files === undefined ? {} : { volumes: files }),
      ...(spec.signal === undefined ? {} : { signal: spec.signal, resolve: { signal: spec.signal } }),
    };
    const launched =
      spec.checkpoint === undefined
        ? await this.launcher.launch(launchSpec(spec), options)
        : await this.launcher.launchSaved(checkpointKey(spec.checkpoint), "checkpoint", options);
    const authority = await making?.catch(async (error: unknown) => {
      // Nobody knows of it yet.
      await discard(launched.dir, launched.machine);
      launched.releaseSnapshot();
      throw error;
    });
    const machine = await this.own(launched, { id: spec.id, allowedHosts, authority, unrecorded: spec.lent });
    if (authority !== undefined) await this.#trust(machine, authority, spec.signal);
    // The bare guest has drives, and no filesystems; a saved machine has them mounted.
    if (spec.volumes !== undefined && spec.checkpoint === undefined && machine.boot.guest === "linux")
      await this.#mount(machine, spec.volumes, spec.signal);
    const { directories } = spec;
    if (directories !== undefined) {
      await this.#prepare(machine, "directories", spec.signal, async () => {
        if (spec.checkpoint !== undefined) await machine.agent.unshare([]);
        await machine.mountDirectories(directories);
      });
    }
    return machine;
  }

  #trust(machine: SandboxMachine, { certificate }: Authority, signal?: AbortSignal): Promise<void> {
    const late = (): StacyError =>
      new StacyError("timeout", `the guest did not take its certificate within ${TRUST_LIMIT_MS / 1000} s`);
    return this.#prepare(machine, "trust", signal, () =>
      withTimeLimit(installTrust(machine.agent, certificate), TRUST_LIMIT_MS, late),
    );
  }

  /** The one whose place holds another's first. */
  #mount(machine: SandboxMachine, volumes: readonly SpecVolume[], signal?: AbortSignal): Promise<void> {
    const probe = !this.vmm.abilities.tellsVolumeSizes;
    const mounts = volumes.map(({ file: _, ...volume }) => ({ ...volume, probe }));
    mounts.sort((a, b) => (a.path < b.path ? -1 : 1));
    return this.#prepare(machine, "volumes", signal, async () => {
      for (const each of mounts)
        await machine.agent.mount(each).catch((error: unknown) => Promise.reject(volumeError(error)));
    });
  }

  /** Before anybody's program runs in it. */
  async #prepare(
    machine: SandboxMachine,
    phase: string,
    signal: AbortSignal | undefined,
    work: () => Promise<void>,
  ): Promise<void> {
    const begun = performance.now();
    // A guest of a checkpoint may hold it up. Without its machine every call of it fails at once.
    const end = (): void => void machine.destroy().catch(() => {}); // tried again below
    signal?.addEventListener("abort", end, { once: true });
    try {
      signal?.throwIfAborted();
      await work();
    } catch (error) {
      await this.discard(machine);
      signal?.throwIfAborted(); // why it failed
      throw asStacyError(error, "internal", { phase });
    } finally {
      signal?.removeEventListener("abort", end);
    }
    machine.boot.phases[phase] = performance.now() - begun;
  }

  async own(
    launched: Launched,
    { id, allowedHosts, authority, directories, unrecorded = false }: Parameters<MachineContext["own"]>[1],
  ): Promise<MicrovmMachine> {
    const { target, identity, boot } = launched;
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
      ...(authority === undefined ? {} : { authority }),
      ...(directories === undefined ? {} : { directories: [...directories] }),
      shape: target.shape,
      imageConfig: target.image.config,
      boot,
      createdAt: Date.now(),
    };
    const { dir, machine: process, agent, releaseSnapshot } = launched;
    const parts = { dir, record, target, boot, machine: process, agent, releaseSnapshot };
    const machine = new MicrovmMachine(this, parts);
    this.keep(machine);
    if (!unrecorded) await machine.begin();
    return machine;
  }

  keep(machine: SandboxMachine): void {
    this.#machines.set(machine.id, machine);
  }

  forget(machine: SandboxMachine): void {
    this.#machines.delete(machine.id);
  }

  async discard(machine: SandboxMachine): Promise<void> {
    const { id: name } = machine;
    try {
      await machine.destroy();
    } catch (error) {
      this.emit({ type: "reconcile.action", data: { action: "failed", name, reason: asStacyError(error).message } });
      void this.#beside(this.#discardLater(machine));
    }
  }

  async #discardLater(machine: SandboxMachine): Promise<void> {
    for await (const _ of attempts(this.#closing.signal)) {
      try {
        await machine.destroy();
        this.emit({ type: "reconcile.action", data: { action: "removed", name: machine.id } });
        return;
      } catch {} // said once
    }
  }

  checkpointDamage(checkpointId: string): Promise<string | undefined> {
    return this.launcher.store.damageOf(checkpointKey(checkpointId));
  }

  savedVolume(checkpointId: string, slot: number): string {
    return join(this.launcher.store.path(checkpointKey(checkpointId)), volumeFile(slot));
  }

  async holds(id: string): Promise<boolean> {
    const names = [id, nextId(id), formerId(id)];
    return (await Promise.all(names.map((name) => isThere(this.dir(name))))).includes(true);
  }

  async machines(): Promise<string[]> {
    const entries = await readEntries(this.#paths.sandboxes);
    const ours = entries.filter(({ dir, record, problem }) =>
      // Whose one is that cannot be read, its record would have said.
      record === undefined ? problem !== undefined : record.vmm === this.vmm.name && sandboxAt(dir) === record.id,
    );
    const held = await Promise.all(ours.map((entry) => holdsMachine(entry).catch(() => true))); // what cannot be seen may be one
    return [...new Set(ours.filter((_, at) => held[at]).map(({ dir, record }) => record?.id ?? basename(dir)))];
  }

  async adopt(wanted: ReadonlySet<string>, others: ReadonlySet<string> = new Set()): Promise<Adoption> {
    const root = this.#paths.sandboxes;
    await mkdir(root, { recursive: true, mode: 0o700 });
    const done: Adoption = { adopted: [], unreachable: [], gone: [], removed: await sweepTemporary(this.#paths) };
    const unfinished = await finishReplacements(this, root, wanted);
    const found = await readEntries(root);
    const entries = found.filter(({ dir, record }) => {
      const name = basename(dir);
      // What another provider runs, or may run, is not ours to judge.
      const theirs = others.has(sandboxAt(dir)) || (record !== undefined && record.vmm !== this.vmm.name);
      return !theirs && !this.#machines.has(name) && !unfinished.has(sandboxAt(dir));
    });
    for (const { dir, record } of found) {
      // Left alone until the next start, with what it runs from.
      if (record?.vmm === this.vmm.name && others.has(sandboxAt(dir))) this.launcher.store.use(record.key);
    }
    // What it runs from, its record would have said: until the next start all of them stay.
    const unknown = unfinished.size > 0 || found.some(({ problem }) => problem !== undefined);
    for (const [id, reason] of unfinished) {
      this.#wait({ dir: join(root, id), identity: undefined, record: undefined }, reason, done);
    }
    await Promise.all(entries.map((entry) => this.#lookAfter(entry, wanted, done)));
    done.removed.push(...(await this.launcher.store.sweep()));
    if (unknown) for (const key of await this.launcher.store.keys()) this.launcher.store.use(key);
    else await this.#collectForks();
    for (const name of done.removed) this.emit({ type: "reconcile.action", data: { action: "removed", name } });
    // A server that stays starts the next sandboxes of this host: what a start of the host has made slow is put right beside.
    if (this.launcher.pool !== undefined) this.launcher.readAhead();
    return done;
  }

  /** Of machines that were lost while nobody looked. What cannot be seen now the next start removes. */
  async #collectForks(): Promise<void> {
    const { store } = this.launcher;
    for (const { manifest } of await store.list().catch(() => [])) {
      if (manifest.shape.vmm === this.vmm.name && manifest.kind === "fork") await store.collectFork(manifest.key);
    }
  }

  /** One directory; whatever is wrong with it concerns no other. */
  async #lookAfter(entry: Entry, wanted: ReadonlySet<string>, done: Adoption): Promise<void> {
    const { dir, record } = entry;
    const name = basename(dir);
    const isWanted = wanted.has(name) && (record === undefined || (record.id === name && record.role === "sandbox"));
    const found: Found | undefined = isWanted ? await attempt(this, dir, FIRST_LIMIT_MS) : undefined;
    if (found?.result === "adopted") {
      this.keep(found.machine);
      done.adopted.push(found.machine);
      return;
    }
    let reason = found?.result === "unreachable" ? found.reason : undefined;
    if (reason === undefined) {
      try {
        await removeLeftover(this, entry);
        done.removed.push(name);
        if (found?.result === "gone") done.gone.push(found.gone);
        return;
      } catch (error) {
        reason = asStacyError(error).message;
        this.emit({ type: "reconcile.action", data: { action: "failed", name, reason } });
        if (!isWanted) return this.#removeLater(entry);
      }
    }
    this.#wait(entry, reason, done);
  }

  #wait(entry: Entry, reason: string, done: Adoption): void {
    const unreachable = new Unreachable(this, entry, reason);
    this.#unreachable.add(unreachable);
    void unreachable.outcome.then(() => this.#unreachable.delete(unreachable));
    done.unreachable.push(unreachable);
  }

  #removeLater(entry: Entry): void {
    const name = basename(entry.dir);
    void this.#beside(
      removeLater(this, entry, this.#closing.signal).then((gone) => {
        if (gone) this.emit({ type: "reconcile.action", data: { action: "removed", name } });
      }),
    );
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

  snapshotKeys(): Promise<string[]> {
    return this.launcher.store.keys();
  }

  async buildSnapshot(spec: Omit<SandboxSpec, "id" | "checkpoint">, queued?: () => void): Promise<SnapshotInfo> {
    const target = await this.launcher.targets.resolve(launchSpec(spec));
    await this.launcher.ensureGolden(target, spec.signal, queued);
    const info = (await this.snapshots()).find(({ key }) => key === target.key);
    if (info === undefined) throw new StacyError("internal", "the snapshot vanished after its build");
    return info;
  }

  async removeSnapshot(key: string): Promise<void> {
    // Machines that only wait are no reason to keep it.
    await this.launcher.pool?.empty(key);
    const { store } = this.launcher;
    const kind = store.users(key) === 0 ? undefined : await store.kindOf(key);
    // Off the list already: asked for again, since something after it failed.
    if (kind === "fork") throw new StacyError("not-found", `there is no snapshot ${key}`);
    await (kind === "checkpoint" ? store.retire(key) : store.remove(key));
    this.emit({ type: "snapshot.removed", data: { key } });
  }

  readonly travel: Travel = {
    outline: (id) => outline(this.dir(id)),
    pack: (id) => pack(this.dir(id)),
    file: (id, name) => packedFile(this.dir(id), name),
    differences: (packed) => differences(this, packed),
    like: ({ record }, name) => [join(this.launcher.store.path(record.key), basename(name))],
    unpack: (packed) => unpack(this, this.dir(packed.record.id), packed),
    golden: (key) => goldenFiles(this.launcher.store, key),
    askForGoldens: (elsewhere) => {
      this.launcher.golden.elsewhere = elsewhere;
    },
  };

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

  /** Builds the golden snapshot first, if needed. Rejects when that fails; it is tried again until it has come about, or something else is wanted. */
  async pin(owner: string, spec: Omit<SandboxSpec, "id" | "checkpoint">, count: number): Promise<void> {
    this.#pinning.get(owner)?.abort(new StacyError("cancelled", `${owner} wants something else by now`));
    this.#pinning.delete(owner);
    if (count <= 0) return this.launcher.pool?.unpin(owner);
    const wish = new AbortController();
    this.#pinning.set(owner, wish);
    const signal = AbortSignal.any([wish.signal, this.#closing.signal]);
    const pin = async (): Promise<void> => {
      const target = await this.launcher.targets.resolve(launchSpec(spec), { signal });
      await this.launcher.ensureGolden(target, signal);
      if (!signal.aborted) this.launcher.pool?.pin(owner, target, count);
    };
    const begun = performance.now();
    try {
      await this.#beside(pin());
    } catch (error) {
      if (signal.aborted) return;
      // What it wanted before it wants no longer, whatever becomes of this.
      this.launcher.pool?.unpin(owner);
      void this.#beside(pinLater(pin, performance.now() - begun, signal));
      throw error;
    }
  }

  /** What goes on beside the calls, and ends before this does. */
  #beside(work: Promise<void>): Promise<void> {
    const kept = work.catch(() => {}).finally(() => this.#background.delete(kept));
    this.#background.add(kept);
    return work;
  }

  async close(): Promise<void> {
    this.#closing.abort(new StacyError("cancelled", "the provider is closing"));
    await Promise.all([this.launcher.close(), ...this.#background]);
    await Promise.all([...this.#machines.values(), ...this.#unreachable].map((machine) => machine.release()));
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: ProviderEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Where a sandbox's machine lives. */
  dir(id: string): string {
    return machineDir(this.#paths.sandboxes, id);
  }
}

/** For a machine with slots, by slot. */
function filesOf({ volumes = [], slots }: Pick<SandboxSpec, "volumes" | "slots">): (string | undefined)[] | undefined {
  if (slots === undefined && volumes.length === 0) return undefined;
  const files: (string | undefined)[] = [];
  for (const { slot, file } of volumes) files[slot] = file;
  return files;
}

/** @param tookMs how long it took to fail */
async function pinLater(pin: () => Promise<void>, tookMs: number, signal: AbortSignal): Promise<void> {
  let notBefore = performance.now() + PIN_REST * tookMs;
  for await (const _ of attempts(signal)) {
    const begun = performance.now();
    if (begun < notBefore) continue;
    try {
      return await pin();
    } catch {
      // The first one was told of. Set-up commands that fail after minutes must not keep the host busy with it.
      notBefore = performance.now() + PIN_REST * (performance.now() - begun);
    }
  }
}

function launchSpec(spec: Omit<SandboxSpec, "id">): LaunchSpec {
  const setupHosts = spec.setupHosts ?? spec.allowedHosts;
  return {
    image: spec.image,
    ...(spec.imageOwner === undefined ? {} : { imageOwner: spec.imageOwner }),
    ...(spec.owner === undefined ? {} : { owner: spec.owner }),
    vcpus: spec.vcpus,
    memoryMiB: spec.memoryMiB,
    diskMiB: spec.diskMiB,
    setup: spec.setup,
    setupEnv: spec.setup.length === 0 ? {} : spec.env,
    ...(spec.start === undefined ? {} : { start: spec.start }),
    ...(spec.contexts === undefined ? {} : { contexts: spec.contexts }),
    ...(spec.slots === undefined ? {} : { slots: [...spec.slots] }),
    ...(setupHosts === undefined ? {} : { setupHosts: [...setupHosts] }),
  };
}
