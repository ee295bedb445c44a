/**
 * Sandboxes come to be: by a spawn, or as copies of one that runs. Nobody hears of one before its row says that it runs, and of one
 * that comes to nothing nothing stays. A machine that dies by itself is noticed from then on.
 */
import type { CopiedDirectories, HostDirectory } from "../directories/directory.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import type { Phases } from "../host/phases.ts";
import type { Provider, SandboxMachine, SandboxSpec } from "../providers/provider.ts";
import type { ExitReport } from "../vmm/vmm.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { CheckpointVolumes } from "./checkpoint-volumes.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Clock } from "./clock.ts";
import type { Endings } from "./endings.ts";
import type { Events } from "./events.ts";
import type { ForkedVolumes } from "./forked-volumes.ts";
import type { Log, Observer } from "./observer.ts";
import type { SandboxFailure, SandboxRecord, VolumeMount, VolumeSlot } from "./record.ts";
import type { MostTaken, Registry } from "./registry.ts";
import type { ResolvedSpawn, SpawnInput } from "./resolve.ts";
import { Sandbox } from "./sandbox.ts";
import type { SecretInput, Secrets } from "./secrets.ts";
import { mayBecome } from "./state.ts";
import type { StateChanges } from "./state-changes.ts";
import type { SandboxTable } from "./table.ts";
import { accessOf, leaseAll, slotsOf } from "./volume-mounts.ts";

/** What copies get that their source does not simply share with them. */
interface ForkedThings {
  env?: Record<string, string> | undefined;
  volumes?: ForkedVolumes | undefined;
  directories?: CopiedDirectories | undefined;
}

export interface MakingParts {
  table: SandboxTable;
  volumes: Volumes;
  secrets: Secrets;
  changes: StateChanges;
  endings: Endings;
  checkpoints: Checkpoints;
  events: Events;
  observer: Observer;
  log: Log;
  clock: Clock;
  /** Absent: this server is alone. */
  registry?: Registry | undefined;
  /** What all servers together may have of what it is one of. */
  mostOf(record: SandboxRecord): MostTaken | undefined;
  /** There may be room for another one now. */
  advance(): void;
}

export class Making {
  readonly #parts: MakingParts;
  #stopped = false;

  constructor(parts: MakingParts) {
    this.#parts = parts;
  }

  /** Takes the place and the name at once (no await before the table knows it): admission counts what is in flight. */
  reserve(
    resolved: ResolvedSpawn,
    provider: string,
    input: Pick<SpawnInput, "name" | "ownerId" | "template" | "checkpoint" | "lent" | "ports" | "request"> & {
      owner: string;
      forkedFrom?: string;
      mounts?: VolumeMount[];
      directories?: HostDirectory[];
      /** All of its machine's. */
      slots?: VolumeSlot[] | undefined;
      /** Volumes that are made for it. */
      made?: CheckpointVolumes | ForkedVolumes | undefined;
    },
  ): Sandbox {
    const { clock, table, volumes } = this.#parts;
    for (const mount of input.mounts ?? []) volumes.assertAvailable(mount, mount.readOnly);
    const now = clock.now();
    const { spec } = resolved;
    table.assertFree(input.owner, input.name);
    const id = table.freshId();
    const mounts = input.made?.mountsOf(id) ?? input.mounts;
    const record: SandboxRecord = {
      id,
      ...(input.name ? { name: input.name } : {}),
      state: "creating",
      provider,
      image: spec.image,
      memoryMiB: spec.memoryMiB,
      vcpus: spec.vcpus,
      diskMiB: spec.diskMiB,
      owner: input.owner,
      createdAt: now,
      expiresAt: now + resolved.ttlMs,
      idleTimeoutMs: resolved.idleTimeoutMs,
      idleAction: resolved.idleAction,
      ...(resolved.idleCounts === undefined ? {} : { idleCounts: resolved.idleCounts }),
      ...(resolved.onExpiry === undefined ? {} : { onExpiry: resolved.onExpiry }),
      ...(input.lent === undefined ? {} : { lent: input.lent }),
      metadata: resolved.metadata,
      ...(spec.allowedHosts?.length ? { allowedHosts: [...spec.allowedHosts] } : {}),
      ...(resolved.secrets === undefined ? {} : { secrets: resolved.secrets }),
      ...(input.ownerId === undefined ? {} : { ownerId: input.ownerId }),
      ...(mounts?.length ? { volumes: mounts } : {}),
      ...(input.directories?.length ? { directories: input.directories } : {}),
      ...(input.slots === undefined ? {} : { slots: input.slots }),
      ...(input.ports === undefined ? {} : { ports: input.ports }),
      ...(input.request === undefined ? {} : { request: input.request }),
      ...(input.template ? { template: input.template } : {}),
      ...(input.checkpoint ? { checkpoint: input.checkpoint } : {}),
      ...(input.forkedFrom === undefined ? {} : { forkedFrom: input.forkedFrom }),
    };
    const sandbox = new Sandbox(record, () => clock.now());
    sandbox.env = spec.env;
    table.add(sandbox);
    return sandbox;
  }

  /** @param brings secrets for itself alone, and volumes that are made for it */
  async spawn(
    sandbox: Sandbox,
    provider: Provider,
    spec: Omit<SandboxSpec, "id">,
    { secrets: own, made }: { secrets: readonly SecretInput[]; made?: CheckpointVolumes | undefined },
    phases: Phases,
    signal: AbortSignal | undefined,
  ): Promise<Sandbox> {
    const { table, secrets, volumes, checkpoints, endings, events, observer, log, registry, mostOf } = this.#parts;
    const { id } = sandbox;
    const leave = (): void => void endings.end(sandbox, "destroyed", "the client went away").catch(noop);
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted === true) leave();
    try {
      await sandbox.changes.run(async (ended) => {
        await phases.phase("record", () => table.save(sandbox));
        const claimed = registry?.claim(sandbox.record, mostOf(sandbox.record));
        claimed?.catch(noop); // looked at when the machine is there
        if (claimed !== undefined && registry?.doubts(sandbox.record.owner) === true)
          await phases.phase("claim", () => claimed);
        for (const secret of own) await secrets.put(sandbox.record.owner, secret, id);
        const { name } = sandbox.record;
        events.emit("sandbox.created", id, { name, image: spec.image, provider: provider.name });
        ended.throwIfAborted();
        await made?.ready();
        const { record } = sandbox;
        const slots = slotsOf(record);
        const given = slots.length === 0 ? {} : { slots: accessOf(slots), volumes: await leaseAll(volumes, record) };
        ended.throwIfAborted();
        const { directories } = sandbox.record;
        const { lent } = sandbox.record;
        const more = {
          ...given,
          ...(directories === undefined ? {} : { directories }),
          ...(lent === undefined ? {} : { lent }),
        };
        const start = () => provider.spawn({ ...spec, ...more, id, signal: ended });
        const machine = await (spec.checkpoint === undefined ? start() : checkpoints.using(spec.checkpoint, start));
        sandbox.machine = machine;
        ended.throwIfAborted();
        if (claimed !== undefined) await phases.phase("claim", () => claimed);
        ended.throwIfAborted();
        this.#begin(sandbox, machine);
        // Its row says already what the next daemon does with it: it ends with its call.
        if (lent === undefined) await phases.phase("commit", () => table.save(sandbox));
        await made?.keep();
        this.follow(sandbox, machine);
      });
    } catch (error) {
      const failure = await this.#unmake(sandbox, asStacyError(error));
      await made?.abandon();
      throw failure;
    } finally {
      signal?.removeEventListener("abort", leave);
    }
    const { boot } = sandbox.record;
    if (boot !== undefined) {
      observer.spawned(boot, phases.total);
      const ms = { ...boot.phases, ...phases.ms };
      log.info({ sandbox: id, path: boot.path, ms: phases.total, phases: ms }, "sandbox runs");
      events.emit("sandbox.running", id, { path: boot.path, total_ms: boot.totalMs });
    }
    return sandbox;
  }

  /** After a spawn that came to nothing: nobody got this sandbox, the error is the answer, and nothing of it stays. */
  async #unmake(sandbox: Sandbox, failure: StacyError): Promise<StacyError> {
    const { endings, events, observer, log } = this.#parts;
    const { id } = sandbox;
    const ended = !sandbox.visible;
    if (failure.code === "limit") {
      events.emit("resource.limit", undefined, { reason: failure.data?.reason }, sandbox.record.owner);
    }
    if (!ended) {
      observer.spawnFailed(failure, sandbox.record.provider);
      log.warn({ sandbox: id, phase: failure.phase, code: failure.code, err: failure }, "spawn failed");
      events.emit("sandbox.error", id, { code: failure.code, phase: failure.phase, message: failure.message });
    }
    await endings.end(sandbox, "destroyed", "spawn failed").catch(noop); // logged, and tried again
    return ended ? new StacyError("cancelled", `sandbox ${id} was ended while it was being made`) : failure;
  }

  /** Its time runs from now on: what an image's download took must not be taken from it. */
  #begin(sandbox: Sandbox, machine: SandboxMachine): void {
    const now = this.#parts.clock.now();
    const { record } = sandbox;
    record.expiresAt += now - record.createdAt;
    record.boot = machine.boot;
    record.state = "running";
    sandbox.lastUsedAt = now;
  }

  /** @param children have their places */
  async fork(
    parent: Sandbox,
    children: readonly Sandbox[],
    { env, volumes, directories }: ForkedThings,
    signal: AbortSignal | undefined,
  ): Promise<{ sandboxes: SandboxRecord[]; stoppedMs: number }> {
    const { table, secrets, changes, endings, events, registry, mostOf } = this.#parts;
    const ids = children.map(({ id }) => id);
    const fork = async () => {
      await Promise.all(children.map((child) => table.save(child)));
      // Before, and not beside: it costs less than a copy that nobody may have.
      await Promise.all(children.map((child) => registry?.claim(child.record, mostOf(child.record))));
      await volumes?.begin();
      await Promise.all(ids.map((id) => secrets.copy(parent.record.owner, parent.id, id)));
      return parent.changes.run((ended) => {
        const machine = parent.machineIn(["running"]);
        const either = signal === undefined ? ended : AbortSignal.any([ended, signal]);
        const options = {
          signal: either,
          ...(env === undefined ? {} : { env }),
          ...(volumes === undefined ? {} : { volumes }),
          ...(directories === undefined ? {} : { directories }),
        };
        return changes.onMachine(parent, machine, () => machine.fork(ids, options));
      });
    };
    try {
      const forking = fork();
      // To each child all of this is its making: an end that comes meanwhile, also before its row is written, waits for it.
      await Promise.all(
        children.map((child) =>
          child.changes
            .run(async (ended) => {
              const { machines } = await forking;
              const machine = machines.find(({ id }) => id === child.id);
              child.machine = machine;
              ended.throwIfAborted();
              if (machine !== undefined) await this.#bringUp(child, machine);
            })
            .catch(async (error: unknown) => {
              await forking; // if it failed, that is the error
              if (child.visible) throw error; // else it was ended already: so it goes
            }),
        ),
      );
      const { stoppedMs } = await forking;
      await volumes?.keep();
      events.emit("sandbox.forked", parent.id, { children: ids, stopped_ms: stoppedMs });
      return { sandboxes: children.map((child) => child.record), stoppedMs };
    } catch (error) {
      await Promise.allSettled(children.map((child) => endings.end(child, "destroyed", "fork failed")));
      await volumes?.abandon(error);
      throw asStacyError(error).inPhase("fork");
    }
  }

  async #bringUp(child: Sandbox, machine: SandboxMachine): Promise<void> {
    const { table, events } = this.#parts;
    this.#begin(child, machine);
    await table.save(child);
    this.follow(child, machine);
    events.emit("sandbox.running", child.id, { path: machine.boot.path, total_ms: machine.boot.totalMs });
  }

  /** A machine that dies is noticed at once. */
  follow(sandbox: Sandbox, machine: SandboxMachine): void {
    const noticed = machine.exited.then(async (report) => {
      if (this.#stopped || sandbox.machine !== machine || !mayBecome(sandbox.state, "error")) return;
      const error = new StacyError("machine-exited", describeExit(report), { phase: "run" });
      await this.fail(sandbox, error, report.console);
      // The record keeps the reason; the machine's files are of no more use.
      await machine.destroy();
      this.#parts.advance();
    });
    noticed.catch((error: unknown) => {
      this.#parts.log.error({ sandbox: sandbox.id, err: error }, "a dead machine could not be removed");
    });
  }

  async fail(sandbox: Sandbox, error: StacyError, console: string[]): Promise<void> {
    const { table, events, log, clock } = this.#parts;
    const failure: SandboxFailure = {
      code: error.code,
      message: error.message,
      at: clock.now(),
      console,
      ...(error.phase === undefined ? {} : { phase: error.phase }),
    };
    sandbox.record.state = "error";
    sandbox.record.failure = failure;
    log.warn({ sandbox: sandbox.id, phase: error.phase, console: console.slice(-5) }, error.message);
    events.emit("sandbox.error", sandbox.id, { code: error.code, message: error.message, console });
    await table.save(sandbox).catch(noop);
  }

  /** The daemon stops: what machines do from now on the next one finds. */
  stop(): void {
    this.#stopped = true;
  }
}

function noop(): void {}

function describeExit(report: ExitReport): string {
  const how =
    report.signal !== undefined
      ? `signal ${report.signal}`
      : report.exitCode !== undefined
        ? `exit code ${report.exitCode}`
        : "unknown exit";
  return report.reason === "guest" ? `the guest powered off or panicked (${how})` : `the machine died (${how})`;
}
