import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import type { Client, FleetNode, PoolStatus, SandboxInfo, SandboxStats, SystemStats } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { type ClientOptions, clientCommand, type Session, withServer } from "../client-command.ts";
import { bytes, printJson, printLine, sinceNow, untilThen } from "../output.ts";
import { ownerColumn } from "../owner-column.ts";
import { Screen, sparkline } from "../screen.ts";
import { stateWords } from "../state-words.ts";
import { tableLines } from "../table.ts";

export interface View {
  server: { url: string; version: string; uptime: string };
  host: SystemStats;
  pool: PoolStatus;
  /** Of the fleet, by name; none of a server that is alone, or for who is no administrator. */
  nodes: FleetNode[];
  /** Newest first; statistics of those that run. */
  sandboxes: { info: SandboxInfo; stats: SandboxStats | undefined }[];
  /** ms from request to answered handshake, oldest first. */
  spawns: number[];
}

const EVERY_MS = 1_000;
const KEEP_SPAWNS = 200;

/** `stacyvm top`: sandboxes, memory, pool and spawn times, every second. */
export function topCommand(): Command {
  return clientCommand("top", "live view of sandboxes, memory, pool and spawn times; q leaves")
    .option("--once", "one picture, for pipes; also what --json does")
    .action((options: ClientOptions & { once?: boolean }) =>
      withServer(options, async (session) => {
        if (options.json === true) return printJson(asWire(await look(session.client, session.signal)));
        if (options.once === true) {
          for (const line of picture(await look(session.client, session.signal), 80)) printLine(line);
          return;
        }
        if (!process.stdout.isTTY) {
          throw new StacyError("invalid", "standard output is not a terminal", { remedy: "use --once or --json" });
        }
        await watch(session);
      }),
    );
}

async function watch({ client, signal }: Session): Promise<void> {
  const quit = new AbortController();
  const stop = AbortSignal.any([signal, quit.signal]);
  const seen: number[] = [];
  const spawns = follow(client, seen, stop);
  let view = await look(client, stop);
  const draw = (): void => {
    screen.draw(picture({ ...view, spawns: [...view.spawns, ...seen] }, process.stdout.columns || 80));
  };
  using screen = new Screen(
    () => quit.abort(),
    () => draw(),
  );
  const first = view.spawns;
  try {
    while (!stop.aborted) {
      draw();
      await delay(EVERY_MS, undefined, { signal: stop });
      view = { ...(await look(client, stop)), spawns: first };
    }
  } catch (error) {
    if (!quit.signal.aborted) throw error;
  } finally {
    quit.abort();
    await spawns;
  }
}

/** Spawn times from now on. */
async function follow(client: Client, times: number[], signal: AbortSignal): Promise<void> {
  try {
    for await (const { data } of client.events({ types: ["sandbox.running"], signal })) {
      if (typeof data?.total_ms === "number") times.push(data.total_ms);
      if (times.length > KEEP_SPAWNS) times.shift();
    }
  } catch {} // the next look says what is wrong
}

async function look(client: Client, signal: AbortSignal): Promise<View> {
  const [server, host, pool, nodes, list] = await Promise.all([
    client.health({ signal }),
    client.systemStats({ signal }),
    client.pool({ signal }),
    client.nodes.list({ signal }).catch(() => []),
    client.list({ signal }),
  ]);
  const sandboxes = await Promise.all(
    list.map(async (sandbox) => ({
      info: sandbox.info,
      // One that ends meanwhile has none.
      stats: sandbox.state === "running" ? await sandbox.stats({ signal }).catch(() => undefined) : undefined,
    })),
  );
  const spawns = list.flatMap(({ info }) => info.boot?.totalMs ?? []).reverse();
  const { version, uptime } = server;
  return { server: { url: client.url, version, uptime }, host, pool, nodes, sandboxes, spawns };
}

function asWire({ server, host, pool, nodes, sandboxes, spawns }: View): object {
  return {
    server,
    host: { cpu_pct: host.cpuPct, mem_pct: host.memPct, disk_pct: host.diskPct, load1: host.load1 },
    pool: { enabled: pool.enabled, warm: pool.vms ?? 0, target: pool.maxVms ?? 0 },
    nodes: nodes.map(({ name, state, draining, version, load }) => ({
      ...{ name, state, draining, version, sandboxes: load.sandboxes },
      ...{ load1: load.loadAverage, free_memory_mb: load.freeMemoryMb },
    })),
    sandboxes: sandboxes.map(({ info, stats }) => ({
      id: info.id,
      name: info.name,
      image: info.image,
      state: info.state,
      resume_on_use: info.resumeOnUse,
      unreachable: info.unreachable,
      cpu_pct: stats?.cpuPct,
      mem_bytes: stats?.memPssBytes ?? stats?.memBytes,
      disk_bytes: stats?.diskBytes,
    })),
    spawn_ms: spawns,
  };
}

/** @param width columns of the terminal */
export function picture({ server, host, pool, nodes, sandboxes, spawns }: View, width: number): string[] {
  const memory = (stats: SandboxStats | undefined): number => stats?.memPssBytes ?? stats?.memBytes ?? 0;
  const total = sandboxes.reduce((sum, { stats }) => sum + memory(stats), 0);
  const running = sandboxes.filter(({ info }) => info.state === "running" && info.unreachable === undefined).length;
  const last = spawns.at(-1);
  const percent = (value: number): string => `${Math.round(value)}%`;
  const chart =
    last === undefined
      ? "none yet"
      : `last ${Math.round(last)} ms, slowest ${Math.round(Math.max(...spawns))} ms  ${sparkline(spawns, Math.max(10, width - 50))}`;
  const owners = ownerColumn(sandboxes.map(({ info }) => info));
  return [
    `stacyvm ${server.version}  ${server.url}  up ${server.uptime.replace(/\.\d+s$/, "s")}`,
    `host    CPU ${percent(host.cpuPct)}  memory ${percent(host.memPct)}  disk ${percent(host.diskPct)}  load ${host.load1.toFixed(2)}`,
    `boxes   ${running} running of ${sandboxes.length}  memory ${bytes(total)}`,
    `pool    ${pool.enabled ? `${pool.vms ?? 0} warm, target ${pool.maxVms ?? 0}` : "off"}`,
    `spawns  ${chart}`,
    ...(nodes.length === 0
      ? []
      : ["", ...tableLines(["NODE", "STATE", "BOXES", "LOAD", "FREE", "VERSION"], nodes.map(nodeRow), {}, width)]),
    "",
    ...tableLines(
      ["ID", "NAME", ...owners.head, "IMAGE", "STATE", "CPU", "MEMORY", "OF", "DISK", "AGE", "ENDS IN"],
      sandboxes.map(({ info, stats }) => [
        info.id,
        info.name ?? "",
        ...owners.cell(info),
        info.image,
        stateWords(info),
        stats?.cpuPct === undefined ? "" : percent(stats.cpuPct),
        stats === undefined ? "" : bytes(memory(stats)),
        `${info.memoryMb} MiB`,
        stats?.diskBytes === undefined ? "" : bytes(stats.diskBytes),
        sinceNow(info.createdAt),
        untilThen(info.expiresAt),
      ]),
      { drop: ["AGE", "OF", "DISK", "IMAGE"], shorten: ["IMAGE", "NAME", "OWNER", "STATE"] },
      width,
    ),
  ].map((line) => [...line].slice(0, width).join(""));
}

function nodeRow({ name, self, state, draining, load, version }: FleetNode): string[] {
  return [
    self ? `${name} (this)` : name,
    draining ? `${state}, draining` : state,
    String(load.sandboxes),
    load.loadAverage.toFixed(1),
    bytes(load.freeMemoryMb * 2 ** 20),
    version,
  ];
}
