/**
 * The benchmark harness: samples by name, one result document, a table and bars for people (design.md, "Benchmarks"). A suite
 * is a file in this folder that exports `suite`. Failures are counted, never dropped; there is no hidden warm-up.
 */
import { readFile } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";

export interface Summary {
  unit: string;
  n: number;
  min: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
}

export interface BenchContext {
  /** Adds one sample. Names as in design.md, for example `restore.total`. */
  sample(name: string, value: number, unit?: string): void;
  /** Counts a failure and says it on stderr. */
  failure(what: string, error: unknown): void;
  /** One line on stderr about what is under way. */
  progress(line: string): void;
  /** Facts for the report: which guest ran, why something was left out, ... */
  note(line: string): void;
  /** Lines for people, below the table of results. */
  conclude(lines: readonly string[]): void;
  versions: Record<string, string>;
  guest: "linux" | "bare" | "none";
  /** Arguments after the suite's name. */
  args: string[];
  signal: AbortSignal;
}

export interface Suite {
  name: string;
  /** One line: what it measures. */
  about: string;
  run(context: BenchContext): Promise<void>;
  /** Lines printed below the table, for example phase charts. */
  render?(report: Report): string[];
  /** Writes what else was asked for, after the run. */
  finish?(report: Report, args: string[]): Promise<void>;
}

export interface Report {
  suite: string;
  at: string;
  machine: Record<string, string | number>;
  versions: Record<string, string>;
  guest: string;
  results: Record<string, Summary>;
  notes: string[];
  conclusion: string[];
  failures: number;
}

export function summarize(values: readonly number[], unit: string): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  // Nearest rank: the value is one that was measured.
  const at = (q: number): number =>
    round(sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? 0);
  return { unit, n: sorted.length, min: at(0), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

function round(value: number): number {
  return Math.abs(value) >= 1000 ? Math.round(value) : Math.round(value * 100) / 100;
}

/** `--name=value` of a suite. */
export function optionOf(args: readonly string[], name: string): string | undefined {
  return new RegExp(`--${name}=(\\S+)`).exec(args.join(" "))?.[1];
}

export async function runSuite(suite: Suite, args: string[], signal: AbortSignal): Promise<Report> {
  const samples = new Map<string, { unit: string; values: number[] }>();
  const notes: string[] = [];
  const conclusion: string[] = [];
  let failures = 0;
  const context: BenchContext = {
    sample(name, value, unit = "ms") {
      const list = samples.get(name) ?? { unit, values: [] };
      list.values.push(value);
      samples.set(name, list);
    },
    failure(what, error) {
      failures += 1;
      process.stderr.write(`failed: ${what}: ${error instanceof Error ? error.message : String(error)}\n`);
    },
    progress: (line) => process.stderr.write(`${line}\n`),
    note: (line) => notes.push(line),
    conclude: (lines) => conclusion.push(...lines),
    versions: { node: process.version },
    guest: "none",
    args,
    signal,
  };
  await suite.run(context);
  return {
    suite: suite.name,
    at: new Date().toISOString(),
    machine: await machineFacts(),
    versions: context.versions,
    guest: context.guest,
    results: Object.fromEntries([...samples].map(([name, { unit, values }]) => [name, summarize(values, unit)])),
    notes,
    conclusion,
    failures,
  };
}

async function machineFacts(): Promise<Record<string, string | number>> {
  const os =
    /^PRETTY_NAME="?([^"\n]*)/m.exec(await readFile("/etc/os-release", "utf8").catch(() => ""))?.[1] ?? "Linux";
  const load = (await readFile("/proc/loadavg", "utf8")).split(" ")[0] ?? "";
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryMiB: Math.round(totalmem() / 2 ** 20),
    os,
    kernel: release(),
    load1: load,
  };
}

export function renderTable(report: Report): string {
  const head = ["", "unit", "n", "min", "p50", "p95", "p99", "max"];
  const rows = Object.entries(report.results).map(([name, s]) =>
    [name, s.unit, s.n, s.min, s.p50, s.p95, s.p99, s.max].map(String),
  );
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  ");
  const about = `${report.suite}: guest ${report.guest}, ${Object.entries(report.machine)
    .map(([k, v]) => `${k} ${v}`)
    .join(", ")}`;
  return [
    about,
    "",
    line(head),
    ...rows.map(line),
    "",
    `failures: ${report.failures}`,
    ...report.notes.map((note) => `note: ${note}`),
  ].join("\n");
}

/**
 * A bar chart as the seed draws it: name, ms, bar.
 * @param rows name and value in ms, in order; where a third value is given, the seed's own figure is put beside
 */
export function phaseChart(
  title: string,
  rows: readonly (readonly [string, number, (number | undefined)?])[],
): string[] {
  const seeds = rows.some(([, , seed]) => seed !== undefined);
  const beside = (text: string): string => (seeds ? `  ${text.padStart(8)}` : "");
  const total = rows.reduce((sum, [, ms]) => sum + ms, 0);
  const width = Math.max(...rows.map(([name]) => name.length), 5);
  const longest = Math.max(...rows.map(([, ms]) => ms), 0.001);
  const lines = rows.map(([name, ms, seed]) => {
    const share = total > 0 ? (ms / total) * 100 : 0;
    const bar = ms / longest < 1 / 96 ? "░" : "█".repeat(Math.max(1, Math.round((ms / longest) * 48)));
    return `${name.padEnd(width)}  ${ms.toFixed(1).padStart(8)} ms${beside(seed?.toFixed(1) ?? "-")}  ${bar}${share >= 50 ? `  ${share.toFixed(1)} %` : ""}`;
  });
  return [
    title,
    "=".repeat(title.length),
    ...(seeds ? [`${"".padEnd(width)}  ${"here".padStart(8)}   ${beside("the seed")}`] : []),
    ...lines,
    `${"".padEnd(width)}  ${"-".repeat(8)}`,
    `${"total".padEnd(width)}  ${total.toFixed(1).padStart(8)} ms${beside(rows.reduce((sum, [, , seed]) => sum + (seed ?? 0), 0).toFixed(1))}`,
    "",
  ];
}

/** Bars of values that do not add up: name, ms, bar. */
export function barChart(title: string, rows: readonly (readonly [string, number])[]): string[] {
  const width = Math.max(...rows.map(([name]) => name.length));
  const longest = Math.max(...rows.map(([, ms]) => ms), 0.001);
  const lines = rows.map(
    ([name, ms]) =>
      `${name.padEnd(width)}  ${ms.toFixed(1).padStart(8)} ms  ${"█".repeat(Math.ceil((ms / longest) * 48))}`,
  );
  return [title, "=".repeat(title.length), ...lines, ""];
}
