/** The host's load, from /proc. Rates are since the last call, and since start for the first one. */
import { readFile, statfs } from "node:fs/promises";

interface Sample {
  at: number;
  busy: number;
  total: number;
  rx: number;
  tx: number;
}

export interface SystemStats {
  cpu_pct: number;
  mem_pct: number;
  disk_pct: number;
  net_rx_bps: number;
  net_tx_bps: number;
  load1: number;
}

export class SystemSampler {
  readonly #dir: string;
  #last: Promise<Sample>;

  /** @param dir whose filesystem `disk_pct` is about */
  constructor(dir: string) {
    this.#dir = dir;
    this.#last = sample();
    this.#last.catch(() => {}); // met by the first read
  }

  async read(): Promise<SystemStats> {
    const before = await this.#last.catch(() => undefined);
    const current = sample();
    this.#last = current;
    const [now, disk, meminfo, load] = await Promise.all([
      current,
      statfs(this.#dir),
      readFile("/proc/meminfo", "utf8"),
      readFile("/proc/loadavg", "utf8"),
    ]);
    const seconds = before === undefined ? 0 : (now.at - before.at) / 1000;
    const rate = (a: number, b: number): number => (seconds > 0 ? Math.max(0, (b - a) / seconds) : 0);
    const total = field(meminfo, "MemTotal");
    return {
      cpu_pct: before === undefined ? 0 : percent(now.busy - before.busy, now.total - before.total),
      mem_pct: percent(total - field(meminfo, "MemAvailable"), total),
      disk_pct: percent(disk.blocks - disk.bavail, disk.blocks),
      net_rx_bps: rate(before?.rx ?? 0, now.rx),
      net_tx_bps: rate(before?.tx ?? 0, now.tx),
      load1: Number(load.split(" ")[0]),
    };
  }
}

async function sample(): Promise<Sample> {
  const [stat, net] = await Promise.all([readFile("/proc/stat", "utf8"), readFile("/proc/net/dev", "utf8")]);
  const ticks = (stat.split("\n")[0] ?? "").trim().split(/\s+/).slice(1, 9).map(Number);
  const total = ticks.reduce((sum, n) => sum + n, 0);
  const idle = (ticks[3] ?? 0) + (ticks[4] ?? 0);
  let rx = 0;
  let tx = 0;
  for (const line of net.split("\n").slice(2)) {
    const [name = "", rest = ""] = line.split(":");
    if (name.trim() === "" || name.trim() === "lo") continue;
    const columns = rest.trim().split(/\s+/).map(Number);
    rx += columns[0] ?? 0;
    tx += columns[8] ?? 0;
  }
  return { at: performance.now(), busy: total - idle, total, rx, tx };
}

function field(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? "0");
}

function percent(part: number, whole: number): number {
  return whole > 0 ? Math.round((part / whole) * 1000) / 10 : 0;
}
