/**
 * A fleet without machines: the real placement, heartbeats, ownerships and events of many nodes on a real PostgreSQL that writes what it
 * says to disk. All nodes are in this process and share its connections, as behind a PgBouncer, so what this process takes is not what a
 * node takes; what PostgreSQL takes is what it would.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { FleetNode, NodeLoad } from "../src/fleet/contract.ts";
import { FleetDatabase, type Rows } from "../src/fleet/database/database.ts";
import { Nodes, type OwnDescription } from "../src/fleet/database/nodes.ts";
import { Ownerships } from "../src/fleet/database/ownerships.ts";
import { revisions } from "../src/fleet/database/revisions.ts";
import { migrate } from "../src/fleet/database/schema.ts";
import { FleetEvents } from "../src/fleet/events.ts";
import { NO_LOAD } from "../src/fleet/load.ts";
import { candidates, shapeKey } from "../src/fleet/placement.ts";
import { FleetRegistry } from "../src/fleet/registry.ts";
import type { EventType, SandboxEvent } from "../src/sandboxes/events.ts";
import { silentLog } from "../src/sandboxes/observer.ts";
import type { SandboxRecord } from "../src/sandboxes/record.ts";
import { Postgres } from "../test/postgres.ts";
import type { BenchContext } from "./harness.ts";

const CONNECTIONS = 32;
/** Nodes that do at once what each does once. */
const AT_ONCE = 8;
/** Loads that a node reads with a heartbeat (membership.ts). */
const SAMPLE = 32;
const SETTLE_MS = 12_000;
const OWNERS = 1_000;
const LOST_MS = 600_000;
const IMAGES = ["alpine:3", "python:3.12", "node:22", "debian:12"];
const SIZE = { memoryMiB: 512, vcpus: 1, diskMiB: 1_024 };

export interface Scale {
  nodes: number;
  sandboxes: number;
  /** Of each phase. */
  seconds: number;
  /** Creates at once where as many as possible are made. */
  atOnce: number;
  heartbeatMs: number;
}

class CountedDatabase extends FleetDatabase {
  statements = 0;

  override query<T extends object>(sql: string, values?: readonly unknown[]): Promise<Rows<T>> {
    this.statements += 1;
    return super.query(sql, values);
  }
}

/** What happens on a node, as its own database keeps it. */
class Happenings {
  last = 0;
  #all: SandboxEvent[] = [];
  #wake: (() => void) | undefined;

  emit(type: EventType, { id, owner, image }: SandboxRecord): void {
    const data = type === "sandbox.created" ? { image, provider: "qemu" } : { path: "restored", total_ms: 12 };
    this.#all.push({ number: ++this.last, type, at: Date.now(), sandboxId: id, owner, data });
    this.#wake?.();
  }
  after(number: number): SandboxEvent[] {
    this.#all = this.#all.filter((event) => event.number > number);
    return this.#all.slice(0, 256);
  }
  wait(_: number, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      this.#wake = () => resolve(true);
      signal.addEventListener("abort", () => resolve(false), { once: true });
    });
  }
}

class SimulatedNode {
  readonly id = randomUUID();
  readonly incarnation = randomUUID();
  readonly records = new Map<string, SandboxRecord>();
  readonly events = new Happenings();
  readonly registry: FleetRegistry;
  readonly #database: FleetDatabase;
  readonly #nodes: Nodes;
  readonly #self: OwnDescription;
  readonly #brought: FleetEvents;
  #since = "-infinity";

  constructor(database: FleetDatabase, i: number) {
    this.#database = database;
    this.#nodes = new Nodes(database, LOST_MS);
    this.#self = {
      ...{ id: this.id, name: `node-${String(i).padStart(4, "0")}`, role: "node", version: "1", architecture: "x64" },
      ...{ url: `https://10.0.${i >> 8}.${i & 255}:7424`, providers: ["firecracker", "qemu"], load: NO_LOAD },
      ...{ labels: { zone: `z${i % 3}` }, hostIdentity: "cpu kernel" },
    };
    const ownerships = new Ownerships(database, this.id, this.incarnation);
    this.registry = new FleetRegistry({
      ...{ ownerships, nodeId: this.id, log: silentLog },
      assertOpen() {},
      nodes: () => [],
    });
    this.registry.follow(
      () => [...this.records.values()],
      () => false,
    );
    this.#brought = new FleetEvents(database, this.id, silentLog);
  }

  load(): NodeLoad {
    const warm = IMAGES.map((image) => shapeKey({ image, vcpus: 1, memoryMiB: 512 }));
    return {
      ...{ sandboxes: this.records.size, maxSandboxes: 0, queued: 0, vcpus: 64, memoryMiB: 262_144 },
      ...{ freeMemoryMiB: 262_144 - this.records.size * 512, loadAverage: Math.round(Math.random() * 64) / 2 },
      ...{ warm: warm.slice(0, 1 + Math.floor(Math.random() * 4)), snapshots: warm, images: IMAGES },
    };
  }

  async start(heartbeatMs: number): Promise<void> {
    await this.#nodes.register(this.#self, this.incarnation, heartbeatMs);
    this.#brought.follow(this.events as never);
  }

  /** As membership does. @param others of which it reads the loads */
  async beat(others: readonly string[]): Promise<void> {
    await this.#nodes.beat(this.id, this.incarnation, this.load());
    const { at } = await this.#nodes.changes(this.#since, [this.id, ...others]);
    this.#since = at;
    await revisions(this.#database);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry[Symbol.asyncDispose]();
    await this.#brought[Symbol.asyncDispose]();
  }
}

function newRecord(owner: string): SandboxRecord {
  const now = Date.now();
  return {
    ...{ id: `sb-${randomBytes(4).toString("hex")}`, state: "creating", provider: "qemu", owner, ...SIZE },
    ...{
      image: IMAGES[Math.floor(Math.random() * IMAGES.length)] as string,
      createdAt: now,
      expiresAt: now + 3_600_000,
    },
    ...{ idleTimeoutMs: 0, idleAction: "destroy", metadata: {} },
  };
}

interface Spent {
  cpuMs: number;
  walBytes: number;
  statements: number;
  ms: number;
}

export async function simulate(context: BenchContext, scale: Scale): Promise<void> {
  await using postgres = await Postgres.create({ durable: true });
  await using database = new CountedDatabase({ url: postgres.url, connections: CONNECTIONS, log: silentLog });
  await migrate(database);
  const fleet = Array.from({ length: scale.nodes }, (_, i) => new SimulatedNode(database, i));
  const byId = new Map<string, SimulatedNode>(fleet.map((node) => [node.id, node]));
  await using _ended = { [Symbol.asyncDispose]: () => each(fleet, CONNECTIONS, (node) => node[Symbol.asyncDispose]()) };
  context.progress(`fleet: ${scale.nodes} nodes, ${scale.sandboxes} sandboxes`);
  await each(fleet, AT_ONCE, (node) => node.start(scale.heartbeatMs));
  const living: { node: SimulatedNode; record: SandboxRecord }[] = [];
  const owner = (): string => `owner-${Math.floor(Math.random() * OWNERS)}`;
  for (let i = 0; i < scale.sandboxes; i++) {
    const record = { ...newRecord(owner()), state: "running" as const };
    const node = fleet[i % fleet.length] as SimulatedNode;
    node.records.set(record.id, record);
    living.push({ node, record });
  }
  await fill(database, living);
  // Each finds what it has in the table, as after an outage, and with that its epochs.
  await each(fleet, AT_ONCE, (node) => node.registry.reconcile());
  // What has changed is told for a while: nobody has come since.
  await delay(SETTLE_MS);
  let view = await new Nodes(database, LOST_MS).list();
  const beating = new AbortController();
  const beats = { n: 0, failed: 0 };
  const heart = beat(fleet, scale.heartbeatMs, beating.signal, beats);

  const spentIn = async (work: () => Promise<void>): Promise<Spent> => {
    const wal = async (): Promise<number> =>
      Number((await postgres.query("SELECT pg_current_wal_lsn() - '0/0' AS n"))[0].n);
    const before = { cpuMs: await postgres.cpuMs(), walBytes: await wal(), statements: database.statements };
    const began = performance.now();
    await work();
    return {
      cpuMs: (await postgres.cpuMs()) - before.cpuMs,
      walBytes: (await wal()) - before.walBytes,
      statements: database.statements - before.statements,
      ms: performance.now() - began,
    };
  };

  context.progress("fleet: heartbeats alone");
  const quiet = await spentIn(() => delay(scale.seconds * 1_000));
  const quietBeats = beats.n;
  context.sample("heartbeat.postgres-cpu", quiet.cpuMs / quietBeats);
  context.sample("heartbeat.wal", quiet.walBytes / quietBeats, "bytes");
  context.sample("heartbeat.statements", quiet.statements / quietBeats, "statements");
  view = await new Nodes(database, LOST_MS).list();

  const create = async (name: string, most?: { all: { sandboxes: number } }): Promise<void> => {
    const record = newRecord(owner());
    const began = performance.now();
    const found = candidates(view, { image: record.image, memoryMiB: 512, vcpus: 1 });
    const placed = performance.now();
    const node = byId.get((found[0] as FleetNode).id) as SimulatedNode;
    node.records.set(record.id, record);
    await node.registry.claim(record, most);
    const claimed = performance.now();
    context.sample(`${name}.place`, placed - began);
    context.sample(`${name}.claim`, claimed - placed);
    node.events.emit("sandbox.created", record);
    node.events.emit("sandbox.running", record);
    record.state = "running";
    node.registry.publish(record);
    // As many end as come.
    const at = Math.floor(Math.random() * living.length);
    const old = living[at] as (typeof living)[number];
    living[at] = { node, record };
    old.record.state = "destroyed";
    old.node.records.delete(old.record.id);
    old.node.events.emit("sandbox.destroyed", old.record);
    old.node.registry.release(old.record.id);
  };
  const makeFor = async (name: string, atOnce: number, most?: { all: { sandboxes: number } }): Promise<number> => {
    let made = 0;
    const until = performance.now() + scale.seconds * 1_000;
    const worker = async (): Promise<void> => {
      while (performance.now() < until && !context.signal.aborted) {
        await create(name, most).then(
          () => (made += 1),
          (error: unknown) => context.failure(name, error),
        );
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    return made;
  };
  context.progress("fleet: creates one by one");
  await makeFor("one-by-one", 1);
  await makeFor("one-by-one.limited", 1, { all: { sandboxes: 10_000 } });
  context.progress("fleet: as many creates as it takes");
  let made = 0;
  const busy = await spentIn(async () => {
    made = await makeFor("busy", scale.atOnce);
    await delay(500); // what is gathered is theirs, too
  });
  const share = busy.ms / quiet.ms;
  const own = (of: keyof Spent): number => (busy[of] - quiet[of] * share) / made;
  context.sample("create.rate", made / scale.seconds, "creates/s");
  context.sample("create.statements", own("statements"), "statements");
  context.sample("create.wal", own("walBytes"), "bytes");
  context.sample("create.postgres-cpu", own("cpuMs"));
  beating.abort();
  await heart;
  if (beats.failed > 0) context.failure("heartbeats", new Error(`${beats.failed} of ${beats.n} were not answered`));
  await countBytes(context, postgres, fleet);

  const perCore = 1_000 / own("cpuMs");
  const beatMs = quiet.cpuMs / quietBeats;
  context.note(`all nodes are one process with ${CONNECTIONS} connections, and PostgreSQL is on the same processors`);
  context.note(`heartbeats every ${scale.heartbeatMs / 1_000} s, ${living.length} sandboxes of ${OWNERS} owners`);
  context.conclude([
    "Where it ends, by what PostgreSQL took here:",
    `  one core makes ${Math.round(perCore)} creates a second (each with its events and another one's end)`,
    `  or takes ${Math.round(1_000 / beatMs)} heartbeats a second of ${scale.nodes} nodes: ${Math.round((2 * 1_000) / beatMs)} nodes at a heartbeat of 2 s`,
    `  1,000 creates a second write ${((own("walBytes") * 1_000) / 2 ** 20).toFixed(1)} MiB of WAL a second`,
  ]);
}

/** One node after another, each once in its time. */
async function beat(
  fleet: readonly SimulatedNode[],
  heartbeatMs: number,
  signal: AbortSignal,
  counts: { n: number; failed: number },
): Promise<void> {
  const under = new Set<Promise<void>>();
  const began = performance.now();
  for (let i = 0; !signal.aborted; i++) {
    const wait = began + (i * heartbeatMs) / fleet.length - performance.now();
    if (wait > 0) await delay(wait, undefined, { signal }).catch(() => {});
    const others = Array.from(
      { length: SAMPLE },
      () => (fleet[Math.floor(Math.random() * fleet.length)] as SimulatedNode).id,
    );
    const one = (fleet[i % fleet.length] as SimulatedNode).beat(others).catch(() => {
      counts.failed += 1;
    });
    counts.n += 1;
    under.add(one);
    void one.finally(() => under.delete(one));
  }
  await Promise.all(under);
}

/** As many at once, all of them. */
async function each<T>(all: readonly T[], atOnce: number, work: (one: T) => Promise<void>): Promise<void> {
  const left = [...all];
  const next = async (): Promise<void> => {
    for (let one = left.pop(); one !== undefined; one = left.pop()) await work(one);
  };
  await Promise.all(Array.from({ length: atOnce }, next));
}

async function fill(
  database: FleetDatabase,
  living: readonly { node: SimulatedNode; record: SandboxRecord }[],
): Promise<void> {
  for (let at = 0; at < living.length; at += 5_000) {
    const some = living.slice(at, at + 5_000);
    await database.query(
      `INSERT INTO stacyvm.sandboxes (id, node_id, owner, state, image, created_at, expires_at, memory_mib, vcpus, disk_mib)
       SELECT u.*, ${SIZE.memoryMiB}, ${SIZE.vcpus}, ${SIZE.diskMiB}
       FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[]) u ON CONFLICT DO NOTHING`,
      [
        ...[some.map(({ record }) => record.id), some.map(({ node }) => node.id)],
        ...[some.map(({ record }) => record.owner), some.map(({ record }) => record.state)],
        ...[some.map(({ record }) => record.image), some.map(({ record }) => record.createdAt)],
        some.map(({ record }) => record.expiresAt),
      ],
    );
  }
  await database.query("ANALYZE stacyvm.sandboxes");
  await database.query("ANALYZE stacyvm.nodes");
}

/** Of a create's claim, what goes over the connection. */
async function countBytes(context: BenchContext, postgres: Postgres, fleet: readonly SimulatedNode[]): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-counted-"));
  const bytes = { sent: 0, received: 0 };
  const server = createServer((near) => {
    const far = connect(join(postgres.dir, ".s.PGSQL.5432"));
    near.on("data", (data) => (bytes.sent += data.length));
    far.on("data", (data) => (bytes.received += data.length));
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.pipe(to);
      from.on("error", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(join(dir, ".s.PGSQL.5432"), resolve));
  try {
    const url = `postgresql://stacyvm@localhost/postgres?host=${encodeURIComponent(dir)}`;
    await using database = new FleetDatabase({ url, connections: 1, log: silentLog });
    const [node] = fleet as [SimulatedNode];
    const ownerships = new Ownerships(database, node.id, node.incarnation);
    await database.query("SELECT 1");
    const before = { ...bytes };
    const count = 50;
    const epochs = [];
    for (let i = 0; i < count; i++) {
      const { id, owner, state, image, createdAt, expiresAt } = newRecord("counted");
      const claim = { sandboxId: id, owner, state, image, createdAt, expiresAt, ...SIZE };
      epochs.push(await ownerships.claim(claim));
    }
    context.sample("claim.sent", (bytes.sent - before.sent) / count, "bytes");
    context.sample("claim.received", (bytes.received - before.received) / count, "bytes");
    await ownerships.release(epochs);
  } finally {
    await new Promise<void>((resolve) => server.close(() => resolve()));
    await rm(dir, { recursive: true, force: true });
  }
}
