/**
 * Sandboxes on their way from one server to another. On both its row says so (`transit`) from before it is offered, or its first file has its
 * name, until it is known whose it is; and who that is, only the registry of all servers decides. Until then its machine is suspended on both,
 * and neither wakes it. So after a crash at any moment one of the two has it and the other lets go (docs/crash-protocol.md, "Move").
 */
import { asStacyError, StacyError } from "../host/error.ts";
import type { SandboxMachine, Travel } from "../providers/provider.ts";
import type { Clock } from "./clock.ts";
import { assertNoDirectories } from "./directories.ts";
import { type Endings, MOVED } from "./endings.ts";
import type { Events } from "./events.ts";
import type { Providers } from "./providers.ts";
import type { SandboxRecord } from "./record.ts";
import { Sandbox } from "./sandbox.ts";
import { isVisible } from "./state.ts";
import type { StateChanges } from "./state-changes.ts";
import type { SandboxTable } from "./table.ts";
import { assertNoVolumes } from "./volume-mounts.ts";

export { type PackedMachine, packedMachine } from "../providers/packed.ts";
export type { Travel } from "../providers/provider.ts";

export interface TransitsParts {
  providers: Providers;
  table: SandboxTable;
  changes: StateChanges;
  endings: Endings;
  events: Events;
  clock: Clock;
  follow(sandbox: Sandbox, machine: SandboxMachine): void;
}

/** What has become of an offer. `kept`: it is here, and nobody else can take it. `unknown`: that is found out later. */
export type Handed = { is: "gone" } | { is: "kept" | "unknown"; why: unknown };

export class Transits {
  readonly #parts: TransitsParts;
  /** Under way in this process, by id: settles when its calls have somewhere to go. */
  readonly #going = new Map<string, Promise<void>>();

  constructor(parts: TransitsParts) {
    this.#parts = parts;
  }

  /** While it is under way in this process: settles when it is here or has gone. Never rejects. */
  settled(id: string): Promise<void> | undefined {
    return this.#going.get(id);
  }

  /** Of which it is not known whose they are, and nobody in this process is about to find out. */
  open(): SandboxRecord[] {
    return [...this.#parts.table.all()]
      .filter(({ id, record }) => record.transit !== undefined && isVisible(record.state) && !this.#going.has(id))
      .map(({ record }) => record);
  }

  /** How its machine comes from and to other hosts. @throws StacyError `not-supported` */
  travelOf({ provider }: Pick<SandboxRecord, "provider">): Travel {
    const { travel } = this.#parts.providers.pick(provider);
    if (travel !== undefined) return travel;
    throw new StacyError("not-supported", `machines of ${provider} do not travel`);
  }

  /** Whether its row says that it is on its way, in whichever direction. */
  has(id: string): boolean {
    return this.#parts.table.find(id)?.record.transit !== undefined;
  }

  /** @throws StacyError `conflict` naming what of it belongs to its host */
  assertTravels(record: SandboxRecord): void {
    const { id } = record;
    const what = "moved to another node";
    assertNoVolumes(record, what);
    assertNoDirectories(record, what);
    if (record.secrets !== undefined) {
      throw new StacyError("conflict", `sandbox ${id} uses secrets, which each node keeps for itself`, {
        remedy: "leave it where it is, or make it anew on the other node",
      });
    }
    if (record.lent === true)
      throw new StacyError("conflict", `sandbox ${id} belongs to a call that is under way here`);
  }

  /**
   * Suspends it and has it handed over.
   * @param hand offers it; it throws only before anybody can have it. The signal is that of the sandbox's end
   * @returns ms from when its programs stood still
   * @throws why it is not handed over: it is here as before, or (`unavailable`) nobody knows yet whose it is
   */
  async leave(
    id: string,
    to: { node: string; name: string },
    hand: (record: SandboxRecord, wakes: boolean, signal: AbortSignal) => Promise<Handed>,
  ): Promise<{ stoppedMs: number }> {
    const { table, changes, endings, events, clock } = this.#parts;
    const sandbox = table.get(id);
    const { record } = sandbox;
    const over = Promise.withResolvers<void>();
    try {
      const { stoppedMs, handed } = await sandbox.changes.run(async (signal) => {
        this.#going.set(id, over.promise);
        this.assertTravels(record);
        sandbox.machineIn(["running", "paused", "suspended"]);
        const wakes = sandbox.state === "running";
        const comesBack = wakes || record.resumeOnUse === true;
        const begun = performance.now();
        await changes.within(sandbox, "suspended", { reason: "move" }, signal); // O1
        if (!comesBack) delete record.resumeOnUse;
        record.transit = { is: "leaving", node: to.node, since: clock.now() };
        let handed: Handed;
        try {
          await table.save(sandbox); // O2
          handed = await hand(record, wakes, signal); // O3
        } catch (why) {
          handed = { is: "kept", why };
        }
        if (handed.is === "kept") await this.#stays(sandbox, wakes, signal);
        return { stoppedMs: performance.now() - begun, handed };
      });
      if (handed.is === "gone") {
        await endings.end(sandbox, "destroyed", MOVED); // O4
        events.emit("sandbox.moved", id, { to: to.name }, record.owner);
        return { stoppedMs };
      }
      if (handed.is === "kept") throw asStacyError(handed.why).inPhase("move");
      throw new StacyError("unavailable", `whether sandbox ${id} has moved to ${to.name} is not known yet`, {
        phase: "move",
        cause: handed.why,
        remedy: "it is found out by itself, as soon as the fleet's database and that node answer",
      });
    } finally {
      this.#done(id, over);
    }
  }

  #done(id: string, over: PromiseWithResolvers<void>): void {
    if (this.#going.get(id) === over.promise) this.#going.delete(id);
    over.resolve();
  }

  /** Nobody else can have it any more. What ran runs again, at once or with its next use. */
  async #stays(sandbox: Sandbox, wakes: boolean, signal: AbortSignal): Promise<void> {
    const { table, changes } = this.#parts;
    delete sandbox.record.transit;
    await table.save(sandbox).catch(() => {}); // tried again by the store
    if (wakes && !signal.aborted) await changes.within(sandbox, "running", { reason: "used" }, signal).catch(() => {});
  }

  /**
   * One that another server has offered, and whose files are here.
   * @param place gives its machine its place
   * @param take makes it this server's; `false`: it cannot be had any more
   * @throws why it is not here; when nobody knows whether it is (`take` has thrown), that is found out later
   */
  async arrive(
    offered: SandboxRecord,
    from: { node: string; name: string },
    wakes: boolean,
    { place, take }: { place(): Promise<SandboxMachine>; take(record: SandboxRecord): Promise<boolean> },
  ): Promise<SandboxRecord> {
    const { table, changes, endings, events, clock } = this.#parts;
    if (table.find(offered.id) !== undefined) {
      throw new StacyError("conflict", `something of sandbox ${offered.id} is still on this node`, {
        remedy: "try again in a moment",
      });
    }
    const record: SandboxRecord = {
      ...{ ...offered, state: "suspended" },
      transit: { is: "arriving", node: from.node, since: clock.now() },
    };
    const sandbox = new Sandbox(record, () => clock.now());
    const over = Promise.withResolvers<void>();
    this.#going.set(record.id, over.promise);
    table.add(sandbox);
    let known = true;
    try {
      await sandbox.changes.run(async (signal) => {
        await table.save(sandbox); // A2
        await table.sync();
        sandbox.machine = await place(); // A3
        this.#parts.follow(sandbox, sandbox.machine);
        signal.throwIfAborted();
        known = false;
        const taken = await take(record); // A4
        known = true;
        if (!taken) throw new StacyError("conflict", `sandbox ${record.id} is not offered any more`);
        delete record.transit;
        await table.save(sandbox).catch((cause: Error) => {
          // A5; tried again by the store. Who has offered it keeps its copy until this one is on disk.
          throw new StacyError("unavailable", `that sandbox ${record.id} is here is not on disk yet`, { cause });
        });
        events.emit("sandbox.moved", record.id, { from: from.name });
        if (wakes) await changes.within(sandbox, "running", { reason: "used" }, signal).catch(() => {}); // its next use tries again
      });
    } catch (error) {
      if (known && record.transit !== undefined) await endings.end(sandbox, "destroyed", MOVED).catch(() => {}); // logged, and tried again
      throw error;
    } finally {
      this.#done(record.id, over);
    }
    return record;
  }

  /** It was found out that it is this server's; what ran comes back with its next use. */
  async keep(id: string): Promise<void> {
    const { table } = this.#parts;
    const sandbox = table.find(id);
    if (sandbox?.record.transit === undefined) return;
    delete sandbox.record.transit;
    await table.save(sandbox);
  }

  /** It was found out that another server has it. */
  async letGo(id: string): Promise<void> {
    const { table, endings } = this.#parts;
    const sandbox = table.find(id);
    if (sandbox !== undefined) await endings.end(sandbox, "destroyed", MOVED);
  }
}
