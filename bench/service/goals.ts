/** What of the service is to be reached (issue 23), beside what a run measured. */
import type { Report, Summary } from "../harness.ts";

interface Goal {
  what: string;
  /** Of the results; monitors' names are in front. */
  sample: string;
  of: "p50" | "p95" | "p99" | "max";
  goal: number;
  /** It is to be this much at least; else at most. */
  least?: true;
}

const GOALS: readonly Goal[] = [
  { what: "list of 1,000", sample: "list-1000", of: "p50", goal: 2 },
  ...["firecracker", "qemu"].flatMap((monitor): Goal[] => {
    const quick = monitor === "firecracker";
    const goal = (what: string, sample: string, of: Goal["of"], most: number, more: Partial<Goal> = {}): Goal => ({
      ...{ what: `${monitor}: ${what}`, sample: `${monitor}.${sample}`, of, goal: most },
      ...more,
    });
    return [
      goal("warm run, to the last byte", "run", "p50", quick ? 8 : 16),
      goal("report to first byte", "create.after-report", "p50", 1),
      goal("exec over the direct call", "exec.over", "p50", 1),
      goal("delete", "delete", "p50", 5),
      ...(quick
        ? []
        : [
            goal("on demand, to the handshake", "demand.handshake", "p50", 45),
            goal("on demand, to the first output", "demand.first-output", "p50", 110),
            goal("30 MB of output", "output.utf8", "p50", 2_000),
          ]),
      goal("100 at once", "storm.all", "p50", quick ? 1_200 : 7_000),
      goal("half of them, of the whole", "storm.half", "p50", 50),
      goal("health meanwhile", "storm.health", "p99", 5),
      goal("queue: who asks for few, of the whole", "queue.few", "max", 50),
      goal("a warm machine's own memory", "memory.warm", "p50", quick ? 0.6 : 12),
      ...(quick ? [] : [goal("after a burst of 512 MiB", "memory.burst.ratio", "p50", 1.2)]),
      goal("idle sandboxes", "idle.count", "p50", quick ? 1_000 : 500, { least: true }),
      goal("a command in each of them", "idle.exec", "p95", 300),
      goal("stop for a checkpoint of 1 GiB", "checkpoint.stopped", "p50", 50),
      ...(quick
        ? []
        : ["file-in", "file-out", "output"].map((name) =>
            goal(`${name}, of the channel`, `data.${name}.share`, "p50", 80, { least: true }),
          )),
      ...(quick ? [] : [goal("preview, of a tunnel", "data.preview.share", "p50", 70, { least: true })]),
    ];
  }),
];

/** Those that the run has measured: value, goal, and a bar that is full at the goal. */
export function goalTable(results: Report["results"]): string[] {
  const rows = GOALS.flatMap(({ what, sample, of, goal, least }) => {
    const found: Summary | undefined = results[sample];
    if (found === undefined) return [];
    const value = found[of];
    const reached = least === true ? value >= goal : value <= goal;
    return [
      {
        what: `${what} (${of} of ${found.n})`,
        value,
        goal: `${least ? ">=" : "<="} ${goal} ${found.unit}`,
        reached,
        share: value / goal,
      },
    ];
  });
  if (rows.length === 0) return [];
  const width = Math.max(...rows.map(({ what }) => what.length));
  const title = "beside the goals: a bar of 20 is the goal";
  return [
    title,
    "=".repeat(title.length),
    ...rows.map(
      ({ what, value, goal, reached, share }) =>
        `${what.padEnd(width)}  ${value.toFixed(1).padStart(9)}  ${goal.padEnd(12)}  ${reached ? "reached" : "MISSED "}  ${"█".repeat(Math.min(60, Math.max(1, Math.round(share * 20))))}`,
    ),
    "",
  ];
}
