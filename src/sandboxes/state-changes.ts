/** What clients change of a sandbox that is there, one change after another. The record follows the machine. */
import { StacyError } from "../host/error.ts";
import type { SandboxMachine, SuspendOptions } from "../providers/provider.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Clock } from "./clock.ts";
import { assertNoDirectories } from "./directories.ts";
import type { Events } from "./events.ts";
import { type Observer, observed } from "./observer.ts";
import { type CheckpointRecord, hasTime, type SandboxRecord } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";
import { setHosts } from "./set-hosts.ts";
import { assertMayBecome, holdsMachine, mayBecome } from "./state.ts";
import type { SandboxTable } from "./table.ts";
import { assertNoVolumes, assertSettled, slotted } from "./volume-mounts.ts";

/** How a state is reached: by which change of the machine, and what is told of it. */
const CHANGES = {
  paused: { event: "sandbox.paused", change: "pause" },
  suspended: { event: "sandbox.suspended", change: "suspend" },
  running: { event: "sandbox.resumed", change: "resume" },
} as const;

/** A change that no client asked for. */
export interface ByItself {
  /** Told with the event. */
  reason?: "idle" | "ttl" | "used" | "move";
  /** Only if it was not used since then; its next use brings it back. */
  idleSince?: number;
  /** It is kept so long from now on, ms, whatever time it had. */
  keepMs?: number;
  /** Of a suspended one; absent: all of its machine. */
  keeps?: SuspendOptions["keeps"];
  /** One that comes back starts its system anew, without what was saved of its memory. */
  anew?: boolean;
}

/** What is done with a sandbox's volumes when it is saved. */
export const SAVED_VOLUMES = ["snapshot", "refuse"] as const;

export interface CheckpointInput {
  name?: string | undefined;
  /** Absent: `snapshot`. */
  volumes?: (typeof SAVED_VOLUMES)[number] | undefined;
}

export interface StateChangesParts {
  table: SandboxTable;
  checkpoints: Checkpoints;
  volumes: Volumes;
  events: Events;
  observer: Observer;
  clock: Clock;
}

export class StateChanges {
  readonly #parts: StateChangesParts;

  constructor(parts: StateChangesParts) {
    this.#parts = parts;
  }

  /** @param by what asks for it, where no client does */
  to(sandbox: Sandbox, state: keyof typeof CHANGES, by: ByItself = {}): Promise<SandboxRecord> {
    return sandbox.changes.run((signal) => this.within(sandbox, state, by, signal));
  }

  /** The same as a part of a change that is under way. */
  async within(
    sandbox: Sandbox,
    state: keyof typeof CHANGES,
    by: ByItself,
    signal: AbortSignal,
  ): Promise<SandboxRecord> {
    const { table, observer, events, clock } = this.#parts;
    const { event, change } = CHANGES[state];
    const { id, record } = sandbox;
    const { reason, idleSince, keepMs, keeps, anew = false } = by;
    // What starts again from its disk alone starts as machines without volumes do.
    if (keeps === "disk") {
      assertNoVolumes(record, "suspended without its memory");
      assertNoDirectories(record, "suspended without its memory");
    }
    if (anew && sandbox.state !== state) {
      assertNoVolumes(record, "resumed without its memory");
      assertNoDirectories(record, "resumed without its memory");
    }
    if (sandbox.state === state) {
      // Asked twice, two uses woke it at once, or the change was made and could not be recorded. Where it came to that by itself, a
      // client that asks for it now wants it to stay so.
      const before = JSON.stringify(record);
      if (keepMs !== undefined) record.expiresAt = clock.now() + keepMs;
      if (reason === undefined) noteAsked(record, state, by);
      await (JSON.stringify(record) === before ? table.saved(sandbox) : table.save(sandbox));
      return record;
    }
    if (idleSince !== undefined && (sandbox.inUse || sandbox.lastUsedAt > idleSince)) return record;
    const machine = sandbox.machineIn(["running", "paused", "suspended"]);
    assertMayBecome(id, sandbox.state, state);
    // A saved state that outlived the host without its row would be a stranger's (S4).
    if (state === "suspended") await table.sync();
    const { provider } = record;
    const { expiresAt } = record;
    // In the same row as the new state, and before: its time must not end it in the middle.
    if (keepMs !== undefined) record.expiresAt = clock.now() + keepMs;
    const kept = record.expiresAt;
    try {
      await observed(observer, { name: event, provider }, () =>
        this.onMachine(sandbox, machine, () =>
          machine[change]({ signal, ...(keeps === undefined ? {} : { keeps }), ...(anew ? { anew } : {}) }),
        ),
      );
    } catch (error) {
      if (record.expiresAt === kept) record.expiresAt = expiresAt;
      throw error;
    }
    assertThere(sandbox);
    noteAsked(record, state, by);
    sandbox.lastUsedAt = clock.now();
    await table.save(sandbox);
    events.emit(event, id, reason && { reason });
    return record;
  }

  /** Other hosts that it may connect to, from now on. @throws StacyError `invalid`, `permission`, `not-found` */
  async setNetwork(id: string, hosts: readonly string[]): Promise<SandboxRecord> {
    const { table, events } = this.#parts;
    const sandbox = table.get(id);
    return sandbox.changes.run(async (signal) => {
      await sandbox.machineIn(["running", "paused", "suspended"]).allow(hosts, { signal });
      setHosts(sandbox.record, hosts);
      await table.save(sandbox);
      events.emit("sandbox.network", id, { allowed_hosts: hosts });
      return sandbox.record;
    });
  }

  /** @param about.volumes what it does where the sandbox has volumes: save them with it (default), or refuse */
  async checkpoint(
    id: string,
    { name, volumes: mode = "snapshot" }: CheckpointInput = {},
  ): Promise<CheckpointRecord & { stoppedMs: number }> {
    const { table, checkpoints, volumes } = this.#parts;
    const sandbox = table.get(id);
    assertNoDirectories(sandbox.record, "saved as a checkpoint");
    if (mode === "refuse") assertNoVolumes(sandbox.record, "saved without them");
    return sandbox.changes.run((signal) => {
      assertSettled(sandbox.record);
      const saved = slotted(sandbox.record.volumes).map((mount) => ({ ...mount, bytes: volumes.bytesOf(mount) }));
      const machine = sandbox.machineIn(["running", "paused"]);
      return this.onMachine(sandbox, machine, () =>
        checkpoints.create(sandbox.record, machine, { name, volumes: saved }, signal),
      );
    });
  }

  /** Goes back to one of its own checkpoints in place; it runs afterwards, whatever it did before. */
  async restore(id: string, checkpointId: string): Promise<SandboxRecord> {
    const { table, checkpoints, events, clock } = this.#parts;
    const sandbox = table.get(id);
    // What was synced to a volume stays; and its volumes may be others' by now.
    if (checkpoints.get(checkpointId).volumes !== undefined || sandbox.record.volumes !== undefined) {
      throw new StacyError("conflict", `sandbox ${id} has, or had, volumes, and cannot go back in its place`, {
        remedy: "spawn a new sandbox from the checkpoint: it has them as they were",
      });
    }
    if (checkpoints.get(checkpointId).sandboxId !== id) {
      throw new StacyError("invalid", `checkpoint ${checkpointId} is not one of sandbox ${id}`, {
        remedy: "spawn a new sandbox from it",
      });
    }
    return sandbox.changes.run(async (signal) => {
      const machine = sandbox.machineIn(["running", "paused", "suspended"]);
      await this.onMachine(sandbox, machine, () =>
        checkpoints.using(checkpointId, () => machine.restore(checkpointId, { signal })),
      );
      assertThere(sandbox);
      const { slots } = checkpoints.get(checkpointId);
      if (slots !== undefined) sandbox.record.slots = slots;
      delete sandbox.record.resumeOnUse;
      hasTime(sandbox.record);
      sandbox.lastUsedAt = clock.now();
      await table.save(sandbox);
      events.emit("sandbox.restored", id, { checkpoint: checkpointId });
      return sandbox.record;
    });
  }

  /** A change of the machine. Whatever becomes of it: the record says what the machine is, unless that has ended meanwhile. */
  async onMachine<T>(sandbox: Sandbox, machine: SandboxMachine, change: () => Promise<T>): Promise<T> {
    try {
      return await change();
    } finally {
      const { record } = sandbox;
      const { state } = machine;
      if (state !== "exited" && mayBecome(record.state, state)) {
        // Nobody has been told that it stands still: to its clients it runs, so their next use brings it back. Who asked for it says so.
        if (state === "running") delete record.resumeOnUse;
        else if (record.state === "running") record.resumeOnUse = true;
        record.state = state;
      }
    }
  }
}

/** What it is to do from now on, in the state that was asked for. */
function noteAsked(record: SandboxRecord, state: keyof typeof CHANGES, { reason, idleSince, keepMs }: ByItself): void {
  const comesBack = idleSince !== undefined || reason === "move" || record.onExpiry?.resumeMs !== undefined;
  if (state !== "running" && comesBack) record.resumeOnUse = true;
  else delete record.resumeOnUse;
  if (state === "running" || keepMs !== undefined) hasTime(record);
}

/** It may have ended, or failed, while a change was under way: that stands. */
function assertThere(sandbox: Sandbox): void {
  if (!holdsMachine(sandbox.state)) throw new StacyError("not-found", `sandbox ${sandbox.id} is gone`);
}
