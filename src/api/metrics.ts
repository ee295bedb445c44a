/** Prometheus metrics: histograms where time is spent, gauges that are read when they are asked for. */
import { statfs } from "node:fs/promises";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Network } from "../egress/network.ts";
import type { SnapshotInfo } from "../providers/provider.ts";
import type { Observer } from "../sandboxes/observer.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import type { FleetNodeView } from "./fleet-nodes.ts";

const SPAWN_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300];
const CALL_BUCKETS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600];

/** One kind of operation on one provider, since the daemon started; times in ms. */
export interface OperationCount {
  name: string;
  provider: string;
  success: number;
  failure: number;
  totalMs: number;
  minMs: number;
  maxMs: number;
  lastError?: string;
  /** ms since 1970 */
  lastAt: number;
}

export class Metrics {
  readonly registry = new Registry();
  /** How much of what there is now, of all owners: for administrators. */
  readonly #ofAllOwners = new Registry();
  readonly observer: Observer;
  readonly #http: Histogram<"method" | "route" | "status">;
  readonly #operations = new Map<string, OperationCount>();

  constructor() {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry, prefix: "stacyvm_" });
    const spawn = new Histogram({
      name: "stacyvm_spawn_seconds",
      help: "From the request to a sandbox that runs, by the way it was started",
      labelNames: ["path"],
      buckets: SPAWN_BUCKETS,
      registers,
    });
    const phase = new Histogram({
      name: "stacyvm_spawn_phase_seconds",
      help: "Phases of a spawn",
      labelNames: ["path", "phase"],
      buckets: SPAWN_BUCKETS,
      registers,
    });
    const failures = new Counter({
      name: "stacyvm_spawn_failures_total",
      help: "Spawns that failed, by the phase in which",
      labelNames: ["phase"],
      registers,
    });
    const fallbacks = new Counter({
      name: "stacyvm_spawn_fallbacks_total",
      help: "Spawns whose faster way was tried and failed",
      registers,
    });
    const exec = new Histogram({
      name: "stacyvm_exec_seconds",
      help: "Commands, by outcome",
      labelNames: ["outcome"],
      buckets: CALL_BUCKETS,
      registers,
    });
    const roundTrip = new Histogram({
      name: "stacyvm_agent_round_trip_seconds",
      help: "From a request to the guest's agent until its answer",
      buckets: CALL_BUCKETS,
      registers,
    });
    this.#http = new Histogram({
      name: "stacyvm_http_request_seconds",
      help: "Requests until their headers were sent",
      labelNames: ["method", "route", "status"],
      buckets: CALL_BUCKETS,
      registers,
    });
    this.observer = {
      spawned: (boot, totalMs) => {
        spawn.observe({ path: boot.path }, totalMs / 1000);
        for (const [name, ms] of Object.entries(boot.phases)) {
          phase.observe({ path: boot.path, phase: name }, ms / 1000);
        }
        if (boot.fallback !== undefined) fallbacks.inc();
        this.#count("spawn", boot.vmm, totalMs);
      },
      spawnFailed: (failure, provider) => {
        failures.inc({ phase: failure.phase ?? "unknown" });
        this.#count("spawn", provider, 0, failure.message);
      },
      executed: (outcome, ms, { provider, streamed }) => {
        exec.observe({ outcome }, ms / 1000);
        const failure = outcome === "completed" ? undefined : `the command was ${outcome}`;
        this.#count(streamed ? "exec_stream" : "exec", provider, ms, failure);
      },
      agentRoundTrip: (ms) => roundTrip.observe(ms / 1000),
      operation: (name, provider, ms, failure) => this.#count(name, provider, ms, failure?.message),
    };
  }

  /** Gauges of what there is right now. */
  watch(sandboxes: Sandboxes, dataDir: string, network: Network): void {
    // A scrape asks for two numbers of the same look.
    let looking: Promise<SnapshotInfo[]> | undefined;
    const snapshots = (): Promise<SnapshotInfo[]> => {
      looking ??= Promise.all(sandboxes.providers.all().map((each) => each.snapshots()))
        .then((lists) => lists.flat())
        .finally(() => {
          looking = undefined;
        });
      return looking;
    };
    const registers = [this.#ofAllOwners];
    new Counter({
      name: "stacyvm_network_connections_total",
      help: "Connections of sandboxes to hosts, by what became of them",
      labelNames: ["result"],
      registers,
      collect() {
        this.reset();
        for (const [result, count] of Object.entries(network.counts)) this.inc({ result }, count);
      },
    });
    new Counter({
      name: "stacyvm_network_bytes_total",
      help: "Bytes that sandboxes sent to hosts and received from them",
      labelNames: ["direction"],
      registers,
      collect() {
        this.reset();
        for (const [direction, bytes] of Object.entries(network.traffic)) this.inc({ direction }, bytes);
      },
    });
    new Gauge({
      name: "stacyvm_sandboxes",
      help: "Sandboxes by state",
      labelNames: ["state"],
      registers,
      collect() {
        this.reset();
        this.set({ state: "running" }, 0);
        for (const [state, n] of Object.entries(sandboxes.countByState())) this.set({ state }, n);
      },
    });
    new Gauge({
      name: "stacyvm_spawn_queue_length",
      help: "Spawns that wait for room",
      registers: [this.registry],
      collect() {
        this.set(sandboxes.queue.waiting);
      },
    });
    new Gauge({
      name: "stacyvm_pool_machines",
      help: "Machines kept ready, by kind",
      labelNames: ["kind"],
      registers,
      collect() {
        const pools = sandboxes.providers.pools();
        for (const kind of ["warm", "idle", "target"] as const) {
          this.set(
            { kind },
            pools.reduce((sum, pool) => sum + pool[kind], 0),
          );
        }
      },
    });
    new Gauge({
      name: "stacyvm_snapshots",
      help: "Saved machines, by kind",
      labelNames: ["kind"],
      registers,
      async collect() {
        this.reset();
        for (const { kind } of await snapshots()) this.inc({ kind });
      },
    });
    new Gauge({
      name: "stacyvm_snapshot_bytes",
      help: "Disk that saved machines occupy",
      registers,
      async collect() {
        this.set((await snapshots()).reduce((sum, { bytes }) => sum + bytes, 0));
      },
    });
    new Gauge({
      name: "stacyvm_disk_bytes",
      help: "The data directory's filesystem: its size, and what is free for the server's user",
      labelNames: ["what"],
      registers: [this.registry],
      async collect() {
        const { blocks, bavail, bsize } = await statfs(dataDir);
        this.set({ what: "size" }, blocks * bsize);
        this.set({ what: "free" }, bavail * bsize);
      },
    });
    new Gauge({
      name: "stacyvm_event_followers",
      help: "Open event streams",
      registers: [this.registry],
      collect() {
        this.set(sandboxes.events.followers);
      },
    });
  }

  /** Gauges of the fleet that this server is in. @param nodes as they were last seen */
  watchFleet(nodes: () => readonly FleetNodeView[]): void {
    const registers = [this.#ofAllOwners];
    new Gauge({
      name: "stacyvm_fleet_nodes",
      help: "Nodes and entrances of the fleet by state, as this server sees them",
      labelNames: ["state"],
      registers,
      collect() {
        this.reset();
        for (const state of ["up", "silent", "lost"]) this.set({ state }, 0);
        for (const { state } of nodes()) this.inc({ state });
      },
    });
    new Gauge({
      name: "stacyvm_fleet_sandboxes",
      help: "Sandboxes that hold a machine or are getting one, by node, as each node has said last",
      labelNames: ["node"],
      registers,
      collect() {
        this.reset();
        for (const { name, role, load } of nodes()) if (role === "node") this.set({ node: name }, load.sandboxes);
      },
    });
  }

  request(method: string, route: string, status: number, ms: number): void {
    this.#http.observe({ method, route, status: String(status) }, ms / 1000);
  }

  /** For Prometheus. @param everything also how many things all owners have, and what those do on the network */
  async text(everything: boolean): Promise<string> {
    const registries = everything ? [this.registry, this.#ofAllOwners] : [this.registry];
    return (await Promise.all(registries.map((registry) => registry.metrics()))).join("\n");
  }

  /** Garbage collections since the start. */
  async collections(): Promise<number> {
    const metric = await this.registry.getSingleMetric("stacyvm_nodejs_gc_duration_seconds")?.get();
    const counts = (metric?.values ?? []) as { metricName?: string; value: number }[];
    return counts.reduce((sum, { metricName, value }) => sum + (metricName?.endsWith("_count") ? value : 0), 0);
  }

  operations(): OperationCount[] {
    return [...this.#operations.values()].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  }

  #count(name: string, provider: string, ms: number, failure?: string): void {
    const fresh = { name, provider, success: 0, failure: 0, totalMs: 0, minMs: ms, maxMs: 0, lastAt: 0 };
    const entry: OperationCount = this.#operations.get(keyOf(fresh)) ?? fresh;
    if (failure === undefined) entry.success += 1;
    else {
      entry.failure += 1;
      entry.lastError = failure;
    }
    entry.totalMs += ms;
    entry.minMs = Math.min(entry.minMs, ms);
    entry.maxMs = Math.max(entry.maxMs, ms);
    entry.lastAt = Date.now();
    this.#operations.set(keyOf(entry), entry);
  }
}

function keyOf({ name, provider }: Pick<OperationCount, "name" | "provider">): string {
  return `${name} ${provider}`;
}
