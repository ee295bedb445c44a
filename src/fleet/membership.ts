/**
 * This server as one of the fleet's nodes: it registers, says from time to time that it is there, and keeps in memory what the others say.
 * While the database is away it knows them as they were last seen.
 */
import { asStacyError, StacyError } from "../host/error.ts";
import type { Log } from "../sandboxes/observer.ts";
import type { FleetNode, NodeLoad } from "./contract.ts";
import { type FleetDatabase, GONE, sqlState } from "./database/database.ts";
import { NODES_CHANNEL, type Nodes, type OwnDescription } from "./database/nodes.ts";
import { migrate } from "./database/schema.ts";
import { closed } from "./registry.ts";

/** Nodes whose loads are read with a heartbeat. */
const SAMPLE = 32;
/** So long notices are gathered, ms. */
const GATHER_MS = 20;
/** So many heartbeats after the last time, what is here is compared with the table again: a write that was held up may come later than all. */
const COMPARE_EVERY = 30;

/** Clocks are compared to a tenth of a second, so that a node that does nothing says nothing new; a slow answer says nothing of them. */
const CLOCK_STEP_MS = 100;
const CLOCK_MOST_MS = 1_000;

export interface MembershipParts {
  database: FleetDatabase;
  nodes: Nodes;
  self: OwnDescription;
  /** Of this process: another one that registers as the same node takes its place. */
  incarnation: string;
  /** Of the processes that were this node before. */
  earlier: readonly string[];
  heartbeatMs: number;
  log: Log;
}

export class Membership implements AsyncDisposable {
  readonly #parts: MembershipParts;
  #standing: "joining" | "in" | "removed" | "replaced" = "joining";
  #draining = false;
  #others: readonly FleetNode[] = [];
  /** When they were looked at, as the database says; absent: they are read anew with the next look. */
  #seenAt: string | undefined;
  #load: () => NodeLoad;
  #said = "";
  #clockOffsetMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #told: NodeJS.Timeout | undefined;
  #round: Promise<void> = Promise.resolve();
  #refresh: Promise<void> | undefined;
  #recover: () => Promise<void> = async () => {};
  #poll: () => Promise<void> = async () => {};
  /** Outages and heartbeats as of the last comparison of what is here with the table; absent: there was none. */
  #compared: { outages: number; beats: number } | undefined;
  #beats = 0;
  #closed = false;

  constructor(parts: MembershipParts) {
    this.#parts = parts;
    this.#load = () => parts.self.load;
  }

  get self(): FleetNode {
    const found = this.#others.find(({ id }) => id === this.#parts.self.id);
    // It is there, whatever the table said last of when it was seen.
    return {
      ...this.#parts.self,
      ...found,
      state: "up",
      draining: this.#draining,
      seenAt: found?.seenAt ?? Date.now(),
    };
  }

  /** By name, this one included. */
  nodes(): readonly FleetNode[] {
    const { self } = this;
    return this.#others.some(({ id }) => id === self.id)
      ? this.#others.map((node) => (node.id === self.id ? self : node))
      : [self, ...this.#others];
  }

  /** @throws StacyError `unavailable` while this node takes no new sandboxes */
  assertOpen(): void {
    const { database, self } = this.#parts;
    if (self.role === "entrance") {
      throw closed(
        `${self.name} is an entrance of its fleet, and makes no sandboxes itself`,
        "ask one of its nodes for this",
      );
    }
    if (this.#standing === "removed") {
      const remedy =
        "to have it back as another node, remove the file `node-id` from its data directory and start it again";
      throw closed(`the node ${self.name} was removed from the fleet, and makes no new sandboxes`, remedy);
    }
    if (this.#standing === "replaced") {
      const remedy =
        "stop one of them; a copy of a data directory needs a `node-id` of its own: remove that file before its start";
      throw closed(
        `another server has registered as the node ${self.name}, and this one makes no new sandboxes`,
        remedy,
      );
    }
    if (database.away !== undefined) throw database.away;
    if (this.#standing === "joining") throw closed("this server has not joined its fleet yet", "try again in a moment");
    if (this.#draining) {
      throw closed(`the node ${self.name} is being drained, and makes no new sandboxes`, "ask another node");
    }
  }

  /**
   * Begins, and joins if the database answers; else it joins when it does.
   * @param recover compares what is here with the table: at first, and whenever the database was away
   * @param poll looks with every heartbeat for what notices should have told
   * @throws StacyError `conflict` when this server cannot be the node that it says
   */
  async start(load: () => NodeLoad, recover: () => Promise<void>, poll: () => Promise<void>): Promise<void> {
    this.#load = load;
    this.#recover = recover;
    this.#poll = poll;
    const { database, log } = this.#parts;
    await this.#beat().catch((error: unknown) => {
      // What this server says is wrong, or its version; everything else may be mended while it does what it can.
      const { code } = asStacyError(error);
      if (error instanceof StacyError && (code === "conflict" || code === "invalid")) throw error;
      log.warn(
        { phase: "fleet", err: error },
        "this server could not join its fleet yet: what runs here goes on, and new sandboxes wait for it",
      );
    });
    database.listen(NODES_CHANNEL, () => {
      // Many may come or go at once.
      this.#told ??= setTimeout(() => {
        this.#told = undefined;
        this.#look().catch(() => {}); // the next heartbeat looks
      }, GATHER_MS).unref();
    });
    this.#next();
  }

  #next(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#round = this.#beat()
        .catch((error: unknown) => {
          // That the database is away is said once, where it is found out.
          if (asStacyError(error).code !== "unavailable" || this.#parts.database.away === undefined)
            this.#parts.log.error(
              { phase: "fleet", err: error },
              "the fleet could not be told that this server is there",
            );
        })
        .then(() => this.#next());
    }, this.#parts.heartbeatMs).unref();
  }

  async #beat(): Promise<void> {
    try {
      await this.#tell();
    } catch (error) {
      // The tables are gone, or those of an older version: whoever took them away wants them made anew.
      if (GONE.has(sqlState(error) ?? "") && this.#standing === "in") this.#standing = "joining";
      throw error;
    }
  }

  async #tell(): Promise<void> {
    const { database, nodes, self, incarnation, earlier, heartbeatMs, log } = this.#parts;
    if (this.#standing === "removed" || this.#standing === "replaced") {
      await this.refresh();
      return this.#poll(); // a key that is revoked ends here, too
    }
    this.#beats += 1;
    const offset = this.#clockOffsetMs;
    const load = { ...this.#load(), ...(offset === undefined ? {} : { clockOffsetMs: offset }) };
    if (this.#standing === "joining") {
      await migrate(database);
      await nodes.register({ ...self, load }, incarnation, heartbeatMs);
      this.#standing = "in";
      this.#compared = undefined; // what it has got new epochs
      log.info({ phase: "fleet", node: self.id, name: self.name }, "this server is a node of its fleet");
    }
    const said = JSON.stringify(load);
    const asked = Date.now();
    const answer = await nodes.beat(self.id, incarnation, said === this.#said ? undefined : load, earlier);
    const took = Date.now() - asked;
    this.#said = said;
    if (answer === "unknown") {
      this.#standing = "joining";
      return this.#tell();
    }
    if (answer === "removed" || answer === "replaced") {
      this.#standing = answer;
      const how =
        answer === "removed"
          ? "was removed from its fleet"
          : "is another process's now: two servers have the same `node-id`";
      log.error(
        { phase: "fleet", node: self.id },
        `this node ${how}; what runs here goes on, and it makes no new sandboxes`,
      );
      return;
    }
    this.#draining = answer.draining;
    if (took >= 0 && took < CLOCK_MOST_MS) {
      this.#clockOffsetMs = Math.round((asked + took / 2 - answer.now) / CLOCK_STEP_MS) * CLOCK_STEP_MS;
    }
    await this.#look();
    await this.#poll();
    const { outages } = database;
    const compared = this.#compared;
    if (compared?.outages === outages && this.#beats - compared.beats < COMPARE_EVERY) return;
    await this.#recover();
    this.#compared = { outages, beats: this.#beats };
  }

  /** Reads the others anew. @throws StacyError `unavailable` */
  refresh(): Promise<void> {
    this.#refresh ??= this.#read().finally(() => {
      this.#refresh = undefined;
    });
    return this.#refresh;
  }

  async #read(): Promise<void> {
    this.#seenAt = undefined;
    this.#take(await this.#parts.nodes.list());
  }

  /** What has changed; of what is always new, the loads, those of a few: no node reads more, however many there are. */
  async #look(): Promise<void> {
    const since = this.#seenAt;
    const reading = this.#refresh;
    const { nodes, self } = this.#parts;
    const sample = this.#others.map(({ id }) => id);
    for (let i = 0; i < SAMPLE && i < sample.length; i++) {
      const other = i + Math.floor(Math.random() * (sample.length - i));
      [sample[i], sample[other]] = [sample[other] as string, sample[i] as string];
    }
    const ids = [self.id, ...sample.slice(0, SAMPLE)];
    const changes = await nodes.changes(since ?? "-infinity", ids);
    // Whoever reads them all meanwhile knows better.
    if (reading !== this.#refresh) return;
    const gone = new Set(changes.removed);
    const known = new Map(this.#others.filter(({ id }) => !gone.has(id)).map((node) => [node.id, node]));
    const before = known.size;
    for (const node of changes.nodes) known.set(node.id, node);
    for (const [id, node] of known) {
      const state = changes.silent.get(id) ?? "up";
      if (node.state !== state) known.set(id, { ...node, state });
    }
    const all = [...known.values()];
    this.#take(known.size === before ? all : all.toSorted((a, b) => (a.name < b.name ? -1 : 1)));
    // A database that was set back to what it was has others.
    if (changes.count !== all.length) return this.refresh();
    this.#seenAt = changes.at;
  }

  #take(all: readonly FleetNode[]): void {
    this.#others = all;
    const found = all.find(({ id }) => id === this.#parts.self.id);
    if (found !== undefined) this.#draining = found.draining;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#round;
    clearTimeout(this.#timer);
    clearTimeout(this.#told);
    await this.#refresh?.catch(() => {});
  }
}
