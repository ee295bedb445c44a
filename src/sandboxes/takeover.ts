/** What a new daemon makes of the sandboxes in its database, by what it finds of their machines. */
import { StacyError } from "../host/error.ts";
import type { GoneMachine, SandboxMachine, UnreachableMachine } from "../providers/provider.ts";
import type { Events } from "./events.ts";
import type { Log } from "./observer.ts";
import type { Providers } from "./providers.ts";
import type { SandboxRecord } from "./record.ts";
import { Sandbox } from "./sandbox.ts";
import { setHosts } from "./set-hosts.ts";
import type { Store } from "./store.ts";

export interface Takeover {
  adopted: string[];
  /** Kept, and asked again. */
  unreachable: string[];
  /** Whose machines are gone. */
  lost: string[];
  /** Names of what nobody wanted. */
  removed: string[];
}

export interface TakeoverParts {
  store: Store;
  providers: Providers;
  events: Events;
  log: Log;
  now(): number;
  keep(sandbox: Sandbox): void;
  save(sandbox: Sandbox): Promise<void>;
  /** Follows the machine's life from now on. */
  follow(sandbox: Sandbox, machine: SandboxMachine): void;
  fail(sandbox: Sandbox, error: StacyError, console: string[]): Promise<void>;
}

/** @param removeUnknown remove machines that the database does not know, instead of refusing to start */
export async function takeOver(parts: TakeoverParts, removeUnknown: boolean): Promise<Takeover> {
  const { store, providers, events } = parts;
  if (!removeUnknown) await assertKnown(parts);
  const rows = store.liveSandboxes();
  const wanted = rows.filter((row) => !isOver(row) && KEPT.has(row.state));
  // Somebody may repair their rows: until then nothing of them is touched, by whichever provider.
  const damaged = store.damagedSandboxes().map((id) => ({ id, provider: "" }));
  const found = await providers.adopt([...wanted.map(({ id, provider }) => ({ id, provider })), ...damaged]);
  const machines = new Map(found.adopted.map((machine) => [machine.id, machine]));
  const silent = new Map(found.unreachable.map((machine) => [machine.id, machine]));
  const gone = new Map(found.gone.map((machine) => [machine.id, machine]));
  const done: Takeover = { adopted: [], unreachable: [], lost: [], removed: found.removed };
  for (const row of rows) {
    const sandbox = new Sandbox(row, parts.now);
    const machine = machines.get(row.id);
    const unreachable = silent.get(row.id);
    if (isOver(row)) {
      const reason = row.lent ? "its call was cut off" : "half-made";
      row.state = "destroyed";
      await parts.save(sandbox).catch(retried);
      events.emit("reconcile.action", row.id, { action: "removed", reason });
      continue;
    }
    parts.keep(sandbox);
    if (machine !== undefined) {
      await takeMachine(parts, sandbox, machine);
      done.adopted.push(row.id);
    } else if (unreachable !== undefined) {
      await waitFor(parts, sandbox, unreachable);
      done.unreachable.push(row.id);
    } else if (row.state !== "error") {
      done.lost.push(row.id);
      await lose(parts, sandbox, gone.get(row.id));
    }
  }
  return done;
}

const KEPT: ReadonlySet<string> = new Set<SandboxRecord["state"]>(["running", "paused", "suspended"]);

/** No client knows of one that was being made, and the others' time is over: its own, or that of the call that it was made for. */
function isOver({ state, lent }: SandboxRecord): boolean {
  return state === "creating" || state === "expired" || lent === true;
}

/** A row that cannot be written now is tried again by the store: a full disk must not keep a daemon from starting. */
function retried(): void {}

/**
 * Every sandbox has a row before it has a machine, and keeps it after its end. So a machine without a row says that this is not the
 * database of these machines.
 */
async function assertKnown({ store, providers }: TakeoverParts): Promise<void> {
  const strangers = (await providers.machines()).filter((id) => !store.hasSandbox(id));
  if (strangers.length === 0) return;
  const names = strangers.slice(0, 5).join(", ") + (strangers.length > 5 ? ", ..." : "");
  throw new StacyError(
    "conflict",
    `the database does not know ${strangers.length === 1 ? "a machine" : `${strangers.length} machines`} in the data directory (${names}): it is new, another one, or older than they are`,
    {
      phase: "adopt",
      remedy:
        "start with the database that belongs to them (`database.path`) or a newer backup of it; to end these machines instead, start with `--remove-unknown`",
    },
  );
}

async function takeMachine(parts: TakeoverParts, sandbox: Sandbox, machine: SandboxMachine): Promise<void> {
  const { record } = sandbox;
  const before = JSON.stringify(record);
  sandbox.machine = machine;
  // Until now nobody could use it.
  sandbox.lastUsedAt = parts.now();
  delete record.unreachable;
  // What the machine is, counts: the daemon may have died between the change and its row.
  if (machine.state !== "exited") {
    // Nobody was told that it has stopped: to its clients it runs, so their next use brings it back.
    if (record.state === "running" && machine.state !== "running") record.resumeOnUse = true;
    record.state = machine.state;
  }
  setHosts(record, machine.network.allowedHosts);
  // One after the other, and to disk where it is suspended: only where there is something to say.
  if (JSON.stringify(record) !== before) await parts.save(sandbox).catch(retried);
  parts.follow(sandbox, machine);
  parts.events.emit("reconcile.action", record.id, { action: "adopted", state: record.state });
}

async function waitFor(parts: TakeoverParts, sandbox: Sandbox, unreachable: UnreachableMachine): Promise<void> {
  const { record } = sandbox;
  const { reason } = unreachable;
  sandbox.unreachable = unreachable;
  record.unreachable = { since: record.unreachable?.since ?? parts.now(), reason };
  await parts.save(sandbox).catch(retried);
  parts.log.warn({ sandbox: record.id, phase: "adopt" }, `its machine does not answer, and is asked again: ${reason}`);
  parts.events.emit("reconcile.action", record.id, { action: "unreachable", reason });
  void unreachable.outcome
    .then((outcome) => {
      // At once, so that an end that comes now meets it.
      if ("machine" in outcome) sandbox.machine = outcome.machine;
      return sandbox.changes.run(async () => {
        if ("machine" in outcome) {
          sandbox.unreachable = undefined;
          return takeMachine(parts, sandbox, outcome.machine);
        }
        await lose(parts, sandbox, outcome.gone);
        // Where that fails, the sandbox's own end tries it again.
        await unreachable.destroy();
        sandbox.unreachable = undefined;
      });
    })
    .catch((error: unknown) => parts.log.warn({ sandbox: record.id, err: error }, "taking over failed"));
}

async function lose(parts: TakeoverParts, sandbox: Sandbox, gone: GoneMachine | undefined): Promise<void> {
  delete sandbox.record.unreachable;
  const reason = gone?.reason ?? "its machine was gone when the server started";
  await parts.fail(sandbox, new StacyError("machine-exited", reason), gone?.console ?? []);
}
