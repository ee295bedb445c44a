/**
 * What `bench -- check` compares with: for each ratio the medians of earlier runs on this kind of machine. How far those lie apart is how
 * far a new one may lie from them.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";

const FILE = join(packageRoot, "bench", "baseline.json");
/** The newest so many runs of a kind of machine count. */
const KEPT = 12;
/** Fewer say nothing about how far they lie apart. */
export const LEAST = 5;
/** A change below this share is never called one. */
const LEAST_SHARE = 0.15;

/** By kind of machine and ratio: medians, oldest first. */
export type Baseline = Record<string, Record<string, number[]>>;

export interface Verdict {
  what: string;
  now: number;
  /** What it is compared with; absent: too little is known. */
  known?: { n: number; low: number; median: number; high: number; limit: number };
  slower: boolean;
}

export async function readBaseline(): Promise<Baseline> {
  return JSON.parse(await readFile(FILE, "utf8").catch(() => "{}")) as Baseline;
}

/** Against earlier runs: beyond the slowest by more than that lies from the median. @param runs their medians */
export function judge(what: string, now: number, runs: readonly number[]): Verdict {
  const sorted = runs.toSorted((a, b) => a - b);
  const [low, median, high] = [sorted[0], sorted[sorted.length >> 1], sorted.at(-1)];
  if (sorted.length < LEAST || low === undefined || median === undefined || high === undefined) {
    return { what, now, slower: false };
  }
  const limit = Math.max(high + (high - median), median * (1 + LEAST_SHARE));
  return { what, now, known: { n: sorted.length, low, median, high, limit }, slower: now > limit };
}

/**
 * Against another server in the same rounds: slower in most of them, and by more than noise.
 * @param rounds what it took here, divided by what it took there
 */
export function judgeRounds(what: string, rounds: readonly number[]): Verdict {
  const sorted = rounds.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
  const [low, median, high] = [at(0.25), at(0.5), at(0.75)];
  if (sorted.length < LEAST) return { what, now: median, slower: false };
  const limit = 1 + LEAST_SHARE;
  return {
    what,
    now: median,
    known: { n: sorted.length, low, median: 1, high, limit },
    slower: median > limit && low > 1,
  };
}

/** Adds this run to those that later ones are compared with. @param machine its kind @param medians of this run, by ratio */
export async function keep(machine: string, medians: Readonly<Record<string, number>>): Promise<void> {
  const all = await readBaseline();
  const of = all[machine] ?? {};
  for (const [what, now] of Object.entries(medians)) of[what] = [...(of[what] ?? []), now].slice(-KEPT);
  all[machine] = of;
  // A line for each ratio: a change of one is a change of one line.
  const machines = Object.entries(all).map(([name, runs]) => {
    const lines = Object.entries(runs).map(([what, values]) => `    ${JSON.stringify(what)}: [${values.join(", ")}]`);
    return `  ${JSON.stringify(name)}: {\n${lines.join(",\n")}\n  }`;
  });
  await writeFile(FILE, `{\n${machines.join(",\n")}\n}\n`);
}
