/**
 * What a daemon does with the machines of an earlier one. Follows docs/crash-protocol.md, whose steps it names: the record of a machine
 * says what it is made again, whatever the earlier daemon was about to do with it.
 */
import { readdir, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Agent } from "../guest/agent.ts";
import { openAgent } from "../guest/client.ts";
import { attempts } from "../host/attempts.ts";
import { directoryIdentity } from "../host/directory.ts";
import { syncPath } from "../host/durable.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { isThere } from "../host/exists.ts";
import { hasProcesses, isAlive, worksIn } from "../host/process.ts";
import { tailLines } from "../host/tail.ts";
import type { BootReport } from "../launcher/launcher.ts";
import { type MachineRecord, readRecord, removeMachineDir, removeWithProcesses } from "../launcher/machine-dir.ts";
import { SuspendedState } from "../launcher/suspended.ts";
import { targetOf } from "../launcher/target.ts";
import { endLeftovers } from "../vmm/leftovers.ts";
import { FILES, type PausedMachine, type RunningMachine } from "../vmm/vmm.ts";
import type { MachineContext } from "./machine-context.ts";
import { formerId, nextId } from "./machine-life.ts";
import { MicrovmMachine } from "./microvm-machine.ts";
import type { GoneMachine, SandboxMachine, UnreachableMachine } from "./provider.ts";

/** For each of a machine's answers, ms. At the start somebody waits for the server; later nobody does. */
export const FIRST_LIMIT_MS = 5_000;
const LATER_LIMIT_MS = 30_000;
const CONSOLE_LINES = 20;
const GONE_AT_START = "its machine was gone when the server started";

/** The three results. */
export type Found =
  | { result: "adopted"; machine: SandboxMachine }
  | { result: "unreachable"; reason: string }
  | { result: "gone"; gone: GoneMachine };

/** A directory of a machine, as it was found: with its record, or with why that cannot be read. */
export interface Entry {
  dir: string;
  /** Which directory had that name then (`directoryIdentity`); `undefined` also where that could not be seen. */
  identity: string | undefined;
  record: MachineRecord | undefined;
  problem?: StacyError;
}

export async function readEntry(dir: string): Promise<Entry> {
  let identity: string | undefined;
  try {
    identity = await directoryIdentity(dir);
    return { dir, identity, record: await readRecord(dir) };
  } catch (thrown) {
    return { dir, identity, record: undefined, problem: asStacyError(thrown) };
  }
}

export async function readEntries(root: string): Promise<Entry[]> {
  const names = await readdir(root).catch((error: unknown) => {
    if (errno(error) === "ENOENT") return [];
    throw error;
  });
  return Promise.all(names.map((name) => readEntry(join(root, name))));
}

/** One attempt to take over the machine in `dir`. It ends nothing that may be wanted. Never rejects. */
export async function attempt(
  context: MachineContext,
  dir: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Found> {
  try {
    const entry = await readEntry(dir);
    const { record, problem } = entry;
    if (problem !== undefined) {
      if (await holdsMachine(entry)) return { result: "unreachable", reason: problem.message };
      return { result: "gone", gone: await goneMachine(dir, GONE_AT_START) };
    }
    if (record === undefined) return await withoutRecord(dir);
    return await withRecord(context, dir, record, timeoutMs, signal);
  } catch (thrown) {
    return { result: "unreachable", reason: asStacyError(thrown).message };
  }
}

/**
 * Whether there is something of a machine that could be lost: its process, or what it was suspended to. Of one that ran when its host
 * went down there is neither.
 * @throws StacyError `unavailable` when that cannot be seen
 */
export async function holdsMachine({ dir, record }: Entry): Promise<boolean> {
  const suspended = await new SuspendedState(dir).exists();
  if (record === undefined) return suspended || (await hasProcesses(dir));
  if (record.state === "suspended" && suspended) return true;
  return record.process !== null && (await isAlive(record.process)) && (await worksIn(record.process, dir));
}

/** Before P4 no client has heard of it, so a wanted one without a record has lost it. */
async function withoutRecord(dir: string): Promise<Found> {
  if (await new SuspendedState(dir).exists()) {
    return { result: "unreachable", reason: "its record is missing; its saved state is there" };
  }
  return { result: "gone", gone: await goneMachine(dir, "its record was missing when the server started") };
}

async function withRecord(
  context: MachineContext,
  dir: string,
  record: MachineRecord,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Found> {
  const { vmm, paths, store } = context.launcher;
  const saved = new SuspendedState(dir);
  const suspended = await saved.exists();
  const process = record.process !== null && (await worksIn(record.process, dir)) ? record.process : null;
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
    paths,
  );
  const boot = record.boot as BootReport;
  const keep = (machine?: RunningMachine | PausedMachine, agent?: Agent): Found => {
    const releaseSnapshot = store.use(record.key);
    const parts = { dir, record, target, boot, releaseSnapshot };
    const alive = machine === undefined ? {} : { machine, ...(agent === undefined ? {} : { agent }) };
    return { result: "adopted", machine: new MicrovmMachine(context, { ...parts, ...alive }) };
  };
  if (record.state === "suspended" && suspended) {
    // S4 was reached: what is saved is what counts. A process is one that did not die, or a wake that did not get to W5.
    await endLeftovers(dir);
    return keep();
  }
  if (process === null || !(await isAlive(process))) {
    return { result: "gone", gone: await goneMachine(dir, GONE_AT_START) };
  }
  const wait = { timeoutMs, ...(signal === undefined ? {} : { signal }) };
  let found = await vmm.adopt(dir, process, record.config, wait);
  if (found === undefined) {
    return { result: "gone", gone: await goneMachine(dir, "its machine ended while the server started") };
  }
  try {
    await saved.removeUnfinished(); // S2
    if (record.state === "paused") {
      // Fork, checkpoint and R1 let it run for a while: it is made to stand still again. Its next `resume` thaws it.
      if (found.state === "running") found = await found.pause();
      return keep(found);
    }
    // U1, S1 to S4, F3 to F5: it stands still for something that did not come about.
    const machine = found.state === "paused" ? await found.resume() : found;
    found = machine;
    const agent = await openAgent((greeting) => machine.connectAgent({ ...wait, greeting }), wait);
    await thaw(agent); // F2 to F6
    return keep(machine, agent);
  } catch (error) {
    // Its monitor serves one client at a time: the next attempt needs it free.
    await found.release();
    throw error;
  }
}

/** Its processes may stand still: a save was under way. */
async function thaw(agent: Agent): Promise<void> {
  await agent.thaw().catch((error: unknown) => {
    // A guest that cannot freeze has nothing to thaw.
    if (asStacyError(error).code !== "not-supported") throw error;
  });
}

async function goneMachine(dir: string, reason: string): Promise<GoneMachine> {
  return { id: basename(dir), reason, console: await tailLines(join(dir, FILES.console), CONSOLE_LINES) };
}

/** The replacements of these sandboxes' machines. @returns of those that cannot be finished now, why, by sandbox */
export async function finishReplacements(
  context: MachineContext,
  root: string,
  wanted: ReadonlySet<string>,
): Promise<Map<string, string>> {
  const unfinished = new Map<string, string>();
  const names = new Set(await readdir(root));
  for (const id of wanted) {
    if (!names.has(nextId(id)) && !names.has(formerId(id))) continue;
    await finishReplacement(context, join(root, id)).catch((error: unknown) => {
      unfinished.set(id, asStacyError(error).message);
    });
  }
  return unfinished;
}

/**
 * B2 to B4: a checkpoint was about to take the machine's place. Once the old one is dead, the new one is the sandbox's; where that is
 * dead too, as after the host's end, it is the old one again, with what it was suspended to.
 * @throws when that cannot be done now
 */
export async function finishReplacement(context: MachineContext, place: string): Promise<void> {
  const [root, id] = [dirname(place), basename(place)];
  const [next, former] = [join(root, nextId(id)), join(root, formerId(id))];
  const ours = ({ record }: Entry): boolean => record?.id === id && record.vmm === context.launcher.vmm.name;
  const isTaken = async (): Promise<boolean> => (await isThere(place)) && holdsMachine(await readEntry(place));
  const successor = await readEntry(next);
  if (ours(successor) && (await holdsMachine(successor)) && !(await isTaken())) {
    if (await isThere(place)) {
      await endLeftovers(place);
      await removeMachineDir(former);
      await rename(place, former);
    }
    await rename(next, place);
    await syncPath(root);
    await removeMachineDir(former);
  } else if (ours(await readEntry(former)) && !(await isThere(place))) {
    await rename(former, place);
    await syncPath(root);
  }
}

/** Ends whatever of ours still runs in a directory that nobody wants, and removes it. */
export async function removeLeftover(context: MachineContext, { dir, record }: Entry): Promise<void> {
  const { process } = record ?? {};
  if (process && (await worksIn(process, dir))) await context.launcher.vmm.end(dir, process);
  await removeWithProcesses(dir);
}

/**
 * The same for one that resisted, again and again, as long as it is that one: another machine may have its name by then.
 * Begun while the daemon starts.
 * @returns whether it is gone; not when `signal` came first, or when it cannot be seen
 */
export async function removeLater(context: MachineContext, entry: Entry, signal: AbortSignal): Promise<boolean> {
  // Where it could not be seen before: nothing else has been made under its name yet, since the start is still under way.
  const identity = entry.identity ?? (await directoryIdentity(entry.dir).catch(() => "unseen"));
  if (identity === "unseen") return false; // nobody can say any more which one it is; the next start looks again
  for await (const _ of attempts(signal)) {
    try {
      if ((await directoryIdentity(entry.dir)) === identity) await removeLeftover(context, entry);
      return true;
    } catch {} // said once, when it was found
  }
  return false;
}

export class Unreachable implements UnreachableMachine {
  readonly id: string;
  readonly outcome: Promise<{ machine: SandboxMachine } | { gone: GoneMachine }>;
  readonly #context: MachineContext;
  readonly #dir: string;
  readonly #over = new AbortController();
  readonly #trying: Promise<void>;
  #reason: string;
  /** False once it is to end; one that is only let go is the next daemon's. */
  #wanted = true;
  #end: Promise<void> | undefined;
  /** Gives back the snapshot that it may run from. */
  #releaseSnapshot: () => void;

  constructor(context: MachineContext, { dir, record }: Entry, reason: string) {
    this.#context = context;
    this.#dir = dir;
    this.id = basename(dir);
    this.#reason = reason;
    this.#releaseSnapshot = record === undefined ? () => {} : context.launcher.store.use(record.key);
    const { promise, resolve } = Promise.withResolvers<{ machine: SandboxMachine } | { gone: GoneMachine }>();
    this.outcome = promise;
    this.#trying = this.#try(resolve);
  }

  get reason(): string {
    return this.#reason;
  }

  async #try(settle: (outcome: { machine: SandboxMachine } | { gone: GoneMachine }) => void): Promise<void> {
    const { signal } = this.#over;
    for await (const _ of attempts(signal)) {
      const found = await this.#attempt(signal);
      if (found.result === "unreachable") {
        this.#reason = found.reason;
        continue;
      }
      if (found.result === "gone") return settle({ gone: found.gone });
      this.#releaseSnapshot();
      if (signal.aborted) return this.#wanted ? found.machine.release() : this.#context.discard(found.machine);
      this.#context.keep(found.machine);
      return settle({ machine: found.machine });
    }
  }

  async #attempt(signal: AbortSignal): Promise<Found> {
    try {
      await finishReplacement(this.#context, this.#dir);
    } catch (thrown) {
      return { result: "unreachable", reason: asStacyError(thrown).message };
    }
    return attempt(this.#context, this.#dir, LATER_LIMIT_MS, signal);
  }

  console(lines: number): Promise<string[]> {
    return tailLines(join(this.#dir, FILES.console), lines);
  }

  destroy(): Promise<void> {
    this.#end ??= this.#destroy().catch((error: unknown) => {
      this.#end = undefined;
      throw error;
    });
    return this.#end;
  }

  async #destroy(): Promise<void> {
    this.#wanted = false;
    this.#letGo();
    // First the process: an attempt that waits for it fails at once.
    await this.#remove();
    await this.#trying;
    // It may have moved the machine from one name to another while they were gone over.
    await this.#remove();
    this.#releaseSnapshot();
  }

  async #remove(): Promise<void> {
    const root = dirname(this.#dir);
    for (const name of [this.id, nextId(this.id), formerId(this.id)]) {
      const dir = join(root, name);
      if (await isThere(dir)) await removeLeftover(this.#context, await readEntry(dir));
    }
  }

  release(): Promise<void> {
    this.#letGo();
    return this.#trying;
  }

  #letGo(): void {
    this.#over.abort(new StacyError("cancelled", `the machine of sandbox ${this.id} is looked for no longer`));
  }
}
