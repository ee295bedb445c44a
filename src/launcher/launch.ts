/**
 * The two ways to start a machine in a directory: restore it from a snapshot, or boot it cold. Each measures its phases and
 * leaves nothing behind when it fails. Which way is taken is the launcher's decision (launcher.ts).
 */
import { rename } from "node:fs/promises";
import { join } from "node:path";
import type { Agent, Identity } from "../guest/agent.ts";
import { openAgent } from "../guest/client.ts";
import { attempts } from "../host/attempts.ts";
import { directoryIdentity } from "../host/directory.ts";
import { StacyError } from "../host/error.ts";
import type { Phases } from "../host/phases.ts";
import { hangUpError } from "../vmm/exit.ts";
import type {
  BlankVmm,
  ExitReport,
  JailConfig,
  LoadableVmm,
  MachineConfig,
  RunningMachine,
  Vmm,
  VmmProcess,
} from "../vmm/vmm.ts";
import { copyDisk, fillSlots, linkBase, makeMachineDir, removeMachineDir, removeWithProcesses } from "./machine-dir.ts";
import type { DiskTemplate, Snapshot } from "./snapshot-store.ts";
import type { Target } from "./target.ts";

export interface Place {
  /** Absolute; must not exist. */
  dir: string;
  /** Files of the volumes in its slots; absent: empty ones. */
  volumes?: readonly (string | undefined)[];
  jail?: JailConfig;
  signal?: AbortSignal;
}

/** A machine that answered its handshake. */
export interface Started {
  machine: RunningMachine;
  agent: Agent;
}

/**
 * An idle VMM with its directory and disk prepared: what is left is load and handshake.
 * @param blank a process that waits, which belongs to this call; without one it is started now
 */
export async function prepareIdle(
  vmm: Vmm,
  target: Target,
  snapshot: Snapshot,
  place: Place,
  phases: Phases,
  blank?: BlankVmm,
): Promise<LoadableVmm> {
  const { dir } = place;
  if (blank !== undefined) return prepareBlank(blank, target, snapshot, place, phases);
  const disk = async (): Promise<void> => {
    await phases.phase("disk", () => copyDisk(dir, snapshot.disk));
  };
  const start = (): Promise<LoadableVmm> =>
    phases.phase("vmm", () =>
      vmm.prepareLoad({
        dir,
        config: target.config,
        memory: "private",
        snapshot: { dir: snapshot.dir },
        ...optional(place),
      }),
    );
  let started: LoadableVmm | undefined;
  // What is there already is another machine's: it must not be cleared away with what failed here.
  await makeMachineDir(dir, target.image.base);
  try {
    await fillSlots(dir, target.config, place.volumes);
    if (vmm.abilities.diskBeforeStart) {
      await disk();
      started = await start();
      return started;
    }
    const starting = start().then((process) => {
      started = process;
    });
    const results = await Promise.allSettled([starting, disk()]);
    for (const result of results) if (result.status === "rejected") throw result.reason;
    return started as unknown as LoadableVmm;
  } catch (error) {
    await discard(dir, started);
    throw error;
  }
}

async function prepareBlank(
  blank: BlankVmm,
  target: Target,
  snapshot: Snapshot,
  { dir, volumes }: Place,
  phases: Phases,
): Promise<LoadableVmm> {
  try {
    await phases.phase("vmm", async () => {
      await rename(blank.dir, dir);
      blank.relocate(dir);
    });
    await phases.phase("disk", () =>
      Promise.all([
        linkBase(dir, target.image.base),
        copyDisk(dir, snapshot.disk),
        fillSlots(dir, target.config, volumes),
      ]),
    );
    return await blank.become(target.config);
  } catch (error) {
    await discard(blank.dir, blank);
    throw error;
  }
}

/** Loads the snapshot into an idle VMM and shakes hands. */
export async function loadInto(
  vmm: Vmm,
  idle: LoadableVmm,
  snapshot: Snapshot,
  identity: Identity | undefined,
  phases: Phases,
  options: { trackDirty?: boolean; signal?: AbortSignal } = {},
): Promise<Started> {
  using _watch = endedBy(options.signal, idle);
  try {
    const source = { dir: snapshot.dir, ...(options.trackDirty === true ? { trackDirty: true } : {}) };
    const machine = await phases.phase("load", () => idle.load(source));
    const agent = await phases.phase("agent", () => greet(machine, identity, vmm.answerMs.restored, options.signal));
    return { machine, agent };
  } catch (error) {
    await discard(idle.dir, idle);
    options.signal?.throwIfAborted(); // why it failed
    throw error;
  }
}

/** A monitor is ended as soon as nobody wants its machine: whatever waits for it then fails at once. */
export function endedBy(signal: AbortSignal | undefined, process: VmmProcess): Disposable {
  const end = (): void => void process.kill().catch(() => {}); // whoever cleans up meets the same error
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted === true) end();
  return { [Symbol.dispose]: () => signal?.removeEventListener("abort", end) };
}

/** Boots in `place`, on an empty disk. @param shared the RAM becomes the snapshot: a golden boot */
export async function bootCold(
  vmm: Vmm,
  target: Target,
  disk: DiskTemplate,
  place: Place,
  identity: Identity | undefined,
  phases: Phases,
  shared = false,
): Promise<Started> {
  return await untilItAnswers(vmm, place.signal, (limit) =>
    bootOnce(vmm, target, disk, place, identity, phases, shared, limit),
  );
}

/** A machine that is silent for so long (ms) is booted again. */
async function untilItAnswers<T>(
  vmm: Vmm,
  signal: AbortSignal | undefined,
  boot: (limitMs: number) => Promise<T>,
): Promise<T> {
  const limits = [...vmm.answerMs.booted];
  for (;;) {
    const limit = limits.shift() as number;
    try {
      return await boot(limit);
    } catch (error) {
      const silent = error instanceof StacyError && error.code === "timeout";
      if (!silent || limits.length === 0 || signal?.aborted === true) throw error;
    }
  }
}

/**
 * Boots in a directory whose disk is there, and waits until its guest answers; who it is nobody has told it yet.
 * @param begun the monitor, which belongs to the caller from then on; again for each attempt, when the one before is gone
 */
export async function bootAnew(
  vmm: Vmm,
  config: MachineConfig,
  place: Place,
  begun: (process: VmmProcess) => void,
): Promise<RunningMachine> {
  return await untilItAnswers(vmm, place.signal, async (limitMs) => {
    const bootable = await vmm.prepareBoot({ dir: place.dir, config, memory: "private", ...optional(place) });
    begun(bootable);
    try {
      const machine = await bootable.boot();
      const agent = await greet(machine, undefined, limitMs, place.signal);
      await agent.close();
      return machine;
    } catch (error) {
      await bootable.kill();
      throw error;
    }
  });
}

async function bootOnce(
  vmm: Vmm,
  target: Target,
  disk: DiskTemplate,
  place: Place,
  identity: Identity | undefined,
  phases: Phases,
  shared: boolean,
  limitMs: number,
): Promise<Started> {
  const { dir } = place;
  let started: VmmProcess | undefined;
  await makeMachineDir(dir, target.image.base);
  try {
    await fillSlots(dir, target.config, place.volumes);
    await phases.phase("disk", () => copyDisk(dir, disk));
    const bootable = await phases.phase("vmm", () =>
      vmm.prepareBoot({ dir, config: target.config, memory: shared ? "shared" : "private", ...optional(place) }),
    );
    started = bootable;
    using _watch = endedBy(place.signal, bootable);
    const machine = await bootable.boot(phases);
    const agent = await phases.phase("agent", () => greet(machine, identity, limitMs, place.signal));
    return { machine, agent };
  } catch (error) {
    await discard(dir, started);
    place.signal?.throwIfAborted(); // why it failed
    throw error;
  }
}

/** Connects to the agent and gives it its identity in one round trip. A guest that dies meanwhile is the answer. */
async function greet(
  machine: RunningMachine,
  identity: Identity | undefined,
  limitMs: number,
  signal?: AbortSignal,
): Promise<Agent> {
  const abort = new AbortController();
  const ended = machine.exited.then((report) => {
    const words = lastWords(report);
    return new StacyError(
      "machine-exited",
      `the machine ended before its agent answered${words === "" ? "" : `:\n${words}`}`,
      {
        data: { report },
        remedy: "see the console's last lines",
      },
    );
  });
  const both = signal === undefined ? abort.signal : AbortSignal.any([abort.signal, signal]);
  const limits = { timeoutMs: limitMs, signal: both };
  const greeting = openAgent((greeting) => machine.connectAgent({ ...limits, greeting }), {
    ...limits,
    ...(identity === undefined ? {} : { identity }),
  });
  try {
    const fail = (error: StacyError): Promise<never> => Promise.reject(error);
    const starved = machine.starved === undefined ? [] : [machine.starved.then(fail)];
    return await Promise.race([greeting, ended.then(fail), ...starved]);
  } catch (error) {
    abort.abort(error);
    // A greeting that succeeds after all must not leave its connection open.
    void greeting.then(
      (agent) => agent.close(),
      () => {},
    );
    // A broken channel is often the first sign of a machine's end, and its report says more.
    throw error instanceof StacyError && error.code === "disconnected" ? await hangUpError(ended, error) : error;
  }
}

/** What the guest or the VMM said last; a panic's own line first, since a long trace follows it. */
function lastWords({ console, vmmLog }: ExitReport): string {
  const cause = console.find((line) => /Kernel panic|Out of memory|BUG: |Oops: /.test(line));
  const last = (console.length > 0 ? console : vmmLog).slice(-5);
  return (cause === undefined || last.includes(cause) ? last : [cause, ...last]).join("\n");
}

/**
 * Nothing of a failed start stays: processes first, then its directory. Never rejects, since why the start failed says more: what resists is
 * tried again, less and less often, while this process lives; then it is the next one's leftover.
 */
export async function discard(dir: string, process: VmmProcess | undefined): Promise<void> {
  const identity = await directoryIdentity(dir).catch(() => undefined);
  const removed = async (): Promise<boolean> => {
    try {
      // One that is in the directory all the same, for example since whoever started it died before telling, nobody would find any more.
      if (process === undefined) await removeWithProcesses(dir);
      else {
        await process.kill();
        await removeMachineDir(dir);
      }
      return true;
    } catch {
      return false;
    }
  };
  if (await removed()) return;
  void (async () => {
    for await (const _ of attempts()) {
      // Another machine may have its name by now.
      const now = await directoryIdentity(dir).catch(() => identity);
      if ((now !== undefined && now !== identity) || (await removed())) return;
    }
  })();
}

function optional(place: Place): { jail?: JailConfig; signal?: AbortSignal } {
  return {
    ...(place.jail === undefined ? {} : { jail: place.jail }),
    ...(place.signal === undefined ? {} : { signal: place.signal }),
  };
}

/** `<dir>/<id>`, after checking that the id cannot leave `dir`. @throws StacyError `invalid` */
export function machineDir(dir: string, id: string): string {
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(id)) throw new StacyError("invalid", `"${id}" is not a machine's id`);
  return join(dir, id);
}
