/** Prometheus metrics: histograms where time is spent, gauges that are read when they are asked for. */
import { statfs } from "node:fs/promises";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Network } from "../egress/network.ts";
import type { Observer } from "../sandboxes/observer.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";

const SPAWN_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300];
const CALL_BUCKETS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600];

export interface OperationCount {
  name: string;
  success: number;
  failure: number;
  latency_ms_sum: number;
  latency_ms_max: number;
}

export class Metrics {
  readonly registry = new Registry();
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
        this.#count("spawn", true, totalMs);
      },
      spawnFailed: (name) => {
        failures.inc({ phase: name });
        this.#count("spawn", false, 0);
      },
      executed: (outcome, ms) => {
        exec.observe({ outcome }, ms / 1000);
        this.#count("exec", outcome === "completed", ms);
      },
      agentRoundTrip: (ms) => roundTrip.observe(ms / 1000),
      operation: (name, ok, ms) => this.#count(name, ok, ms),
    };
  }

  /** Gauges of what there is right now. */
  watch(sandboxes: Sandboxes, dataDir: string, network: Network): void {
    const registers = [this.registry];
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
      registers,
      collect() {
        this.set(sandboxes.queueLength);
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
        const all = (await Promise.all(sandboxes.providers.all().map((each) => each.snapshots()))).flat();
        for (const { kind } of all) this.inc({ kind });
      },
    });
    new Gauge({
      name: "stacyvm_snapshot_bytes",
      help: "Disk that saved machines occupy",
      registers,
      async collect() {
        const all = (await Promise.all(sandboxes.providers.all().map((each) => each.snapshots()))).flat();
        this.set(all.reduce((sum, { bytes }) => sum + bytes, 0));
      },
    });
    new Gauge({
      name: "stacyvm_disk_bytes",
      help: "The data directory's filesystem: its size, and what is free for the daemon's user",
      labelNames: ["what"],
      registers,
      async collect() {
        const { blocks, bavail, bsize } = await statfs(dataDir);
        this.set({ what: "size" }, blocks * bsize);
        this.set({ what: "free" }, bavail * bsize);
      },
    });
    new Gauge({
      name: "stacyvm_event_followers",
      help: "Open event streams",
      registers,
      collect() {
        this.set(sandboxes.events.followers);
      },
    });
  }

  request(method: string, route: string, status: number, ms: number): void {
    this.#http.observe({ method, route, status: String(status) }, ms / 1000);
  }

  operations(): OperationCount[] {
    return [...this.#operations.values()];
  }

  #count(name: string, ok: boolean, ms: number): void {
    const entry = this.#operations.get(name) ?? { name, success: 0, failure: 0, latency_ms_sum: 0, latency_ms_max: 0 };
    if (ok) entry.success += 1;
    else entry.failure += 1;
    entry.latency_ms_sum += ms;
    entry.latency_ms_max = Math.max(entry.latency_ms_max, ms);
    this.#operations.set(name, entry);
  }
}
